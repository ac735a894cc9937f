// The labelling page: opening recordings, selection, changes, keyboard, and the parts that show them.

Object.assign(data, { labels: [], video: null, duration: 1e-3, fps: 1, size: [16, 9], pictures: [] }); // until one is opened

const USUAL_FPS = 25; // of recordings whose rate is unknown

class LabelPage extends PlayerPage {
  constructor() {
    super({ decimals: 2 });
    this.topics.on('state', () => this.collectLabels());
    this.newLabels = []; // typed here and perhaps not used yet
    this.editing = true; // edges of the selected event can always be dragged
    this.range = null; // { start, end } of an event without a label yet; one may be null
    this.server = new ServerState(this.topics);
    this.store = new LabelStore(this.topics, this.server);
    this.player = new LabelPlayer(this.topics);
    this.queue = new SuggestionQueue(this);
    this.timeline = new LabelTimeline(this);
    this.watch = new WatchTracker(this);
    this.copy = new PlayableCopy(this);
    this.list = new RecordingList(this);
    this.training = new TrainingPanel(this);
    this.actions = new ActionPanel(this);
    this.listen();
    this.greet();
  }

  keyActions() {
    const { player } = this;
    const numbers = Array.from({ length: 9 }, (_, index) => [String(index + 1), () => this.chooseNumber(index)]);
    return {
      ...super.keyActions(),
      ...Object.fromEntries(numbers),
      Home: () => player.seek(0),
      End: () => player.seekToFrameOf(data.duration - 1e-3),
      ',': () => player.stepFrames(-1),
      '.': () => player.stepFrames(1),
      '<': () => this.changeSpeed(-1),
      '>': () => this.changeSpeed(1),
      m: () => (player.video.muted = !player.video.muted),
      i: (shift) => this.setEdge('start', shift),
      o: (shift) => this.setEdge('end', shift),
      l: () => this.askLabel(),
      d: () => this.askDescription(),
      e: () => this.askTimes(),
      x: (shift) => (shift ? this.markEmpty() : this.markNothing()),
      a: () => this.accept(),
      r: () => this.reject(),
      u: (shift) => this.undo(shift),
      'Ctrl+z': (shift) => this.undo(shift),
      'Ctrl+y': () => this.undo(true),
      'Ctrl+s': () => showToast('Each change is saved at once.'),
      g: () => this.queue.next(),
      Enter: () => this.queue.next(),
      n: (shift) => this.openNext(shift),
      t: () => this.training.train(),
      c: () => this.copy.make(),
      '/': () => byId('recording_search').focus(),
      Escape: () => this.escape(),
    };
  }

  shownEvents() {
    return this.store.shown;
  }

  // The suggested stretch that is open, if any.
  get suggestion() {
    return this.queue.current?.recording === this.store.id ? this.queue.current : null;
  }

  collectLabels() {
    data.labels = [...new Set([...this.server.current.labels, ...this.newLabels])];
  }

  // --- recordings --------------------------------------------------------------------------------------------------------

  async open(id) {
    const recording = this.server.recording(id);
    if (id === this.store.id) return;
    if (!recording?.duration_s) {
      showToast(`${recording?.name ?? id} cannot be read: ${recording?.reason ?? 'it is not in the list'}`);
      return;
    }
    this.opening = id;
    let details;
    try {
      details = await request(`recordings/${encodeURIComponent(id)}`);
    } catch (error) {
      showToast(`${recording.name} cannot be opened: ${error.message}`);
      if (this.opening === id) this.opening = null; // the next state of the server tries again
      return;
    }
    if (this.opening !== id || id === this.store.id) return;
    this.watch.stop();
    Object.assign(data, { name: recording.name, duration: recording.duration_s, fps: recording.fps ?? USUAL_FPS, size: recording.size });
    [this.selected, this.range] = [null, null];
    this.store.open(id, details);
    this.frameTimes = details.frame_times_s;
    this.view.set(0, data.duration);
    if (recording.playable) this.showVideo();
    else {
      data.video = null;
      this.player.open(this.frameTimes);
      this.copy.find(id);
    }
    history.replaceState(null, '', `#${id}`);
    this.describe();
    this.topics.emit('open');
    this.list.show();
    this.list.reveal();
  }

  showVideo() {
    data.video = `/api/recordings/${encodeURIComponent(this.store.id)}/video?token=${encodeURIComponent(data.token)}`;
    this.player.open(this.frameTimes);
  }

