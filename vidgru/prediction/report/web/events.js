// The sentences of the moment, over the picture.

const MOST_CAPTIONS = 2; // that of the event in hand first, then those of the best scored

class Captions {
  constructor(page) {
    this.page = page;
    this.box = byId('captions');
    this.told = [];
    const show = oncePerFrame(() => this.show());
    page.topics.on('time events filters selection', show);
    byId('show_captions').addEventListener('change', show);
    show();
  }

  show() {
    const { store, selected, player } = this.page;
    byId('captions_choice').hidden = byId('help_sentences').hidden = !store.described;
    const wanted = byId('show_captions').checked && store.described;
    const now = ({ description, start, end }) => description && start <= player.time && player.time < end;
    const events = wanted ? this.page.shownEvents().filter(now) : [];
    events.sort((a, b) => (b.id === selected) - (a.id === selected) || (b.score ?? 2) - (a.score ?? 2));
    const told = events.slice(0, MOST_CAPTIONS);
    if (told.length === this.told.length && told.every((event, index) => event === this.told[index])) return;
    this.told = told;
    this.box.replaceChildren(
      ...told.map(({ description, label, template }) => make('p', { class: template ? 'template' : '', dir: 'auto', style: { '--label': labelColour(label) } }, description)),
    );
  }
}
// The events as a list, and which of them are shown.

const ROW_PX = 46;
const DESCRIBED_ROW_PX = 86;

class EventList {
  constructor(page) {
    this.page = page;
    this.box = byId('event_list');
    this.rows = new Rows(this.box, ROW_PX, (event) => this.row(event));
    page.topics.on('events filters', () => this.show());
    page.topics.on('selection', () => this.reveal());
    new ResizeObserver(() => this.reveal()).observe(this.box); // the panel of an event takes room from the list
    byId('min_score').addEventListener('input', () => {
      page.filters.minScore = byId('min_score').value / 100;
      page.topics.tell('filters');
    });
    byId('order').addEventListener('change', () => this.show());
    this.show();
  }

  get byScore() {
    return byId('order').value === 'score';
  }

  show() {
    this.showChips();
    const events = [...this.page.shownEvents()];
    if (this.byScore) events.sort((a, b) => (b.score ?? 2) - (a.score ?? 2));
    this.rows.height = this.page.store.described ? DESCRIBED_ROW_PX : ROW_PX;
    this.rows.show(events);
    const all = this.page.store.sorted;
    byId('min_score_told').textContent = percent(this.page.filters.minScore);
    byId('event_count').textContent = events.length === all.length ? count(all.length, 'event') : `${events.length.toLocaleString('en')} of ${count(all.length, 'event')}`;
    const right = all.filter((event) => event.state !== 'found').length;
    byId('checked_count').textContent = right ? `${right.toLocaleString('en')} checked` : '';
    byId('no_events').hidden = events.length > 0;
    const none = data.missing.length ? 'No finding is in this page: see what is left out.' : 'Nothing was found in this recording.';
    byId('no_events').textContent = all.length ? 'No event passes the filters.' : none;
  }

  showChips() {
    const numbers = new Map();
    for (const event of this.page.store.sorted) numbers.set(event.label, (numbers.get(event.label) ?? 0) + 1);
    const labels = this.page.store.labels().filter((label) => numbers.has(label));
    const chip = (label) => {
      const shown = !this.page.filters.hidden.has(label);
      const toggle = () => this.page.toggleLabel(label);
      const number = make('span', { class: 'number' }, numbers.get(label).toLocaleString('en'));
      const name = make('span', { class: 'name' }, label);
      return make('button', { type: 'button', class: 'chip', title: label, aria: { pressed: shown }, style: { '--label': labelColour(label) }, data: { label }, on: { click: toggle } }, name, number);
    };
    const held = document.activeElement?.closest('#labels') ? document.activeElement.dataset.label : null;
    byId('labels').replaceChildren(...labels.map(chip));
    if (held !== null) [...byId('labels').children].find((child) => child.dataset.label === held)?.focus();
  }

  row(event) {
    const selected = event.id === this.page.selected;
    const marks = { right: '✓ right', changed: 'corrected', added: 'added' };
    const clock = wallClock(data.recorded, event.start);
    const times = `${formatTime(event.start)} – ${formatTime(event.end)}${clock ? ` · ${clock}` : ''}`;
    const score = event.score === null ? null : make('span', { class: 'score' }, percent(event.score));
    const bar = event.score === null ? null : make('span', { class: 'score_bar', style: { '--share': event.score } });
    const mark = marks[event.state] ? make('span', { class: `mark ${event.state}` }, marks[event.state]) : null;
    const top = make('span', { class: 'line' }, make('span', { class: 'name' }, event.label), mark, score);
    const bottom = make('span', { class: 'line small' }, make('span', {}, times), bar);
    const choose = () => this.page.select(event.id);
    return make('div', { class: 'row event', role: 'option', id: `event_${event.id}`, aria: { selected }, style: { '--label': labelColour(event.label) }, on: { click: choose } }, top, sentence(event), bottom);
  }

  reveal() {
    const index = this.rows.items.findIndex((event) => event.id === this.page.selected);
    if (index >= 0) this.rows.reveal(index);
    else this.rows.draw();
    if (index >= 0) this.box.setAttribute('aria-activedescendant', `event_${this.page.selected}`);
    else this.box.removeAttribute('aria-activedescendant');
  }
}
// The event in hand: what it is, why it was found, and its correction.

