// @ts-check
// What a model loses, in words and as a table.

/** The factors of a row, the most lost first. @param {RowData} row @returns {number[]} */
function lost(row) {
  return row.factors.map((/** @type {number} */ _, /** @type {number} */ axis) => axis).sort((/** @type {number} */ p, /** @type {number} */ q) => lossOf(row, q) - lossOf(row, p));
}

/** Whether a row has learned a factor at all: on train it is better than a constant by a fifth of what there is to gain. @param {RowData} row @param {number} axis */
function learned(row, axis) {
  const about = INDEX.splits[row.split], constant = about.constant[about.factors[axis]], train = row.train_factors[axis];
  return train === null || constant === null || constant === undefined || (train - constant) / (1 - constant) > 0.2;
}

/** What a row loses most, in two sentences. @param {RowData} row @param {Opened | null} now @returns {any[]} */
function story(row, now) {
  const about = INDEX.splits[row.split], order = lost(row).filter((axis) => lossOf(row, axis) > 0.02);
  if (!order.length) return [h("b", {}, row.label), " is as good on test as on train."];
  const scores = (/** @type {number} */ axis) => `R² ${number(row.train_factors[axis])} on train, ${number(row.factors[axis])} on test`;
  const name = (/** @type {number} */ axis) => h("b", {}, about.factors[axis]);
  const held = (about.held ? order.filter((axis) => about.held[axis].length) : order).filter((axis) => learned(row, axis));
  const never = about.factors.map((/** @type {string} */ _, /** @type {number} */ axis) => axis).filter((/** @type {number} */ axis) => !learned(row, axis));
  const parts = [h("b", {}, row.label), " loses "];
  const begin = (/** @type {number} */ axis) => {
    const start = now && row.answers !== undefined && about.test_if === "any" ? now.answers.leaves(row.answers, axis) : null;
    if (start === null || !now) return "";
    const first = spans(now.grid.held[axis]).some(([value]) => value === start);
    return `: its answers leave the truth at ${about.factors[axis]} ${now.grid.label(axis, start)}${first ? ", the first value that train lacks" : ""}`;
  };
  const all = never.flatMap((/** @type {number} */ axis, /** @type {number} */ at) => [at === 0 ? "" : at === never.length - 1 ? " and " : ", ", name(axis)]);
  const constant = never.length ? ` (R² of ${about.factors[never[0]]} ${number(row.train_factors[never[0]])}, and a constant has ${number(about.constant[about.factors[never[0]]])})` : "";
  const unknown = never.length ? [" It has not learned ", ...all, ` on train either${constant}.`] : [];
  const gone = held.length ? held : order.filter((axis) => learned(row, axis));
  if (!gone.length) return [h("b", {}, row.label), " has not learned ", ...all, ` even on train${constant}: of them it has nothing to lose.`];
  if (!held.length) return [...parts, name(gone[0]), ` most (${scores(gone[0])}).`, ...unknown];
  parts.push(name(held[0]), ` most of what is held out (${scores(held[0])})${begin(held[0])}.`);
  const spoiled = about.test_if === "any" ? order.find((axis) => !about.held[axis].length) : undefined;
  if (spoiled !== undefined && lossOf(row, spoiled) > 0.1) parts.push(" New values of others also spoil ", name(spoiled), ` (${scores(spoiled)}), of which train has every value.`);
  return [...parts, ...unknown];
}

