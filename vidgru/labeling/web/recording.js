// The open recording: its video frame by frame, what was watched of it, a copy that browsers can play, and its timeline.

const WATCHED_EVERY_MS = 3000; // how often watched stretches are posted
const MAX_STEP_S = 1; // between two times of a playing video, at normal speed; after a longer one a new stretch begins
const COPY_EVERY_MS = 500; // how often the progress of a playable copy is requested
const PRESENTED_MS = 150; // from a seek until the browser has said which frame it shows
const MIN_DRAG_PX = 4; // less is a click

// Files have milliseconds. Rounded down, because a start that is rounded up would exclude its own frame.
function floorToMilliseconds(seconds) {
  return Math.floor(seconds * 1000 + 1e-6) / 1000;
}

// --- playing --------------------------------------------------------------------------------------------------------------

class LabelPlayer extends Player {
  constructor(topics) {
    super(topics);
    this.unplayable = '';
    this.stopAt = null;
    this.frameTimes = null; // of all frames; null if they are evenly spaced
    this.checking = null; // timer
    topics.on('time', () => this.stopAtEnd());
    topics.on('time media', () => this.checkFrame());
    this.still.addEventListener('load', () => this.coverFrame());
  }

  // Open `data.video`; null for a format that browsers cannot play.
  open(frameTimes) {
    this.mode = 'video';
    this.unplayable = '';
    this.frameTimes = frameTimes;
    this.frameTime = null;
    this.stillTime = 0;
    this.stopAt = null;
    this.still.removeAttribute('src');
    this.video.hidden = false;
    if (data.video !== null) this.video.src = data.video;
    else {
      this.video.removeAttribute('src');
      this.video.load();
      this.useStills('Browsers cannot play the format of this recording.');
    }
    this.topics.emit('media');
    this.topics.emit('time');
  }

  useStills(reason) {
    if (this.mode === 'still') return;
    this.stillTime = this.time;
    this.mode = 'still';
    this.video.hidden = true;
    this.unplayable = reason;
    this.topics.emit('media');
  }

  reason() {
    return 'This browser cannot play the recording.';
  }

  // --- frames: one is shown from its time to the next one's ---

  frameIndex(time) {
    if (this.frameTimes === null) return Math.max(Math.floor(time * data.fps + 1e-4), 0);
    return Math.max(lowerBound(this.frameTimes, time + 1e-4, true) - 1, 0);
  }

  frameStart(index) {
    if (this.frameTimes === null) return Math.min(index / data.fps, data.duration);
    return this.frameTimes[index] ?? data.duration;
  }

  // Interval of the current frame.
  get frame() {
    const index = this.frameIndex(this.time);
    return { start: floorToMilliseconds(this.frameStart(index)), end: floorToMilliseconds(Math.min(this.frameStart(index + 1), data.duration)) };
  }

  // Of videos with B frames and uneven times, Chromium 150 shows a neighbour of some frames, even at their middle. The
  // server then sends the right one, which covers the other.
  checkFrame() {
    this.coverFrame();
    clearTimeout(this.checking);
    if (!this.isWrongFrame) return;
    this.checking = setTimeout(() => {
      if (this.isWrongFrame) this.still.setAttribute('src', this.pictureAddress);
    }, PRESENTED_MS);
  }

  coverFrame() {
    this.still.hidden = !(this.isWrongFrame && this.still.complete && this.still.getAttribute('src') === this.pictureAddress);
  }

  get isWrongFrame() {
    if (this.mode === 'still' || this.frameTimes === null || this.frameTime === null || !this.paused || this.video.seeking) return false;
    return this.frameIndex(this.frameTime) !== this.frameIndex(this.time);
  }

  // Address of a picture of the current frame.
  get pictureAddress() {
    const ms = Math.ceil(this.frameStart(this.frameIndex(this.time)) * 1000 - 1e-3);
    return data.video.replace('/video?', `/frame?ms=${ms}&`);
  }

  // Seek to the middle of a frame, so that rounding never shows its neighbour.
  stepFrames(number) {
    this.video.pause();
    const last = this.frameTimes === null ? Math.ceil(data.duration * data.fps - 1e-4) - 1 : this.frameTimes.length - 1;
    const index = clamp(this.frameIndex(this.time) + number, 0, Math.max(last, 0));
    this.seek((this.frameStart(index) + this.frameStart(index + 1)) / 2);
  }

