// Captions over the picture, the list of events with its filters, and the panel of the selected event.

const MAX_CAPTIONS = 2; // at a time: of the selected event, then of the best scored

class Captions {
  constructor(page) {
    this.page = page;
    this.box = byId('captions');
    this.shown = [];
    const show = oncePerFrame(() => this.show());
    page.topics.on('time events filters found selection', show);
    byId('show_captions').addEventListener('change', show);
    show();
  }

  show() {
    const { store, selected, player } = this.page;
    byId('captions_option').hidden = byId('help_captions').hidden = !store.hasCaptions;
    const isOn = byId('show_captions').checked && store.hasCaptions;
    const isCurrent = ({ description, start, end }) => description && start <= player.time && player.time < end;
    const events = isOn ? this.page.shownEvents().filter(isCurrent) : [];
    events.sort((a, b) => (b.id === selected) - (a.id === selected) || (b.score ?? 2) - (a.score ?? 2));
    const shown = events.slice(0, MAX_CAPTIONS);
    if (shown.length === this.shown.length && shown.every((event, index) => event === this.shown[index])) return;
    this.shown = shown;
    this.box.replaceChildren(
      ...shown.map(({ description, label, isTemplate }) => make('p', { class: isTemplate ? 'template' : '', dir: 'auto', style: { '--label': labelColour(label) } }, description)),
    );
  }
}
// --- list ---

const ROW_PX = 46;
const CAPTIONED_ROW_PX = 86;

class EventList {
  constructor(page) {
    this.page = page;
    this.box = byId('event_list');
    this.rows = new VirtualList(this.box, ROW_PX, (event) => this.row(event));
    page.topics.on('events filters found', () => this.show());
    page.topics.on('selection', () => this.reveal());
    new ResizeObserver(() => this.reveal()).observe(this.box); // the panel takes room from the list
    byId('min_score').addEventListener('input', () => {
      page.filters.minScore = byId('min_score').value / 100;
      page.topics.emit('filters');
    });
    byId('order').addEventListener('change', () => this.show());
    this.show();
  }

  get byScore() {
    return byId('order').value === 'score';
  }

  show() {
    this.showChips();
    const events = [...this.page.shownEvents()];
    if (this.byScore) events.sort((a, b) => (b.score ?? 2) - (a.score ?? 2));
    this.rows.height = this.page.store.hasCaptions ? CAPTIONED_ROW_PX : ROW_PX;
    this.rows.show(events);
    const all = [...this.page.store.sorted, ...this.page.store.found.values()];
    byId('min_score_value').textContent = percent(this.page.filters.minScore);
    byId('event_count').textContent = events.length === all.length ? count(all.length, 'event') : `${events.length.toLocaleString('en')} of ${count(all.length, 'event')}`;
    const reviewed = all.filter(({ state }) => state !== 'predicted' && state !== 'new').length;
    byId('checked_count').textContent = reviewed ? `${reviewed.toLocaleString('en')} reviewed` : '';
    byId('no_events').hidden = events.length > 0;
    const none = data.missing.length ? 'All events are left out of this page; see the notes.' : 'No events were found in this recording.';
    byId('no_events').textContent = all.length ? 'No event matches the filters.' : none;
  }

  showChips() {
    const numbers = new Map();
    for (const event of this.page.store.sorted) numbers.set(event.label, (numbers.get(event.label) ?? 0) + 1);
    const labels = this.page.store.labels().filter((label) => numbers.has(label));
    const chip = (label) => {
      const shown = !this.page.filters.hidden.has(label);
      const toggle = () => this.page.toggleLabel(label);
      const number = make('span', { class: 'number' }, numbers.get(label).toLocaleString('en'));
      const name = make('span', { class: 'name' }, label);
      return make('button', { type: 'button', class: 'chip', title: label, aria: { pressed: shown }, style: { '--label': labelColour(label) }, data: { label }, on: { click: toggle } }, name, number);
    };
    const focused = document.activeElement?.closest('#labels') ? document.activeElement.dataset.label : null;
    byId('labels').replaceChildren(...labels.map(chip));
    if (focused !== null) [...byId('labels').children].find((child) => child.dataset.label === focused)?.focus();
  }

