// A table whose rows are made as they come into sight, sorted by the column whose head is clicked.

class Table {
  // Columns have `name`, `key` (what to sort by; null for none) and perhaps `number` and `down` (the first click sorts
  // from the greatest).
  constructor(box, columns, height, render, empty) {
    this.columns = columns;
    this.order = { column: columns[0], down: false };
    this.head = make('div', { class: 'head', role: 'row' });
    this.body = make('div', { class: 'scroll', role: 'rowgroup' });
    this.nothing = make('p', { class: 'nothing muted', hidden: true }, empty);
    box.append(this.head, this.body);
    this.body.append(this.nothing);
    this.rows = new Rows(this.body, height, render);
    this.items = [];
    this.drawHead();
  }

  drawHead() {
    const held = document.activeElement?.closest('.head') === this.head ? document.activeElement.textContent : null;
    const cells = this.columns.map((column) => {
      const sorted = column === this.order.column;
      const arrow = sorted ? (this.order.down ? ' ↓' : ' ↑') : '';
      const text = column.name + arrow;
      const inside = column.key ? make('button', { type: 'button', on: { click: () => this.sortBy(column) } }, text) : make('span', { class: 'muted small' }, text);
      const cell = make('div', { class: column.number ? 'cell number' : 'cell', role: 'columnheader' }, inside);
      if (sorted) cell.setAttribute('aria-sort', this.order.down ? 'descending' : 'ascending');
      return cell;
    });
    this.head.replaceChildren(...cells);
    if (held !== null) this.head.querySelector('[aria-sort] button')?.focus();
  }

  sortBy(column) {
    const again = column === this.order.column;
    this.order = { column, down: again ? !this.order.down : Boolean(column.down) };
    this.drawHead();
    this.show(this.items);
  }

  show(items) {
    this.items = items;
    const { column, down } = this.order;
    const keyed = items.map((item) => [column.key(item), item]);
    const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    const known = (key) => key !== null && key !== undefined;
    // What is not known comes last, whichever way.
    keyed.sort(([a], [b]) => (known(a) && known(b) ? (down ? compare(b, a) : compare(a, b)) : known(b) - known(a)));
    this.nothing.hidden = items.length > 0;
    this.rows.show(keyed.map(([, item]) => item));
  }
}