  openNext(previous) {
    const recording = previous ? this.list.previous() : this.list.next();
    if (recording) this.open(recording.id);
    else showToast('There is no other recording in the list.');
  }

  // The recording of the address, or the first one with work to do.
  openFirst() {
    if (this.store.id !== null || this.opening) return;
    const id = location.hash.slice(1);
    const recording = this.server.recording(id) ?? this.list.next();
    if (recording) this.open(recording.id);
  }

  // --- selection ---------------------------------------------------------------------------------------------------------

  // Select the next or previous event or draft, from the selected one or from the playhead.
  step(direction, events = this.store.shown) {
    const index = events.findIndex(({ id }) => id === this.selected);
    const { start } = this.player.frame;
    let next = index + direction;
    if (index < 0) next = direction > 0 ? events.findIndex((event) => event.start >= start) : events.findLastIndex((event) => event.start < start);
    if (events[next]) this.select(events[next].id);
    return Boolean(events[next]);
  }

  // The selected event, if it is one of the model's drafts; else a draft at the current time, or in the suggested stretch.
  get draft() {
    const { suggestion, store: { drafts } } = this;
    const { start } = this.player.frame;
    const current = drafts.get(this.selected) ?? [...drafts.values()].find((draft) => draft.start <= start && start < draft.end);
    return current ?? (suggestion && this.selected === null ? this.store.draftIn(suggestion.start_s, suggestion.end_s) : undefined);
  }

  escape() {
    this.actions.closeForms();
    if (this.range) this.setRange(null);
    else this.select(null);
  }

  // --- changes -----------------------------------------------------------------------------------------------------------

  setRange(range) {
    this.range = range;
    if (range) this.selected = null;
    this.topics.emit('selection');
    this.topics.emit('range');
  }

  // Set the start or end of a new event to the current frame, or of the selected event.
  setEdge(edge, ofSelected) {
    const time = this.player.frame[edge];
    if (!ofSelected) {
      const range = { start: null, end: null, ...this.range, [edge]: time };
      if (range.start !== null && range.end !== null && range.start >= range.end) range[edge === 'start' ? 'end' : 'start'] = null;
      this.setRange(range);
      return;
    }
    const event = this.store.get(this.selected);
    if (event) this.changeTimes({ ...event, [edge]: time });
  }

  // Move the selected event; a draft is accepted by that.
  changeTimes({ start, end }) {
    const event = this.store.get(this.selected);
    const error = validationError({ ...event, start, end });
    if (error) showToast(error);
    else if (start !== event.start || end !== event.end) this.select(this.store.change(event.id, { start, end }), { seek: false });
  }

  chooseNumber(index) {
    const label = this.store.labels()[index];
    if (label === undefined) showToast(`There is no label ${index + 1}. Press l to type a new one.`);
    else this.choose(label);
  }

  // Give a label to the new stretch or, if there is none, to the selected event or draft.
  choose(label) {
    if (!data.labels.includes(label)) {
      this.newLabels.push(label);
      this.collectLabels();
      this.timeline.layOutLanes();
    }
    const event = this.store.get(this.selected);
    if (this.range) {
      const { frame } = this.player;
      this.addRange({ start: this.range.start ?? frame.start, end: this.range.end ?? frame.end, label });
    } else if (event) {
      this.select(event.label === label && event.state !== 'new' ? event.id : this.store.change(event.id, { label }), { seek: false });
    } else {
      const key = this.store.labels().indexOf(label) + 1;
      showToast(`${label}${key <= 9 ? ` is key ${key}` : ''}. Press i where an event starts and o where it ends, then the number of its label.`);
    }
  }

  // Add an event; without a label it stays a stretch that waits for one.
  addRange({ start, end, label }) {
    [start, end] = [Math.min(start, end), Math.max(start, end)];
    if (!label) {
      this.setRange({ start, end });
      return;
    }
    const error = validationError({ start, end, label });
    if (error) {
      showToast(error);
      return;
    }
    this.setRange(null);
    this.select(this.store.add({ start, end, label, description: '' }), { seek: false });
  }

  askLabel() {
    if (this.store.id !== null) this.actions.askLabel();
  }

  askDescription() {
    if (this.store.get(this.selected)) this.actions.askDescription();
    else showToast('Select an event to describe it: Tab goes to the next one.');
  }

  askTimes() {
    if (this.store.get(this.selected)) this.actions.askTimes();
    else showToast('Select an event to type its times: Tab goes to the next one.');
  }

