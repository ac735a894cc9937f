// Page of one recording: selection, filters, editing, keyboard, and the parts that show them.

class Page extends PlayerPage {
  constructor() {
    super({ decimals: 1 });
    this.store = new Store(this.topics);
    this.filters = { hidden: new Set(), minScore: 0 };
    this.editing = false;
    this.player = new Player(this.topics);
    this.player.load();
    this.topics.on('events filters found', () => (this.shown = null));
    this.thresholds = new Thresholds(this);
    this.overlay = new BoxOverlay(this.topics, this.player);
    this.timeline = new Timeline(this, new Curves(this));
    this.captions = new Captions(this);
    this.list = new EventList(this);
    this.panel = new EventPanel(this);
    this.moment = new MomentPanel(this);
    this.saver = new Saver(this);
    this.listen();
    this.describe();
    this.followAddress();
    this.greet();
  }

  get curves() {
    return this.timeline.curves;
  }

  keyActions() {
    return {
      ...super.keyActions(),
      n: () => this.step(1),
      p: () => this.step(-1),
      ',': () => this.player.seekBy(-1 / data.fps),
      '.': () => this.player.seekBy(1 / data.fps),
      e: () => this.edit(),
      m: () => this.confirm(),
      a: () => this.add(),
      u: () => this.undo(),
      'Ctrl+z': (shift) => shift || this.undo(), // with Shift: redo, which there is not
      'Ctrl+s': () => {
        document.activeElement.blur(); // applies the edit in progress
        byId('save').click();
      },
      Escape: () => this.deselect(),
    };
  }

  // --- events --------------------------------------------------------------------------------------------------------

  // Events that match the filters, by start. Events that the user reviewed match whatever their score.
  shownEvents() {
    const matches = (event) => !this.filters.hidden.has(event.label) && (!['predicted', 'new'].includes(event.state) || event.score >= this.filters.minScore);
    return (this.shown ??= [...this.store.sorted, ...this.store.found.values()].filter(matches).sort((a, b) => a.start - b.start));
  }

  select(id, options) {
    if (id !== this.selected) this.editing = false;
    super.select(id, options);
  }

  // Select the next or previous event of the list: from the selected one or, in a list by time, from the playhead.
  step(direction) {
    const events = this.list.rows.items;
    const index = events.findIndex((event) => event.id === this.selected);
    const { time } = this.player;
    let next = index + direction;
    if (index < 0 && this.list.byScore) next = direction > 0 ? 0 : events.length - 1;
    else if (index < 0) next = direction > 0 ? events.findIndex((event) => event.start > time + 0.01) : events.findLastIndex((event) => event.start < time - 0.01);
    if (events[next]) this.select(events[next].id);
  }

  confirm() {
    if (this.store.get(this.selected)) this.select(this.store.toggleConfirmed(this.selected), { seek: false });
  }

  edit() {
    if (!this.store.get(this.selected)) return;
    if (this.store.found.has(this.selected)) this.confirm();
    this.editing = !this.editing;
    this.topics.emit('selection');
    if (this.editing) byId('edit_label').focus();
  }

  add() {
    const start = toMilliseconds(clamp(this.player.time, 0, Math.max(data.duration - 0.1, 0)));
    const end = toMilliseconds(Math.min(start + 2, data.duration));
    const label = this.store.get(this.selected)?.label ?? data.labels[0];
    this.filters.hidden.delete(label);
    this.select(this.store.add(start, end, label), { seek: false });
    this.view.reveal(start, end);
    this.edit();
  }

  remove() {
    if (!this.store.events.has(this.selected)) return;
    const events = this.list.rows.items;
    const index = events.findIndex((event) => event.id === this.selected);
    const next = events[index + 1] ?? events[index - 1];
    this.store.remove(this.selected);
    this.select(next?.id ?? null, { seek: false });
  }

  undo() {
    const event = this.store.undo();
    if (event) this.select(event.id, { seek: false });
    else if (!this.store.get(this.selected)) this.select(null);
  }

  deselect() {
    this.moment.hide();
    if (this.editing) this.edit();
    else this.select(null);
  }

  toggleLabel(label) {
    if (!this.filters.hidden.delete(label)) this.filters.hidden.add(label);
    this.topics.emit('filters');
  }

  zoomToEvent() {
    const event = this.store.get(this.selected);
    if (event) this.view.fit(event.start, event.end);
  }

  // --- page ------------------------------------------------------------------------------------------------------

  listen() {
    super.listen();
    onClick('previous', () => this.step(-1));
    onClick('next', () => this.step(1));
    onClick('add', () => this.add());
    onClick('about_button', () => byId('about').showModal());
    window.addEventListener('hashchange', () => this.followAddress());
  }

  showPlayer() {
    super.showPlayer();
    byId('clock').textContent = byId('clock').title = wallClock(data.recorded, this.player.time, 'date');
  }

  // Facts of the recording, and notes on what the page leaves out.
  describe() {
    const facts = [formatLength(data.duration), `${data.size[0]} × ${data.size[1]}`, `${data.fps} samples/s`];
    if (data.recorded) facts.unshift(wallClock(data.recorded, 0, 'date'));
    byId('facts').textContent = facts.join(' · ');
    byId('damage').hidden = !data.damage;
    byId('damage').textContent = data.damage ? `Partial: ${data.damage}` : '';
    byId('damage').title = data.damage;
    byId('notes').replaceChildren(...data.notes.map((note) => make('li', {}, note)));
    byId('notes_summary').textContent = data.notes.join(' ');
    byId('notes_line').hidden = data.notes.length === 0;
    byId('still_key').hidden = data.still.length === 0;
    byId('smoothing').textContent = data.smooth > 0 ? `, smoothed over ${data.smooth} s` : '';
    byId('back').hidden = data.index === null;
    if (data.index !== null) byId('back').href = data.index;
    this.showLength();
  }

  // Name the most useful keys the first time that such a page is opened in this browser.
  greet() {
    if (!this.isFirstVisit('vidgru keys')) return;
    showToast('Keys: n and p go to the next and previous event, space plays, z zooms to the event, ? lists all keys.');
  }

  // Addresses end in `#event=3`, as in links of the index, or `#t=12.5`. Without either, the first event is selected.
  followAddress() {
    if (!location.hash && this.store.sorted.length) this.select(this.store.sorted[0].id);
    const [, kind, value] = /^#(event|t)=([\d.]+)$/.exec(location.hash) ?? [];
    if (kind === 't') this.player.seek(Number(value));
    if (kind !== 'event' || !this.store.get(Number(value))) return;
    const { id, start, end } = this.store.get(Number(value));
    if (end - start < this.view.length / 60) this.view.set((start + end) / 2 - 60, 120);
    this.select(id);
  }
}

new Page();
