// Events on a time axis, with a lane per label. Click and drag to seek; drag the edges of the edited event to move them.
// `curves` are drawn below the lanes; null for none.

const LANE_PX = 20;
const EDGE_PX = 6;
const MIN_TEXT_PX = 18; // width of the shortest text in an event

class Timeline {
  constructor(page, curves) {
    this.page = page;
    this.area = byId('timeline');
    this.ruler = byId('ruler');
    this.scroller = byId('lanes');
    this.canvas = byId('lanes_canvas');
    this.overview = byId('overview');
    this.curves = curves;
    this.lanes = [];
    this.drag = null;
    const redraw = oncePerFrame(() => this.draw());
    const layOut = oncePerFrame(() => this.layOutLanes());
    page.topics.on('events filters found', layOut);
    page.topics.on('view selection', redraw);
    page.topics.on('selection', () => this.revealLane());
    page.topics.on('time view', () => this.movePlayhead());
    this.scroller.addEventListener('scroll', redraw);
    this.scroller.addEventListener('scroll', () => {
      byId('lane_names').style.transform = `translateY(${-this.scroller.scrollTop}px)`;
    });
    darkTheme.addEventListener('change', redraw);
    new ResizeObserver(() => this.layOutLanes()).observe(this.area);
    this.listen();
    this.layOutLanes();
  }

  // --- positions --------------------------------------------------------------------------------------------------------

  x(time) {
    return ((time - this.page.view.start) / this.page.view.length) * this.width;
  }

  timeAt(clientX) {
    const share = (clientX - this.ruler.getBoundingClientRect().left) / this.width;
    return clamp(this.page.view.start + share * this.page.view.length, 0, data.duration);
  }

  // The event under the pointer, the selected one first; undefined if there is none.
  eventAt(pointer) {
    if (pointer.target !== this.canvas) return undefined;
    const label = this.lanes[Math.floor((pointer.offsetY + this.scroller.scrollTop) / LANE_PX)];
    const isNear = ({ start, end }) => pointer.offsetX >= this.x(start) - 2 && pointer.offsetX <= Math.max(this.x(end), this.x(start) + 3) + 2;
    const events = this.page.shownEvents().filter((event) => event.label === label && isNear(event));
    return events.find((event) => event.id === this.page.selected) ?? events.at(-1);
  }

  // Which edge of the edited event the pointer is on: 'start', 'end' or null.
  edgeAt(pointer) {
    const event = this.page.store.get(this.page.selected);
    if (!this.page.editing || !event || pointer.target !== this.canvas) return null;
    const lane = this.lanes.indexOf(event.label) * LANE_PX - this.scroller.scrollTop;
    if (pointer.offsetY < lane || pointer.offsetY > lane + LANE_PX) return null;
    const [toStart, toEnd] = [pointer.offsetX - this.x(event.start), pointer.offsetX - this.x(event.end)];
    if (Math.abs(toEnd) <= EDGE_PX && Math.abs(toEnd) <= Math.abs(toStart)) return 'end';
    return Math.abs(toStart) <= EDGE_PX ? 'start' : null;
  }

  // --- pointer -------------------------------------------------------------------------------------------------------

  listen() {
    const area = byId('time_area');
    area.addEventListener('pointerdown', (pointer) => this.startDrag(pointer));
    area.addEventListener('pointermove', (pointer) => this.moveDrag(pointer));
    area.addEventListener('pointerup', () => this.endDrag());
    area.addEventListener('pointercancel', () => this.endDrag());
    area.addEventListener('pointerleave', () => (byId('hover').hidden = true));
    area.addEventListener('dblclick', (pointer) => {
      const event = this.eventAt(pointer);
      if (event) this.page.view.fit(event.start, event.end);
    });
    area.addEventListener('wheel', (wheel) => this.scroll(wheel), { passive: false });
    const pan = (pointer) => {
      const box = this.overview.getBoundingClientRect();
      const time = ((pointer.clientX - box.left) / box.width) * data.duration;
      this.page.view.set(time - this.page.view.length / 2, this.page.view.length);
    };
    this.overview.addEventListener('pointerdown', (pointer) => {
      this.overview.setPointerCapture(pointer.pointerId);
      pan(pointer);
    });
    this.overview.addEventListener('pointermove', (pointer) => {
      if (this.overview.hasPointerCapture(pointer.pointerId)) pan(pointer);
    });
  }