  accept() {
    const { draft } = this;
    if (!draft) {
      showToast('There is no draft here. Tab goes to the next one.');
      return;
    }
    const id = this.store.add(draft);
    if (!this.goToDraftAfter(draft)) this.select(id, { seek: false });
  }

  reject() {
    const { draft } = this;
    if (!draft) {
      showToast('There is no draft here. Tab goes to the next one.');
      return;
    }
    this.watch.flush(); // what was played of it counts as watched
    this.store.edit(this.store.rejection(draft));
    if (!this.goToDraftAfter(draft)) this.select(null);
  }

  goToDraftAfter({ start }) {
    const next = [...this.store.drafts.values()].find((draft) => draft.start >= start);
    if (next) this.select(next.id);
    return next !== undefined;
  }

  remove() {
    if (this.store.drafts.has(this.selected)) this.reject();
    else if (this.store.events.has(this.selected)) {
      this.store.edit([{ op: 'delete', id: this.selected }]);
      this.select(null);
    }
  }

  // Nothing (else) happens between start and end, in the suggested stretch, or in what was watched last.
  markNothing() {
    const { suggestion, range } = this;
    const isMarked = range && range.start !== null && range.end !== null;
    const suggested = suggestion && { start: suggestion.start_s, end: suggestion.end_s };
    const stretch = isMarked ? range : suggested ?? this.watch.stretch;
    if (!stretch) {
      showToast('Watch a stretch, or mark one with i and o, and then press x.');
      return;
    }
    const { start, end } = stretch;
    const rejected = [...this.store.drafts.values()].filter((draft) => (draft.start + draft.end) / 2 >= start && (draft.start + draft.end) / 2 < end);
    this.store.edit([...rejected.map(rejectChange), { op: 'watched', start_s: start, end_s: Math.min(end, data.duration) }]);
    this.setRange(null);
    showToast(`Nothing else happens from ${formatTime(start)} to ${formatTime(end)}${rejected.length ? `; ${count(rejected.length, 'draft')} rejected` : ''}.`);
  }

  // Nothing (else) happens in the whole recording.
  markEmpty() {
    const { isEmpty, events, drafts } = this.store;
    if (events.size) {
      this.store.edit([{ op: 'watched', start_s: 0, end_s: data.duration }]);
      const next = drafts.size ? `${count(drafts.size, 'draft')} ${drafts.size === 1 ? 'is' : 'are'} still open.` : 'n opens the next one.';
      showToast(`Nothing else happens in this recording. ${next}`);
      return;
    }
    this.store.edit([{ op: 'empty', value: !isEmpty }]);
    showToast(isEmpty ? 'The recording is no longer marked as empty.' : 'Nothing happens in this recording. n opens the next one.');
  }

  // Take back the last edit, or apply the one again that was taken back, in the recording that it belongs to.
  async undo(redo) {
    this.watch.stop();
    const { store } = this;
    const last = () => (redo ? store.undone : store.done).at(-1);
    const edit = last();
    if (!edit) return;
    const isOther = edit.id !== store.id;
    await this.open(edit.id);
    if (edit.id !== store.id || edit !== last()) return; // another key was pressed meanwhile
    if (redo) store.redo();
    else store.undo();
    this.select(null);
    const what = edit.changes.every(({ op }) => op === 'watched') ? this.watchedText(edit.changes, redo) : redo ? 'Done again.' : 'Undone.';
    if (isOther) showToast(`${data.name}: ${what}`);
    else if (what.includes('watched')) showToast(what);
  }

  watchedText(changes, isWatched) {
    const [start, end] = [Math.min(...changes.map((change) => change.start_s)), Math.max(...changes.map((change) => change.end_s))];
    return `${formatTime(start)} to ${formatTime(end)} ${isWatched ? 'counts as watched again' : 'no longer counts as watched'}.`;
  }

  // --- page --------------------------------------------------------------------------------------------------------------

  listen() {
    super.listen();
    onClick('frame_back', () => this.player.stepFrames(-1));
    onClick('frame_on', () => this.player.stepFrames(1));
    onClick('undo', () => this.undo(false));
    onClick('redo', () => this.undo(true));
    onClick('next_suggestion', () => this.queue.next());
    // What was clicked does not keep the keyboard: the space bar plays, and Tab goes among events.
    for (const id of ['recording_list', 'suggestion_list']) byId(id).addEventListener('mousedown', (press) => press.preventDefault());
    document.addEventListener('click', (press) => press.detail > 0 && press.target.closest('button')?.blur());
    let pressed = null;
    document.addEventListener('pointerdown', ({ target }) => (pressed = target));
    document.addEventListener('change', ({ target }) => {
      if (target === pressed && target.matches('select')) target.blur();
      pressed = null;
    });
    byId('help').addEventListener('close', () => document.activeElement.blur());
    document.addEventListener('keydown', (press) => this.stepWithTab(press));
    this.topics.on('time events', oncePerFrame(() => this.showCurrentLabels()));
    this.topics.on('saving events', () => this.showSaving());
    this.topics.on('state', () => this.describe());
    this.topics.on('state', () => this.openFirst());
    this.topics.on('events', () => this.store.get(this.selected) || (this.selected = null));
    window.addEventListener('beforeunload', (event) => this.store.unsaved && event.preventDefault());
    window.addEventListener('pagehide', () => this.watch.flush());
  }

