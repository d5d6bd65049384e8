// @ts-check
// A walk along one factor, across the border of train: pictures, truth, and what each model answers.

const STRIP = { left: 62, right: 10, chart: 250, bottom: 36 };

/**
 * @param {Opened} opened @param {any} canvas
 * @returns {(x: number) => number} the value under a place of the canvas
 */
function drawStrip(opened, canvas) {
  const { grid, answers, pictures } = opened, { walk, of, cell } = state;
  const size = grid.sizes[walk], width = Math.max(300, canvas.parentElement.clientWidth);
  const room = width - STRIP.left - STRIP.right, step = room / size;
  const thumb = pictures.any ? Math.min(56, Math.max(30, step - 4)) : 0, top = thumb ? thumb + 12 : 8;
  const context = sized(canvas, width, top + STRIP.chart + STRIP.bottom);
  const x = (/** @type {number} */ value) => STRIP.left + (value + 0.5) * step;
  const low = -0.2, high = 1.2, y = (/** @type {number} */ target) => top + STRIP.chart * (1 - (Math.min(high, Math.max(low, target)) - low) / (high - low));
  const at = (/** @type {number} */ value) => cell.map((each, axis) => (axis === walk ? value : each));

  for (let value = 0; value < size; value++) {
    if (!grid.isTest(at(value))) continue;
    context.globalAlpha = grid.held[walk].has(value) || grid.split.test_if !== "any" ? 1 : 0.4;
    context.fillStyle = color("test-shade");
    context.fillRect(STRIP.left + value * step, top, step + 0.5, STRIP.chart);
  }
  context.globalAlpha = 1;
  if (thumb) {
    const choices = grid.split.draws ? Array.from({ length: size }, (_, value) => value) : grid.kept[walk];
    const every = grid.split.draws ? Math.ceil((thumb + 3) / step) : 1;
    let last = -Infinity;
    for (const value of choices.filter((_, place) => place % every === 0)) {
      const left = Math.min(width - thumb, Math.max(0, x(value) - thumb / 2));
      if (left < last + thumb + 1) continue;
      pictures.draw(context, at(value), left, 2, thumb);
      last = left;
    }
  }
  context.strokeStyle = color("line");
  context.fillStyle = color("quiet");
  context.lineWidth = 1;
  context.textBaseline = "middle";
  context.textAlign = "right";
  const marks = grid.sizes[of] <= 7 ? grid.sizes[of] : 5;
  for (let mark = 0; mark < marks; mark++) {
    const value = Math.round((mark * (grid.sizes[of] - 1)) / Math.max(1, marks - 1)), level = y(grid.target(of, value));
    context.beginPath();
    context.moveTo(STRIP.left, level);
    context.lineTo(width - STRIP.right, level);
    context.stroke();
    context.fillText(grid.label(of, value).slice(0, 9), STRIP.left - 6, level);
  }
  context.textAlign = "center";
  context.textBaseline = "top";
  const border = Array.from({ length: size }, (_, value) => value).filter((value) => value && grid.held[walk].has(value) !== grid.held[walk].has(value - 1));
  let last = -Infinity;
  for (const value of [...new Set([0, ...border, ...(size <= 12 ? Array(size).keys() : [size - 1])])].sort((a, b) => a - b)) {
    const text = grid.label(walk, value), wide = context.measureText(text).width;
    if (x(value) - wide / 2 < last + 6) continue;
    context.fillText(text, x(value), top + STRIP.chart + 5);
    last = x(value) + wide / 2;
  }
  context.fillText(grid.names[walk], STRIP.left + room / 2, top + STRIP.chart + 20);

  const line = (/** @type {(value: number) => number} */ level, /** @type {string} */ stroke, /** @type {number} */ thick, /** @type {number[]} */ dash = []) => {
    context.strokeStyle = stroke;
    context.lineWidth = thick;
    context.lineJoin = "round";
    context.setLineDash(dash);
    context.beginPath();
    let open = false;
    for (let value = 0; value < size; value++) {
      const here = level(value);
      if (Number.isNaN(here)) continue;
      if (open) context.lineTo(x(value), y(here));
      else context.moveTo(x(value), y(here));
      open = true;
    }
    context.stroke();
    context.setLineDash([]);
  };
  const truth = (/** @type {number} */ value) => grid.target(of, at(value)[of]);
  const mean = (/** @type {RowData} */ row) => (/** @type {number} */ value) => truth(value) + answers.mean(row.answers, walk, value, of).bias;
  for (const row of opened.rows) if (row !== state.a && row !== state.b) line(mean(row), color("faint"), 1);
  line(truth, color("text"), 1.5, [2, 3]);
  const chosen = /** @type {RowData[]} */ ([state.b, state.a].filter(Boolean));
  for (const row of chosen) {
    line(mean(row), row.color, 2.25, row === state.b ? [7, 3] : []);
    for (const value of grid.kept[walk]) {
      const place = grid.place(at(value));
      if (place < 0) continue;
      const answer = answers.at(row.answers, place, of), level = y(answer);
      context.beginPath();
      if (answer > high || answer < low) {
        const point = answer > high ? 1 : -1; // beyond the picture: an arrow at its edge
        context.moveTo(x(value), level - 1 * point);
        context.lineTo(x(value) - 4, level + 6 * point);
        context.lineTo(x(value) + 4, level + 6 * point);
        context.closePath();
      } else context.arc(x(value), level, 4.5, 0, 7);
      context.fillStyle = row === state.a ? row.color : color("page");
      context.strokeStyle = row === state.a ? color("page") : row.color;
      context.lineWidth = row === state.a ? 1 : 2;
      context.fill();
      context.stroke();
    }
  }
  context.strokeStyle = color("text");
  context.lineWidth = 1;
  context.globalAlpha = 0.5;
  context.beginPath();
  context.moveTo(x(cell[walk]), top);
  context.lineTo(x(cell[walk]), top + STRIP.chart);
  context.stroke();
  context.globalAlpha = 1;
  return (place) => Math.min(size - 1, Math.max(0, Math.floor((place - STRIP.left) / step)));
}

/** The numbers of the picture. @param {Opened} opened */
function stripLines(opened) {
  const { grid, answers } = opened, { walk, of, cell } = state;
  const lines = [["model", grid.names[walk], "held out", `truth of ${grid.names[of]}`, "mean answer", "rms error", "scored", "answer in this walk"]];
  for (const row of opened.rows)
    for (let value = 0; value < grid.sizes[walk]; value++) {
      const there = cell.map((each, axis) => (axis === walk ? value : each)), truth = grid.target(of, there[of]);
      const found = answers.mean(row.answers, walk, value, of), place = grid.place(there);
      const numbers = [truth, truth + found.bias, found.rms, found.n, place < 0 ? "" : answers.at(row.answers, place, of)];
      lines.push([row.label, grid.label(walk, value), String(grid.held[walk].has(value)), ...numbers.map(String)]);
    }
  return lines;
}
