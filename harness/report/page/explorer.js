// @ts-check
// The explorer: a slider a factor, the picture of that cell, the walk and the map.

/** @type {Map<string, Promise<Opened | null>>} */
const OPENED = new Map();
/** @type {Map<number, Promise<Pairs | null>>} */
const PAIRS = new Map();

/** What the pictures of a split need, unpacked once; null if no run of it has kept where it errs. @param {number} split @returns {Promise<Opened | null>} */
function opened(split) {
  const name = String(split);
  if (!OPENED.has(name)) OPENED.set(name, open());
  return /** @type {Promise<Opened | null>} */ (OPENED.get(name));

  async function open() {
    const about = INDEX.splits[split], rows = rowsOf(split).filter((row) => row.answers !== undefined);
    const buffer = rows.length ? await unpacked(`answers-${split}`) : null;
    if (!buffer) return null;
    const grid = new Grid(about);
    return { grid, rows, answers: new Answers(grid, buffer, rows.length), pictures: new Pictures(grid, await sheetOf(about)) };
  }
}

/** @param {RowData} row @param {Grid} grid @returns {Promise<Pairs | null>} */
function pairsOf(row, grid) {
  if (!PAIRS.has(row.number)) PAIRS.set(row.number, unpacked(`maps-${row.number}`).then((buffer) => buffer && new Pairs(grid, buffer)));
  return /** @type {Promise<Pairs | null>} */ (PAIRS.get(row.number));
}

class Explorer {
  /** @param {Opened} now */
  constructor(now) {
    this.now = now;
    const { grid, rows } = now;
    this.picture = h("canvas", { class: "picture", role: "img" });
    this.said = h("p", { class: "side", "aria-live": "polite" });
    this.note = h("p", { class: "note" });
    this.sliders = grid.names.map((_, axis) => new Slider(this, axis));
    this.strip = h("canvas", { role: "img", tabindex: 0 });
    this.maps = h("div", { class: "maps" });
    this.key = h("p", { class: "key" });
    this.story = h("p", { class: "story" });
    this.pair = h("p", { class: "note" });
    /** @type {[string, string][]} */ const models = rows.map((row) => [row.key, row.label]);
    const pick = (/** @type {"a" | "b"} */ side) => (/** @type {string} */ key) => {
      state[side] = rows.find((row) => row.key === key) ?? null;
      this.build();
      shownChanged();
    };
    this.models = h("div", { class: "choices" }, choice("Model", models, state.a?.key ?? "", pick("a")), choice("Beside it", [["", "none"], ...models], state.b?.key ?? "", pick("b")));
    /** @type {[string, string][]} */ const factors = grid.names.map((name, axis) => [String(axis), name]);
    const set = (/** @type {"walk" | "of" | "mapOf" | "x" | "y"} */ name) => (/** @type {string} */ value) => {
      const before = state[name];
      state[name] = Number(value);
      if (name === "walk") state.of = state.walk;
      if (state.x === state.y) (name === "x" ? (state.y = before) : (state.x = before));
      this.build();
      remember();
    };
    this.controls = { factors, set };
    this.walkChoices = h("div", { class: "choices" });
    this.mapChoices = h("div", { class: "choices" });
    this.strip.addEventListener("click", (/** @type {any} */ event) => this.moved(state.walk, this.valueAt(event.offsetX)));
    this.strip.addEventListener("keydown", (/** @type {any} */ event) => this.keys(event, state.walk, null));
    const every = h("input", { type: "checkbox", onchange: (/** @type {any} */ event) => ((state.every = event.target.checked), this.moved(0, state.cell[0])) });
    every.checked = state.every;
    this.element = h(
      "div", { class: "explorer" },
      h("div", { class: "panel" }, this.models, this.picture, this.said, h("div", { class: "sliders" }, ...this.sliders.map((slider) => slider.element)),
        grid.split.draws && h("label", { class: "check" }, every, "also cells without kept answers"), this.note),
      h("div", { class: "views" }, this.story, this.pair,
        h("h3", {}, "A walk across the border of train"), this.walkChoices, h("div", { class: "frame" }, this.strip), this.key,
        takeaway(() => `${named(state.split)}-walk-${grid.names[state.walk]}`, () => this.strip, () => stripLines(now)),
        h("h3", {}, "Where the error is"), this.mapChoices, this.maps),
    );
    this.valueAt = (/** @type {number} */ _) => 0;
    this.mapCanvases = /** @type {any[]} */ ([]);
    this.grounds = /** @type {any[]} */ ([]);
    /** @type {[RowData, Pairs][]} */ this.mapped = [];
    this.build();
  }