  seekToFrameOf(time) {
    const index = this.frameIndex(time);
    this.seek((this.frameStart(index) + this.frameStart(index + 1)) / 2);
  }

  seek(seconds) {
    this.stopAt = null;
    super.seek(seconds);
  }

  toggle() {
    this.stopAt = null;
    super.toggle();
  }

  // Play a stretch and stop at its last frame.
  playStretch(start, end) {
    this.seekToFrameOf(start);
    this.stopAt = end;
    if (this.mode === 'video') this.video.play().catch(() => this.topics.emit('media'));
  }

  stopAtEnd() {
    if (this.stopAt === null || this.video.seeking || (this.time < this.stopAt && !this.video.ended)) return;
    this.video.pause();
    this.seekToFrameOf(this.stopAt - 1e-3); // frames are shown for longer than that
  }
}

// Collects what was played, not what was skipped, and posts it every few seconds.
class WatchTracker {
  constructor(page) {
    this.page = page;
    this.stretch = null; // { start, end, posted, edit }: played without a gap; it is posted up to `posted`
    page.topics.on('time', () => this.follow());
    page.topics.on('media', () => page.player.paused && this.flush());
    setInterval(() => this.flush(), WATCHED_EVERY_MS);
  }

  follow() {
    const { player } = this.page;
    if (player.paused || player.video.seeking || document.hidden) return;
    const { end } = player.frame;
    const isNext = this.stretch && end >= this.stretch.end && end - this.stretch.end < MAX_STEP_S * Math.max(player.video.playbackRate, 1);
    if (isNext) {
      this.stretch.end = end;
      return;
    }
    this.flush();
    this.stretch = { start: player.frame.start, end, posted: player.frame.start, edit: null };
  }

  flush() {
    const { stretch } = this;
    if (!stretch || stretch.end <= stretch.posted) return;
    stretch.edit = this.page.store.addPlayed(stretch.posted, stretch.end, stretch.edit);
    stretch.posted = stretch.end;
  }

  // Post what was played; what is played from now on is another stretch.
  stop() {
    this.flush();
    this.stretch = null;
  }
}

// A copy that the browser can play, made by the server.
class PlayableCopy {
  constructor(page) {
    this.page = page;
    this.copies = new Map(); // state per recording
    byId('make_copy').addEventListener('click', () => this.make());
    page.topics.on('media open', () => this.show());
  }

  // Show the copy of a recording that was made earlier, or is being made, if there is one.
  find(id) {
    this.follow(id, undefined);
  }

  make() {
    const isMaking = ['queued', 'running'].includes(this.copies.get(this.page.store.id)?.state);
    if (this.page.player.mode === 'still' && !isMaking) this.follow(this.page.store.id, {});
  }

  async follow(id, body) {
    const path = `recordings/${encodeURIComponent(id)}/proxy`;
    try {
      this.set(id, await request(path, body));
      while (['queued', 'running'].includes(this.copies.get(id).state)) {
        await pause(COPY_EVERY_MS);
        this.set(id, await request(path));
      }
    } catch (error) {
      this.set(id, { state: 'failed', reason: error.message });
    }
    if (this.copies.get(id).state === 'ready' && id === this.page.store.id) this.page.showVideo();
  }

  set(id, copy) {
    this.copies.set(id, copy);
    this.show();
  }

  show() {
    const { player, store } = this.page;
    const copy = this.copies.get(store.id);
    byId('unplayable').hidden = player.mode === 'video';
    const isMaking = ['queued', 'running'].includes(copy?.state);
    byId('make_copy').hidden = isMaking;
    const failed = copy?.state === 'failed' ? `No playable copy could be made: ${copy.reason}` : player.unplayable;
    byId('unplayable_text').textContent = isMaking ? `Making a playable copy: ${percent(copy.progress ?? 0)}` : failed;
  }
}

// --- timeline -------------------------------------------------------------------------------------------------------------

