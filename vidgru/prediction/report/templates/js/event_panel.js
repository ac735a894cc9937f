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
    this.showWhy(this.page.editing ? undefined : data.why[event.index]);
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