  row(event) {
    const selected = event.id === this.page.selected;
    const marks = { confirmed: '✓ confirmed', edited: 'edited', added: 'added', new: 'would be found', lost: 'would be lost' };
    const state = this.page.thresholds.isLost(event) ? 'lost' : event.state;
    const clock = wallClock(data.recorded, event.start);
    const times = `${formatTime(event.start)} – ${formatTime(event.end)}${clock ? ` · ${clock}` : ''}`;
    const score = event.score === null ? null : make('span', { class: 'score' }, percent(event.score));
    const bar = event.score === null ? null : make('span', { class: 'score_bar', style: { '--share': event.score } });
    const mark = marks[state] ? make('span', { class: `mark ${state}` }, marks[state]) : null;
    const top = make('span', { class: 'line' }, make('span', { class: 'name' }, event.label), mark, score);
    const bottom = make('span', { class: 'line small' }, make('span', {}, times), bar);
    const choose = () => this.page.select(event.id);
    return make('div', { class: `row event ${state}`, role: 'option', id: `event_${event.id}`, aria: { selected }, style: { '--label': labelColour(event.label) }, on: { click: choose } }, top, captionElement(event), bottom);
  }

  reveal() {
    const index = this.rows.items.findIndex((event) => event.id === this.page.selected);
    if (index >= 0) this.rows.reveal(index);
    else this.rows.draw();
    if (index >= 0) this.box.setAttribute('aria-activedescendant', `event_${this.page.selected}`);
    else this.box.removeAttribute('aria-activedescendant');
  }
}
// --- panel ---

const MAX_GROUPS = 5; // feature groups with a bar; the others change the score less

class EventPanel {
  constructor(page) {
    this.page = page;
    this.box = byId('panel');
    page.topics.on('selection events found', () => this.show());
    byId('confirm').addEventListener('click', () => page.confirm());
    byId('edit').addEventListener('click', () => page.edit());
    byId('remove').addEventListener('click', () => page.remove());
    for (const name of ['start', 'end']) {
      byId(`edit_${name}`).addEventListener('change', () => this.applyEdit());
      byId(`${name}_now`).addEventListener('click', () => {
        byId(`edit_${name}`).value = page.player.time.toFixed(3);
        this.applyEdit();
      });
    }
    for (const name of ['label', 'text']) byId(`edit_${name}`).addEventListener('change', () => this.applyEdit());
    byId('edit_form').addEventListener('submit', (submit) => {
      submit.preventDefault();
      page.edit();
    });
    this.show();
  }

  show() {
    const event = this.page.store.get(this.page.selected);
    this.box.hidden = !event;
    if (!event) return;
    this.box.style.setProperty('--label', labelColour(event.label));
    byId('panel_label').textContent = event.label;
    byId('panel_score').textContent = event.score === null ? 'added by you' : `score ${percent(event.score)}`;
    const clock = wallClock(data.recorded, event.start);
    byId('panel_times').textContent = `${formatTime(event.start, 2)} – ${formatTime(event.end, 2)} (${formatLength(event.end - event.start)})${clock ? ` · ${clock}` : ''}`;
    byId('panel_text').textContent = event.description ?? '';
    byId('panel_text').classList.toggle('template', event.isTemplate);
    byId('panel_source').textContent = event.description ? captionSource(event) : '';
    const threshold = data.high[data.labels.indexOf(event.label)];
    byId('panel_below').textContent = event.state === 'predicted' && event.score < threshold
      ? `Its best frame reached the threshold of ${percent(threshold)}; the score is lower because it is the mean over all frames, calibrated to how often such events were right.`
      : '';
    byId('confirm').textContent = event.state === 'new' ? '+ Add' : '✓ Confirm';
    byId('remove').disabled = event.state === 'new';
    byId('confirm').setAttribute('aria-pressed', event.state === 'confirmed');
    byId('confirm').disabled = event.state === 'edited' || event.state === 'added';
    byId('edit').setAttribute('aria-pressed', this.page.editing);
    byId('edit_form').hidden = !this.page.editing;
    byId('edit_error').textContent = '';
    byId('edit_label').value = event.label;
    byId('edit_start').value = event.start.toFixed(3);
    byId('edit_end').value = event.end.toFixed(3);
    byId('edit_text').value = editableCaption(event);
    byId('known_labels').replaceChildren(...this.page.store.labels().map((label) => make('option', { value: label })));
    this.showExplanation(this.page.editing ? undefined : data.explanations[event.index]);
  }

