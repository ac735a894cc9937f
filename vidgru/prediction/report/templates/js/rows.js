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