  /** What depends on more than the cell. */
  build() {
    const { grid } = this.now, { factors, set } = this.controls;
    this.models.querySelectorAll("select").forEach((/** @type {any} */ select, /** @type {number} */ at) => (select.value = (at ? state.b : state.a)?.key ?? ""));
    this.walkChoices.replaceChildren(choice("Walk along", factors, String(state.walk), set("walk")), choice("Answers for", factors, String(state.of), set("of")));
    /** @type {[string, string][]} */ const measures = [["rms", "root mean square error"], ["bias", "mean error, answer − truth"]];
    if (state.b) measures.push(["difference", "difference of the errors"]);
    else if (state.measure === "difference") state.measure = "rms";
    const free = (/** @type {"side" | "measure"} */ name) => (/** @type {any} */ value) => ((/** @type {any} */ (state)[name] = value), this.build(), remember());
    this.mapChoices.replaceChildren(
      choice("Across", factors, String(state.x), set("x")), choice("Down", factors, String(state.y), set("y")),
      choice("Error of", factors, String(state.mapOf), set("mapOf")), choice("As", measures, state.measure, free("measure")),
      choice("On", [["test", "test"], ["train", "train"]], state.side, free("side")),
    );
    const swatch = (/** @type {RowData} */ row, /** @type {boolean} */ dashed) => h("span", { class: "entry" }, h("i", { class: dashed ? "line dashed" : "line", style: { "border-color": row.color } }), row.label);
    this.key.replaceChildren(
      h("span", { class: "entry" }, h("i", { class: "line dotted", style: { "border-color": "var(--text)" } }), "truth"),
      ...[state.a && swatch(state.a, false), state.b && swatch(state.b, true)].filter(Boolean),
      h("span", { class: "entry" }, h("i", { class: "line", style: { "border-color": "var(--faint)" } }), "other models"),
      h("span", { class: "entry" }, h("i", { class: "patch" }), "test"),
      h("span", { class: "quiet" }, "Lines: the mean over everything scored with that value. Dots: the answers to these pictures."),
    );
    this.story.replaceChildren(...(state.a ? story(state.a, this.now) : []));
    this.pair.textContent = state.a && state.b && state.a !== state.b ? pairedStory(this.now, state.a, state.b) : "";
    void this.buildMaps(grid);
    this.draw();
  }

