// @ts-check
// What the page shows, in its address, so that a link restores it.

/** @type {{splits: SplitData[], rows: RowData[], live: any[]}} */
const INDEX = JSON.parse(byId("index").textContent);
INDEX.rows.forEach((row, number) => (row.number = number));

/**
 * A split with all that its pictures need.
 * @typedef {{grid: Grid, answers: Answers, pictures: Pictures, rows: RowData[]}} Opened
 */

/** @type {{split: number, a: RowData | null, b: RowData | null, cell: number[], walk: number, of: number, x: number, y: number, mapOf: number,
 *   side: "test" | "train", measure: "rms" | "bias" | "difference", every: boolean}} */
const state = { split: 0, a: null, b: null, cell: [], walk: 0, of: 0, x: 0, y: 1, mapOf: 0, side: "test", measure: "rms", every: false };

/** @param {number} split */
const rowsOf = (split) => INDEX.rows.filter((row) => row.split === split);
/** @param {number} split */
const named = (split) => `${INDEX.splits[split].dataset}, ${INDEX.splits[split].kind}`;

/** Start at what tells most: the best model, at the first held-out values, along the factor that is lost most. @param {number} split */
function startAt(split) {
  state.split = split;
  const about = INDEX.splits[split], rows = rowsOf(split);
  const shown = rows.filter((row) => row.answers !== undefined);
  state.a = shown[0] ?? null;
  state.b = shown[1] ?? null;
  if (!about.sizes) return;
  const axes = about.sizes.map((/** @type {number} */ _, /** @type {number} */ axis) => axis);
  const varying = axes.filter((/** @type {number} */ axis) => about.sizes[axis] > 1);
  const loss = (/** @type {number} */ axis) => (state.a && learned(state.a, axis) ? lossOf(state.a, axis) : -1);
  const held = varying.filter((/** @type {number} */ axis) => about.held[axis].length).sort((/** @type {number} */ p, /** @type {number} */ q) => loss(q) - loss(p));
  const order = [...held, ...varying.filter((/** @type {number} */ axis) => !held.includes(axis)), ...axes];
  state.walk = state.of = state.mapOf = order[0];
  [state.x, state.y] = [order[0], order.find((axis) => axis !== order[0]) ?? order[0]];
  state.cell = about.kept.map((/** @type {number[]} */ values, /** @type {number} */ axis) => {
    const out = values.filter((value) => about.held[axis].includes(value));
    const seen = values.filter((value) => !about.held[axis].includes(value));
    if (axis === state.walk && out.length) return out[0];
    return seen.length ? seen[Math.floor((seen.length - 1) / 2)] : values[0];
  });
}

/** How much worse a factor's R² is on test than on train. @param {RowData} row @param {number} axis */
function lossOf(row, axis) {
  const [test, train] = [row.factors[axis], row.train_factors[axis]];
  return test === null || train === null ? -Infinity : train - test;
}

/** Write the address. */
function remember() {
  const about = INDEX.splits[state.split];
  const parts = new URLSearchParams({ split: `${about.dataset},${about.kind}` });
  if (state.a) parts.set("a", state.a.key);
  if (state.b) parts.set("b", state.b.key);
  if (about.sizes) {
    parts.set("cell", state.cell.join());
    parts.set("walk", [state.walk, state.of].join());
    parts.set("map", [state.x, state.y, state.mapOf, state.side, state.measure].join());
    if (state.every) parts.set("every", "1");
  }
  if (live.cell.length) parts.set("live", [live.at, live.walk, live.of, ...live.cell].join());
  history.replaceState(null, "", `#${parts}`);
}

/** Take the address; what it says that is not there is left as it starts. */
function recall() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const split = INDEX.splits.findIndex((each) => `${each.dataset},${each.kind}` === parts.get("split"));
  startAt(Math.max(0, split));
  recallLive(parts.get("live"));
  if (split < 0) return;
  const about = INDEX.splits[split], rows = rowsOf(split).filter((row) => row.answers !== undefined);
  const row = (/** @type {string} */ name) => rows.find((each) => each.key === parts.get(name)) ?? null;
  state.a = row("a") ?? state.a;
  state.b = parts.has("b") ? row("b") : null;
  if (!about.sizes) return;
  const numbers = (/** @type {string} */ name) => (parts.get(name) ?? "").split(",").map(Number);
  const axis = (/** @type {number} */ value) => Number.isInteger(value) && value >= 0 && value < about.sizes.length;
  const cell = numbers("cell");
  if (cell.length === about.sizes.length && cell.every((value, at) => Number.isInteger(value) && value >= 0 && value < about.sizes[at])) state.cell = cell;
  const walk = numbers("walk");
  if (walk.length === 2 && walk.every(axis)) [state.walk, state.of] = walk;
  const [x, y, of] = numbers("map").slice(0, 3);
  if ([x, y, of].every(axis) && x !== y) [state.x, state.y, state.mapOf] = [x, y, of];
  const [side, measure] = (parts.get("map") ?? "").split(",").slice(3);
  if (side === "train") state.side = side;
  if (measure === "bias" || measure === "difference") state.measure = measure;
  state.every = parts.has("every") && about.draws;
}
