// A table whose rows are made as they come into sight, sorted by the column whose head is clicked.

class Table {
  // Columns have `name`, `key` (what to sort by; null for none) and perhaps `number` and `down` (the first click sorts
  // from the greatest).
  constructor(box, columns, height, render, empty) {
    this.columns = columns;
    this.order = { column: columns[0], down: false };
    this.head = make('div', { class: 'head', role: 'row' });
    this.body = make('div', { class: 'scroll', role: 'rowgroup' });
    this.nothing = make('p', { class: 'nothing muted', hidden: true }, empty);
    box.append(this.head, this.body);
    this.body.append(this.nothing);
    this.rows = new Rows(this.body, height, render);
    this.items = [];
    this.drawHead();
  }

  drawHead() {
    const held = document.activeElement?.closest('.head') === this.head ? document.activeElement.textContent : null;
    const cells = this.columns.map((column) => {
      const sorted = column === this.order.column;
      const arrow = sorted ? (this.order.down ? ' ↓' : ' ↑') : '';
      const text = column.name + arrow;
      const inside = column.key ? make('button', { type: 'button', on: { click: () => this.sortBy(column) } }, text) : make('span', { class: 'muted small' }, text);
      const cell = make('div', { class: column.number ? 'cell number' : 'cell', role: 'columnheader' }, inside);
      if (sorted) cell.setAttribute('aria-sort', this.order.down ? 'descending' : 'ascending');
      return cell;
    });
    this.head.replaceChildren(...cells);
    if (held !== null) this.head.querySelector('[aria-sort] button')?.focus();
  }

  sortBy(column) {
    const again = column === this.order.column;
    this.order = { column, down: again ? !this.order.down : Boolean(column.down) };
    this.drawHead();
    this.show(this.items);
  }

  show(items) {
    this.items = items;
    const { column, down } = this.order;
    const keyed = items.map((item) => [column.key(item), item]);
    const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    const known = (key) => key !== null && key !== undefined;
    // What is not known comes last, whichever way.
    keyed.sort(([a], [b]) => (known(a) && known(b) ? (down ? compare(b, a) : compare(a, b)) : known(b) - known(a)));
    this.nothing.hidden = items.length > 0;
    this.rows.show(keyed.map(([, item]) => item));
  }
}
// The recordings, each with a small timeline of the events that pass the filters.

const STATUS_ORDER = { failed: 0, partial: 1, done: 2 };

class Recordings {
  constructor(index) {
    this.index = index;
    const columns = [
      { name: 'Recording', key: (recording) => recording.name },
      { name: 'Recorded', key: (recording) => recording.recorded?.ms },
      { name: 'Length', key: (recording) => recording.duration, number: true, down: true },
      { name: 'Status', key: (recording) => STATUS_ORDER[recording.status] },
      { name: 'Timeline', key: null },
      { name: 'Events', key: (recording) => index.found(recording).length, number: true, down: true },
      { name: 'Best', key: (recording) => this.best(recording), number: true, down: true },
    ];
    this.table = new Table(byId('recordings'), columns, 40, (recording) => this.row(recording), 'No recording passes the filters.');
  }

  best(recording) {
    const found = this.index.found(recording);
    return found.length ? found.reduce((most, event) => Math.max(most, event.score), 0) : null;
  }

  row(recording) {
    const { name, recorded, duration, status, reason, page } = recording;
    const cell = (kind, ...inside) => make('div', { class: `cell ${kind}`, role: 'cell' }, ...inside);
    const best = this.best(recording);
    const told = make('bdi', {}, name);
    const cells = [
      make('div', { class: 'cell path', role: 'cell', title: name }, page === null ? told : make('a', { href: page }, told)),
      cell('muted small', wallClock(recorded, 0, 'minute')),
      cell('number', duration === null ? '' : formatTime(duration, 0)),
      make('div', { class: `cell state ${status}`, role: 'cell', title: reason }, status),
    ];
    if (status === 'failed') {
      cells.push(make('div', { class: 'cell reason', role: 'cell', title: reason, aria: { colspan: 3 } }, make('span', {}, reason)));
    } else {
      cells.push(cell('', this.timeline(recording)));
      cells.push(cell('number', this.index.found(recording).length.toLocaleString('en')));
      cells.push(cell('number', best === null ? '' : percent(best)));
    }
    return make('div', { class: 'row', role: 'row' }, ...cells);
  }

  timeline(recording) {
    const found = this.index.found(recording);
    const canvas = make('canvas', { role: 'img', aria: { label: `Timeline: ${count(found.length, 'event')}` } });
    requestAnimationFrame(() => {
      if (!canvas.isConnected || !recording.duration) return;
      const { context, width, height } = prepare(canvas);
      for (const event of found) {
        const left = (event.start / recording.duration) * width;
        context.fillStyle = labelColour(event.label);
        context.fillRect(left, 4, Math.max(((event.end - event.start) / recording.duration) * width, 2), height - 8);
      }
    });
    return canvas;
  }
}
// All events of all recordings.

class Events {
  constructor(described) {
    this.described = described;
    const columns = [
      { name: 'Label', key: (event) => event.label },
      { name: 'Score', key: (event) => event.score, number: true, down: true },
      { name: 'Recording', key: (event) => event.recording.name },
      { name: 'Start', key: (event) => event.start, number: true },
      { name: 'Length', key: (event) => event.end - event.start, number: true, down: true },
      { name: 'Wall clock', key: (event) => (event.recording.recorded ? event.recording.recorded.ms + event.start * 1000 : null) },
    ];
    if (described) columns.splice(1, 0, { name: 'Description', key: (event) => event.description });
    byId('events').classList.toggle('described', described);
    this.table = new Table(byId('events'), columns, described ? 46 : 34, (event) => this.row(event), 'No event passes the filters.');
    this.table.sortBy(columns.find(({ name }) => name === 'Score'));
  }

