// The panels around the player: recordings with their states, suggested stretches, training with its learning curve, and the
// selection with what can be done with it.

const WATCHED_SHARE = 0.98; // from which a recording counts as watched
const FEW_SUGGESTIONS = 3; // more are requested when no more are left
const FEW_LABELS = 10; // with fewer, the figure of a model is a guess
const FEW_MEASURED = 5; // with fewer held-out events or clips, there is no figure: 0, 0.5 and 1 are all it can be

function isFinished({ is_empty: isEmpty, watched_s: watched, duration_s: duration }) {
  return isEmpty || (duration > 0 && watched >= WATCHED_SHARE * duration);
}

// --- recordings -----------------------------------------------------------------------------------------------------------

const RECORDING_PX = 44;

class RecordingList {
  constructor(page) {
    this.page = page;
    this.box = byId('recording_list');
    this.rows = new VirtualList(this.box, RECORDING_PX, (recording) => this.row(recording));
    const show = oncePerFrame(() => this.show());
    page.topics.on('state open', show);
    for (const id of ['recording_search', 'recording_filter']) byId(id).addEventListener('input', show);
    // Rows are replaced while extraction makes progress, perhaps between press and release: the list listens for them.
    this.box.addEventListener('click', (click) => {
      const recording = this.rows.itemAt(click.clientY);
      if (recording) page.open(recording.id);
    });
  }

  get all() {
    return this.page.server.current?.recordings ?? [];
  }

  // Recordings that match the filters.
  matching() {
    const words = byId('recording_search').value.toLowerCase().split(/\s+/).filter(Boolean);
    const filter = byId('recording_filter').value;
    return this.all.filter((recording) => {
      if (filter && isFinished(recording) !== (filter === 'done')) return false;
      return words.every((word) => recording.name.toLowerCase().includes(word));
    });
  }

  show() {
    const recordings = this.matching();
    this.rows.show(recordings);
    const done = this.all.filter(isFinished).length;
    byId('recording_count').textContent = count(this.all.length, 'recording');
    byId('done_count').textContent = done ? `${done.toLocaleString('en')} done` : '';
    byId('no_recordings').hidden = recordings.length > 0 || this.page.server.current === null;
    this.box.setAttribute('aria-activedescendant', `recording_${this.page.store.id}`);
  }

  reveal() {
    const index = this.rows.items.findIndex(({ id }) => id === this.page.store.id);
    if (index >= 0) this.rows.reveal(index);
  }

  // The next recording that is not done, of those whose features are ready if there are any; else the next one.
  next() {
    const recordings = this.matching();
    const index = recordings.findIndex(({ id }) => id === this.page.store.id);
    const after = [...recordings.slice(index + 1), ...recordings.slice(0, Math.max(index, 0))];
    const todo = after.filter((recording) => !isFinished(recording) && recording.duration_s);
    return todo.find(({ state }) => state === 'ready') ?? todo[0] ?? after[0];
  }

  previous() {
    const recordings = this.matching();
    return recordings[recordings.findIndex(({ id }) => id === this.page.store.id) - 1];
  }

  row(recording) {
    const { id, name, events, watched_s: watched, duration_s: duration, state, reason } = recording;
    const selected = id === this.page.store.id;
    const share = recording.is_empty ? 1 : duration ? clamp(watched / duration, 0, 1) : 0;
    const mark = isFinished(recording) ? make('span', { class: 'mark' }, recording.is_empty ? '✓ empty' : '✓ done') : null;
    const top = make('span', { class: 'line' }, make('span', { class: 'name path' }, make('bdi', {}, name)), mark);
    const facts = make('span', { class: `state ${state}` }, this.describe(recording));
    const bar = make('span', { class: 'watched_bar', title: `${percent(share)} watched`, style: { '--share': share } });
    const bottom = make('span', { class: 'line small' }, facts, make('span', {}, events ? count(events, 'event') : ''), state === 'failed' ? null : bar);
    return make('div', { class: 'row recording', role: 'option', id: `recording_${id}`, title: reason ? `${name}\n${reason}` : name, aria: { selected } }, top, bottom);
  }

