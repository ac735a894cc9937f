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
