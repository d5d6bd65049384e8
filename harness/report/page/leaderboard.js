// @ts-check
// All rows, sorted and filtered; each opens to what is known of it.

const board = { dataset: "", kind: "", family: "", preset: "", text: "", sort: "rank", down: false, open: /** @type {Set<number>} */ (new Set()) };
const MOST_ROWS = 300, MOST_MODELS = 12; // that are shown at once, of the leaderboard and of the overview

/** A table of models by kinds of split for each dataset. */
function overview() {
  const element = byId("overview"), datasets = [...new Set(INDEX.splits.map((split) => split.dataset))];
  if (INDEX.splits.length < 2) return element.remove();
  for (const dataset of datasets) {
    const splits = INDEX.splits.map((split, number) => ({ ...split, number })).filter((split) => split.dataset === dataset);
    /** @type {Map<string, RowData[]>} */ const models = new Map();
    for (const split of splits) for (const row of rowsOf(split.number)) models.set(row.key, [...(models.get(row.key) ?? []), row]);
    const lines = [...models.values()].map((rows) => splits.map((split) => rows.find((row) => row.split === split.number)));
    lines.sort((p, q) => splits.reduce((sum, _, at) => sum || (q[at]?.r2 ?? -Infinity) - (p[at]?.r2 ?? -Infinity) || 0, 0));
    const cell = (/** @type {RowData | undefined} */ row) => h("td", {}, row ? h("button", { type: "button", class: "number", style: { background: shade(row.r2) }, title: `${row.label} on ${dataset}, ${INDEX.splits[row.split].kind}`, onclick: () => show(row, "leaderboard") }, number(row.r2)) : "–");
    const body = lines.slice(0, MOST_MODELS).map((rows) => {
      const one = /** @type {RowData} */ (rows.find(Boolean));
      return h("tr", {}, h("td", {}, h("i", { class: "dot", style: { background: one.color } }), one.label), ...rows.map(cell));
    });
    const references = /** @type {[string, string][]} */ ([["train_mean", "(train-mean)"], ["clip", "(clip)"]]).map(([name, label]) =>
      h("tr", { class: "reference" }, h("td", {}, label), ...splits.map((split) => h("td", {}, split.reference[name][""] > 0.9995 ? "" : number(split.reference[name][""])))));
    element.append(h("div", {}, h("h3", {}, dataset), wide(`${dataset}, R² by kind of split`, ["", ...splits.map((split) => split.kind)], [...body, ...references]),
      lines.length > MOST_MODELS && h("p", { class: "quiet" }, `The best ${MOST_MODELS} of ${lines.length}.`)));
  }
}

/** The rows that the filters leave. */
function filtered() {
  const wanted = (/** @type {RowData} */ row) => {
    const split = INDEX.splits[row.split];
    return [[board.dataset, split.dataset], [board.kind, split.kind], [board.family, row.family], [board.preset, row.preset]].every(([wish, has]) => !wish || wish === has)
      && row.label.toLowerCase().includes(board.text.toLowerCase());
  };
  const by = /** @type {Record<string, (row: RowData) => any>} */ ({
    rank: (row) => [row.split, -(row.r2 ?? -Infinity)], model: (row) => [row.label], test: (row) => [row.r2], "excl. cat.": (row) => [row.excl], train: (row) => [row.train],
    published: (row) => [row.published ?? -Infinity], steps: (row) => [row.steps], seeds: (row) => [row.seeds.length], split: (row) => [row.split],
  });
  const key = by[board.sort] ?? ((/** @type {RowData} */ row) => [row.factors[INDEX.splits[row.split].factors.indexOf(board.sort)]]);
  const compare = (/** @type {any[]} */ p, /** @type {any[]} */ q) => p.reduce((sum, each, at) => sum || (each < q[at] ? -1 : each > q[at] ? 1 : 0), 0);
  return INDEX.rows.filter(wanted).sort((p, q) => (board.down ? -1 : 1) * compare(key(p), key(q)));
}

