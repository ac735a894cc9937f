// What the report of a recording and the labelling page share: the selected event, and controls of the player and timeline.

function onClick(id, action) {
  byId(id).addEventListener('click', action);
}

// Its subclasses have a `store` of events, a `player`, and the methods that its keys call.
class PlayerPage {
  constructor({ decimals }) {
    this.topics = new Topics();
    this.view = new View(this.topics);
    this.selected = null;
    this.decimals = decimals; // of the times beside the controls
  }

  // Actions of the keys that both pages have.
  keyActions() {
    const { player, view } = this;
    return {
      ' ': () => player.toggle(),
      ArrowLeft: (shift) => player.seekBy(shift ? -10 : -1),
      ArrowRight: (shift) => player.seekBy(shift ? 10 : 1),
      ArrowDown: () => this.step(1),
      ArrowUp: () => this.step(-1),
      Delete: () => this.remove(),
      Backspace: () => this.remove(),
      z: () => this.zoomToEvent(),
      '+': () => view.zoom(0.5, player.time),
      '=': () => view.zoom(0.5, player.time),
      '-': () => view.zoom(2, player.time),
      0: () => view.set(0, data.duration),
      '?': () => byId('help').showModal(),
    };
  }

  // Listen to keys and controls; a page does so when its parts are complete.
  listen() {
    const { player, view } = this;
    listenToKeys(this.keyActions());
    onClick('play', () => player.toggle());
    onClick('stage', () => player.toggle());
    onClick('mute', () => (player.video.muted = !player.video.muted));
    onClick('zoom_in', () => view.zoom(0.5, player.time));
    onClick('zoom_out', () => view.zoom(2, player.time));
    onClick('zoom_all', () => view.set(0, data.duration));
    onClick('help_button', () => byId('help').showModal());
    byId('speed').addEventListener('change', () => player.setSpeed(Number(byId('speed').value)));
    this.topics.on('media time', () => this.showPlayer());
    this.topics.on('view', () => (byId('zoom_all').disabled = byId('zoom_out').disabled = view.whole));
    view.set(0, data.duration);
    this.showPlayer();
  }

  select(id, { seek = true } = {}) {
    this.selected = id;
    const event = this.store.get(id);
    if (event && seek) {
      this.player.seekToFrameOf(event.start);
      this.view.reveal(event.start, event.end);
    }
    this.topics.emit('selection');
  }

  showPlayer() {
    const { paused, mode, time, video } = this.player;
    byId('play').classList.toggle('playing', !paused);
    byId('play').setAttribute('aria-label', paused ? 'Play' : 'Pause');
    for (const id of ['play', 'mute', 'speed']) byId(id).disabled = mode === 'still';
    byId('mute').setAttribute('aria-pressed', video.muted);
    byId('time').textContent = formatTime(time, this.decimals);
  }

  showLength() {
    byId('length').textContent = formatTime(data.duration, this.decimals);
    byId('ruler').setAttribute('aria-valuemax', data.duration.toFixed(1));
  }

  // Whether this browser opens such a page for the first time; remembered under a name.
  isFirstVisit(name) {
    try {
      if (localStorage.getItem(name)) return false;
      localStorage.setItem(name, 'shown');
      return true;
    } catch {
      return false; // the browser keeps nothing, as some do for pages from disk
    }
  }
}