  describe({ state, progress, reason, drafts, duration_s: duration }) {
    if (state === 'failed') return reason ? `failed: ${reason}` : 'failed';
    if (state === 'extracting') return `reading ${percent(progress)}`;
    return [formatTime(duration, 0), drafts ? count(drafts, 'draft') : state === 'queued' ? 'queued' : ''].filter(Boolean).join(' · ');
  }
}

// --- suggestions ----------------------------------------------------------------------------------------------------------

const SUGGESTION_PX = 64;
const MAX_SUGGESTION_SPEED = 2; // faster is for searching a recording, not for seeing when an event starts

function suggestionKey({ recording, start_s: start }) {
  return `${recording} ${Math.round(start)}`;
}

class SuggestionQueue {
  constructor(page) {
    this.page = page;
    this.box = byId('suggestion_list');
    this.items = [];
    this.current = null; // the stretch that was opened last
    this.visited = new Set(); // stretches that were opened, and are not suggested again
    this.basis = null; // what the last list was made from
    this.rows = new VirtualList(this.box, SUGGESTION_PX, (item) => this.row(item));
    page.topics.on('state', () => this.follow());
    page.topics.on('state events media', oncePerFrame(() => this.prune()));
    this.box.addEventListener('click', (click) => {
      const item = this.rows.itemAt(click.clientY);
      if (item) this.open(item);
    });
  }

  // Request a new list when training has ended or more recordings are ready.
  follow() {
    const { training, recordings } = this.page.server.current;
    const basis = JSON.stringify([training.state, recordings.filter(({ state }) => state === 'ready').length]);
    if (basis === this.basis) return;
    this.basis = basis;
    this.request();
  }

  async request() {
    try {
      const items = await request('suggestions?n=20');
      const open = this.items.filter((item) => item === this.current);
      this.items = [...open, ...items.filter((item) => !this.visited.has(suggestionKey(item)))];
    } catch {
      this.basis = null; // again with the next state
    }
    this.items = this.items.filter((item) => !this.isAnswered(item));
    this.show();
  }

  // Drop stretches of the open recording that were labelled or watched since, and those of recordings that are done.
  prune() {
    const items = this.items.filter((item) => !this.isAnswered(item));
    if (items.length === this.items.length) return;
    this.items = items;
    this.show();
    if (items.length < FEW_SUGGESTIONS) this.request();
  }

  // The server reports what was watched of the open recording only. The current stretch stays while it is played.
  isAnswered(item) {
    const { page } = this;
    if (item === this.current && !page.player.paused) return false;
    const { id } = page.store;
    const recording = page.server.recording(item.recording);
    if (item.recording === id) return page.store.isCovered(item.start_s, item.end_s);
    return recording !== undefined && isFinished(recording);
  }

  show() {
    this.rows.show(this.items);
    byId('no_suggestions').hidden = this.items.length > 0;
    byId('no_suggestions').textContent = 'There is nothing to suggest now.';
  }

  next() {
    const index = this.items.indexOf(this.current);
    const item = this.items[index + 1];
    if (index >= 0) this.items.splice(index, 1);
    if (item) this.open(item);
    else showToast('There are no more suggestions now. n opens the next recording.');
    if (this.items.length < FEW_SUGGESTIONS) this.request();
  }

  async open(item) {
    this.current = item;
    this.visited.add(suggestionKey(item));
    this.show();
    this.rows.reveal(Math.max(this.items.indexOf(item), 0));
    await this.page.open(item.recording);
    if (this.page.store.id !== item.recording) return;
    this.page.view.fit(item.start_s, item.end_s);
    this.page.select(this.page.store.draftIn(item.start_s, item.end_s)?.id ?? null, { seek: false });
    if (this.page.player.video.playbackRate > MAX_SUGGESTION_SPEED) this.page.setSpeed(MAX_SUGGESTION_SPEED);
    this.page.player.playStretch(item.start_s, item.end_s);
  }

