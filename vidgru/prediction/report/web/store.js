// The events as found, what a person changed about them, and the way back.

class Store {
  constructor(topics) {
    this.topics = topics;
    this.events = new Map();
    this.done = []; // [id, before, after], either may be undefined
    this.savedAt = 0;
    this.next = 0;
    data.events.forEach(([start, end, label, score, ...described], index) => {
      const number = data.numbers ? data.numbers[index] : index;
      const found = { start: start / 1000, end: end / 1000, label: data.labels[label], score, ...describedBy(described) };
      this.events.set(number, { id: number, index, state: 'found', ...found });
      this.next = Math.max(this.next, number + 1);
    });
    this.sort();
  }

  sort() {
    this.sorted = [...this.events.values()].sort((a, b) => a.start - b.start || a.end - b.end || a.id - b.id);
    this.described = this.sorted.some((event) => event.description);
  }

  get(id) {
    return this.events.get(id);
  }

  labels() {
    return [...new Set([...data.labels, ...this.sorted.map((event) => event.label)])];
  }

  get unsaved() {
    return this.done.length !== this.savedAt;
  }

  // How many events differ from what was found.
  corrections() {
    const touched = this.sorted.filter((event) => event.state === 'changed' || event.state === 'added').length;
    return touched + data.events.length - this.sorted.filter((event) => event.index !== undefined).length;
  }

  change(id, fields) {
    const before = this.events.get(id);
    const state = before.state === 'added' ? 'added' : 'changed';
    // What a person writes has no score. And a template tells label and times: it does not outlive them.
    const rewritten = before.template || 'description' in fields ? describedBy([fields.description]) : {};
    this.put(id, before, { ...before, state, ...fields, ...rewritten });
  }

  toggleRight(id) {
    const before = this.events.get(id);
    if (before.state === 'found') this.put(id, before, { ...before, state: 'right' });
    else if (before.state === 'right') this.put(id, before, { ...before, state: 'found' });
  }

  add(start, end, label) {
    const id = this.next++;
    this.put(id, undefined, { id, start, end, label, score: null, state: 'added', ...describedBy([]) });
    return id;
  }

  remove(id) {
    this.put(id, this.events.get(id), undefined);
  }

  put(id, before, after) {
    this.done.push([id, before, after]);
    if (this.savedAt >= this.done.length) this.savedAt = -1; // what was saved was undone, and then something else done
    this.set(id, after);
  }

  // The event that came back or changed; undefined where there is nothing to undo, or an event that was added goes.
  undo() {
    const last = this.done.pop();
    if (!last) return undefined;
    this.set(last[0], last[1]);
    return last[1];
  }

  set(id, event) {
    if (event) this.events.set(id, event);
    else this.events.delete(id);
    this.sort();
    this.topics.tell('events');
  }

  saved() {
    this.savedAt = this.done.length;
    this.topics.tell('events');
  }
}

// What is wrong with an event's times and label; empty where nothing is.
function faultOf({ start, end, label }) {
  if (!label) return 'An event needs a label.';
  if (label.startsWith('[') || label.startsWith('{')) return 'A label cannot begin with a bracket.';
  if (!Number.isFinite(start) || !Number.isFinite(end)) return 'Start and end are seconds.';
  if (start < 0) return 'It cannot start before the recording.';
  if (end > data.duration + 0.0015) return `The recording ends at ${data.duration.toFixed(3)} s.`;
  if (end - start < 0.0005) return 'It has to end after its start.';
  return '';
}

function tidyLabel(text) {
  return text.split(/\s+/).filter(Boolean).join(' ');
}

function toMilliseconds(seconds) {
  return Math.round(seconds * 1000) / 1000;
}
// What a person says happens in the recording, as an annotation file that `vidgru train` takes.

const COLUMNS = ['video', 'start', 'end', 'label', 'description', 'split'];

function csvCell(text) {
  const plain = text.replace(/\r\n?/g, '\n');
  return /[",;\t\n]|^\s|\s$/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}

// A recording in which nothing happens has one row, its name alone. A template is nobody's sentence, and is left out: a
// model must not learn to write it.
function annotationsCsv(events) {
  const row = (event) => [data.name, event.start.toFixed(3), event.end.toFixed(3), event.label, event.template ? '' : event.description ?? '', ''];
  const rows = events.length ? events.map(row) : [[data.name, '', '', '', '', '']];
  return [COLUMNS, ...rows].map((cells) => `${cells.map(csvCell).join(',')}\n`).join('');
}

class Saver {
  constructor(page) {
    this.page = page;
    byId('save').addEventListener('click', () => this.ask());
    byId('lacks').replaceChildren(...data.missing.map((sentence) => make('p', {}, sentence)));
    byId('save_all_the_same').addEventListener('click', () => this.save());
    byId('undo').addEventListener('click', () => page.undo());
    page.topics.on('events', () => this.show());
    window.addEventListener('beforeunload', (leaving) => {
      if (page.store.unsaved) leaving.preventDefault();
    });
    this.show();
  }

  show() {
    const { store } = this.page;
    const changed = store.corrections();
    byId('undo').disabled = store.done.length === 0;
    byId('save').classList.toggle('unsaved', store.unsaved);
    byId('save_state').textContent = store.unsaved ? `${changed ? count(changed, 'correction') : 'checks'}, not saved` : '';
  }

  // What the page lacks would count as wrong findings in the file: a person has to know.
  ask() {
    if (data.missing.length) byId('incomplete').showModal();
    else this.save();
  }

  save() {
    const { store } = this.page;
    const name = `${data.name.replaceAll('/', '_')}.annotations.csv`;
    const url = URL.createObjectURL(new Blob([annotationsCsv(store.sorted)], { type: 'text/csv' }));
    make('a', { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
    store.saved();
    const what = store.sorted.length ? count(store.sorted.length, 'event') : 'the recording as one without events';
    const without = store.sorted.some((event) => event.template) ? ' Sentences that are put together are left out.' : '';
    this.page.say(`Saved ${what} as ${name}.${without} Put the file into ${data.root}: vidgru train takes it, alone or with others in a data set YAML.`);
  }
}