  /** @param {Grid} grid */
  async buildMaps(grid) {
    const rows = /** @type {RowData[]} */ ([state.a, state.b].filter(Boolean));
    const found = await Promise.all(rows.map((row) => pairsOf(row, grid)));
    this.mapped = rows.flatMap((row, at) => (found[at] ? [/** @type {[RowData, Pairs]} */ ([row, found[at]])] : []));
    if (!this.mapped.length || !this.mapped[0][1].has(state.x, state.y)) {
      this.mapped = [];
      this.mapCanvases = [];
      this.maps.replaceChildren(h("p", { class: "quiet" }, "There is no map over these two factors: together they have too many values."));
      return;
    }
    const both = state.measure === "difference" && this.mapped.length > 1;
    const titles = both ? [`${this.mapped[0][0].label} − ${this.mapped[1][0].label}`] : this.mapped.map(([row]) => row.label);
    this.mapCanvases = titles.map((title, at) => {
      const canvas = h("canvas", { tabindex: 0, role: "img", "aria-label": `${title}: error of ${grid.names[state.mapOf]} over ${grid.names[state.x]} and ${grid.names[state.y]}; arrow keys move` });
      canvas.addEventListener("click", (/** @type {any} */ event) => this.jump(canvas, event));
      canvas.addEventListener("keydown", (/** @type {any} */ event) => this.keys(event, state.x, state.y));
      this.maps.append(h("figure", {}, h("figcaption", {}, title), h("div", { class: "frame" }, canvas),
        takeaway(() => `${named(state.split)}-map-${title}`, () => canvas, () => mapLines(this.now, both ? this.mapped : [this.mapped[at]]))));
      return canvas;
    });
    this.maps.replaceChildren(...[...this.maps.children].slice(-titles.length), this.scale(both));
    this.maps.classList.toggle("pair", titles.length > 1);
    this.grounds = this.mapCanvases.map((canvas, at) => drawGround(this.now, canvas, this.mapped[at][1], both ? this.mapped[1][1] : null));
    this.drawMaps();
  }

  /** @param {boolean} both */
  scale(both) {
    const signed = both || state.measure === "bias", stops = Array.from({ length: 9 }, (_, stop) => ramp(signed ? DIVERGING : SEQUENTIAL, stop / 8));
    const ends = signed ? (both ? ["−.5: the first errs less", "+.5: the second errs less"] : ["−.5: too low", "+.5: too high"]) : ["0", "half of the factor's range, or more"];
    return h("p", { class: "scale" }, ends[0], h("i", { style: { background: `linear-gradient(90deg, ${stops.join()})` } }), ends[1], h("span", { class: "entry outline" }, "outlined: held out"));
  }

  drawMaps() {
    this.places = this.mapCanvases.map((canvas, at) => drawMap(this.now, canvas, this.grounds[at]));
  }

  /** @param {any} canvas @param {any} event */
  jump(canvas, event) {
    const [vx, vy] = /** @type {any} */ (this.places)[this.mapCanvases.indexOf(canvas)](event.offsetX, event.offsetY);
    state.cell[state.y] = this.allowed(state.y, vy);
    this.moved(state.x, vx);
  }

  /** @param {any} event @param {number} across @param {number | null} down */
  keys(event, across, down) {
    const moves = /** @type {Record<string, [number | null, number]>} */ ({ ArrowLeft: [across, -1], ArrowRight: [across, 1], ArrowUp: [down, -1], ArrowDown: [down, 1] });
    const [axis, step] = moves[event.key] ?? [null, 0];
    if (axis === null) return;
    event.preventDefault();
    this.step(axis, step);
  }

  /** The value that a slider may stand at. @param {number} axis @param {number} value */
  allowed(axis, value) {
    return state.every ? value : this.now.grid.nearest(axis, value);
  }

  /** One value, or one kept value, on. @param {number} axis @param {number} step */
  step(axis, step) {
    const { grid } = this.now, kept = grid.kept[axis];
    const value = state.every ? state.cell[axis] + step : kept[kept.indexOf(grid.nearest(axis, state.cell[axis])) + step];
    if (value >= 0 && value < grid.sizes[axis]) this.moved(axis, value);
  }

  /** @param {number} axis @param {number} value */
  moved(axis, value) {
    state.cell[axis] = value;
    state.cell = state.cell.map((each, at) => this.allowed(at, each));
    this.draw();
    this.drawMaps();
    remember();
  }

