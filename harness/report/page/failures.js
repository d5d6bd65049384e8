// @ts-check
// The cells where a model errs most, and how often it falls back to what train has.

const CARDS = innerWidth < 640 ? 3 : 6; // of a group

/** @param {Opened} now */
function drawFailures(now) {
  const element = byId("failures"), row = state.a, { grid, answers } = now;
  if (!row) return element.replaceChildren();
  /** @type {Map<string, [number, number][]>} */ const groups = new Map();
  const variance = grid.sizes.map((size) => (size > 1 ? (size + 1) / (12 * (size - 1)) : Infinity));
  for (let place = 0; place < grid.keptCount; place++) {
    const cell = grid.cell(place);
    if (!grid.isTest(cell)) continue;
    const held = grid.split.test_if === "any" ? grid.heldOut(cell) : [];
    const group = held.length > 1 ? "several factors" : held.length ? `only ${grid.names[held[0]]}` : "test";
    const loss = cell.reduce((sum, value, axis) => sum + (answers.at(row.answers, place, axis) - grid.target(axis, value)) ** 2 / variance[axis], 0) / cell.length;
    groups.set(group, [...(groups.get(group) ?? []), [loss, place]]);
  }
  const order = [...groups.keys()].sort((p, q) => Number(p === "several factors") - Number(q === "several factors"));
  element.replaceChildren(
    h("p", {}, "The worst answers of ", h("b", {}, row.label), " on the kept test cells, by what is held out there: each factor's truth, and what it answers. A picture opens its cell in the explorer."),
    ...order.map((group) => {
      const cells = /** @type {[number, number][]} */ (groups.get(group)).sort((p, q) => q[0] - p[0]);
      return h("div", { class: "group" }, h("h3", {}, group === "test" ? "Test" : `${group[0].toUpperCase()}${group.slice(1)} held out`, h("small", {}, ` ${cells.length.toLocaleString("en")} cells`)), h("div", { class: "cards" }, ...apart(grid, cells).map(([, place]) => card(now, row, place))));
    }),
    collapseTable(now, row));
}

/** The worst cells, no two of which differ in one factor only: neighbours fail alike. @param {Grid} grid @param {[number, number][]} cells */
function apart(grid, cells) {
  /** @type {[number, number][]} */ const found = [];
  for (const each of cells) {
    const cell = grid.cell(each[1]);
    if (found.every(([, other]) => grid.cell(other).filter((value, axis) => value !== cell[axis]).length > 1)) found.push(each);
    if (found.length === CARDS) break;
  }
  return found;
}

/** @param {Opened} now @param {RowData} row @param {number} place */
function card(now, row, place) {
  const { grid, answers, pictures } = now, cell = grid.cell(place);
  const canvas = h("canvas", { "aria-hidden": "true", hidden: !pictures.any }), context = sized(canvas, 72, 72);
  pictures.draw(context, cell, 0, 0, 72);
  const lines = cell.map((value, axis) => {
    const answer = answers.at(row.answers, place, axis), far = Math.abs(answer - grid.target(axis, value)) > 0.15;
    return h("tr", { class: far ? "far" : null }, h("th", { class: grid.held[axis].has(value) ? "is-held" : null }, grid.names[axis]), h("td", {}, grid.label(axis, value)), h("td", {}, grid.said(axis, answer)));
  });
  const open = () => {
    state.cell = cell;
    show(row, "explorer");
  };
  return h("button", { type: "button", class: "card", onclick: open }, canvas, h("table", {}, h("thead", {}, h("tr", {}, ...["", "truth", "answer"].map((text) => h("th", {}, text)))), h("tbody", {}, ...lines)));
}

/** @param {Opened} now @param {RowData} row */
function collapseTable(now, row) {
  const { grid } = now, found = /** @type {any[]} */ (row.collapse ?? []);
  if (!found.some(Boolean)) return h("p", { class: "quiet" }, "Falling back to seen values is counted where an ordinal factor's held-out value makes a cell test, as in interpolation and extrapolation.");
  const body = grid.names.flatMap((name, axis) => {
    const each = found[axis];
    if (!each) return [];
    const steps = h("span", { class: "steps", role: "img", "aria-label": each.by_steps.map((/** @type {number[]} */ [step, share]) => `${step} steps: ${percent(share)}`).join(", ") },
      ...each.by_steps.map((/** @type {number[]} */ [step, share, n]) => h("span", { title: `${step} steps from train: ${percent(share)} of ${n}` }, h("i", { style: { height: `${Math.max(2, 100 * share)}%` } }), h("small", {}, step))));
    return [h("tr", {}, h("td", {}, name), h("td", {}, each.n.toLocaleString("en")), h("td", {}, h("b", {}, percent(each.back))), h("td", {}, percent(each.beyond)), h("td", {}, steps))];
  });
  return h("div", { class: "group" }, h("h3", {}, "Falling back to seen values"),
    h("p", { class: "quiet" }, "Pulled back: the share of kept cells with a held-out value of the factor whose answer lies nearer to the nearest value of train than to the truth. Beyond: as far off on the other side. Noise alone does both alike; a model that collapses to what it saw does the first."),
    wide("How often answers fall back to seen values", ["factor", "cells", "pulled back", "beyond", "pulled back, by steps from train"], body));
}
