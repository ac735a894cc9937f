// Index of all recordings and events: two tables with common filters.

// A table that renders only the rows in view, sorted by clicking a column's header.

class Table {
  // Columns have `name`, `key` (what to sort by, or null), and optionally `number` (right-aligned) and `down` (the first
  // click sorts in descending order).
  constructor(box, columns, height, render, empty) {
    this.columns = columns;
    this.order = { column: columns[0], down: false };
    this.head = make('div', { class: 'head', role: 'row' });
    this.body = make('div', { class: 'scroll', role: 'rowgroup' });
    this.empty = make('p', { class: 'empty muted', hidden: true }, empty);
    box.append(this.head, this.body);
    this.body.append(this.empty);
    this.rows = new VirtualList(this.body, height, render);
    this.items = [];
    this.drawHead();
  }

  drawHead() {
    const focused = document.activeElement?.closest('.head') === this.head ? document.activeElement.textContent : null;
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
    if (focused !== null) this.head.querySelector('[aria-sort] button')?.focus();
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
    const isKnown = (key) => key !== null && key !== undefined;
    // Unknown values come last in either order.
    keyed.sort(([a], [b]) => (isKnown(a) && isKnown(b) ? (down ? compare(b, a) : compare(a, b)) : isKnown(b) - isKnown(a)));
    this.empty.hidden = items.length > 0;
    this.rows.show(keyed.map(([, item]) => item));
  }
}
// Recordings, each with a small timeline of the events that match the filters.

const STATUS_ORDER = { failed: 0, partial: 1, done: 2 };

class IndexRecordings {
  constructor(index) {
    this.index = index;
    const columns = [
      { name: 'Recording', key: (recording) => recording.name },
      { name: 'Recorded', key: (recording) => recording.recorded?.ms },
      { name: 'Length', key: (recording) => recording.duration, number: true, down: true },
      { name: 'Status', key: (recording) => STATUS_ORDER[recording.status] },
      { name: 'Timeline', key: null },
      { name: 'Events', key: (recording) => index.eventsOf(recording).length, number: true, down: true },
      { name: 'Best', key: (recording) => this.best(recording), number: true, down: true },
    ];
    this.table = new Table(byId('recordings'), columns, 40, (recording) => this.row(recording), 'No recording matches the filters.');
  }

  best(recording) {
    const events = this.index.eventsOf(recording);
    return events.length ? events.reduce((best, event) => Math.max(best, event.score), 0) : null;
  }

  row(recording) {
    const { name, recorded, duration, status, reason, page } = recording;
    const cell = (kind, ...inside) => make('div', { class: `cell ${kind}`, role: 'cell' }, ...inside);
    const best = this.best(recording);
    const text = make('bdi', {}, name);
    const cells = [
      make('div', { class: 'cell path', role: 'cell', title: name }, page === null ? text : make('a', { href: page }, text)),
      cell('muted small', wallClock(recorded, 0, 'minute')),
      cell('number', duration === null ? '' : formatTime(duration, 0)),
      make('div', { class: `cell state ${status}`, role: 'cell', title: reason }, status),
    ];
    if (status === 'failed') {
      cells.push(make('div', { class: 'cell reason', role: 'cell', title: reason, aria: { colspan: 3 } }, make('span', {}, reason)));
    } else {
      cells.push(cell('', this.timeline(recording)));
      cells.push(cell('number', this.index.eventsOf(recording).length.toLocaleString('en')));
      cells.push(cell('number', best === null ? '' : percent(best)));
    }
    return make('div', { class: 'row', role: 'row' }, ...cells);
  }

  timeline(recording) {
    const events = this.index.eventsOf(recording);
    const canvas = make('canvas', { role: 'img', aria: { label: `Timeline: ${count(events.length, 'event')}` } });
    requestAnimationFrame(() => {
      if (!canvas.isConnected || !recording.duration) return;
      const { context, width, height } = prepareCanvas(canvas);
      for (const event of events) {
        const left = (event.start / recording.duration) * width;
        context.fillStyle = labelColour(event.label);
        context.fillRect(left, 4, Math.max(((event.end - event.start) / recording.duration) * width, 2), height - 8);
      }
    });
    return canvas;
  }
}
// Events of all recordings.

class IndexEvents {
  constructor(hasCaptions) {
    this.hasCaptions = hasCaptions;
    const columns = [
      { name: 'Label', key: (event) => event.label },
      { name: 'Score', key: (event) => event.score, number: true, down: true },
      { name: 'Recording', key: (event) => event.recording.name },
      { name: 'Start', key: (event) => event.start, number: true },
      { name: 'Length', key: (event) => event.end - event.start, number: true, down: true },
      { name: 'Wall clock', key: (event) => (event.recording.recorded ? event.recording.recorded.ms + event.start * 1000 : null) },
    ];
    if (hasCaptions) columns.splice(1, 0, { name: 'Caption', key: (event) => event.description });
    byId('events').classList.toggle('captioned', hasCaptions);
    this.table = new Table(byId('events'), columns, hasCaptions ? 46 : 34, (event) => this.row(event), 'No event matches the filters.');
    this.table.sortBy(columns.find(({ name }) => name === 'Score'));
  }

