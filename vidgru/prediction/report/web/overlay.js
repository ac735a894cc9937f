// Detected objects at any time, interpolated between samples, and their boxes over the picture.

const MAX_GAP_S = 1; // between samples; nothing is interpolated across a longer one
const MIN_OVERLAP = 0.1; // IoU of two untracked boxes to count as one object

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
    const times = decodeArray(packed.time_ms, Uint32Array);
    this.times = Float64Array.from(times, (ms) => ms / 1000);
    this.joined = decodeArray(packed.joined, Uint8Array);
    this.counts = decodeArray(packed.counts, Uint16Array);
    this.boxes = decodeArray(packed.boxes, Uint16Array);
    this.tracks = decodeArray(packed.tracks, Int32Array);
    this.classes = decodeArray(packed.classes, Int16Array);
    this.scores = decodeArray(packed.scores, Uint8Array);
    this.attention = decodeArray(packed.attention, Uint8Array);
    this.offsets = new Uint32Array(this.counts.length + 1);
    for (let i = 0; i < this.counts.length; i++) this.offsets[i + 1] = this.offsets[i] + this.counts[i];
  }

  object(row) {
    return {
      box: Array.from(this.boxes.subarray(row * 4, row * 4 + 4), (value) => value / 65535),
      track: this.tracks[row],
      name: data.names[this.classes[row]] ?? `class ${this.classes[row]}`,
      score: this.scores[row] / 255,
      attention: this.attention[row] / 255,
    };
  }

  frame(index) {
    const objects = [];
    for (let row = this.offsets[index]; row < this.offsets[index + 1]; row++) objects.push(this.object(row));
    return objects;
  }

  // Objects at a time; null if the page has none for it.
  at(time) {
    const next = lowerBound(this.times, time + 0.0005, true);
    const last = next - 1;
    const joined = next < this.times.length && last >= 0 && this.joined[next] && this.times[next] - this.times[last] <= MAX_GAP_S;
    if (joined) return this.between(last, next, (time - this.times[last]) / (this.times[next] - this.times[last]));
    if (last >= 0 && time - this.times[last] <= 1 / data.fps + 0.001) return this.frame(last);
    return null;
  }

  // Objects move in a straight line from one sample to the next. They are matched by track or, if untracked, by class and
  // overlap. An object in only one of the samples is shown for the half of the interval nearer to it.
  between(last, next, share) {
    const before = this.frame(last);
    const after = new Set(this.frame(next));
    const objects = [];
    const pair = (object, same) => {
      after.delete(same);
      const mix = (a, b) => a + clamp(share, 0, 1) * (b - a);
      const box = object.box.map((value, side) => mix(value, same.box[side]));
      objects.push({ ...object, box, attention: mix(object.attention, same.attention) });
    };
    const unmatched = before.filter((object) => {
      const same = object.track < 0 ? undefined : [...after].find(({ track }) => track === object.track);
      if (same) pair(object, same);
      return !same;
    });
    for (const object of unmatched) {
      const candidates = [...after].filter(({ name, track }) => name === object.name && (track < 0 || object.track < 0));
      const best = candidates.sort((a, b) => overlap(object.box, b.box) - overlap(object.box, a.box))[0];
      if (best && overlap(object.box, best.box) >= MIN_OVERLAP) pair(object, best);
      else if (share < 0.5) objects.push(object);
    }
    if (share >= 0.5) objects.push(...after);
    return objects;
  }
}
// --- drawing ---

const ATTENDED = '#ffb000';
const MIN_ATTENTION = 0.05; // share of the attention below which a box is thin
const MIN_NAMED_ATTENTION = 0.1; // share of the attention from which it is shown with the name

class BoxOverlay {
  constructor(topics, player) {
    this.player = player;
    this.objects = new Objects();
    this.canvas = byId('overlay');
    const redraw = oncePerFrame(() => this.draw());
    topics.on('time media', redraw);
    new ResizeObserver(redraw).observe(byId('stage'));
    for (const id of ['show_boxes', 'show_names', 'show_attention']) byId(id).addEventListener('change', redraw);
    redraw();
  }

  // Rectangle of the picture within the stage.
  pictureRect(width, height) {
    const aspect = this.player.aspect;
    const wide = Math.min(width, height * aspect);
    return { left: (width - wide) / 2, top: (height - wide / aspect) / 2, width: wide, height: wide / aspect };
  }

  draw() {
    const { context, width, height } = prepareCanvas(this.canvas);
    const rect = this.pictureRect(width, height);
    const objects = this.objects.at(this.player.shownTime);
    byId('no_boxes').hidden = objects !== null || !byId('show_boxes').checked;
    if (!objects || !byId('show_boxes').checked) return;
    const attention = byId('show_attention').checked;
    objects.sort((a, b) => a.attention - b.attention);
    for (const object of objects) this.drawBox(context, rect, object, attention);
    if (byId('show_names').checked) for (const object of objects) this.drawName(context, rect, object, attention);
  }

  drawBox(context, rect, object, attention) {
    const [x1, y1, x2, y2] = object.box;
    const box = [rect.left + x1 * rect.width, rect.top + y1 * rect.height, (x2 - x1) * rect.width, (y2 - y1) * rect.height];
    const strength = attention ? Math.sqrt(object.attention) : 0;
    context.lineJoin = 'round';
    if (attention && object.attention < MIN_ATTENTION) {
      context.strokeStyle = 'rgba(255, 255, 255, 0.6)';
      context.lineWidth = 0.75;
      context.strokeRect(...box);
      return;
    }
    context.strokeStyle = 'rgba(0, 0, 0, 0.55)';
    context.lineWidth = 3 + 3 * strength;
    context.strokeRect(...box);
    if (strength > 0.2) {
      context.globalAlpha = 0.16 * strength;
      context.fillStyle = ATTENDED;
      context.fillRect(...box);
      context.globalAlpha = 1;
    }
    context.strokeStyle = 'rgba(255, 255, 255, 0.9)';
    context.lineWidth = 1.25;
    if (strength > 0.2) {
      context.strokeStyle = ATTENDED;
      context.lineWidth = 1.25 + 3 * strength;
    }
    context.strokeRect(...box);
  }

  drawName(context, rect, object, attention) {
    const isAttended = attention && object.attention >= MIN_NAMED_ATTENTION;
    const text = [object.name, object.track >= 0 ? ` ${object.track}` : '', isAttended ? ` · ${percent(object.attention)}` : ''].join('');
    context.font = '600 11px system-ui, sans-serif';
    const width = context.measureText(text).width + 8;
    const x = clamp(rect.left + object.box[0] * rect.width, rect.left, rect.left + rect.width - width);
    const y = Math.max(rect.top, rect.top + object.box[1] * rect.height - 17);
    context.fillStyle = isAttended ? ATTENDED : 'rgba(16, 20, 26, 0.78)';
    context.beginPath();
    context.roundRect(x, y, width, 15, 3);
    context.fill();
    context.fillStyle = isAttended ? '#1a1200' : '#ffffff';
    context.fillText(text, x + 4, y + 11.5);
  }
}