class LabelTimeline extends Timeline {
  constructor(page) {
    super(page, null);
    page.topics.on('state', () => this.lanes.join('\n') === this.laneLabels().join('\n') || this.layOutLanes());
    page.topics.on('range open', oncePerFrame(() => this.draw()));
    byId('lane_names').addEventListener('click', (click) => {
      const name = click.target.closest('.lane_name');
      if (name) page.choose(this.lanes[[...byId('lane_names').children].indexOf(name)]);
    });
  }

  // All labels: an event is dragged out on the lane of its label, and lanes are numbered as the keys are.
  laneLabels() {
    return this.page.store.labels();
  }

  startDrag(pointer) {
    if (pointer.button !== 0 || pointer.target !== this.canvas || this.edgeAt(pointer)) {
      super.startDrag(pointer);
      return;
    }
    const label = this.lanes[Math.floor((pointer.offsetY + this.scroller.scrollTop) / LANE_PX)];
    this.drag = { edge: null, pressed: { x: pointer.clientX, time: this.timeAt(pointer.clientX), event: this.eventAt(pointer), label } };
    byId('time_area').setPointerCapture(pointer.pointerId);
    pointer.preventDefault();
  }

  moveDrag(pointer) {
    const pressed = this.drag?.pressed;
    if (!pressed) {
      super.moveDrag(pointer);
      return;
    }
    this.showHover(pointer);
    if (!this.drag.edge && Math.abs(pointer.clientX - pressed.x) < MIN_DRAG_PX) return;
    if (!this.drag.edge) this.page.select(pressed.event?.id ?? null, { seek: false });
    const time = this.timeAt(pointer.clientX);
    if (pressed.event) {
      const { start, end, label } = pressed.event;
      const by = clamp(time - pressed.time, -start, data.duration - end);
      this.drag = { pressed, edge: 'both', start: toMilliseconds(start + by), end: toMilliseconds(end + by), label };
      this.page.player.seek(this.drag.start);
    } else {
      const [start, end] = [Math.min(time, pressed.time), Math.max(time, pressed.time)].map(floorToMilliseconds);
      this.drag = { pressed, edge: 'new', start, end, label: pressed.label };
      this.page.player.seek(time);
    }
    this.draw();
  }

  endDrag() {
    const { drag, page } = this;
    this.drag = null;
    if (drag?.edge === 'new') page.addRange(drag);
    else if (drag?.edge) page.changeTimes(drag);
    else if (drag?.pressed) {
      page.select(drag.pressed.event?.id ?? null, { seek: false });
      page.player.seek(drag.pressed.time);
    }
    this.draw();
  }

  draw() {
    super.draw();
    const { range, view } = this.page;
    const shown = this.drag?.edge === 'new' ? this.drag : range;
    byId('range').hidden = !shown;
    if (!shown) return;
    const [left, right] = [shown.start ?? shown.end, shown.end ?? shown.start].map((time) => this.x(clamp(time, view.start, view.end)));
    byId('range').style.left = `${left}px`;
    byId('range').style.width = `${Math.max(right - left, 2)}px`;
  }

  drawRuler() {
    super.drawRuler();
    const { suggestion } = this.page;
    if (!suggestion) return;
    const context = this.ruler.getContext('2d');
    context.fillStyle = '#ffb000';
    context.fillRect(this.x(suggestion.start_s), this.ruler.clientHeight - 3, Math.max(this.x(suggestion.end_s) - this.x(suggestion.start_s), 2), 3);
  }

  drawBackground(context, width, top) {
    super.drawBackground(context, width, top);
    context.fillStyle = themeColour('watched');
    for (const [start, end] of this.page.store.covered) {
      const [left, right] = [Math.max(this.x(start), 0), Math.min(this.x(end), width)];
      if (right > left) this.lanes.forEach((_, lane) => context.fillRect(left, lane * LANE_PX + 2 - top, right - left, LANE_PX - 4));
    }
  }

  drawOverview() {
    super.drawOverview();
    const context = this.overview.getContext('2d');
    const scale = this.overview.clientWidth / data.duration;
    context.fillStyle = themeColour('strong');
    for (const [start, end] of this.page.store.covered) context.fillRect(start * scale, this.overview.clientHeight - 2, Math.max((end - start) * scale, 1), 2);
  }
}