  row(item) {
    const name = this.page.server.recording(item.recording)?.name ?? '';
    const times = `${formatTime(item.start_s)} – ${formatTime(item.end_s)}`;
    const label = item.label ? make('span', { class: 'dot small', style: { '--label': labelColour(item.label) } }, item.label) : null;
    const lines = [
      make('span', { class: 'line' }, make('span', { class: 'name' }, item.reason), label),
      make('span', { class: 'small path muted' }, make('bdi', {}, name)),
      make('span', { class: 'small' }, times),
    ];
    return make('div', { class: 'row suggestion', role: 'option', title: `${item.reason}\n${name}, ${times}`, aria: { selected: item === this.current } }, ...lines);
  }
}

// --- training -------------------------------------------------------------------------------------------------------------

class TrainingPanel {
  constructor(page) {
    this.page = page;
    this.canvas = byId('curve');
    const show = oncePerFrame(() => this.show());
    page.topics.on('state', show);
    darkTheme.addEventListener('change', show);
    new ResizeObserver(show).observe(this.canvas);
    byId('train').addEventListener('click', () => this.train());
  }

  async train() {
    try {
      await request('train', {});
    } catch (error) {
      showToast(error.message);
    }
  }

  show() {
    const { current } = this.page.server;
    if (!current) return;
    const { state, message, new_labels: added, needed, curve } = current.training;
    const { enabled, reason } = current.features;
    const running = state === 'running';
    const canTrain = enabled || current.recordings.some((recording) => recording.state === 'ready');
    byId('train').disabled = !canTrain || running;
    byId('training_progress').hidden = !canTrain || !(running || needed);
    byId('training_progress').classList.toggle('running', running);
    byId('training_progress').style.setProperty('--share', needed ? clamp(added / needed, 0, 1) : 0);
    byId('training_text').textContent = running ? message : [message, this.due(added, needed)].filter(Boolean).join('. ');
    byId('training_text').classList.toggle('error', state === 'failed');
    byId('no_features').textContent = enabled ? '' : `No features: ${reason}`;
    this.showCurve(curve);
  }

  due(added, needed) {
    if (!needed) return `${count(added, 'label')} since the last training`;
    return added < needed ? `${count(needed - added, 'more label')} until the next training` : 'The next training starts when features are ready.';
  }

  showCurve(curve) {
    const last = curve.at(-1);
    const points = curve.filter(({ metric, measured }) => metric === last.metric && measured >= FEW_MEASURED);
    this.canvas.hidden = !points.length;
    byId('curve_text').hidden = !last;
    if (!last) return;
    byId('curve_text').textContent = last.measured < FEW_MEASURED ? this.noFigure(last) : this.figure(last);
    this.canvas.setAttribute('aria-label', `Learning curve: ${byId('curve_text').textContent}`);
    if (points.length) this.drawCurve(points);
  }

  noFigure({ metric, measured, labels }) {
    const unit = count(measured, metric === 'event_f1' ? 'held-out event' : 'held-out clip');
    return `${count(labels, 'label')}: too few to tell how good the model is (measured on ${unit})`;
  }

  figure({ metric, value, low, high, labels }) {
    const name = { event_f1: 'Event F1' }[metric] ?? metric;
    const interval = low === null ? '' : ` (95 %: ${low.toFixed(2)} to ${high.toFixed(2)})`;
    const doubt = labels < FEW_LABELS ? ' (few labels: a guess)' : '';
    return `${name} ${value.toFixed(2)}${interval}, ${count(labels, 'label')}${doubt}`;
  }

  drawCurve(points) {
    const { context, width, height } = prepareCanvas(this.canvas);
    const [left, right, top, bottom] = [30, width - 10, 8, height - 30];
    const most = Math.max(...points.map(({ labels }) => labels), 1);
    const x = (labels) => left + (labels / most) * (right - left);
    const y = (value) => bottom - clamp(value, 0, 1) * (bottom - top);
    context.font = '11px system-ui, sans-serif';
    context.lineWidth = 1;
    context.strokeStyle = themeColour('line');
    context.fillStyle = themeColour('muted');
    for (const value of [0, 0.25, 0.5, 0.75, 1]) {
      context.beginPath();
      context.moveTo(left, Math.round(y(value)) + 0.5);
      context.lineTo(right, Math.round(y(value)) + 0.5);
      context.stroke();
      context.textAlign = 'right';
      if (value % 0.5 === 0) context.fillText(value.toFixed(1), left - 6, y(value) + 4);
    }
    const step = labelStep(most);
    context.textAlign = 'center';
    for (let tick = 0; tick <= most; tick += step) context.fillText(String(tick), x(tick), bottom + 14);
    context.fillText('labels', (left + right) / 2, height - 3);
    this.drawPoints(context, points, x, y);
    context.textAlign = 'left';
  }