/** The table of a row's factors. @param {RowData} row @param {Opened | null} now */
function factorTable(row, now) {
  const about = INDEX.splits[row.split], clip = about.reference.clip;
  const any = about.test_if === "any", back = row.collapse?.some(Boolean);
  const head = ["factor", "R² train", "R² test", "clip", any && "held out", any && now && "leaves the truth at", back && "pulled back"].filter(Boolean);
  const runs = (/** @type {number} */ axis) => {
    const grid = now?.grid ?? new Grid(about);
    return spans(grid.held[axis]).map(([first, end]) => (end - first > 1 ? `${grid.label(axis, first)} to ${grid.label(axis, end - 1)}` : grid.label(axis, first))).join(", ");
  };
  const body = lost(row).map((axis) => {
    const test = row.factors[axis], limit = clip[about.factors[axis]];
    const beats = test !== null && limit !== null && limit < 1 && test > limit;
    const start = any && now && row.answers !== undefined ? now.answers.leaves(row.answers, axis) : null;
    const collapsed = row.collapse?.[axis];
    return h("tr", {},
      h("td", {}, about.factors[axis]), h("td", {}, number(row.train_factors[axis])),
      h("td", { style: { background: shade(test) } }, number(test), beats ? h("span", { title: "beats clip" }, " ▲") : ""),
      h("td", {}, number(limit)), any && h("td", {}, runs(axis) || "–"),
      any && now && h("td", {}, !learned(row, axis) ? "not learned" : start === null || !now ? "–" : now.grid.label(axis, start)),
      back && h("td", {}, collapsed ? percent(collapsed.back) : "–"));
  });
  return wide(`The factors of ${row.label}`, head, body);
}

/** The ground of a cell that shows an R²: the more is lost, the stronger. @param {number | null} r2 */
function shade(r2) {
  if (r2 === null) return "none";
  const part = Math.log(Math.min(8, Math.max(0.02, 1 - r2)) / 0.02) / Math.log(400);
  return `color-mix(in srgb, var(--test) ${Math.round(55 * part)}%, transparent)`;
}

/**
 * Two models on the same cells: on how many test cells the first errs less, and by how much, paired by cell. An error of the mean that
 * takes cells as independent would be too small, as neighbours fail alike: it is taken over the values of the factor that varies most.
 * @param {Opened} now @param {RowData} a @param {RowData} b
 */
function paired(now, a, b) {
  const { grid, answers } = now, factors = grid.sizes.length;
  const variance = grid.sizes.map((size) => (size > 1 ? (size + 1) / (12 * (size - 1)) : Infinity));
  const loss = (/** @type {RowData} */ row, /** @type {number} */ place, /** @type {number[]} */ cell) =>
    cell.reduce((sum, value, axis) => sum + (answers.at(row.answers, place, axis) - grid.target(axis, value)) ** 2 / variance[axis], 0) / factors;
  const most = grid.kept.reduce((best, values, axis) => (values.length > grid.kept[best].length ? axis : best), 0);
  /** @type {Map<number, number[]>} */ const groups = new Map();
  let n = 0, wins = 0;
  for (let place = 0; place < grid.keptCount; place++) {
    const cell = grid.cell(place);
    if (!grid.isTest(cell)) continue;
    const gain = loss(b, place, cell) - loss(a, place, cell);
    n++;
    wins += Number(gain > 0);
    groups.set(cell[most], [...(groups.get(cell[most]) ?? []), gain]);
  }
  const means = [...groups.values()].map((gains) => gains.reduce((sum, gain) => sum + gain, 0) / gains.length);
  const mean = means.reduce((sum, each) => sum + each, 0) / means.length;
  const error = Math.sqrt(means.reduce((sum, each) => sum + (each - mean) ** 2, 0) / Math.max(1, means.length - 1) / means.length);
  return { n, wins, mean, error, groups: means.length, by: grid.names[most] };
}

/** The same in words. @param {Opened} now @param {RowData} a @param {RowData} b */
function pairedStory(now, a, b) {
  const found = paired(now, a, b);
  if (!found.n) return "";
  return `On the same ${found.n.toLocaleString("en")} kept test cells ${a.label} errs less than ${b.label} on ${percent(found.wins / found.n)}; its R² there is ${number(Math.abs(found.mean), 3)} ${found.mean < 0 ? "lower" : "higher"} (standard error ${number(found.error, 3)}, over ${found.groups} values of ${found.by}).`;
}
