// What the page was given, and the few helpers that everything else uses.

const data = JSON.parse(document.getElementById('data').textContent);

function unpack(base64, Type) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new Type(bytes.buffer);
}

function byId(id) {
  return document.getElementById(id);
}

// An element with properties (`class`, `data`, `aria` and `on` are groups) and children; text is never read as HTML.
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === 'class') element.className = value;
    else if (name === 'data') Object.assign(element.dataset, value);
    else if (name === 'aria') for (const [key, text] of Object.entries(value)) element.setAttribute(`aria-${key}`, text);
    else if (name === 'on') for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else if (name === 'style') for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (name === 'role') element.setAttribute('role', value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// Listeners by topic: who changes something tells it, who shows it listens.
class Topics {
  constructor() {
    this.listeners = {};
  }

  on(topics, listener) {
    for (const topic of topics.split(' ')) (this.listeners[topic] ??= []).push(listener);
  }

  tell(topic) {
    for (const listener of this.listeners[topic] ?? []) listener();
  }
}

// First index of a sorted array whose value is at least, or with `after` above, the one that is sought.
function lowerBound(values, sought, after = false) {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < sought || (after && values[middle] === sought)) low = middle + 1;
    else high = middle;
  }
  return low;
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

function count(number, noun) {
  return `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`;
}

function percent(share) {
  return `${Math.round(share * 100)} %`;
}

// A canvas as sharp as the screen, cleared, measured in CSS pixels.
function prepare(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext('2d');
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

// Call at most once a frame, however often it is asked for.
function oncePerFrame(action) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      action();
    });
  };
}
// Times as people read them. Seconds count from the start of the recording.

function formatTime(seconds, decimals = 1) {
  const unit = 10 ** decimals;
  const ticks = Math.round(seconds * unit);
  const whole = Math.floor(ticks / unit);
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  const two = (number) => String(number).padStart(2, '0');
  const fraction = decimals ? `.${String(ticks % unit).padStart(decimals, '0')}` : '';
  return `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(whole % 60)}${fraction}`;
}

function formatLength(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

// The recording's own clock; empty where it is not known.
function wallClock(recorded, seconds, parts = 'time') {
  if (!recorded) return '';
  const text = new Date(recorded.ms + Math.round(seconds * 1000)).toISOString();
  if (parts === 'minute') return `${text.slice(0, 10)} ${text.slice(11, 16)}`;
  if (parts === 'time') return text.slice(11, 19);
  const zone = recorded.zone ? ` ${recorded.zone.slice(0, 3)}:${recorded.zone.slice(3, 5)}` : '';
  return `${text.slice(0, 10)} ${text.slice(11, 19)}${zone}`;
}

// Steps of a time axis: about `most` of them over a stretch.
function axisStep(seconds, most) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  return steps.find((step) => seconds / step <= most) ?? steps.at(-1);
}
// Colours of labels: Okabe and Ito's, made to be told apart by colour-blind people too, and one more; the yellow is
// darker, to be seen on white. With more labels they repeat: lanes and names tell those apart.

const PALETTE = ['#0f7fc4', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00', '#8f7ee0', '#b5a300'];

function labelColour(label) {
  const known = data.labels.indexOf(label);
  if (known >= 0) return PALETTE[known % PALETTE.length];
  let sum = 0;
  for (const letter of label) sum = (sum * 31 + letter.codePointAt(0)) % 9973;
  return PALETTE[sum % PALETTE.length];
}

const themed = window.matchMedia('(prefers-color-scheme: dark)');

function themeColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
// Events in words. A sentence is the model's own, with a score; or a template, put together where the model was not sure
// enough of its own, the score being that of what was not told; or a person's, without a score.

function describedBy([description, sure = null, template = false]) {
  return { description, sure, template };
}

// Where a sentence comes from; empty where a person wrote it.
function toldBy({ sure, template }) {
  const score = sure === null ? '' : percent(sure);
  if (template) return `Put together, not written by the model: not sure enough of its own sentence${score && ` (${score})`}.`;
  return score && `Sentence score ${score}`;
}

// What there is for a person to correct: a template is not, where nobody wrote a sentence yet.
function ownWords({ description, template }) {
  return template ? '' : (description ?? '').trim();
}

// The sentence of an event for a row of a table, which may cut it; all of it is told under the pointer.
function sentence(event) {
  if (!event.description) return null;
  const words = make('span', { class: 'words', dir: 'auto' }, event.description);
  const score = event.sure === null ? null : make('span', { class: 'sure' }, percent(event.sure));
  const from = event.template ? make('span', { class: 'mark' }, 'template') : score;
  const title = [event.description, toldBy(event)].filter(Boolean).join('\n');
  return make('span', { class: event.template ? 'sentence template' : 'sentence', title }, words, from);
}
// A list of any length in which only what is seen is there: rows of one height, made as they come into sight.

class Rows {
  constructor(container, height, render) {
    this.container = container;
    this.height = height;
    this.render = render;
    this.items = [];
    this.body = make('div', { class: 'rows', role: 'presentation' });
    container.append(this.body);
    const redraw = oncePerFrame(() => this.draw());
    container.addEventListener('scroll', redraw);
    new ResizeObserver(redraw).observe(container);
  }

  show(items) {
    this.items = items;
    this.body.style.height = `${items.length * this.height}px`;
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.container.scrollTop / this.height) - 3);
    const stop = Math.min(this.items.length, first + Math.ceil(this.container.clientHeight / this.height) + 6);
    const rows = [];
    for (let index = first; index < stop; index++) {
      const row = this.render(this.items[index], index);
      row.style.transform = `translateY(${index * this.height}px)`;
      row.style.height = `${this.height}px`;
      rows.push(row);
    }
    this.body.replaceChildren(...rows);
  }

  reveal(index) {
    const top = index * this.height;
    const { scrollTop, clientHeight } = this.container;
    if (top < scrollTop) this.container.scrollTop = top;
    else if (top + this.height > scrollTop + clientHeight) this.container.scrollTop = top + this.height - clientHeight;
    this.draw();
  }
}
