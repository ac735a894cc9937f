// The server's state, the annotations of the open recording with undo and redo, and changes on their way to the server. Each
// change is posted by itself; until the server confirms it, it is drawn, kept, and sent again.

const RETRY_MS = 2000;
const KEEPALIVE_LENGTH = 20_000; // at most 64 kB in UTF-8
const PAUSE_MS = 300; // between two requests for changes: progress of extraction arrives in small steps
const GLANCE_S = 20; // longest draft that counts as watched when it is rejected without playing any of it
const EDGE_S = 0.5; // time beside an event that counts as watched, as the server has it
const SAME_EVENT = 0.5; // overlap of a draft with an annotation of its label from which the draft is taken for answered

class RequestError extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }

  // Whether the server understood the request and will never accept it.
  get isRefusal() {
    return this.status >= 400 && this.status < 500 && !this.isForbidden;
  }

  // Whether the server does not know this page's token.
  get isForbidden() {
    return this.status === 401 || this.status === 403;
  }
}

// Get JSON from the server, or post `content` and get the answer. What is posted arrives even if the page is closed meanwhile,
// unless it is larger than browsers allow for that.
async function request(path, content) {
  const headers = { 'X-Token': data.token, 'Content-Type': 'application/json' };
  const body = JSON.stringify(content);
  const sending = body === undefined ? {} : { method: 'POST', body, keepalive: body.length < KEEPALIVE_LENGTH };
  const response = await fetch(`/api/${path}`, { headers, ...sending });
  if (response.ok) return response.json();
  const { error } = await response.json().catch(() => ({ error: response.statusText })); // an unexpected error is not JSON
  throw new RequestError(response.status, error);
}

function pause(ms) {
  return new Promise((done) => setTimeout(done, ms));
}

// Follows the state of recordings and training, which other windows and the background change.
class ServerState {
  constructor(topics) {
    this.topics = topics;
    this.current = null;
    this.error = null; // why the last request failed
    this.follow();
  }

  async follow() {
    const known = this.current !== null && this.error === null;
    let state = this.current;
    let error = null;
    try {
      state = await request(known ? `changes?since=${state.version}` : 'state');
    } catch (failure) {
      error = failure;
    }
    setTimeout(() => this.follow(), error ? RETRY_MS : PAUSE_MS);
    this.set(state, error); // an error in a listener is the page's own: it appears in the console, not as the server's
  }

  set(state, error) {
    const isNew = state !== this.current && state?.version !== this.current?.version;
    const isOther = (error === null) !== (this.error === null);
    this.current = state;
    this.error = error;
    if (isNew) this.topics.emit('state');
    if (isNew || isOther) this.topics.emit('saving');
  }

  recording(id) {
    return this.current?.recordings.find((recording) => recording.id === id);
  }
}

// --- changes --------------------------------------------------------------------------------------------------------------

// Sorted intervals with another one added.
function addInterval(intervals, start, end) {
  const apart = intervals.filter(([first, last]) => last < start || first > end);
  const touching = intervals.filter((interval) => !apart.includes(interval));
  const merged = [Math.min(start, ...touching.map(([first]) => first)), Math.max(end, ...touching.map(([, last]) => last))];
  return [...apart, merged].sort((a, b) => a[0] - b[0]);
}

// Sorted intervals without the parts in another one.
function removeInterval(intervals, start, end) {
  const parts = intervals.flatMap(([first, last]) => [[first, Math.min(last, start)], [Math.max(first, end), last]]);
  return parts.filter(([first, last]) => last - first > 1e-9);
}

// Parts of an interval that are in no draft: playing past a draft says nothing about it.
function outsideDrafts(drafts, start, end) {
  return drafts.reduce((parts, draft) => removeInterval(parts, draft.start, draft.end), [[start, end]]);
}

function overlapShare(a, b) {
  const shared = Math.min(a.end, b.end) - Math.max(a.start, b.start);
  return shared <= 0 ? 0 : shared / (Math.max(a.end, b.end) - Math.min(a.start, b.start));
}

function fromServer({ id, start_s: start, end_s: end, label, description }) {
  return { id, start, end, label, description, score: null };
}

function putChange({ id, start, end, label, description }) {
  return { op: 'put', id, start_s: start, end_s: end, label, description: description ?? '' };
}

function rejectChange({ start, end, label, score }) {
  return { op: 'reject', start_s: start, end_s: end, label, score }; // the score is for undo; the server ignores it
}

function draftFrom({ start_s: start, end_s: end, label, score }) {
  return { id: `draft ${start} ${end} ${label}`, start, end, label, score, description: '', state: 'new' };
}

function isDraftOf(draft, { start_s: start, end_s: end, label }) {
  return draft.label === label && Math.abs(draft.start - start) < 1e-6 && Math.abs(draft.end - end) < 1e-6;
}

