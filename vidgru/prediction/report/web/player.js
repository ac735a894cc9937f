// The recording: as video where the browser can play it, else as still pictures.

const UNPLAYABLE = 'The recording is there, but its format is not one that this browser plays (H.264 in MP4 is).';
const LONGEST_FRAME_S = 0.5; // a frame that is further from the time is one that is about to go

class Player {
  constructor(topics) {
    this.topics = topics;
    this.video = byId('video');
    this.still = byId('still');
    this.mode = 'video';
    this.now = 0;
    this.picture = null;
    if (data.video === null) {
      this.fallBack('The recording was not on disk when this page was made.');
      return;
    }
    this.video.addEventListener('error', () => this.fallBack(this.reason()));
    this.video.addEventListener('loadedmetadata', () => {
      if (!this.video.videoWidth) this.fallBack(UNPLAYABLE);
      else topics.tell('media');
    });
    for (const name of ['seeking', 'seeked', 'timeupdate', 'loadeddata']) {
      this.video.addEventListener(name, () => topics.tell('time'));
    }
    for (const name of ['play', 'pause', 'ended', 'volumechange', 'ratechange']) {
      this.video.addEventListener(name, () => topics.tell('media'));
    }
    this.video.addEventListener('play', () => this.follow());
    this.frameTime = null;
    this.watchFrames();
    this.video.src = data.video;
  }

  // Browsers that can tell which frame is on the screen do so: boxes then lie where that frame's objects are.
  watchFrames() {
    this.video.requestVideoFrameCallback?.((_, { mediaTime }) => {
      this.frameTime = mediaTime;
      this.topics.tell('time');
      this.watchFrames();
    });
  }

  // Browsers give one code to a file that is gone and to one that they cannot read. Chromium's message tells them apart
  // where pages are opened from disk: it says nothing of what a file holds that it could open.
  reason() {
    const { code, message } = this.video.error;
    const tells = /Chrome\//.test(navigator.userAgent) && location.protocol === 'file:';
    if (code === MediaError.MEDIA_ERR_DECODE || (tells && message === '')) return UNPLAYABLE;
    if (tells && message.startsWith('MEDIA_ELEMENT_ERROR')) return `The recording is no longer where it was (${data.name} in ${data.root}).`;
    return (
      'This browser cannot play the recording: the file is no longer where it was, or its format is not one of ' +
      'browsers (convert it to H.264 in MP4).'
    );
  }

  fallBack(reason) {
    if (this.mode === 'still') return;
    this.mode = 'still';
    this.now = this.time;
    this.video.hidden = true;
    const rest = data.pictures.length
      ? ` ${count(data.pictures.length, 'still picture')} stand in; boxes are those of a picture's own moment.`
      : ' Boxes are drawn on an empty frame.';
    byId('unplayable').textContent = reason + rest;
    byId('unplayable').hidden = false;
    byId('strip').hidden = data.pictures.length === 0;
    const seconds = data.pictures.map(([ms]) => Math.round(ms / 1000));
    const decimals = new Set(seconds).size < seconds.length ? 1 : 0;
    data.pictures.forEach(([ms, uri], index) => {
      const name = `Picture at ${formatTime(ms / 1000)}`;
      const image = make('img', { src: uri, alt: '', loading: 'lazy' });
      const go = () => this.seek(ms / 1000);
      const caption = make('span', {}, formatTime(ms / 1000, decimals));
      byId('strip').append(make('button', { type: 'button', aria: { label: name }, data: { index }, on: { click: go } }, image, caption));
    });
    this.seek(this.now);
    this.topics.tell('media');
  }

  get time() {
    return this.mode === 'video' ? this.video.currentTime : this.now;
  }

  // The moment that is to be seen: that of the frame, or of a still picture, which may lie apart from the time.
  get shownTime() {
    if (this.mode === 'still') return this.picture === null ? this.now : data.pictures[this.picture][0] / 1000;
    const settled = this.frameTime !== null && Math.abs(this.frameTime - this.time) <= LONGEST_FRAME_S;
    return settled ? this.frameTime : this.time;
  }

  get paused() {
    return this.mode === 'still' || this.video.paused;
  }

  // Width over height of what is seen.
  get aspect() {
    if (this.mode === 'video' && this.video.videoWidth) return this.video.videoWidth / this.video.videoHeight;
    return data.size[0] / data.size[1];
  }

  seek(seconds) {
    const time = clamp(seconds, 0, data.duration);
    if (this.mode === 'video') this.video.currentTime = time;
    this.now = time;
    if (this.mode === 'still' && data.pictures.length) this.showNearest();
    this.topics.tell('time');
  }

  showNearest() {
    const distance = ([ms]) => Math.abs(ms / 1000 - this.now);
    let best = 0;
    data.pictures.forEach((picture, index) => {
      if (distance(picture) < distance(data.pictures[best])) best = index;
    });
    if (best === this.picture) return;
    this.picture = best;
    this.still.src = data.pictures[best][1];
    this.still.hidden = false;
    [...byId('strip').children].forEach((button, index) => button.classList.toggle('current', index === best));
    byId('strip').children[best].scrollIntoView({ block: 'nearest', inline: 'nearest' });
  }

  toggle() {
    if (this.mode === 'still') return;
    if (this.video.paused) this.video.play().catch(() => this.topics.tell('media'));
    else this.video.pause();
  }

  // While it plays, what goes with the time is drawn with every frame of the screen.
  follow() {
    if (this.paused) return;
    this.topics.tell('time');
    requestAnimationFrame(() => this.follow());
  }
}
