// Data of the page, and helpers for elements, keys, times, colours, captions and long lists. The labelling page shares this
// file, the player, the timeline and `PlayerPage`; there, `data` has the labels so far and the facts of the open recording.

const data = JSON.parse(document.getElementById('data').textContent);

function decodeArray(base64, Type) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new Type(bytes.buffer);
}

function byId(id) {
  return document.getElementById(id);
}

// Create an element with properties (`data`, `aria`, `on` and `style` are groups) and children. Text is never parsed as
// HTML.
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

// Publish and subscribe: whoever changes something emits its topic, and whoever shows it listens.
class Topics {
  constructor() {
    this.listeners = {};
  }

  on(topics, listener) {
    for (const topic of topics.split(' ')) (this.listeners[topic] ??= []).push(listener);
  }

  emit(topic) {
    for (const listener of this.listeners[topic] ?? []) listener();
  }
}

// Call the action of a pressed key, with whether Shift is held. Names of actions are keys, in lower case, or `Ctrl+s`, which
// also stands for Cmd. Keys of someone who types, or who uses a control or a dialog, are left alone, except `Ctrl+s`.
function listenToKeys(actions) {
  document.addEventListener('keydown', (press) => {
    if (press.altKey || document.querySelector('dialog[open]')) return;
    const isTyping = press.target.closest('input:not([type=checkbox], [type=range]), select, textarea');
    const key = press.key.length === 1 ? press.key.toLowerCase() : press.key;
    const name = press.ctrlKey || press.metaKey ? `Ctrl+${key}` : key;
    if (isTyping && name !== 'Ctrl+s') {
      if (key === 'Escape') press.target.blur();
      return;
    }
    const movesSlider = press.target.matches('input[type=range]') && key.startsWith('Arrow');
    const pressesButton = [' ', 'Enter'].includes(key) && press.target.closest('button, input, summary, a');
    if (!actions[name] || movesSlider || pressesButton) return;
    press.preventDefault();
    actions[name](press.shiftKey);
  });
}

// Show a message until the next click, at most 12 seconds.
let toastTimer;
function showToast(text) {
  const toast = byId('toast');
  toast.textContent = text;
  toast.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (toast.hidden = true), 12_000);
  document.addEventListener('pointerdown', () => (toast.hidden = true), { once: true });
}

// First index of a sorted array whose value is at least `target`, or greater with `after`.
function lowerBound(values, target, after = false) {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < target || (after && values[middle] === target)) low = middle + 1;
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

// Clear a canvas and match its resolution to the screen; its coordinates are CSS pixels.
function prepareCanvas(canvas) {
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

// Wrap an action so that it runs at most once per screen frame.
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
// --- times, in seconds from the start of the recording ---

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

// Wall-clock time in the recording's time zone; empty if unknown.
function wallClock(recorded, seconds, parts = 'time') {
  if (!recorded) return '';
  const text = new Date(recorded.ms + Math.round(seconds * 1000)).toISOString();
  if (parts === 'minute') return `${text.slice(0, 10)} ${text.slice(11, 16)}`;
  if (parts === 'time') return text.slice(11, 19);
  const zone = recorded.zone ? ` ${recorded.zone.slice(0, 3)}:${recorded.zone.slice(3, 5)}` : '';
  return `${text.slice(0, 10)} ${text.slice(11, 19)}${zone}`;
}

// Interval between the ticks of a time axis with at most `maxTicks`.
function axisStep(seconds, maxTicks) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  return steps.find((step) => seconds / step <= maxTicks) ?? steps.at(-1);
}
// --- events ---

// Error message for an event's times and label; empty if they are valid.
function validationError({ start, end, label }) {
  if (!label) return 'An event needs a label.';
  if (label.startsWith('[') || label.startsWith('{')) return 'A label cannot begin with a bracket.';
  if (!Number.isFinite(start) || !Number.isFinite(end)) return 'Start and end must be numbers of seconds.';
  if (start < 0) return 'The start must not be negative.';
  if (end > data.duration + 0.0015) return `The recording ends at ${data.duration.toFixed(3)} s.`;
  if (end - start < 0.0005) return 'The end must be after the start.';
  return '';
}

function tidyLabel(text) {
  return text.split(/\s+/).filter(Boolean).join(' ');
}

function toMilliseconds(seconds) {
  return Math.round(seconds * 1000) / 1000;
}
// --- colours ---

// Okabe and Ito's palette, distinguishable with any kind of colour vision, and one more; the yellow is darker, to be
// visible on white. With more labels colours repeat; lanes and names distinguish those.

const PALETTE = ['#0f7fc4', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00', '#8f7ee0', '#b5a300'];

function labelColour(label) {
  const known = data.labels.indexOf(label);
  if (known >= 0) return PALETTE[known % PALETTE.length];
  let sum = 0; // a label added by the user: any colour, but always the same
  for (const letter of label) sum = (sum * 31 + letter.codePointAt(0)) % 9973;
  return PALETTE[sum % PALETTE.length];
}

const darkTheme = window.matchMedia('(prefers-color-scheme: dark)');

function themeColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
// --- captions ---

// A caption is the model's, with its score; or from the template, because the score of the model's own was too low (that
// is the score kept); or the user's, without a score.

function captionFields([description, captionScore = null, isTemplate = false]) {
  return { description, captionScore, isTemplate };
}

// Where a caption comes from; empty if the user wrote it.
function captionSource({ captionScore, isTemplate }) {
  const score = captionScore === null ? '' : percent(captionScore);
  if (isTemplate) return `From a template, because the score of the model’s caption was too low${score && ` (${score})`}.`;
  return score && `Caption score ${score}`;
}

// The caption to edit: empty for a template, which nobody wrote.
function editableCaption({ description, isTemplate }) {
  return isTemplate ? '' : (description ?? '').trim();
}

// Element with the caption of an event for a row of a list, which may cut it off; the tooltip has all of it.
function captionElement(event) {
  if (!event.description) return null;
  const words = make('span', { class: 'words', dir: 'auto' }, event.description);
  const score = event.captionScore === null ? null : make('span', { class: 'caption_score' }, percent(event.captionScore));
  const source = event.isTemplate ? make('span', { class: 'mark' }, 'template') : score;
  const title = [event.description, captionSource(event)].filter(Boolean).join('\n');
  return make('span', { class: event.isTemplate ? 'caption template' : 'caption', title }, words, source);
}
// --- long lists ---

// A list of any length that renders only the rows in view, all of the same height.

class VirtualList {
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

  // The item of the row at a height in the window; undefined if there is none.
  itemAt(clientY) {
    return this.items[Math.floor((clientY - this.body.getBoundingClientRect().top) / this.height)];
  }

  reveal(index) {
    const top = index * this.height;
    const { scrollTop, clientHeight } = this.container;
    if (top < scrollTop) this.container.scrollTop = top;
    else if (top + this.height > scrollTop + clientHeight) this.container.scrollTop = top + this.height - clientHeight;
    this.draw();
  }
}