// A recording's annotations after a change. `covered` is what counts as watched; the server's answer has it exactly.
function applyChange(recording, change) {
  const { op, id, start_s: start, end_s: end } = change;
  if (op === 'put' || op === 'delete') {
    const events = new Map(recording.events);
    if (op === 'put') events.set(id, fromServer(change));
    else events.delete(id);
    const covered = op === 'put' ? addInterval(recording.covered, Math.max(start - EDGE_S, 0), Math.min(end + EDGE_S, data.duration)) : recording.covered;
    return { ...recording, events, covered, isEmpty: recording.isEmpty && op === 'delete' };
  }
  if (op === 'watched') {
    const covered = outsideDrafts(recording.drafts, start, end).reduce((known, part) => addInterval(known, ...part), recording.covered);
    return { ...recording, watched: addInterval(recording.watched, start, end), covered };
  }
  if (op === 'unwatched') return { ...recording, watched: removeInterval(recording.watched, start, end), covered: removeInterval(recording.covered, start, end) };
  if (op === 'reject') return { ...recording, drafts: recording.drafts.filter((draft) => !isDraftOf(draft, change)) };
  if (op === 'restore') return { ...recording, drafts: [...recording.drafts, draftFrom(change)] };
  return { ...recording, isEmpty: change.value };
}

// Changes that lead back from a change.
function invertChange(recording, change) {
  const { op, id, start_s: start, end_s: end } = change;
  if (op === 'put' || op === 'delete') {
    const before = recording.events.get(id);
    const empty = recording.isEmpty ? [{ op: 'empty', value: true }] : []; // a put takes that back
    return [before ? putChange(before) : { op: 'delete', id }, ...empty];
  }
  if (op === 'watched') {
    const before = recording.watched.filter(([first, last]) => first < end && last > start);
    const added = before.reduce((parts, [first, last]) => removeInterval(parts, first, last), [[start, end]]);
    return added.map(([first, last]) => ({ op: 'unwatched', start_s: first, end_s: last }));
  }
  if (op === 'unwatched') return recording.watched.map(([first, last]) => ({ op: 'watched', start_s: first, end_s: last }));
  if (op === 'reject') return [{ ...change, op: 'restore' }];
  return [{ op: 'empty', value: recording.isEmpty }];
}

// --- annotations ----------------------------------------------------------------------------------------------------------

class LabelStore {
  constructor(topics, server) {
    this.topics = topics;
    this.server = server;
    this.id = null; // of the open recording
    this.confirmed = { version: -1, events: new Map(), watched: [], covered: [], isEmpty: false, drafts: [] };
    this.pending = []; // { id, changes, isPlayed } that the server has not confirmed, in order
    this.done = []; // edits of all recordings that undo takes back, the last one first: { id, changes, inverse }
    this.played = new Map(); // intervals that were played, drafts included, by recording
    this.undone = []; // edits that redo applies again
    this.problem = null; // error of the last attempt to send
    this.sending = false;
    this.refresh();
    topics.on('state', () => this.follow());
  }

  // --- reading -----------------------------------------------------------------------------------------------------------

  // Open a recording, with its details from the server.
  open(id, details) {
    this.id = id;
    this.confirmed.version = -1;
    this.confirm(details);
  }

  // Reload the open recording if another window or a new model has changed its annotations or drafts.
  follow() {
    if (this.id !== null && this.server.recording(this.id)?.version > this.confirmed.version) this.reload();
  }

  async reload() {
    const { id } = this;
    try {
      const details = await request(`recordings/${encodeURIComponent(id)}`);
      if (id === this.id) this.confirm(details);
    } catch {
      // The next state of the server leads here again.
    }
  }

  // Take over what the server has, unless an earlier answer is newer.
  confirm({ version, annotations, watched, watched_with_events: covered, is_empty: isEmpty, drafts }) {
    if (version < this.confirmed.version) return;
    const events = new Map(annotations.map((annotation) => [annotation.id, fromServer(annotation)]));
    this.confirmed = { version, events, watched, covered, isEmpty, drafts: drafts.map(draftFrom) };
    this.refresh();
  }

  // Annotations as the server has them, with the changes on their way.
  refresh() {
    const changes = this.pending.filter(({ id }) => id === this.id).flatMap((edit) => edit.changes);
    const { events, watched, covered, isEmpty, drafts } = changes.reduce(applyChange, this.confirmed);
    const annotations = [...events.values()];
    const isOpen = (draft) => !isEmpty && !annotations.some((event) => event.label === draft.label && overlapShare(event, draft) >= SAME_EVENT);
    Object.assign(this, { events, watched, isEmpty, drafts: new Map(drafts.filter(isOpen).map((draft) => [draft.id, draft])) });
    this.covered = isEmpty ? [[0, data.duration]] : covered;
    this.shown = [...annotations, ...this.drafts.values()].sort((a, b) => a.start - b.start || a.end - b.end);
    this.topics.emit('events');
  }

