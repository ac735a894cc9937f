// What the detector saw: boxes at any moment, between samples by their tracks.

const LONGEST_STEP_S = 1; // samples further apart have a gap between them

const LEAST_OVERLAP = 0.1; // of two boxes without a track, to be taken for one object

// Intersection over union of two boxes.
function overlap(a, b) {
  const wide = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const high = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (wide <= 0 || high <= 0) return 0;
  const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
  return (wide * high) / (area(a) + area(b) - wide * high);
}

class Objects {
  constructor() {
    const packed = data.objects;
    const times = unpack(packed.time_ms, Uint32Array);
    this.times = Float64Array.from(times, (ms) => ms / 1000);
    this.joined = unpack(packed.joined, Uint8Array);
    this.counts = unpack(packed.counts, Uint16Array);
    this.boxes = unpack(packed.boxes, Uint16Array);
    this.tracks = unpack(packed.tracks, Int32Array);
    this.classes = unpack(packed.classes, Int16Array);
    this.scores = unpack(packed.scores, Uint8Array);
    this.attention = unpack(packed.attention, Uint8Array);
    this.offsets = new Uint32Array(this.counts.length + 1);
    for (let i = 0; i < this.counts.length; i++) this.offsets[i + 1] = this.offsets[i] + this.counts[i];
  }

  one(row) {
    return {
      box: Array.from(this.boxes.subarray(row * 4, row * 4 + 4), (value) => value / 65535),
      track: this.tracks[row],
      name: data.names[this.classes[row]] ?? `class ${this.classes[row]}`,
      score: this.scores[row] / 255,
      attention: this.attention[row] / 255,
    };
  }

  frame(index) {
    const rows = [];
    for (let row = this.offsets[index]; row < this.offsets[index + 1]; row++) rows.push(this.one(row));
    return rows;
  }

  // Objects at a time; null where none were kept.
  at(time) {
    const next = lowerBound(this.times, time + 0.0005, true);
    const last = next - 1;
    const joined = next < this.times.length && last >= 0 && this.joined[next] && this.times[next] - this.times[last] <= LONGEST_STEP_S;
    if (joined) return this.between(last, next, (time - this.times[last]) / (this.times[next] - this.times[last]));
    if (last >= 0 && time - this.times[last] <= 1 / data.fps + 0.001) return this.frame(last);
    return null;
  }

  // Objects move evenly from one sample to the next. The same one has the same track or, where that is not known, the
  // same class and a box that overlaps. One that is in a single sample is shown for the half that is nearer to it.
  between(last, next, share) {
    const before = this.frame(last);
    const after = new Set(this.frame(next));
    const found = [];
    const pair = (object, same) => {
      after.delete(same);
      const mix = (a, b) => a + clamp(share, 0, 1) * (b - a);
      const box = object.box.map((value, side) => mix(value, same.box[side]));
      found.push({ ...object, box, attention: mix(object.attention, same.attention) });
    };
    const single = before.filter((object) => {
      const same = object.track < 0 ? undefined : [...after].find(({ track }) => track === object.track);
      if (same) pair(object, same);
      return !same;
    });
    for (const object of single) {
      const like = [...after].filter(({ name, track }) => name === object.name && (track < 0 || object.track < 0));
      const best = like.sort((a, b) => overlap(object.box, b.box) - overlap(object.box, a.box))[0];
      if (best && overlap(object.box, best.box) >= LEAST_OVERLAP) pair(object, best);
      else if (share < 0.5) found.push(object);
    }
    if (share >= 0.5) found.push(...after);
    return found;
  }
}