  startDrag(pointer) {
    const onScrollbar = pointer.target === this.scroller;
    if (pointer.button !== 0 || onScrollbar) return;
    const edge = this.edgeAt(pointer);
    if (edge) {
      const { start, end, label } = this.page.store.get(this.page.selected);
      this.drag = { edge, start, end, label };
    } else {
      const event = this.eventAt(pointer);
      if (event) this.page.select(event.id, { seek: false });
      if (pointer.target === byId('scores')) this.showMoment(pointer);
      this.drag = { edge: null };
      this.page.player.seek(this.timeAt(pointer.clientX));
    }
    byId('time_area').setPointerCapture(pointer.pointerId);
    pointer.preventDefault();
    this.ruler.focus({ preventScroll: true });
  }

  // Show what is at a click on the score curves, about the label whose curve is nearest to it.
  showMoment(pointer) {
    const time = this.timeAt(pointer.clientX);
    const score = 1 - pointer.offsetY / byId('scores').clientHeight;
    const nearest = this.curves.scoresAt(time).sort((a, b) => Math.abs(a.value - score) - Math.abs(b.value - score))[0];
    if (!nearest) return;
    this.page.select(null);
    this.page.moment.show(time, nearest.label);
  }

  moveDrag(pointer) {
    this.showHover(pointer);
    if (!this.drag) {
      this.canvas.style.cursor = this.edgeAt(pointer) ? 'ew-resize' : this.eventAt(pointer) ? 'pointer' : '';
      return;
    }
    const time = this.timeAt(pointer.clientX);
    if (!this.drag.edge) {
      this.page.player.seek(time);
      return;
    }
    const moved = { ...this.drag, [this.drag.edge]: toMilliseconds(time) };
    if (validationError(moved)) return;
    this.drag = moved;
    this.page.player.seek(time);
    this.draw();
  }

  endDrag() {
    const drag = this.drag;
    this.drag = null;
    if (!drag?.edge) return;
    const { start, end } = this.page.store.get(this.page.selected);
    if (drag.start !== start || drag.end !== end) this.page.store.change(this.page.selected, { start: drag.start, end: drag.end });
  }

  scroll(wheel) {
    if (wheel.target.closest('#lanes') && this.scroller.scrollHeight > this.scroller.clientHeight && !wheel.ctrlKey) return;
    wheel.preventDefault();
    const sideways = wheel.shiftKey ? wheel.deltaX || wheel.deltaY : Math.abs(wheel.deltaX) > Math.abs(wheel.deltaY) ? wheel.deltaX : 0;
    if (sideways) this.page.view.pan((sideways / this.width) * this.page.view.length);
    else this.page.view.zoom(wheel.deltaY < 0 ? 0.8 : 1.25, this.timeAt(wheel.clientX));
  }

  showHover(pointer) {
    const time = this.timeAt(pointer.clientX);
    const event = this.eventAt(pointer);
    const text = event ? ` · ${event.label}${event.score === null ? '' : ` ${percent(event.score)}`}` : this.curves?.describe(pointer.target, time) ?? '';
    const hover = byId('hover');
    hover.hidden = false;
    hover.style.left = `${this.x(time)}px`;
    byId('hover_text').textContent = formatTime(time) + text;
    byId('hover_caption').textContent = event?.description ?? '';
    byId('hover_caption').classList.toggle('template', Boolean(event?.isTemplate));
    hover.classList.toggle('left', this.x(time) > this.width * 0.6);
  }

  // --- drawing -------------------------------------------------------------------------------------------------------

  laneLabels() {
    const labels = new Set(this.page.shownEvents().map((event) => event.label));
    return this.page.store.labels().filter((label) => labels.has(label));
  }