  drawPoints(context, points, x, y) {
    context.strokeStyle = context.fillStyle = themeColour('strong');
    const known = points.filter(({ low }) => low !== null);
    if (known.length > 1) {
      context.globalAlpha = 0.16;
      context.beginPath();
      for (const { labels, high } of known) context.lineTo(x(labels), y(high));
      for (const { labels, low } of known.toReversed()) context.lineTo(x(labels), y(low));
      context.fill();
      context.globalAlpha = 1;
    }
    context.lineWidth = 1.75;
    context.beginPath();
    for (const { labels, value } of points) context.lineTo(x(labels), y(value));
    context.stroke();
    for (const { labels, value, low, high } of points) {
      context.beginPath();
      context.arc(x(labels), y(value), 3, 0, 2 * Math.PI);
      context.fill();
      if (low === null) continue;
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(x(labels), y(low));
      context.lineTo(x(labels), y(high));
      context.stroke();
    }
  }
}

// Distance between the ticks of an axis that counts labels: about five, at 1, 2 or 5 times a power of ten.
function labelStep(most) {
  const power = 10 ** Math.floor(Math.log10(Math.max(most / 5, 1)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => most / step <= 6);
}

// Seconds of `7.16`, `1:07.16` or `1:02:07`; NaN if it is something else.
function parseTime(text) {
  const parts = text.trim().replace(',', '.').split(':').map((part) => (/^\d*\.?\d+$/.test(part) ? Number(part) : NaN));
  return toMilliseconds(parts.reduce((sum, part) => sum * 60 + part, 0));
}

// --- selection panel ------------------------------------------------------------------------------------------------------

// Names what is selected or marked, what can be done with it, and asks for labels and descriptions.
class ActionPanel {
  constructor(page) {
    this.page = page;
    page.topics.on('selection events range open', oncePerFrame(() => this.show()));
    this.listenToForm('label', () => this.enterLabel());
    this.listenToForm('description', () => this.enterDescription());
    this.listenToForm('times', () => this.enterTimes());
    byId('description_input').addEventListener('keydown', (press) => {
      if (press.key !== 'Enter' || press.shiftKey || press.isComposing) return;
      press.preventDefault();
      this.enterDescription();
    });
    this.show();
  }

  listenToForm(name, enter) {
    byId(`${name}_form`).addEventListener('submit', (submit) => {
      submit.preventDefault();
      enter();
    });
    byId(`${name}_form`).addEventListener('keydown', (press) => press.key === 'Escape' && this.closeForms());
  }

  closeForms() {
    document.activeElement?.closest('#actions form') && document.activeElement.blur();
    for (const name of ['label', 'description', 'times']) byId(`${name}_form`).hidden = true;
    this.show();
  }

  askLabel() {
    byId('known_labels').replaceChildren(...this.page.store.labels().map((label) => make('option', { value: label })));
    byId('label_error').textContent = byId('label_input').value = '';
    this.openForm('label');
  }

  askDescription() {
    byId('description_input').value = this.page.store.get(this.page.selected).description;
    this.openForm('description');
  }

  askTimes() {
    const { start, end } = this.page.store.get(this.page.selected);
    byId('times_error').textContent = '';
    byId('times_input').value = start.toFixed(3);
    byId('end_input').value = end.toFixed(3);
    this.openForm('times');
    byId('times_input').select();
  }

  openForm(name) {
    this.closeForms();
    this.page.player.video.pause();
    byId(`${name}_form`).hidden = byId('action_text').hidden = false;
    byId('action_text').hidden = true;
    byId(`${name}_input`).focus();
  }

  enterLabel() {
    const label = tidyLabel(byId('label_input').value);
    byId('label_error').textContent = validationError({ start: 0, end: data.duration, label });
    if (byId('label_error').textContent) return;
    this.closeForms();
    this.page.choose(label);
  }

  enterDescription() {
    const { page } = this;
    const description = byId('description_input').value.trim();
    this.closeForms();
    if (page.store.get(page.selected)) page.select(page.store.change(page.selected, { description }), { seek: false });
  }

  enterTimes() {
    const { page } = this;
    const event = page.store.get(page.selected);
    const [start, end] = ['times_input', 'end_input'].map((id) => parseTime(byId(id).value));
    byId('times_error').textContent = event ? validationError({ ...event, start, end }) : '';
    if (byId('times_error').textContent) return;
    this.closeForms();
    if (event) page.changeTimes({ start, end });
  }

  show() {
    const { page } = this;
    const event = page.store.get(page.selected);
    const isDraft = event?.state === 'new';
    byId('actions').style.setProperty('--label', event ? labelColour(event.label) : 'var(--line)');
    byId('action_text').hidden = ['label', 'description', 'times'].some((name) => !byId(`${name}_form`).hidden);
    if (page.range) this.showRange(page.range);
    else if (isDraft) this.set(`Draft: ${event.label}`, `${this.times(event)} · score ${percent(event.score)}`, 'A number accepts it with another label; so does dragging its edges.', ['a', 'r', 'e']);
    else if (event) this.set(event.label, this.times(event), event.description || 'No description.', ['d', 'e', 'l', 'Del']);
    else this.showNothing();
  }

  showRange({ start, end }) {
    const time = (value) => (value === null ? '…' : formatTime(value, 2));
    const text = end === null ? 'Go to its end and press o, or the number of its label.' : start === null ? 'Go to its start and press i.' : this.labelKeys();
    this.set('New event', `${time(start)} – ${time(end)}`, text, start === null || end === null ? ['i', 'o', 'l'] : ['l', 'x']);
  }

  // Names the labels, as the lane of a label may be out of sight.
  labelKeys() {
    const keys = this.page.store.labels().slice(0, 9).map((label, index) => `${index + 1}\u00a0${label}`);
    return keys.length ? `Press the number of its label: ${keys.join(', ')}.` : 'Press l to type its label, or x if nothing happens.';
  }

  showNothing() {
    const { store } = this.page;
    if (store.id === null) this.set('', '', '', []);
    else if (store.isEmpty) this.set('Nothing happens in this recording', '', 'n opens the next recording.', ['X']);
    else this.set('Nothing selected', '', 'Press i where an event starts, o where it ends, then the number of its label.', ['i', 'o', 'x', 'X']);
  }

  times({ start, end }) {
    return `${formatTime(start, 2)} – ${formatTime(end, 2)} (${formatLength(end - start)})`;
  }

  set(title, times, text, keys) {
    const { page } = this;
    const buttons = {
      i: ['Start', () => page.setEdge('start', false)],
      o: ['End', () => page.setEdge('end', false)],
      l: ['Label', () => page.askLabel()],
      x: ['Nothing here', () => page.markNothing()],
      X: [page.store.isEmpty ? 'Not empty' : page.store.events.size ? 'Nothing else' : 'Empty', () => page.markEmpty()],
      a: ['Accept', () => page.accept()],
      r: ['Reject', () => page.reject()],
      d: ['Describe', () => page.askDescription()],
      e: ['Times', () => page.askTimes()],
      Del: ['Delete', () => page.remove()],
    };
    byId('action_title').textContent = title;
    byId('action_times').textContent = times;
    byId('action_text').textContent = text;
    const shown = [...keys, buttons.X[0]].join(' ');
    if (byId('action_buttons').dataset.keys === shown) return; // a replaced button would lose a click in progress
    byId('action_buttons').dataset.keys = shown;
    const button = (key) => make('button', { type: 'button', data: { key }, on: { click: buttons[key][1] } }, buttons[key][0], make('kbd', {}, key === 'X' ? 'Shift X' : key));
    byId('action_buttons').replaceChildren(...keys.map(button));
  }
}
