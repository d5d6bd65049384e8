// @ts-check
// What a live network answers along one factor, from below the grid to above it.

const LIVE = { left: 62, right: 10, chart: 250, bottom: 36, low: -0.5, high: 1.5, thumb: 46 };

/**
 * @param {Live} owner @param {any} canvas
 * @returns {(x: number) => number} the value under a place of the canvas
 */
function drawLiveStrip(owner, canvas) {
  const { field, about } = owner, { grid } = field, { walk, of, cell } = live, walked = /** @type {Walk} */ (owner.walk);
  const width = Math.max(300, canvas.parentElement.clientWidth), room = width - LIVE.left - LIVE.right, top = LIVE.thumb + 12, bottom = top + LIVE.chart;
  const context = sized(canvas, width, bottom + LIVE.bottom), [least, most] = field.bounds[walk];
  const x = (/** @type {number} */ value) => LIVE.left + room * Math.min(1, Math.max(0, field.part(walk, value)));
  const y = (/** @type {number} */ target) => top + (LIVE.chart * (LIVE.high - Math.min(LIVE.high, Math.max(LIVE.low, target)))) / (LIVE.high - LIVE.low);
  const truth = (/** @type {number} */ value) => (of === walk ? value : cell[of]) / Math.max(1, grid.sizes[of] - 1);
  context.fillStyle = color("test-shade");
  for (const [first, end] of spans(grid.held[walk])) context.fillRect(x(first - 0.5), top, x(end - 0.5) - x(first - 0.5), LIVE.chart);
  hatch(context, x(least), top, x(-0.5), bottom);
  hatch(context, x(grid.sizes[walk] - 0.5), top, x(most), bottom);

  const pictures = Math.max(2, Math.floor(room / (LIVE.thumb + 4)));
  for (let at = 0; at < pictures; at++) {
    const value = least + ((at + 0.5) / pictures) * (most - least);
    paint(context, dsprite(cell.map((each, axis) => (axis === walk ? value : each))), x(value) - LIVE.thumb / 2, 4, LIVE.thumb);
  }
  context.textBaseline = "middle";
  context.textAlign = "right";
  const marks = Math.min(grid.sizes[of], 6), limits = [LIVE.low, LIVE.high].map((end) => end * (grid.sizes[of] - 1));
  const named = Array.from({ length: marks }, (_, mark) => Math.round((mark * (grid.sizes[of] - 1)) / Math.max(1, marks - 1)));
  for (const value of about.categorical[of] ? named : [...named, ...limits]) {
    const level = y(value / Math.max(1, grid.sizes[of] - 1));
    context.strokeStyle = color("line");
    context.beginPath();
    context.moveTo(LIVE.left, level);
    context.lineTo(width - LIVE.right, level);
    context.stroke();
    context.fillStyle = color("quiet");
    context.fillText(field.label(of, value).slice(0, 9), LIVE.left - 6, level);
  }
  context.textAlign = "center";
  context.textBaseline = "top";
  /** @type {[number, number][]} */ const taken = [];
  const borders = spans(grid.held[walk]).flatMap(([first, end]) => [first, end - 1]);
  for (const value of [0, grid.sizes[walk] - 1, ...borders, least, most, ...grid.kept[walk]]) {
    const text = field.label(walk, value), half = context.measureText(text).width / 2 + 4, at = Math.min(width - half, x(value));
    if (taken.some(([from, to]) => at + half > from && at - half < to)) continue;
    context.fillText(text, at, bottom + 5);
    taken.push([at - half, at + half]);
  }
  context.fillText(grid.names[walk], LIVE.left + room / 2, bottom + 20);

  const line = (/** @type {[number, number][]} */ points, /** @type {string} */ stroke, /** @type {number} */ thick, /** @type {number[]} */ dash) => {
    context.strokeStyle = stroke;
    context.lineWidth = thick;
    context.setLineDash(dash);
    context.beginPath();
    points.forEach(([value, level], at) => (at ? context.lineTo(x(value), y(level)) : context.moveTo(x(value), y(level))));
    context.stroke();
    context.setLineDash([]);
  };
  line([least, most].map((value) => [value, truth(value)]), color("text"), 1.5, [2, 3]);
  const known = walked.values.flatMap((value, at) => (walked.answers[at] ? [/** @type {[number, number]} */ ([value, walked.answers[at][of]])] : []));
  line(known, about.color, 2.25, []);
  const dot = (/** @type {number} */ value, /** @type {number} */ level, /** @type {number} */ size) => {
    context.beginPath();
    context.arc(x(value), y(level), size, 0, 7);
    context.fill();
    context.stroke();
  };
  context.fillStyle = about.color;
  context.strokeStyle = color("page");
  context.lineWidth = 1;
  for (const [value, level] of known) if (field.onGrid(walk, value)) dot(value, level, grid.sizes[walk] > 20 ? 2.5 : 4);
  context.strokeStyle = color("text");
  line([LIVE.low, LIVE.high].map((level) => [cell[walk], level]), color("text"), 1, []);
  if (owner.answer) dot(cell[walk], owner.answer[of], 5);
  return (place) => least + ((place - LIVE.left) / room) * (most - least);
}

/** Slanted lines, for what is beyond the grid. @param {CanvasRenderingContext2D} context @param {number} left @param {number} top @param {number} right @param {number} bottom */
function hatch(context, left, top, right, bottom) {
  context.save();
  context.beginPath();
  context.rect(left, top, right - left, bottom - top);
  context.clip();
  context.strokeStyle = color("faint");
  context.lineWidth = 1;
  context.beginPath();
  for (let start = left - (bottom - top); start < right; start += 6) context.moveTo(start, bottom), context.lineTo(start + bottom - top, top);
  context.stroke();
  context.restore();
}

/**
 * Where the answer leaves the truth on the walk, on both sides of what train has, in words: where it first errs by more than a tenth of the
 * factor's range, and by more than twice what it errs by on this walk's values of train.
 * @param {Live} owner
 */
function leaves(owner) {
  const { field, about } = owner, { grid } = field, { walk, of } = live, walked = /** @type {Walk} */ (owner.walk);
  const seen = Array.from({ length: grid.sizes[walk] }, (_, value) => value).filter((value) => !grid.held[walk].has(value) || about.test_if !== "any");
  const off = walked.values.map((value, at) => Math.abs((walked.answers[at]?.[of] ?? NaN) - (of === walk ? value : live.cell[of]) / Math.max(1, grid.sizes[of] - 1)));
  const known = seen.map((value) => off[walked.values.indexOf(value)] ** 2), usual = Math.sqrt(known.reduce((sum, each) => sum + each, 0) / known.length);
  const limit = Math.max(0.1, 2 * usual), [first, last] = [seen[0], seen[seen.length - 1]];
  const sides = /** @type {[string, number, (value: number) => boolean, number[]][]} */ ([
    ["above the last value that train has,", last, (/** @type {number} */ value) => value > last, walked.values.map((_, at) => at)],
    ["below the first,", first, (/** @type {number} */ value) => value < first, walked.values.map((_, at) => walked.values.length - 1 - at)],
  ]);
  const told = sides.map(([border, edge, beyond, order]) => {
    const at = order.find((each) => beyond(walked.values[each]) && off[each] > limit);
    return `${at === undefined ? "nowhere" : `at ${field.label(walk, walked.values[at])}`} ${border} ${field.label(walk, edge)}`;
  });
  return `Where train has the value, the answer of ${about.model} for ${grid.names[of]} lies ${number(usual)} of the range from the truth along this walk (root mean square). It leaves the truth, by more than ${number(limit)}, ${told.join(", and ")}.`;
}
