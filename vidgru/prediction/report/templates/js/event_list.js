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
    const none = data.lacks.length ? 'No finding is in this page: see what is left out.' : 'Nothing was found in this recording.';
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
