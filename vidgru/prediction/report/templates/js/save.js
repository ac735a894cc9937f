// What a person says happens in the recording, as an annotation file that `vidgru train` takes.

const COLUMNS = ['video', 'start', 'end', 'label', 'description', 'split'];

function csvCell(text) {
  const plain = text.replace(/\r\n?/g, '\n');
  return /[",;\t\n]|^\s|\s$/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}

// A recording in which nothing happens has one row, its name alone. A template is nobody's sentence, and is left out: a
// model must not learn to write it.
function annotationsCsv(events) {
  const row = (event) => [data.name, event.start.toFixed(3), event.end.toFixed(3), event.label, event.template ? '' : event.description ?? '', ''];
  const rows = events.length ? events.map(row) : [[data.name, '', '', '', '', '']];
  return [COLUMNS, ...rows].map((cells) => `${cells.map(csvCell).join(',')}\n`).join('');
}

class Saver {
  constructor(page) {
    this.page = page;
    byId('save').addEventListener('click', () => this.ask());
    byId('lacks').replaceChildren(...data.lacks.map((sentence) => make('p', {}, sentence)));
    byId('save_all_the_same').addEventListener('click', () => this.save());
    byId('undo').addEventListener('click', () => page.undo());
    page.topics.on('events', () => this.show());
    window.addEventListener('beforeunload', (leaving) => {
      if (page.store.unsaved) leaving.preventDefault();
    });
    this.show();
  }

  show() {
    const { store } = this.page;
    const changed = store.corrections();
    byId('undo').disabled = store.done.length === 0;
    byId('save').classList.toggle('unsaved', store.unsaved);
    byId('save_state').textContent = store.unsaved ? `${changed ? count(changed, 'correction') : 'checks'}, not saved` : '';
  }

  // What the page lacks would count as wrong findings in the file: a person has to know.
  ask() {
    if (data.lacks.length) byId('incomplete').showModal();
    else this.save();
  }

  save() {
    const { store } = this.page;
    const name = `${data.name.replaceAll('/', '_')}.annotations.csv`;
    const url = URL.createObjectURL(new Blob([annotationsCsv(store.sorted)], { type: 'text/csv' }));
    make('a', { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
    store.saved();
    const what = store.sorted.length ? count(store.sorted.length, 'event') : 'the recording as one without events';
    const without = store.sorted.some((event) => event.template) ? ' Sentences that are put together are left out.' : '';
    this.page.say(`Saved ${what} as ${name}.${without} Put the file into ${data.root}: vidgru train takes it, alone or with others in a data set YAML.`);
  }
}