  draw() {
    const { grid, pictures } = this.now, side = Math.min(256, this.picture.parentElement?.clientWidth || 256);
    const context = sized(this.picture, side, side);
    this.picture.hidden = !pictures.any;
    if (!pictures.draw(context, state.cell, 0, 0, side)) context.clearRect(0, 0, side, side);
    const words = state.cell.map((value, axis) => `${grid.names[axis]} ${grid.label(axis, value)}`).join(", ");
    this.picture.setAttribute("aria-label", `The picture of ${words}`);
    this.said.textContent = grid.side(state.cell);
    this.said.classList.toggle("is-test", grid.isTest(state.cell) === true);
    this.note.textContent = grid.place(state.cell) < 0
      ? "No answers were kept for this cell. Hollow marks show the mean answer to this value instead."
      : pictures.any ? "" : "There are no pictures here: make the report with --data, the folder of the stores.";
    for (const slider of this.sliders) slider.draw();
    this.valueAt = drawStrip(this.now, this.strip);
    this.strip.setAttribute("aria-label", `Along ${grid.names[state.walk]}: the truth of ${grid.names[state.of]} and what models answer; arrow keys move`);
  }
}

/** A factor: its value, which values are held out, and where the models' answers lie. */
class Slider {
  /** @param {Explorer} explorer @param {number} axis */
  constructor(explorer, axis) {
    const { grid } = explorer.now;
    this.explorer = explorer;
    this.axis = axis;
    this.grid = grid;
    this.value = h("b", {});
    this.input = h("input", { type: "range", min: 0, max: Math.max(1, grid.sizes[axis] - 1), step: 1, disabled: grid.sizes[axis] < 2, "aria-label": grid.names[axis] });
    this.input.addEventListener("input", () => {
      const wished = Number(this.input.value), now = state.cell[axis], kept = grid.kept[axis];
      // By the keyboard a step is one value: it leads to the next one that is kept.
      const value = state.every || Math.abs(wished - now) !== 1 ? explorer.allowed(axis, wished) : kept[kept.indexOf(now) + Math.sign(wished - now)] ?? now;
      explorer.moved(axis, value);
    });
    this.lane = h("div", { class: "lane", "aria-hidden": "true" });
    const place = (/** @type {number} */ value) => `${(100 * (value + 0.5)) / grid.sizes[axis]}%`;
    const shades = spans(grid.held[axis]).map(([first, end]) => h("i", { class: "held", style: { left: `${(100 * first) / grid.sizes[axis]}%`, width: `${(100 * (end - first)) / grid.sizes[axis]}%` } }));
    const stops = grid.kept[axis].length < grid.sizes[axis] ? grid.kept[axis].map((value) => h("i", { class: "stop", style: { left: place(value) } })) : [];
    this.answer = h("span", { class: "answer" });
    this.element = h("div", { class: "slider" },
      h("p", {}, h("span", {}, grid.names[axis]), this.value, this.answer),
      h("div", { class: "track", style: { "--half": `${50 / grid.sizes[axis]}%` } }, ...shades, ...stops, this.input), this.lane);
  }

  draw() {
    const { axis, grid } = this, { answers } = this.explorer.now, value = state.cell[axis], cell = grid.place(state.cell);
    this.input.value = String(value);
    this.value.textContent = grid.label(axis, value);
    this.input.setAttribute("aria-valuetext", `${grid.label(axis, value)}${grid.held[axis].has(value) ? ", held out" : ""}`);
    this.element.classList.toggle("is-held", grid.held[axis].has(value));
    const rows = /** @type {RowData[]} */ ([state.a, state.b].filter(Boolean));
    const found = rows.map((row) => (cell < 0 ? grid.target(axis, value) + answers.mean(row.answers, axis, value, axis).bias : answers.at(row.answers, cell, axis)));
    const least = 50 / grid.sizes[axis];
    this.lane.replaceChildren(...rows.map((row, at) => {
      const place = least + Math.min(1.06, Math.max(-0.06, found[at])) * (100 - 2 * least);
      return h("i", { class: `${row === state.b ? "mark second" : "mark"}${cell < 0 ? " mean" : ""}`, style: { left: `${place}%`, "--own": row.color } });
    }));
    this.answer.replaceChildren(...rows.map((row, at) => h("span", { class: row === state.b ? "said second" : "said", title: row.label }, h("i", { style: { "--own": row.color } }), Number.isNaN(found[at]) ? "–" : grid.said(axis, found[at]))));
  }
}
