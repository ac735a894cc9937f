// Boxes over the picture. What the model attended to stands out by its share of the frame's attention.

const ATTENDED = '#ffb000';
const LEAST_TOLD = 0.1; // of the attention, to be told in a box's name

class Overlay {
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

  // Where the picture lies on the stage.
  place(width, height) {
    const aspect = this.player.aspect;
    const wide = Math.min(width, height * aspect);
    return { left: (width - wide) / 2, top: (height - wide / aspect) / 2, width: wide, height: wide / aspect };
  }

  draw() {
    const { context, width, height } = prepare(this.canvas);
    const place = this.place(width, height);
    const objects = this.objects.at(this.player.shownTime);
    byId('no_boxes').hidden = objects !== null || !byId('show_boxes').checked;
    if (!objects || !byId('show_boxes').checked) return;
    const attention = byId('show_attention').checked;
    objects.sort((a, b) => a.attention - b.attention);
    for (const object of objects) this.drawBox(context, place, object, attention);
    if (byId('show_names').checked) for (const object of objects) this.drawName(context, place, object, attention);
  }

  drawBox(context, place, object, attention) {
    const [x1, y1, x2, y2] = object.box;
    const frame = [place.left + x1 * place.width, place.top + y1 * place.height, (x2 - x1) * place.width, (y2 - y1) * place.height];
    const strength = attention ? Math.sqrt(object.attention) : 0;
    context.lineJoin = 'round';
    context.strokeStyle = 'rgba(0, 0, 0, 0.55)';
    context.lineWidth = 3 + 3 * strength;
    context.strokeRect(...frame);
    if (strength > 0.2) {
      context.globalAlpha = 0.16 * strength;
      context.fillStyle = ATTENDED;
      context.fillRect(...frame);
      context.globalAlpha = 1;
    }
    context.strokeStyle = 'rgba(255, 255, 255, 0.9)';
    context.lineWidth = 1.25;
    if (strength > 0.2) {
      context.strokeStyle = ATTENDED;
      context.lineWidth = 1.25 + 3 * strength;
    }
    context.strokeRect(...frame);
  }

  drawName(context, place, object, attention) {
    const told = attention && object.attention >= LEAST_TOLD;
    const text = [object.name, object.track >= 0 ? ` ${object.track}` : '', told ? ` · ${percent(object.attention)}` : ''].join('');
    context.font = '600 11px system-ui, sans-serif';
    const width = context.measureText(text).width + 8;
    const x = clamp(place.left + object.box[0] * place.width, place.left, place.left + place.width - width);
    const y = Math.max(place.top, place.top + object.box[1] * place.height - 17);
    context.fillStyle = told ? ATTENDED : 'rgba(16, 20, 26, 0.78)';
    context.beginPath();
    context.roundRect(x, y, width, 15, 3);
    context.fill();
    context.fillStyle = told ? '#1a1200' : '#ffffff';
    context.fillText(text, x + 4, y + 11.5);
  }
}