  row(event) {
    const { recording, label, score, start, end } = event;
    const cell = (kind, ...inside) => make('div', { class: `cell ${kind}`, role: 'cell' }, ...inside);
    const told = make('bdi', {}, recording.name);
    const cells = [
      make('div', { class: 'cell dot', role: 'cell', title: label }, label),
      make('div', { class: 'cell scored', role: 'cell' }, make('span', { class: 'score_bar', style: { '--share': score } }), make('span', { class: 'number' }, percent(score))),
      make('div', { class: 'cell path', role: 'cell', title: recording.name }, recording.page === null ? told : make('a', { href: `${recording.page}#event=${event.number}` }, told)),
      cell('number', formatTime(start)),
      cell('number', formatLength(end - start)),
      cell('muted small', wallClock(recording.recorded, start, 'date')),
    ];
    if (this.described) cells.splice(1, 0, make('div', { class: 'cell', role: 'cell' }, sentence(event)));
    return make('div', { class: 'row', role: 'row', style: { '--label': labelColour(label) } }, ...cells);
  }
}
// The page over all recordings: filters, and the two tables they filter.

// A text as it is searched: without regard to case, accents, and how its letters are put together.
function folded(text) {
  return text.toLowerCase().normalize('NFKD').replace(/[\u0300-\u036f]/g, '');
}

class Index {
  constructor() {
    this.hidden = new Set();
    this.recordings = data.recordings;
    this.events = data.events.map(([row, start, end, label, score, number, ...described]) => ({
      recording: this.recordings[row], start: start / 1000, end: end / 1000, label: data.labels[label], score, number, ...describedBy(described),
    }));
    this.byRecording = new Map();
    this.recordingTable = new Recordings(this);
    this.eventTable = new Events(this.events.some((event) => event.description));
    for (const id of ['search', 'min_score', 'with_events', 'status']) byId(id).addEventListener('input', () => this.show());
    byId('show_recordings').addEventListener('click', () => this.turnTo('recordings'));
    byId('show_events').addEventListener('click', () => this.turnTo('events'));
    themed.addEventListener('change', () => this.show());
    this.describe();
    this.showChips();
    this.show();
  }

  // The events of a recording that pass the filters.
  found(recording) {
    return this.byRecording.get(recording) ?? [];
  }

  show() {
    const least = byId('min_score').value / 100;
    const status = byId('status').value;
    const words = folded(byId('search').value).split(/\s+/).filter(Boolean);
    byId('min_score_told').textContent = percent(least);
    const named = new Map(this.recordings.map((recording) => [recording, folded(recording.name)]));
    const labelled = new Map(data.labels.map((label) => [label, folded(label)]));
    const events = this.events.filter((event) => {
      if (event.score < least || this.hidden.has(event.label) || (status && event.recording.status !== status)) return false;
      if (words.length) event.folded ??= folded(event.description ?? '');
      return words.every((word) => named.get(event.recording).includes(word) || labelled.get(event.label).includes(word) || event.folded.includes(word));
    });
    this.byRecording.clear();
    for (const event of events) {
      if (this.byRecording.has(event.recording)) this.byRecording.get(event.recording).push(event);
      else this.byRecording.set(event.recording, [event]);
    }
    const only = byId('with_events').checked;
    const recordings = this.recordings.filter((recording) => {
      const found = this.byRecording.has(recording);
      if ((status && recording.status !== status) || (only && !found)) return false;
      return found || words.every((word) => named.get(recording).includes(word));
    });
    this.recordingTable.table.show(recordings);
    this.eventTable.table.show(events);
    byId('show_recordings').textContent = `Recordings ${recordings.length.toLocaleString('en')}`;
    byId('show_events').textContent = `Events ${events.length.toLocaleString('en')}`;
  }

  showChips() {
    const numbers = new Map();
    for (const event of this.events) numbers.set(event.label, (numbers.get(event.label) ?? 0) + 1);
    const chip = (label) => {
      const toggle = (click) => {
        if (!this.hidden.delete(label)) this.hidden.add(label);
        click.currentTarget.setAttribute('aria-pressed', !this.hidden.has(label));
        this.show();
      };
      const number = make('span', { class: 'number' }, numbers.get(label).toLocaleString('en'));
      return make('button', { type: 'button', class: 'chip', title: label, aria: { pressed: true }, style: { '--label': labelColour(label) }, data: { label }, on: { click: toggle } }, make('span', { class: 'name' }, label), number);
    };
    byId('labels').replaceChildren(...data.labels.filter((label) => numbers.has(label)).map(chip));
  }

  describe() {
    const of = (status) => this.recordings.filter((recording) => recording.status === status).length;
    const seconds = this.recordings.reduce((sum, recording) => sum + (recording.duration ?? 0), 0);
    const facts = [count(this.recordings.length, 'recording'), formatLength(seconds), count(data.recordings.reduce((sum, { events }) => sum + events, 0), 'event')];
    for (const status of ['partial', 'failed']) if (of(status)) facts.push(`${of(status).toLocaleString('en')} ${status}`);
    byId('facts').textContent = facts.join(' · ');
    byId('note').hidden = data.notes.length === 0;
    byId('note').textContent = byId('note').title = data.notes.join(' ');
  }

  turnTo(table) {
    for (const name of ['recordings', 'events']) {
      byId(name).hidden = name !== table;
      byId(`show_${name}`).setAttribute('aria-pressed', name === table);
    }
    this.show();
  }
}

new Index();