function drawLeaderboard() {
  const rows = filtered(), shown = rows.slice(0, MOST_ROWS), splits = [...new Set(rows.map((row) => row.split))], one = splits.length === 1 ? INDEX.splits[splits[0]] : null;
  const has = (/** @type {(row: RowData) => any} */ of) => rows.some((row) => of(row) !== null && of(row) !== undefined);
  const columns = /** @type {string[]} */ (["rank", "model", !one && "split", "test", has((row) => row.excl !== row.r2 ? row.excl : null) && "excl. cat.", "train", has((row) => row.published) && "published", ...(one ? one.factors : []), "seeds", "steps"].filter(Boolean));
  const sorted = (/** @type {string} */ name) => (board.sort === name ? (board.down ? "descending" : "ascending") : "none");
  const head = columns.map((name, at) => h("th", { "aria-sort": sorted(name), class: one && at > columns.indexOf("train") && one.factors.includes(name) ? "factor" : null },
    h("button", { type: "button", onclick: () => {
      board.down = board.sort === name ? !board.down : !["rank", "model", "split"].includes(name);
      board.sort = name;
      drawLeaderboard();
    } }, name === "test" ? "R² test" : name === "train" ? "R² train" : name)));
  const value = (/** @type {RowData} */ row, /** @type {string} */ name) => {
    const digits = digitsOf(row.half), split = INDEX.splits[row.split];
    if (name === "rank" && !row.rank) return h("td", { title: row.how }, "–");
    if (name === "rank") return h("td", {}, row.rank[0] === row.rank[1] ? String(row.rank[0]) : h("span", { title: "not told apart from its neighbours" }, `${row.rank[0]}–${row.rank[1]}`));
    if (name === "model") return h("td", {}, h("button", { type: "button", class: "row", "aria-expanded": String(board.open.has(row.number)), onclick: () => toggle(row) }, h("i", { class: "dot", style: { background: row.color } }), row.label));
    if (name === "split") return h("td", {}, `${split.dataset}, ${split.kind}`);
    if (name === "test") return h("td", { class: "score", title: row.how }, h("span", { class: "bar", style: { "--part": Math.max(0, row.r2 ?? 0), "--own": row.color } }), number(row.r2, digits), row.half === null ? "" : h("small", {}, ` ± ${number(row.half, digits)}`));
    if (name === "excl. cat.") return h("td", {}, number(row.excl));
    if (name === "train") return h("td", {}, number(row.train));
    if (name === "published") return h("td", {}, number(row.published, 3));
    if (name === "seeds") return h("td", {}, row.seeds.length === 1 ? "1" : String(row.seeds.length));
    if (name === "steps") return h("td", {}, row.steps.toLocaleString("en"));
    const at = split.factors.indexOf(name), r2 = row.factors[at], clip = split.reference.clip[name];
    return h("td", { class: "factor", style: { background: shade(r2) } }, number(r2), r2 !== null && clip !== null && clip < 1 && r2 > clip ? h("span", { title: "beats clip" }, "▲") : "");
  };
  const body = shown.flatMap((row) => [
    h("tr", { id: `row-${row.number}` }, ...columns.map((name) => value(row, name))),
    ...(board.open.has(row.number) ? [h("tr", { class: "detail" }, h("td", { colspan: columns.length }, detail(row)))] : []),
  ]);
  const references = !one ? [] : Object.entries(one.reference).filter(([, scores]) => scores[""] < 0.9995).map(([name, scores]) =>
    h("tr", { class: "reference" }, ...columns.map((column) => h("td", {}, column === "model" ? `(${name.replaceAll("_", "-")})` : column === "test" ? number(scores[""]) : one.factors.includes(column) ? number(scores[column]) : ""))));
  byId("board").replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...body, ...references)));
  const left = rows.length - shown.length;
  byId("board-note").textContent = [`${rows.length} of ${INDEX.rows.length} rows.`, left > 0 ? `The first ${MOST_ROWS} are shown: filter for the others.` : "", one ? "A model's name opens its row." : "Choose a dataset and a kind of split to see each factor."].join(" ");
}

/** @param {RowData} row */
function toggle(row) {
  if (!board.open.delete(row.number)) board.open.add(row.number);
  drawLeaderboard();
  byId(`row-${row.number}`)?.querySelector("button.row")?.focus();
}