  // Tab goes among events where it has nothing else to do: from the page or the timeline, not from a control.
  stepWithTab(press) {
    const isFree = press.target === document.body || press.target === this.timeline.ruler;
    if (press.key !== 'Tab' || !isFree || document.querySelector('dialog[open]') || !this.store.shown.length) return;
    press.preventDefault();
    this.step(press.shiftKey ? -1 : 1);
  }

  changeSpeed(direction) {
    const select = byId('speed');
    this.setSpeed(select.options[clamp(select.selectedIndex + direction, 0, select.options.length - 1)].value);
  }

  setSpeed(rate) {
    byId('speed').value = rate;
    this.player.setSpeed(Number(rate));
  }

  zoomToEvent() {
    const event = this.store.get(this.selected) ?? (this.suggestion && { start: this.suggestion.start_s, end: this.suggestion.end_s });
    if (event) this.view.fit(event.start, event.end);
  }

  // Labels of the current time over the picture.
  showCurrentLabels() {
    const { time } = this.player;
    const labels = this.store.shown.filter((event) => event.state !== 'new' && event.start <= time && time < event.end).map(({ label }) => label);
    const shown = [...new Set(labels)];
    const now = byId('now');
    if (now.dataset.labels === shown.join('\n')) return;
    now.dataset.labels = shown.join('\n');
    now.replaceChildren(...shown.map((label) => make('span', { style: { '--label': labelColour(label) } }, label)));
  }

  describe() {
    const { current } = this.server;
    if (!current) return;
    byId('file').textContent = byId('file').title = current.file;
    byId('notes').hidden = current.notes.length === 0;
    byId('notes').textContent = byId('notes').title = current.notes.join('. ');
    const recording = this.server.recording(this.store.id);
    if (!recording) return;
    byId('recording_name').textContent = recording.name;
    document.title = `${recording.name} · labelling`;
    const watched = recording.duration_s ? clamp(recording.watched_s / recording.duration_s, 0, 1) : 0;
    const facts = [formatLength(data.duration), `${data.size[0]} × ${data.size[1]}`, count(this.store.events.size, 'event')];
    if (this.store.drafts.size) facts.push(count(this.store.drafts.size, 'draft'));
    facts.push(this.store.isEmpty ? 'nothing happens' : `${percent(watched)} watched`);
    byId('facts').textContent = facts.join(' · ');
    this.showLength();
  }

  showSaving() {
    const { pending, unsaved, problem, done, undone } = this.store;
    byId('undo').disabled = done.length === 0;
    byId('redo').disabled = undone.length === 0;
    const failed = problem && unsaved > 0;
    byId('save_state').textContent = failed ? `${count(unsaved, 'change')} not saved` : pending.length ? 'saving …' : this.store.id === null ? '' : 'saved';
    byId('save_state').classList.toggle('failed', Boolean(failed));
    const text = this.trouble();
    byId('banner').hidden = !text;
    if (byId('banner').textContent !== text) byId('banner').textContent = text;
    this.describe();
  }

  // What keeps changes from being saved; empty if nothing does.
  trouble() {
    const { problem, unsaved } = this.store;
    const error = problem ?? this.server.error;
    const kept = unsaved ? ` ${count(unsaved, 'change')} ${unsaved === 1 ? 'is' : 'are'} kept in this page; do not close it.` : '';
    if (!error) return this.server.current?.disk_error ?? '';
    if (error.isForbidden) return `The server was started anew: open the address that it printed.${kept}`;
    if (error.status === undefined) return `The server does not answer. Is vidgru label still running?${kept}`;
    return `${error.message}${kept}`;
  }

  // Explain the keys the first time that the page is opened in this browser.
  greet() {
    if (this.isFirstVisit('vidgru label keys')) byId('help').showModal();
  }
}

new LabelPage();