  applyEdit() {
    const event = this.page.store.get(this.page.selected);
    const number = (id) => (byId(id).value.trim() === '' ? NaN : toMilliseconds(Number(byId(id).value)));
    const fields = { label: tidyLabel(byId('edit_label').value), start: number('edit_start'), end: number('edit_end') };
    const error = validationError(fields);
    byId('edit_error').textContent = error;
    const text = byId('edit_text').value.trim();
    const isRewritten = text !== editableCaption(event);
    if (isRewritten) fields.description = text;
    const differs = isRewritten || fields.label !== event.label || fields.start !== event.start || fields.end !== event.end;
    if (!error && differs) this.page.store.change(event.id, fields);
  }

  showExplanation(explanation) {
    byId('explanation').hidden = !explanation;
    if (!explanation) return;
    const objects = explanation.objects.map(([track, label, share]) => makeBar(track >= 0 ? `${label} ${track}` : label, share, percent(share)));
    byId('attention_bars').replaceChildren(...objects);
    byId('attention_part').hidden = objects.length === 0;
    showGroups('group_bars', 'other_groups', explanation);
    byId('groups_part').hidden = Object.keys(explanation.without).length === 0;
    byId('baseline').textContent = percent(explanation.baseline);
    const peaks = [...explanation.forgot.map((time) => [time, 'forgot']), ...explanation.kept.map((time) => [time, 'kept'])].sort((a, b) => a[0] - b[0]);
    byId('gate_peaks').replaceChildren(
      ...peaks.map(([time, kind]) => make('button', { type: 'button', class: 'gate_peak', on: { click: () => this.page.player.seek(time) } }, `${kind} most at ${formatTime(time)}`)),
    );
    byId('gate_peaks').hidden = peaks.length === 0;
  }
}

// Score without each feature group, the greatest changes as bars, and the names of the groups that change it little.
function showGroups(barsId, othersId, { baseline, without }) {
  const points = (score) => Math.round((score - baseline) * 100);
  const groups = Object.entries(without).sort((a, b) => Math.abs(b[1] - baseline) - Math.abs(a[1] - baseline));
  const shown = groups.slice(0, MAX_GROUPS).filter(([, score]) => points(score));
  const others = groups.slice(shown.length).map(([group]) => group.replaceAll('_', ' '));
  const change = (score) => `${points(score) < 0 ? '−' : '+'}${Math.abs(points(score))}`;
  const bars = shown.map(([group, score]) => makeBar(group.replaceAll('_', ' '), score, `${Math.round(score * 100)} (${change(score)})`, baseline));
  byId(barsId).replaceChildren(...bars);
  byId(othersId).textContent = others.length ? `${bars.length ? 'Little' : 'Almost no'} change without ${others.join(', ')}.` : '';
}

// A named bar with a value, and a mark on its track.
function makeBar(name, share, value, mark = null) {
  const track = make('span', { class: 'track', style: { '--share': clamp(share, 0, 1) } });
  if (mark !== null) track.append(make('i', { style: { '--at': clamp(mark, 0, 1) } }));
  return make('div', { class: 'bar' }, make('span', { class: 'name', title: name }, name), track, make('span', { class: 'value' }, value));
}

// --- any moment ---

const MAX_BARS = 5; // labels and objects

// What is at a time of the score curve, whether there is an event or not.
class MomentPanel {
  constructor(page) {
    this.page = page;
    this.box = byId('moment');
    this.explained = data.moments && decodeArray(data.moments.scores, Uint16Array);
    page.topics.on('selection', () => page.selected !== null && this.hide());
    byId('moment_close').addEventListener('click', () => this.hide());
    byId('moment_try').addEventListener('click', () => page.thresholds.set(this.label, this.candidate.threshold));
  }

  hide() {
    this.box.hidden = true;
  }