/** What is known of a row. @param {RowData} row */
function detail(row) {
  const words = h("p", { class: "story" }), table = h("div"), first = row.seeds.length > 1 ? `the first of ${row.seeds.length} seeds` : "seed " + row.seeds[0];
  const fill = (/** @type {Opened | null} */ now) => (words.replaceChildren(...story(row, now)), table.replaceChildren(factorTable(row, now)));
  if (INDEX.splits[row.split].sizes) opened(row.split).then(fill);
  else fill(null);
  const pairs = (/** @type {Record<string, string>} */ values) => h("dl", {}, ...Object.entries(values).filter(([, value]) => value).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  const seeds = row.seeds.map((/** @type {number} */ seed, /** @type {number} */ at) => `${seed}: ${number(row.by_seed[at], 3)}`).join(", ");
  return h("div", { class: "inside" }, words,
    h("div", { class: "columns" },
      h("div", {}, table, h("p", { class: "quiet" }, "R² by factor, the most lost first. ▲ beats clip. An answer leaves the truth where its error is over twice that on train; it is pulled back where it lies nearer to the nearest value of train than to the truth.")),
      h("div", {}, curve(row, first), h("p", { class: "quiet" }, `R² by seed: ${seeds}. Interval: ${row.how}.`))),
    row.answers !== undefined && h("p", {}, h("button", { type: "button", class: "main", onclick: () => show(row, "explorer") }, "Look at it in the explorer")),
    h("details", {}, h("summary", {}, "Settings and versions"), h("div", { class: "columns" }, pairs(row.settings), pairs({ ...row.made, device: row.device, training: `${Math.round(row.seconds[0])} s`, scoring: `${Math.round(row.seconds[1])} s` }))));
}

/** The curve of the losses, a line a phase. @param {RowData} row @param {string} whose */
function curve(row, whose) {
  if (row.log.length < 2) return h("p", { class: "quiet" }, "Its log has no curve.");
  const phases = [...new Set(row.log.map((/** @type {any[]} */ line) => line[0]))];
  return h("div", { class: "curves" }, ...phases.map((phase) => {
    const points = row.log.filter((/** @type {any[]} */ line) => line[0] === phase), steps = points.map((/** @type {any[]} */ line) => line[1]), losses = points.map((/** @type {any[]} */ line) => line[2]);
    const [last, low, high] = [Math.max(...steps), Math.min(...losses), Math.max(...losses)];
    const path = points.map((/** @type {any[]} */ line, /** @type {number} */ at) => `${at ? "L" : "M"}${((200 * line[1]) / last).toFixed(1)} ${(58 - (54 * (line[2] - low)) / (high - low || 1)).toFixed(1)}`).join("");
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), drawn = document.createElementNS("http://www.w3.org/2000/svg", "path");
    for (const [name, value] of Object.entries({ viewBox: "0 0 200 62", role: "img", "aria-label": `${phase}: loss from ${number(losses[0], 3)} to ${number(losses[losses.length - 1], 3)}` })) svg.setAttribute(name, value);
    for (const [name, value] of Object.entries({ d: path, fill: "none", stroke: row.color, "stroke-width": "1.5", "vector-effect": "non-scaling-stroke" })) drawn.setAttribute(name, value);
    svg.append(drawn);
    return h("figure", {}, svg, h("figcaption", {}, `Loss of ${phase}, ${whose}: ${number(losses[0], 3)} to ${number(losses[losses.length - 1], 3)} in ${last.toLocaleString("en")} steps`));
  }));
}

/** The filters above the leaderboard. */
function buildFilters() {
  const values = (/** @type {(row: RowData) => string} */ of) => [...new Set(INDEX.rows.map(of))];
  const filter = (/** @type {"dataset" | "kind" | "family" | "preset"} */ name, /** @type {string[]} */ found) =>
    found.length > 1 && choice(name[0].toUpperCase() + name.slice(1), [["", "all"], ...found.map((value) => /** @type {[string, string]} */ ([value, value]))], board[name], (value) => ((board[name] = value), drawLeaderboard()));
  byId("filters").replaceChildren(...[
    filter("dataset", values((row) => INDEX.splits[row.split].dataset)), filter("kind", values((row) => INDEX.splits[row.split].kind)),
    filter("family", values((row) => row.family)), filter("preset", values((row) => row.preset)),
    h("label", { class: "choice" }, h("span", {}, "Name"), h("input", { type: "search", value: board.text, oninput: (/** @type {any} */ event) => ((board.text = event.target.value), drawLeaderboard()) })),
    h("button", { type: "button", class: "quiet", onclick: () => save("leaderboard.csv", csv([["dataset", "kind", "model", "rank", "r2", "half width of 95 %", "of what", "train", "seeds", "steps"],
      ...filtered().map((row) => [INDEX.splits[row.split].dataset, INDEX.splits[row.split].kind, row.label, row.rank?.join("-"), row.r2, row.half, row.how, row.train, row.seeds.length, row.steps])])) }, "Save CSV"),
  ].filter(Boolean));
}
