// Events in words. A sentence is the model's own, with a score; or a template, put together where the model was not sure
// enough of its own, the score being that of what was not told; or a person's, without a score.

function describedBy([description, sure = null, template = false]) {
  return { description, sure, template };
}

// Where a sentence comes from; empty where a person wrote it.
function toldBy({ sure, template }) {
  const score = sure === null ? '' : percent(sure);
  if (template) return `Put together, not written by the model: not sure enough of its own sentence${score && ` (${score})`}.`;
  return score && `Sentence score ${score}`;
}

// What there is for a person to correct: a template is not, where nobody wrote a sentence yet.
function ownWords({ description, template }) {
  return template ? '' : (description ?? '').trim();
}

// The sentence of an event for a row of a table, which may cut it; all of it is told under the pointer.
function sentence(event) {
  if (!event.description) return null;
  const words = make('span', { class: 'words', dir: 'auto' }, event.description);
  const score = event.sure === null ? null : make('span', { class: 'sure' }, percent(event.sure));
  const from = event.template ? make('span', { class: 'mark' }, 'template') : score;
  const title = [event.description, toldBy(event)].filter(Boolean).join('\n');
  return make('span', { class: event.template ? 'sentence template' : 'sentence', title }, words, from);
}
