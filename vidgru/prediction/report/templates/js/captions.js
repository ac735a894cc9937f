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
