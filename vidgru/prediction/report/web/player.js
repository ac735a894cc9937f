// Plays the recording, or shows still pictures if the browser cannot play it.

const UNPLAYABLE = 'This browser cannot play the recording’s format; convert it to H.264 in MP4.';
const MAX_FRAME_OFFSET_S = 0.5; // a frame further from the current time is about to be replaced

class Player {
  constructor(topics) {
    this.topics = topics;
    this.video = byId('video');
    this.still = byId('still');
    this.mode = 'video';
    this.stillTime = 0;
    this.pictureIndex = null;
    this.frameTime = null;
    this.video.addEventListener('error', () => this.useStills(this.reason()));
    this.video.addEventListener('loadedmetadata', () => {
      if (!this.video.videoWidth) this.useStills(UNPLAYABLE);
      else topics.emit('media');
    });
    for (const name of ['seeking', 'seeked', 'timeupdate', 'loadeddata']) {
      this.video.addEventListener(name, () => topics.emit('time'));
    }
    for (const name of ['play', 'pause', 'ended', 'volumechange', 'ratechange']) {
      this.video.addEventListener(name, () => topics.emit('media'));
    }
    this.video.addEventListener('play', () => this.follow());
    this.watchFrames();
  }

  load() {
    if (data.video === null) this.useStills('The recording did not exist when this page was made.');
    else this.video.src = data.video;
  }

  // Where the browser reports which frame is on the screen, boxes are drawn for exactly that frame.
  watchFrames() {
    this.video.requestVideoFrameCallback?.((_, { mediaTime }) => {
      this.watchFrames(); // before drawing, which takes time: a frame that is presented meanwhile would not be reported
      this.frameTime = mediaTime;
      this.topics.emit('time');
    });
  }

  // Browsers report a missing file and an unreadable one by the same code. Chromium's message distinguishes them on pages
  // opened from disk: it is empty for a file that could be opened.
  reason() {
    const { code, message } = this.video.error;
    const isChromium = /Chrome\//.test(navigator.userAgent) && location.protocol === 'file:';
    if (code === MediaError.MEDIA_ERR_DECODE || (isChromium && message === '')) return UNPLAYABLE;
    if (isChromium && message.startsWith('MEDIA_ELEMENT_ERROR')) return `The recording has been moved or deleted (${data.name} in ${data.root}).`;
    return (
      'This browser cannot play the recording: the file has been moved or deleted, or its format is not supported ' +
      '(convert it to H.264 in MP4).'
    );
  }

  useStills(reason) {
    if (this.mode === 'still') return;
    this.mode = 'still';
    this.stillTime = this.time;
    this.video.hidden = true;
    const rest = data.pictures.length
      ? ` Showing ${count(data.pictures.length, 'still picture')} instead, with boxes at the time of each picture.`
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
    this.seek(this.stillTime);
    this.topics.emit('media');
  }

  get time() {
    return this.mode === 'video' ? this.video.currentTime : this.stillTime;
  }

  // Time of the frame or picture on the screen, which may differ from the current time.
  get shownTime() {
    if (this.mode === 'still') return this.pictureIndex === null ? this.stillTime : data.pictures[this.pictureIndex][0] / 1000;
    const isCurrent = this.frameTime !== null && Math.abs(this.frameTime - this.time) <= MAX_FRAME_OFFSET_S;
    return isCurrent ? this.frameTime : this.time;
  }

  get paused() {
    return this.mode === 'still' || this.video.paused;
  }

  // Aspect ratio of the video or picture.
  get aspect() {
    if (this.mode === 'video' && this.video.videoWidth) return this.video.videoWidth / this.video.videoHeight;
    return data.size[0] / data.size[1];
  }

  seek(seconds) {
    const time = clamp(seconds, 0, data.duration);
    if (this.mode === 'video') this.video.currentTime = time;
    this.stillTime = time;
    if (this.mode === 'still' && data.pictures.length) this.showNearest();
    this.topics.emit('time');
  }

  seekBy(seconds) {
    this.seek(this.time + seconds);
  }

  // Seek to the frame at the start of an event; starts are rounded down to milliseconds, so that the frame may be later.
  seekToFrameOf(time) {
    this.seek(time + 0.001);
  }

  showNearest() {
    const distance = ([ms]) => Math.abs(ms / 1000 - this.stillTime);
    let best = 0;
    data.pictures.forEach((picture, index) => {
      if (distance(picture) < distance(data.pictures[best])) best = index;
    });
    if (best === this.pictureIndex) return;
    this.pictureIndex = best;
    this.still.src = data.pictures[best][1];
    this.still.hidden = false;
    [...byId('strip').children].forEach((button, index) => button.classList.toggle('current', index === best));
    byId('strip').children[best].scrollIntoView({ block: 'nearest', inline: 'nearest' });
  }

  toggle() {
    if (this.mode === 'still') return;
    if (this.video.paused) this.video.play().catch(() => this.topics.emit('media'));
    else this.video.pause();
  }

  // Set the speed, also of a video that is opened later.
  setSpeed(rate) {
    this.video.defaultPlaybackRate = this.video.playbackRate = rate;
  }

  // While playing, redraw whatever depends on the time with every screen frame.
  follow() {
    if (this.paused) return;
    this.topics.emit('time');
    requestAnimationFrame(() => this.follow());
  }
}