  show(time, label) {
    const { thresholds, curves, overlay } = this.page;
    this.label = label;
    this.box.style.setProperty('--label', labelColour(label));
    byId('moment_title').textContent = `${label} at ${formatTime(time)}`;
    const bar = ({ label: name, value, threshold }) => {
      const row = makeBar(name, value, percent(value), threshold);
      row.style.setProperty('--label', labelColour(name));
      return row;
    };
    const scores = curves.scoresAt(time).map((score) => ({ ...score, threshold: thresholds.high[data.labels.indexOf(score.label)] }));
    scores.sort((a, b) => (b.label === label) - (a.label === label) || b.value - a.value);
    byId('moment_scores').replaceChildren(...scores.slice(0, MAX_BARS).map(bar));
    this.showCandidate(time, label);
    const objects = overlay.objects.at(time);
    const attended = (objects ?? []).sort((a, b) => b.attention - a.attention).slice(0, MAX_BARS);
    const none = objects === null ? 'No boxes are available for this time.' : 'No object was detected.';
    const rows = attended.map(({ name, track, attention }) => makeBar(track >= 0 ? `${name} ${track}` : name, attention, percent(attention)));
    byId('moment_objects').replaceChildren(...(rows.length ? rows : [make('p', { class: 'small' }, none)]));
    this.showGroups(time, label);
    byId('moment_command').textContent = `vidgru explain MODEL ${shellWord(`${data.root}/${data.name}`)} --at ${time.toFixed(1)} --label ${shellWord(label)}`;
    this.box.hidden = false;
  }

  showCandidate(time, label) {
    const now = this.page.thresholds.high[data.labels.indexOf(label)];
    this.candidate = this.page.thresholds.candidate(label, time);
    byId('moment_try').hidden = this.candidate === null || this.candidate.threshold >= now;
    if (this.candidate === null) {
      byId('moment_candidate').textContent = data.decode === null ? '' : 'There is no event here at any threshold.';
      return;
    }
    const { start, end, threshold } = this.candidate;
    const span = `${formatTime(start)} – ${formatTime(end)}`;
    byId('moment_candidate').textContent = byId('moment_try').hidden
      ? `In an event. The highest threshold that finds one here, ${span}, is ${percent(threshold)}.`
      : `Not in an event: its threshold of ${percent(now)} would have to be ${percent(threshold)} (${span}).`;
  }

  // What raises and lowers the score of a label: of the event at a time, or at the nearest explained moment.
  showGroups(time, label) {
    const explanation = this.eventAt(time, label) ?? this.nearestMoment(time, label);
    byId('moment_groups_part').hidden = explanation === null;
    if (explanation === null) return;
    byId('moment_groups_of').textContent = explanation.of;
    byId('moment_baseline').textContent = percent(explanation.baseline);
    showGroups('moment_groups', 'moment_other_groups', explanation);
  }

  // The explanation of a predicted event at a time; undefined if there is none.
  eventAt(time, label) {
    const column = data.labels.indexOf(label);
    const number = data.events.findIndex((event, index) => event[2] === column && event[0] <= time * 1000 && time * 1000 < event[1] && data.explanations[index]);
    if (number < 0) return undefined;
    const [start, end] = data.events[number];
    return { ...data.explanations[number], of: `in the event ${formatTime(start / 1000)} – ${formatTime(end / 1000)}` };
  }

  // The explained moment that is nearest to a time; null if there is none.
  nearestMoment(time, label) {
    const { time: times, groups, labels } = data.moments ?? { time: [], labels: [] };
    const column = labels.indexOf(data.labels.indexOf(label));
    if (!times.length || column < 0) return null;
    const distance = (at) => Math.abs(at - time);
    const number = times.reduce((best, at, index) => (distance(at) < distance(times[best]) ? index : best), 0);
    const at = times[number];
    const score = (row) => this.explained[(number * (1 + groups.length) + row) * labels.length + column] / 65535;
    return {
      baseline: score(0),
      without: Object.fromEntries(groups.map((group, index) => [group, score(index + 1)])),
      of: `in the second around ${formatTime(at)}${distance(at) > 0.5 ? ', the nearest explained moment' : ''}`,
    };
  }
}
