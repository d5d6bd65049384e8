// @ts-check
// Puts the page together, and keeps its parts in step.

/** @type {Explorer | null} */
let explorer = null;

/** @type {Live | null} */
let network = null;

/** A row in a part of the page. @param {RowData} row @param {"leaderboard" | "explorer"} where */
function show(row, where) {
  const cell = state.cell;
  if (row.split !== state.split) startAt(row.split);
  else state.cell = cell;
  if (row.answers !== undefined) {
    if (state.b === row) state.b = state.a;
    state.a = row;
  }
  if (where === "leaderboard") {
    board.open = new Set([row.number]);
    onlySplit();
  }
  void openSplit().then(() => byId(where === "leaderboard" ? `row-${row.number}` : "explorer-section")?.scrollIntoView({ behavior: "smooth", block: "start" }));
}

/** The leaderboard of the chosen split alone. */
function onlySplit() {
  const about = INDEX.splits[state.split];
  Object.assign(board, { dataset: about.dataset, kind: about.kind, family: "", preset: "", text: "", sort: "rank", down: false });
  buildFilters();
  drawLeaderboard();
}

/** The explorer and the failures of the chosen split. */
async function openSplit() {
  const split = state.split, now = INDEX.splits[split].sizes ? await opened(split) : null;
  if (split !== state.split) return;
  document.querySelectorAll("select.split").forEach((/** @type {any} */ select) => (select.value = String(split)));
  const left = rowsOf(split).filter((row) => row.answers === undefined).length;
  byId("left-out").textContent = !now || !left ? "" : `${left} of ${rowsOf(split).length} models are not here: their runs have no error maps, or the page had no room.`;
  if (!now) {
    explorer = null;
    byId("explorer").replaceChildren(h("p", { class: "quiet" }, `No run of ${named(split)} has kept where it errs. ood-data bench rescore RUNS adds that to finished runs, from their weights; records of results have no maps.`));
    byId("failures").replaceChildren();
  } else {
    explorer = new Explorer(now);
    byId("explorer").replaceChildren(explorer.element);
    explorer.draw();
    explorer.drawMaps();
    drawFailures(now);
  }
  remember();
}

/** Another model was chosen in the explorer. */
function shownChanged() {
  if (explorer) drawFailures(explorer.now);
  remember();
}

function splitChoice() {
  const found = choice("Split", INDEX.splits.map((_, split) => [String(split), named(split)]), String(state.split), (value) => {
    startAt(Number(value));
    onlySplit();
    void openSplit();
  });
  found.querySelector("select").classList.add("split");
  return found;
}

function start() {
  recall();
  byId("split").append(splitChoice());
  byId("share").addEventListener("click", async () => {
    remember();
    let said = "Copied";
    await navigator.clipboard?.writeText(location.href).catch(() => (said = "The link is in the address bar"));
    byId("share").textContent = navigator.clipboard ? said : "The link is in the address bar";
    setTimeout(() => (byId("share").textContent = "Copy a link to this view"), 2500);
  });
  // The address holds the view, so that a link within the page scrolls and leaves it.
  document.querySelectorAll("a[data-part]").forEach((link) => link.addEventListener("click", (event) => {
    event.preventDefault();
    byId(/** @type {any} */ (link).hash.slice(1)).scrollIntoView();
  }));
  overview();
  onlySplit();
  if (!INDEX.live.length) document.querySelectorAll("#live-section, nav a[href='#live-section']").forEach((element) => element.remove());
  document.addEventListener("DOMContentLoaded", () => {
    void openSplit();
    if (!INDEX.live.length) return;
    network = new Live();
    byId("live").replaceChildren(network.element);
    void network.build();
  });
  let width = innerWidth;
  const again = () => {
    if (explorer) explorer.build(), drawFailures(explorer.now);
    void network?.build();
  };
  addEventListener("resize", () => {
    if (innerWidth !== width) again();
    width = innerWidth;
  });
  scheme.query.addEventListener("change", again); // after its own listener, which was first
  addEventListener("hashchange", () => (recall(), onlySplit(), void openSplit(), void network?.build()));
}

start();