  layOutLanes() {
    this.lanes = this.laneLabels();
    byId('lane_names').replaceChildren(
      ...this.lanes.map((label) => make('div', { class: 'lane_name', title: label, style: { '--label': labelColour(label) } }, label)),
    );
    const height = this.lanes.length * LANE_PX;
    this.area.style.setProperty('--lanes-height', `${height}px`);
    byId('lane_body').style.height = `${height}px`;
    this.canvas.style.height = `${this.scroller.clientHeight}px`;
    this.scroller.classList.toggle('more', height > this.scroller.clientHeight);
    this.draw();
  }

  revealLane() {
    const top = this.lanes.indexOf(this.page.store.get(this.page.selected)?.label) * LANE_PX;
    const { scrollTop, clientHeight } = this.scroller;
    if (top >= 0) this.scroller.scrollTop = clamp(scrollTop, top + LANE_PX - clientHeight, top);
  }

  draw() {
    this.width = this.ruler.clientWidth; // reading it for each of thousands of events would take most of the time
    this.drawRuler();
    this.drawLanes();
    this.drawOverview();
    this.curves?.draw();
    this.movePlayhead();
  }

  movePlayhead() {
    const time = this.page.player.time;
    const { start, end, whole } = this.page.view;
    if (!this.page.player.paused && !whole && !this.drag && (time > end || time < start)) {
      this.page.view.set(time - this.page.view.length * 0.05, this.page.view.length);
      return;
    }
    const playhead = byId('playhead');
    playhead.hidden = time < start || time > end;
    playhead.style.transform = `translateX(${this.x(time)}px)`;
    this.ruler.setAttribute('aria-valuenow', time.toFixed(1));
    this.ruler.setAttribute('aria-valuetext', formatTime(time));
  }

  drawRuler() {
    const { context, width, height } = prepareCanvas(this.ruler);
    const { start, end, length } = this.page.view;
    const step = axisStep(length, width / 90);
    context.fillStyle = themeColour('muted');
    context.strokeStyle = themeColour('line');
    context.font = '11px system-ui, sans-serif';
    context.beginPath();
    for (let tick = Math.ceil(start / step - 1e-9); tick * step <= end; tick++) {
      const x = Math.round(this.x(tick * step)) + 0.5;
      context.moveTo(x, height - 5);
      context.lineTo(x, height);
      context.fillText(formatTime(tick * step, step < 1 ? 1 : 0), x + 4, height - 6);
    }
    context.stroke();
    this.drawStill(context, height - 3, 3, (time) => this.x(time), width);
  }

  // Mark the still stretches of adaptive extraction, whose frames were not decoded.
  drawStill(context, y, height, x, width) {
    context.fillStyle = themeColour('muted');
    context.globalAlpha = 0.45;
    for (const [start, end] of data.still ?? []) {
      const [left, right] = [Math.max(x(start / 1000), 0), Math.min(x(end / 1000), width)];
      if (right > left) context.fillRect(left, y, right - left, height);
    }
    context.globalAlpha = 1;
  }

  drawLanes() {
    const { context, width, height } = prepareCanvas(this.canvas);
    const top = this.scroller.scrollTop;
    this.drawBackground(context, width, top);
    const rows = new Map(this.lanes.map((label, lane) => [label, lane * LANE_PX - top]));
    const drawn = new Map(); // last pixel covered per lane: of very many events few are drawn
    for (const event of this.page.shownEvents()) {
      const isSelected = event.id === this.page.selected;
      const shown = isSelected && this.drag?.edge ? { ...event, ...this.drag } : event;
      const [left, right, y] = [this.x(shown.start), Math.max(this.x(shown.end), this.x(shown.start) + 2), rows.get(event.label)];
      if (right < 0 || left > width || y < -LANE_PX || y > height) continue;
      if (!isSelected && right <= (drawn.get(event.label) ?? -1)) continue;
      drawn.set(event.label, Math.ceil(right));
      this.drawEvent(context, event, left, right - left, y + 2, isSelected);
    }
  }