const MOST_GROUPS = 5; // told with a bar; the others change the score less

class EventPanel {
  constructor(page) {
    this.page = page;
    this.box = byId('panel');
    page.topics.on('selection events', () => this.show());
    byId('right').addEventListener('click', () => page.store.toggleRight(page.selected));
    byId('edit').addEventListener('click', () => page.edit());
    byId('remove').addEventListener('click', () => page.remove());
    for (const name of ['start', 'end']) {
      byId(`edit_${name}`).addEventListener('change', () => this.correct());
      byId(`${name}_now`).addEventListener('click', () => {
        byId(`edit_${name}`).value = page.player.time.toFixed(3);
        this.correct();
      });
    }
    for (const name of ['label', 'text']) byId(`edit_${name}`).addEventListener('change', () => this.correct());
    byId('edit_form').addEventListener('submit', (submit) => {
      submit.preventDefault();
      page.edit();
    });
    this.show();
  }

  show() {
    const event = this.page.store.get(this.page.selected);
    this.box.hidden = !event;
    if (!event) return;
    this.box.style.setProperty('--label', labelColour(event.label));
    byId('panel_label').textContent = event.label;
    byId('panel_score').textContent = event.score === null ? 'added by you' : `score ${percent(event.score)}`;
    const clock = wallClock(data.recorded, event.start);
    byId('panel_times').textContent = `${formatTime(event.start, 2)} – ${formatTime(event.end, 2)} (${formatLength(event.end - event.start)})${clock ? ` · ${clock}` : ''}`;
    byId('panel_text').textContent = event.description ?? '';
    byId('panel_text').classList.toggle('template', event.template);
    byId('panel_told').textContent = event.description ? toldBy(event) : '';
    byId('right').setAttribute('aria-pressed', event.state === 'right');
    byId('right').disabled = event.state === 'changed' || event.state === 'added';
    byId('edit').setAttribute('aria-pressed', this.page.editing);
    byId('edit_form').hidden = !this.page.editing;
    byId('edit_fault').textContent = '';
    byId('edit_label').value = event.label;
    byId('edit_start').value = event.start.toFixed(3);
    byId('edit_end').value = event.end.toFixed(3);
    byId('edit_text').value = ownWords(event);
    byId('known_labels').replaceChildren(...this.page.store.labels().map((label) => make('option', { value: label })));
    this.showWhy(this.page.editing ? undefined : data.explanations[event.index]);
  }

  correct() {
    const event = this.page.store.get(this.page.selected);
    const number = (id) => (byId(id).value.trim() === '' ? NaN : toMilliseconds(Number(byId(id).value)));
    const fields = { label: tidyLabel(byId('edit_label').value), start: number('edit_start'), end: number('edit_end') };
    const fault = faultOf(fields);
    byId('edit_fault').textContent = fault;
    const text = byId('edit_text').value.trim();
    const rewritten = text !== ownWords(event);
    if (rewritten) fields.description = text;
    const differs = rewritten || fields.label !== event.label || fields.start !== event.start || fields.end !== event.end;
    if (!fault && differs) this.page.store.change(event.id, fields);
  }

  showWhy(why) {
    byId('why').hidden = !why;
    if (!why) return;
    const objects = why.objects.map(([track, label, share]) => this.bar(track >= 0 ? `${label} ${track}` : label, share, percent(share)));
    byId('why_objects').replaceChildren(...objects);
    byId('why_objects_part').hidden = objects.length === 0;
    const points = (score) => Math.round((score - why.baseline) * 100);
    const groups = Object.entries(why.without).sort((a, b) => Math.abs(b[1] - why.baseline) - Math.abs(a[1] - why.baseline));
    const telling = groups.slice(0, MOST_GROUPS).filter(([, score]) => points(score));
    const same = groups.slice(telling.length).map(([group]) => group.replaceAll('_', ' '));
    const change = (score) => `${points(score) < 0 ? '−' : '+'}${Math.abs(points(score))}`;
    const told = telling.map(([group, score]) => this.bar(group.replaceAll('_', ' '), score, `${Math.round(score * 100)} (${change(score)})`, why.baseline));
    byId('why_without').replaceChildren(...told);
    byId('why_without_part').hidden = groups.length === 0;
    byId('why_same').textContent = same.length ? `${told.length ? 'Little' : 'Nothing much'} changes without ${same.join(', ')}.` : '';
    byId('why_baseline').textContent = percent(why.baseline);
    const moments = [...why.forgot.map((time) => [time, 'forgot']), ...why.kept.map((time) => [time, 'kept'])].sort((a, b) => a[0] - b[0]);
    byId('why_moments').replaceChildren(
      ...moments.map(([time, what]) => make('button', { type: 'button', class: 'moment', on: { click: () => this.page.player.seek(time) } }, `${what} most at ${formatTime(time)}`)),
    );
    byId('why_moments').hidden = moments.length === 0;
  }

  bar(name, share, told, mark = null) {
    const track = make('span', { class: 'track', style: { '--share': clamp(share, 0, 1) } });
    if (mark !== null) track.append(make('i', { style: { '--at': clamp(mark, 0, 1) } }));
    return make('div', { class: 'bar' }, make('span', { class: 'name', title: name }, name), track, make('span', { class: 'told' }, told));
  }
}
