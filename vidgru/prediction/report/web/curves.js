// Curves of the scores with their thresholds, and of the gates; bands if they are thinned.

class Curves {
  constructor(page) {
    this.page = page;
    this.scores = this.decodeCurves(data.scores);
    this.gates = data.gates && this.decodeCurves(data.gates);
    byId('gates_row').hidden = !this.gates;
    document.querySelector('.gates').hidden = !this.gates;
    this.range = [0, 1];
    if (this.gates?.times.length) this.fitGateRange();
  }

  decodeCurves({ labels, time, high, low }) {
    const times = Float64Array.from(decodeArray(time, Uint32Array), (ms) => ms / 1000);
    const highest = decodeArray(high, Uint8Array);
    const lowest = low === null ? highest : decodeArray(low, Uint8Array);
    const part = (values, row) => values.subarray(row * times.length, (row + 1) * times.length);
    return { times, rows: labels.map((label, row) => ({ label, high: part(highest, row), low: part(lowest, row) })) };
  }

  // Gates are means over many units and stay within a narrow range, so their axis is fitted to it.
  fitGateRange() {
    let [low, high] = [255, 0];
    for (const row of this.gates.rows) {
      low = row.low.reduce((a, b) => Math.min(a, b), low);
      high = row.high.reduce((a, b) => Math.max(a, b), high);
    }
    this.range = [Math.floor(low / 25.5) / 10, Math.ceil((high + 1) / 25.5) / 10];
    byId('gates_range').textContent = this.range.map((value) => Math.round(value * 100)).join('–') + ' %';
  }

  // Label of the selected event, whose curve is emphasised.
  get focus() {
    return data.labels.indexOf(this.page.store.get(this.page.selected)?.label);
  }

  shownRows() {
    const rows = this.scores.rows.filter((row) => !this.page.filters.hidden.has(data.labels[row.label]));
    return rows.sort((a, b) => (a.label === this.focus) - (b.label === this.focus));
  }

  draw() {
    const scores = prepareCanvas(byId('scores'));
    const rows = this.shownRows();
    this.drawGrid(scores);
    const hasFocus = this.focus >= 0;
    for (const row of rows) {
      const isEmphasised = !hasFocus || row.label === this.focus;
      this.drawCurve(scores, this.scores.times, row, labelColour(data.labels[row.label]), isEmphasised ? 1 : 0.35, hasFocus && isEmphasised);
    }
    const withThresholds = hasFocus ? rows.filter((row) => row.label === this.focus) : rows.length <= 4 ? rows : [];
    for (const { label } of withThresholds) {
      const high = this.page.thresholds.high[label];
      const low = lowerThreshold(high, data.high[label], data.low[label]);
      this.drawThreshold(scores, high, labelColour(data.labels[label]), [5, 3]);
      if (low !== high) this.drawThreshold(scores, low, labelColour(data.labels[label]), [2, 3]);
    }
    if (!this.gates) return;
    const gates = prepareCanvas(byId('gates'));
    this.drawGrid(gates);
    this.gates.rows.forEach((row, index) => this.drawCurve(gates, this.gates.times, row, themeColour(['update', 'reset'][index]), 1, false, this.range));
  }

  y(value, height, [low, high] = [0, 1]) {
    return height - 2 - ((value - low) / (high - low)) * (height - 4);
  }

  drawGrid({ context, width, height }) {
    context.fillStyle = themeColour('lane');
    context.fillRect(0, 0, width, height);
    context.strokeStyle = themeColour('line');
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(0, Math.round(height / 2) + 0.5);
    context.lineTo(width, Math.round(height / 2) + 0.5);
    context.stroke();
  }

  drawThreshold({ context, width, height }, value, colour, dash) {
    context.strokeStyle = colour;
    context.lineWidth = 1.25;
    context.setLineDash(dash);
    context.beginPath();
    context.moveTo(0, this.y(value, height));
    context.lineTo(width, this.y(value, height));
    context.stroke();
    context.setLineDash([]);
  }

  drawCurve({ context, width, height }, times, row, colour, alpha, filled, range) {
    const { start, end, length } = this.page.view;
    const first = Math.max(0, lowerBound(times, start) - 1);
    const stop = Math.min(times.length, lowerBound(times, end) + 1);
    if (stop <= first) return;
    const x = (index) => ((times[index] - start) / length) * width;
    const along = (values, from, to) => {
      for (let i = from; i !== to; i += Math.sign(to - from)) context.lineTo(x(i), this.y(values[i] / 255, height, range));
    };
    context.globalAlpha = alpha;
    context.fillStyle = context.strokeStyle = colour;
    context.lineJoin = 'round';
    context.lineWidth = filled ? 1.75 : 1.25;
    if (row.low !== row.high) {
      context.globalAlpha = alpha * 0.45;
      context.beginPath();
      along(row.high, first, stop);
      along(row.low, stop - 1, first - 1);
      context.fill();
    }
    if (filled) {
      context.globalAlpha = 0.14;
      context.beginPath();
      context.moveTo(x(first), height);
      along(row.high, first, stop);
      context.lineTo(x(stop - 1), height);
      context.fill();
    }
    context.globalAlpha = alpha;
    context.beginPath();
    along(row.high, first, stop);
    context.stroke();
    context.globalAlpha = 1;
  }

  // Score of each label shown at a time.
  scoresAt(time) {
    const index = clamp(lowerBound(this.scores.times, time), 0, this.scores.times.length - 1);
    return this.scores.times.length ? this.shownRows().map((row) => ({ label: data.labels[row.label], value: row.high[index] / 255 })) : [];
  }

  // Values of the curves under the pointer at a time, as text.
  describe(target, time) {
    if (target === byId('gates') && this.gates.times.length) {
      const index = clamp(lowerBound(this.gates.times, time), 0, this.gates.times.length - 1);
      const [update, reset] = this.gates.rows.map((row) => percent(row.high[index] / 255));
      return ` · keeps ${update}, recalls ${reset}`;
    }
    if (target !== byId('scores')) return '';
    const best = this.scoresAt(time).sort((a, b) => b.value - a.value).slice(0, 2);
    return best.map(({ value, label }) => ` · ${label} ${percent(value)}`).join('');
  }
}