  drawBackground(context, width, top) {
    context.fillStyle = themeColour('lane');
    this.lanes.forEach((_, lane) => context.fillRect(0, lane * LANE_PX + 2 - top, width, LANE_PX - 4));
  }

  drawEvent(context, event, x, width, y, isSelected) {
    const height = LANE_PX - 4;
    const isNew = event.state === 'new';
    context.fillStyle = context.strokeStyle = labelColour(event.label);
    context.globalAlpha = isNew ? 0.15 : this.page.thresholds?.isLost(event) ? 0.3 : isSelected ? 1 : 0.82;
    context.beginPath();
    context.roundRect(x, y, width, height, Math.min(3, width / 2));
    context.fill();
    context.globalAlpha = 1;
    if (isNew) {
      context.setLineDash([4, 3]);
      context.lineWidth = 1.5;
      context.stroke();
      context.setLineDash([]);
    }
    if (isSelected) {
      context.strokeStyle = themeColour('text');
      context.lineWidth = 2;
      context.stroke();
      if (this.page.editing) {
        context.fillStyle = themeColour('text');
        context.fillRect(x - 2, y - 1, 4, height + 2);
        context.fillRect(x + width - 2, y - 1, 4, height + 2);
      }
    }
    if (width < MIN_TEXT_PX) return;
    const marks = { confirmed: '✓', edited: '✎', added: '+' };
    const text = [marks[event.state], event.score === null ? null : percent(event.score)].filter(Boolean).join(' ');
    context.font = '600 11px system-ui, sans-serif';
    if (width > context.measureText(text).width + 12) {
      context.fillStyle = isNew ? themeColour('text') : '#0b0f14';
      context.fillText(text, Math.max(x, 0) + 6, y + 12);
    }
  }

  drawOverview() {
    const { context, width, height } = prepareCanvas(this.overview);
    const scale = width / data.duration;
    context.fillStyle = themeColour('lane');
    context.fillRect(0, 0, width, height);
    let last = -1;
    for (const event of this.page.shownEvents()) {
      const right = Math.max(event.end * scale, event.start * scale + 1);
      if (right <= last) continue;
      last = right;
      context.fillStyle = labelColour(event.label);
      context.globalAlpha = event.state === 'new' ? 0.35 : 1;
      context.fillRect(event.start * scale, 3, right - event.start * scale, height - 6);
    }
    context.globalAlpha = 1;
    this.drawStill(context, height - 3, 3, (time) => time * scale, width);
    const { start, length, whole } = this.page.view;
    if (whole) return;
    context.strokeStyle = themeColour('text');
    context.lineWidth = 1.5;
    context.strokeRect(start * scale + 0.75, 0.75, Math.max(length * scale - 1.5, 4), height - 1.5);
  }
}
// --- visible interval ---

const MIN_LENGTH_S = 1;

class View {
  constructor(topics) {
    this.topics = topics;
    this.start = 0;
    this.end = data.duration;
  }

  get length() {
    return this.end - this.start;
  }

  get whole() {
    return this.length >= data.duration - 1e-6;
  }

  set(start, length) {
    const fitting = clamp(length, Math.min(MIN_LENGTH_S, data.duration), data.duration);
    this.start = clamp(start, 0, data.duration - fitting);
    this.end = this.start + fitting;
    this.topics.emit('view');
  }

  // Zoom, keeping a time at its position.
  zoom(factor, time) {
    const length = clamp(this.length * factor, Math.min(MIN_LENGTH_S, data.duration), data.duration);
    this.set(time - ((time - this.start) / this.length) * length, length);
  }

  pan(seconds) {
    this.set(this.start + seconds, this.length);
  }

  // Move so that an interval is visible; do nothing if it is.
  reveal(start, end = start) {
    if (start >= this.start && end <= this.end) return;
    const middle = end - start > this.length * 0.9 ? start + this.length * 0.4 : (start + end) / 2;
    this.set(middle - this.length / 2, this.length);
  }

  fit(start, end) {
    const margin = Math.max((end - start) * 0.6, 2);
    this.set(start - margin, end - start + 2 * margin);
  }
}
