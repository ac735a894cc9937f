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
