// Events as predicted, the user's corrections, undo, and saving them as an annotation file.

class Store {
  constructor(topics) {
    this.topics = topics;
    this.events = new Map();
    this.found = new Map(); // events that other thresholds would find; not in the saved file unless they are added
    this.history = []; // [id, before, after] per change; before or after is undefined for an added or removed event
    this.savedAt = 0;
    this.next = 0;
    data.events.forEach(([start, end, label, score, ...caption], index) => {
      const number = data.numbers ? data.numbers[index] : index;
      const fields = { start: start / 1000, end: end / 1000, label: data.labels[label], score, ...captionFields(caption) };
      this.events.set(number, { id: number, index, state: 'predicted', ...fields });
      this.next = Math.max(this.next, number + 1);
    });
    this.sort();
  }

  sort() {
    this.sorted = [...this.events.values()].sort((a, b) => a.start - b.start || a.end - b.end || a.id - b.id);
    this.hasCaptions = this.sorted.some((event) => event.description);
  }

  get(id) {
    return this.events.get(id) ?? this.found.get(id);
  }

  labels() {
    return [...new Set([...data.labels, ...this.sorted.map((event) => event.label)])];
  }

  get unsaved() {
    return this.history.length !== this.savedAt;
  }

  // Number of events that differ from the prediction.
  corrections() {
    const changed = this.sorted.filter((event) => event.state === 'edited' || event.state === 'added').length;
    return changed + data.events.length - this.sorted.filter((event) => event.index !== undefined).length;
  }

  change(id, fields) {
    const before = this.events.get(id);
    const state = before.state === 'added' ? 'added' : 'edited';
    // The user's caption has no score. A template states label and times, so it is dropped when they change.
    const caption = before.isTemplate || 'description' in fields ? captionFields([fields.description]) : {};
    this.record(id, before, { ...before, state, ...fields, ...caption });
  }

  // Confirm an event or take that back; add one that other thresholds would find. Returns its number.
  toggleConfirmed(id) {
    const before = this.get(id);
    if (before.state === 'new') return this.add(before.start, before.end, before.label);
    if (before.state === 'predicted') this.record(id, before, { ...before, state: 'confirmed' });
    else if (before.state === 'confirmed') this.record(id, before, { ...before, state: 'predicted' });
    return id;
  }

  add(start, end, label) {
    const id = this.next++;
    this.record(id, undefined, { id, start, end, label, score: null, state: 'added', ...captionFields([]) });
    return id;
  }

  remove(id) {
    this.record(id, this.events.get(id), undefined);
  }

  record(id, before, after) {
    this.history.push([id, before, after]);
    if (this.savedAt >= this.history.length) this.savedAt = -1; // the saved state was undone and replaced
    this.set(id, after);
  }

  // Undo the last change. Returns the restored event; undefined if there is none.
  undo() {
    const last = this.history.pop();
    if (!last) return undefined;
    this.set(last[0], last[1]);
    return last[1];
  }

  set(id, event) {
    if (event) this.events.set(id, event);
    else this.events.delete(id);
    this.sort();
    this.topics.emit('events');
  }

  markSaved() {
    this.savedAt = this.history.length;
    this.topics.emit('events');
  }
}

// --- saving ---

const COLUMNS = ['video', 'start', 'end', 'label', 'description', 'split'];

function csvCell(text) {
  const plain = text.replace(/\r\n?/g, '\n');
  return /[",;\t\n]|^\s|\s$/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}

// Annotations for `vidgru train`. An event-free recording has one row with only its name. Template captions are left
// out, because a model must not learn to write them.
function annotationsCsv(events) {
  const row = (event) => [data.name, event.start.toFixed(3), event.end.toFixed(3), event.label, event.isTemplate ? '' : event.description ?? '', ''];
  const rows = events.length ? events.map(row) : [[data.name, '', '', '', '', '']];
  return [COLUMNS, ...rows].map((cells) => `${cells.map(csvCell).join(',')}\n`).join('');
}

class Saver {
  constructor(page) {
    this.page = page;
    byId('save').addEventListener('click', () => this.saveOrAsk());
    byId('missing_events').replaceChildren(...data.missing.map((sentence) => make('p', {}, sentence)));
    byId('save_anyway').addEventListener('click', () => this.save());
    byId('undo').addEventListener('click', () => page.undo());
    page.topics.on('events', () => this.show());
    window.addEventListener('beforeunload', (event) => {
      if (page.store.unsaved) event.preventDefault();
    });
    this.show();
  }

  show() {
    const { store } = this.page;
    const corrections = store.corrections();
    byId('undo').disabled = store.history.length === 0;
    byId('save').classList.toggle('unsaved', store.unsaved);
    byId('save_state').textContent = store.unsaved ? `unsaved: ${corrections ? count(corrections, 'correction') : 'confirmations'}` : '';
  }

  // In the saved file, events missing from the page count as wrong predictions, so the user must know.
  saveOrAsk() {
    if (data.missing.length) byId('incomplete').showModal();
    else this.save();
  }

  save() {
    const { store } = this.page;
    const name = `${data.name.replaceAll('/', '_')}.annotations.csv`;
    const url = URL.createObjectURL(new Blob([annotationsCsv(store.sorted)], { type: 'text/csv' }));
    make('a', { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
    store.markSaved();
    const content = store.sorted.length ? count(store.sorted.length, 'event') : 'an event-free recording';
    const note = store.sorted.some((event) => event.isTemplate) ? ' Template captions are left out.' : '';
    showToast(`Saved ${content} as ${name}.${note} Move the file to ${data.root}: vidgru train reads it there, alone or listed in a dataset YAML.`);
  }
}
