// Which stretch of the recording the timeline shows.

const SHORTEST_S = 1;

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
    const fits = clamp(length, Math.min(SHORTEST_S, data.duration), data.duration);
    this.start = clamp(start, 0, data.duration - fits);
    this.end = this.start + fits;
    this.topics.tell('view');
  }

  // Larger or smaller, with one moment staying where it is.
  zoom(factor, time) {
    const length = clamp(this.length * factor, Math.min(SHORTEST_S, data.duration), data.duration);
    this.set(time - ((time - this.start) / this.length) * length, length);
  }

  pan(seconds) {
    this.set(this.start + seconds, this.length);
  }

  // Move so that a stretch is seen; nothing where it is.
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