  get(id) {
    return this.events.get(id) ?? this.drafts.get(id);
  }

  // The draft that has most of an interval; undefined if there is none.
  draftIn(start, end) {
    const shared = (draft) => Math.min(draft.end, end) - Math.max(draft.start, start);
    return [...this.drafts.values()].filter((draft) => shared(draft) > 0).sort((a, b) => shared(b) - shared(a))[0];
  }

  // Whether at least half of an interval counts as watched.
  isCovered(start, end) {
    const known = this.covered.reduce((sum, [first, last]) => sum + Math.max(Math.min(last, end) - Math.max(first, start), 0), 0);
    return known >= (end - start) / 2;
  }

  labels() {
    return [...new Set([...data.labels, ...this.shown.map((event) => event.label)])];
  }

  // --- changing ----------------------------------------------------------------------------------------------------------

  edit(changes) {
    const inverse = changes.flatMap((change) => invertChange(this, change));
    this.done.push({ id: this.id, changes, inverse });
    this.undone = [];
    this.post(changes);
  }

  // Add time that was played, except drafts, which wait for an answer. What is played in one go is one edit: `edit` is that
  // of the part before. Returns the edit; what counted as watched before makes none.
  addPlayed(start, end, edit) {
    this.played.set(this.id, addInterval(this.played.get(this.id) ?? [], start, end));
    const parts = outsideDrafts([...this.drafts.values()], start, end);
    const changes = parts.map(([first, last]) => ({ op: 'watched', start_s: first, end_s: last }));
    const isNew = this.covered.reduce((left, [first, last]) => removeInterval(left, first, last), parts).length > 0;
    const inverse = isNew ? changes.flatMap((change) => invertChange(this, change)) : [];
    if (inverse.length && edit && edit === this.done.at(-1)) {
      edit.changes.push(...changes);
      edit.inverse.push(...inverse);
    } else if (inverse.length) {
      edit = { id: this.id, changes: [...changes], inverse };
      this.done.push(edit);
    }
    this.post(changes, true);
    return edit;
  }

  // Changes that reject a draft. It counts as watched where it was played; a model's first drafts may be as long as the
  // recording. One of which nothing was played was judged by its frames, which shows all of a short one.
  rejection(draft) {
    const { start, end } = draft;
    const played = (this.played.get(this.id) ?? []).map(([first, last]) => [Math.max(first, start), Math.min(last, end)]);
    const seen = played.filter(([first, last]) => last - first > 1e-3);
    if (!seen.length && end - start <= GLANCE_S) seen.push([start, end]);
    return [rejectChange(draft), ...seen.map(([first, last]) => ({ op: 'watched', start_s: first, end_s: last }))];
  }

  // Add an event. Returns its id.
  add(event, also = []) {
    const id = crypto.randomUUID();
    this.edit([putChange({ ...event, id }), ...also]);
    return id;
  }

  // Change an event, or accept a draft with changes. Returns its id.
  change(id, fields) {
    const before = this.get(id);
    if (this.drafts.has(id)) return this.add({ ...before, ...fields }, this.rejection(before));
    this.edit([putChange({ ...before, ...fields })]);
    return id;
  }

  // Take back the last edit, of whatever recording.
  undo() {
    const last = this.done.pop();
    this.undone.push(last);
    this.post(last.inverse, false, last.id);
  }

  redo() {
    const next = this.undone.pop();
    this.done.push(next);
    this.post(next.changes, false, next.id);
  }

  // --- sending -----------------------------------------------------------------------------------------------------------

  post(changes, isPlayed = false, id = this.id) {
    if (changes.length) this.pending.push({ id, changes, isPlayed });
    this.refresh();
    this.send();
  }

  // Number of edits that are not saved; what was played does not count.
  get unsaved() {
    return this.pending.filter(({ isPlayed }) => !isPlayed).length;
  }

  async send() {
    this.topics.emit('saving');
    if (this.sending) return;
    this.sending = true;
    while (this.pending.length) {
      const { id, changes } = this.pending[0];
      try {
        const answer = await request(`recordings/${encodeURIComponent(id)}/changes`, { changes });
        this.pending.shift();
        this.problem = null;
        if (id === this.id) this.confirm(answer);
      } catch (error) {
        await this.handle(error);
      }
      this.topics.emit('saving');
    }
    this.sending = false;
  }

  async handle(error) {
    if (error.isRefusal) {
      this.pending.shift();
      showToast(`The server refused the change: ${error.message}`);
      this.confirmed.version = -1;
      await this.reload();
      this.refresh();
      return;
    }
    this.problem = error;
    this.topics.emit('saving');
    await pause(RETRY_MS);
  }
}
