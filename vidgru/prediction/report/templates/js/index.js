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