  row(event) {
    const { recording, label, score, start, end } = event;
    const cell = (kind, ...inside) => make('div', { class: `cell ${kind}`, role: 'cell' }, ...inside);
    const text = make('bdi', {}, recording.name);
    const cells = [
      make('div', { class: 'cell dot', role: 'cell', title: label }, label),
      make('div', { class: 'cell scored', role: 'cell' }, make('span', { class: 'score_bar', style: { '--share': score } }), make('span', { class: 'number' }, percent(score))),
      make('div', { class: 'cell path', role: 'cell', title: recording.name }, recording.page === null ? text : make('a', { href: `${recording.page}#event=${event.number}` }, text)),
      cell('number', formatTime(start)),
      cell('number', formatLength(end - start)),
      cell('muted small', wallClock(recording.recorded, start, 'date')),
    ];
    if (this.hasCaptions) cells.splice(1, 0, make('div', { class: 'cell', role: 'cell' }, captionElement(event)));
    return make('div', { class: 'row', role: 'row', style: { '--label': labelColour(label) } }, ...cells);
  }
}
// Normalise text for searching: ignore case, accents and Unicode composition.
function normalized(text) {
  return text.toLowerCase().normalize('NFKD').replace(/[\u0300-\u036f]/g, '');
}

class Index {
  constructor() {
    this.hidden = new Set();
    this.recordings = data.recordings.map((recording) => ({ ...recording, searchText: normalized(recording.name) }));
    this.labelTexts = new Map(data.labels.map((label) => [label, normalized(label)]));
    this.events = data.events.map(([row, start, end, label, score, number, ...caption]) => ({
      recording: this.recordings[row], start: start / 1000, end: end / 1000, label: data.labels[label], score, number, ...captionFields(caption),
    }));
    this.byRecording = new Map();
    this.recordingTable = new IndexRecordings(this);
    this.eventTable = new IndexEvents(this.events.some((event) => event.description));
    for (const id of ['search', 'min_score', 'with_events', 'status']) byId(id).addEventListener('input', () => this.show());
    byId('show_recordings').addEventListener('click', () => this.showTable('recordings'));
    byId('show_events').addEventListener('click', () => this.showTable('events'));
    darkTheme.addEventListener('change', () => this.show());
    this.describe();
    this.showChips();
    this.show();
  }

  // Events of a recording that match the filters.
  eventsOf(recording) {
    return this.byRecording.get(recording) ?? [];
  }

  show() {
    const minScore = byId('min_score').value / 100;
    const status = byId('status').value;
    const words = normalized(byId('search').value).split(/\s+/).filter(Boolean);
    byId('min_score_value').textContent = percent(minScore);
    const events = this.events.filter((event) => {
      if (event.score < minScore || this.hidden.has(event.label) || (status && event.recording.status !== status)) return false;
      if (words.length) event.searchText ??= event.description ? normalized(event.description) : '';
      return words.every((word) => event.recording.searchText.includes(word) || this.labelTexts.get(event.label).includes(word) || event.searchText.includes(word));
    });
    this.byRecording.clear();
    for (const event of events) {
      if (this.byRecording.has(event.recording)) this.byRecording.get(event.recording).push(event);
      else this.byRecording.set(event.recording, [event]);
    }
    const onlyWithEvents = byId('with_events').checked;
    const recordings = this.recordings.filter((recording) => {
      const hasEvents = this.byRecording.has(recording);
      if ((status && recording.status !== status) || (onlyWithEvents && !hasEvents)) return false;
      return hasEvents || words.every((word) => recording.searchText.includes(word));
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
    const countOf = (status) => this.recordings.filter((recording) => recording.status === status).length;
    const seconds = this.recordings.reduce((sum, recording) => sum + (recording.duration ?? 0), 0);
    const facts = [count(this.recordings.length, 'recording'), formatLength(seconds), count(data.recordings.reduce((sum, { events }) => sum + events, 0), 'event')];
    for (const status of ['partial', 'failed']) if (countOf(status)) facts.push(`${countOf(status).toLocaleString('en')} ${status}`);
    byId('facts').textContent = facts.join(' · ');
    byId('note').hidden = data.notes.length === 0;
    byId('note').textContent = byId('note').title = data.notes.join(' ');
  }

  showTable(table) {
    for (const name of ['recordings', 'events']) {
      byId(name).hidden = name !== table;
      byId(`show_${name}`).setAttribute('aria-pressed', name === table);
    }
    this.show();
  }
}

new Index();
