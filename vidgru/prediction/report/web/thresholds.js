// A slider per label finds events anew from the scores of the page, and shows which would be new and which would be lost.

class Thresholds {
  constructor(page) {
    this.page = page;
    this.high = [...data.high];
    this.lost = new Set();
    byId('thresholds').hidden = data.decode === null;
    if (data.decode === null) return;
    const { time, scores, smooth } = data.decode;
    this.times = Float64Array.from(decodeArray(time, Uint32Array), (ticks) => ticks / 1e4);
    const values = decodeArray(scores, Uint16Array);
    const row = (_, label) => Float32Array.from(values.subarray(label * this.times.length, (label + 1) * this.times.length), (value) => value / 65535);
    this.smoothed = data.labels.map(row).map((part) => smoothScores(this.times, part, smooth));
    this.usual = this.decode();
    this.find = oncePerFrame(() => this.show());
    page.topics.on('events', () => this.changed.length && this.show());
    byId('threshold_rows').append(...data.labels.map((label, index) => this.row(label, index)));
    byId('threshold_reset').addEventListener('click', () => this.reset());
    this.show();
  }

  decode() {
    const low = this.high.map((value, label) => lowerThreshold(value, data.high[label], data.low[label]));
    return decodeEvents(this.times, this.smoothed, { ...data.decode.rule, high: this.high, low }).map(({ start, end, label, score }, index) => ({
      id: `found ${index}`, state: 'new', start: toMilliseconds(start), end: toMilliseconds(end), label: data.labels[label], score, ...captionFields([]),
    }));
  }

  row(label, index) {
    const slider = make('input', { type: 'range', min: 0, max: 100, value: this.high[index] * 100, aria: { label: `Threshold of ${label}` }, data: { index } });
    slider.addEventListener('input', () => {
      this.high[index] = slider.value / 100;
      this.find();
    });
    const name = make('span', { class: 'name', title: label }, label);
    return make('label', { class: 'threshold', style: { '--label': labelColour(label) } }, name, slider, make('output', {}), make('span', { class: 'number' }));
  }

  set(label, value) {
    const index = data.labels.indexOf(label);
    this.high[index] = value;
    byId('threshold_rows').querySelectorAll('input')[index].value = value * 100;
    byId('thresholds').open = true;
    this.show();
  }

  // The highest threshold of a label, in steps of 0.01, with which there is an event at a time: { threshold, start, end },
  // or null. Scores more than a minute away do not count.
  candidate(label, time) {
    if (data.decode === null) return null;
    const index = data.labels.indexOf(label);
    const [first, stop] = [lowerBound(this.times, time - 60), lowerBound(this.times, time + 60, true)];
    const times = this.times.subarray(first, stop);
    const smoothed = this.smoothed.map((scores) => scores.subarray(first, stop));
    for (let step = 100; step > 0; step--) {
      const high = this.high.with(index, step / 100);
      const low = high.map((value, at) => lowerThreshold(value, data.high[at], data.low[at]));
      const found = decodeEvents(times, smoothed, { ...data.decode.rule, high, low });
      const event = found.find((each) => each.label === index && each.start <= time && time < each.end);
      if (event) return { threshold: step / 100, ...event };
    }
    return null;
  }

  reset() {
    this.high = [...data.high];
    for (const slider of byId('threshold_rows').querySelectorAll('input')) slider.value = this.high[slider.dataset.index] * 100;
    this.show();
  }

  get changed() {
    return data.labels.filter((_, index) => this.high[index] !== data.high[index]);
  }

  // Whether an event that the model predicted would not be found.
  isLost(event) {
    return event.state === 'predicted' && this.lost.has(event.id);
  }

  show() {
    const { store } = this.page;
    const isChanged = this.changed.length > 0;
    const found = isChanged ? this.decode() : this.usual;
    const known = [...store.sorted, ...this.usual]; // the run may have left out usual events, for example by their time
    const isNew = (event) => !known.some((other) => isSame(other, event));
    store.found = new Map(isChanged ? found.filter(isNew).map((event) => [event.id, event]) : []);
    const lost = isChanged ? store.sorted.filter((event) => event.state === 'predicted' && !found.some((other) => isSame(other, event))) : [];
    const isMoved = (event) => this.usual.some((other) => isSame(other, event) && (other.start !== event.start || other.end !== event.end));
    const moved = found.filter((event) => !store.found.has(event.id) && isMoved(event)).length;
    this.lost = new Set(lost.map(({ id }) => id));
    [...byId('threshold_rows').children].forEach((row, index) => {
      const number = (events) => events.filter(({ label }) => label === data.labels[index]).length;
      row.querySelector('output').textContent = percent(this.high[index]);
      row.querySelector('.number').textContent = number(found) === number(this.usual) ? number(found) : `${number(this.usual)} → ${number(found)}`;
    });
    byId('threshold_result').hidden = !isChanged;
    byId('threshold_note').textContent = `In this recording ${count(store.found.size, 'more event')} (dashed) and ${lost.length.toLocaleString('en')} fewer (faint)${moved ? `; ${count(moved, 'other')} with another start or end` : ''}. For all recordings, run vidgru predict with:`;
    byId('threshold_flag').textContent = this.flag();
    this.page.topics.emit('found');
  }

  // The flag for the changed labels, and for those whose thresholds this run was given.
  flag() {
    const pairs = data.labels.map((label, index) => [label, this.high[index]]).filter(([label]) => data.given.includes(label) || this.changed.includes(label));
    const text = pairs.map(([label, value]) => `${label}=${value}`).join(',');
    return `--threshold ${shellWord(text)}`;
  }
}

function shellWord(text) {
  return /^[\w=.,/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function isSame(a, b) {
  return a.label === b.label && a.start < b.end && b.start < a.end;
}
