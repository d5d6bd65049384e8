// @ts-check
// A network in the page: it answers to pictures between the grid's values and beyond them, which our renderer draws by the same rules.

const BEYOND = 0.5, STEP = 0.1, SAMPLES = 80; // of a factor's range on each side; of an index; of a walk, about

/** What the live network is shown. */
const live = { at: 0, cell: /** @type {number[]} */ ([]), walk: 0, of: 0 };

/** The grid of a live network, and how far its sliders go. */
class Field {
  /** @param {any} about */
  constructor(about) {
    this.about = about;
    this.grid = new Grid(about);
    const range = (/** @type {number} */ axis) => (about.categorical[axis] ? 0 : this.grid.sizes[axis] - 1);
    /** @type {[number, number][]} */ this.bounds = this.grid.sizes.map((size, axis) => [-BEYOND * range(axis), size - 1 + BEYOND * range(axis)]);
  }

  /** Its place between the ends of a slider, 0 to 1. @param {number} axis @param {number} value */
  part(axis, value) {
    const [low, high] = this.bounds[axis];
    return (value - low) / (high - low || 1);
  }

  /** The nearest value that a slider can stand at. @param {number} axis @param {number} value */
  within(axis, value) {
    const [low, high] = this.bounds[axis], one = this.about.categorical[axis] ? 1 : STEP;
    return Number((Math.round(Math.min(high, Math.max(low, value)) / one) * one).toFixed(1));
  }

  /** @param {number} axis @param {number} value */
  onGrid(axis, value) {
    return Number.isInteger(value) && value >= 0 && value < this.grid.sizes[axis];
  }

  /** @param {number} axis @param {number} value */
  label(axis, value) {
    if (this.onGrid(axis, value)) return this.grid.label(axis, value);
    return this.about.labels[axis] ? this.grid.between(axis, value) : number(value, 1);
  }

  /** Where a value off the grid lies, in words. @param {number} axis @param {number} value */
  lies(axis, value) {
    const { grid } = this, last = grid.sizes[axis] - 1, what = `${grid.names[axis]} ${this.label(axis, value)} lies`;
    if (value < 0) return `${what} below the grid's first value, ${grid.label(axis, 0)}`;
    if (value > last) return `${what} above the grid's last value, ${grid.label(axis, last)}`;
    const ends = [Math.floor(value), Math.ceil(value)], lacks = ends.filter((end) => grid.held[axis].has(end));
    const tail = this.about.test_if !== "any" ? "" : lacks.length === 2 ? ", which train lacks" : lacks.length ? `, of which train lacks ${grid.label(axis, lacks[0])}` : ", which train has";
    return `${what} between ${ends.map((end) => grid.label(axis, end)).join(" and ")}${tail}`;
  }

  /** Where a picture lies, in words. @param {number[]} cell */
  said(cell) {
    const off = cell.map((_, axis) => axis).filter((axis) => !this.onGrid(axis, cell[axis]));
    return off.length ? `Off the grid: ${off.map((axis) => this.lies(axis, cell[axis])).join("; ")}.` : `On the grid, ${this.grid.side(cell)}.`;
  }
}

/** The network's answers along one factor, from coarse to fine, as far as there was time. */
class Walk {
  /** @param {Network} network @param {Field} field @param {number[]} cell @param {number} axis */
  constructor(network, field, cell, axis) {
    const [low, high] = field.bounds[axis];
    // The grid's values are among those that are walked.
    const parts = field.about.categorical[axis] ? 1 : Math.max(1, Math.floor(SAMPLES / (high - low || 1)));
    this.network = network;
    this.axis = axis;
    this.cell = cell.slice();
    const first = Math.ceil(low * parts);
    this.values = Array.from({ length: Math.floor(high * parts) - first + 1 }, (_, at) => (first + at) / parts);
    /** @type {(Float32Array | undefined)[]} */ this.answers = this.values.map(() => undefined);
    const order = [16, 8, 4, 2, 1].flatMap((stride) => this.values.map((_, at) => at).filter((at) => at % stride === 0));
    this.waiting = [...new Set(order)].reverse();
  }

  /** Whether it is the walk through a cell. @param {number[]} cell @param {number} axis @param {Network} network */
  is(cell, axis, network) {
    return this.axis === axis && this.network === network && cell.every((value, at) => at === axis || value === this.cell[at]);
  }

  /** Answer on, for so long. @param {number} milliseconds */
  goOn(milliseconds) {
    const end = performance.now() + milliseconds;
    while (this.waiting.length) {
      const at = /** @type {number} */ (this.waiting.pop());
      this.answers[at] = this.network.answer(dsprite(this.cell.map((value, axis) => (axis === this.axis ? this.values[at] : value))));
      if (performance.now() > end) break;
    }
  }
}

class Live {
  constructor() {
    this.picture = h("canvas", { class: "picture grab", role: "img" });
    this.said = h("p", { class: "side", "aria-live": "polite" });
    this.time = h("p", { class: "note" });
    this.sliders = h("div", { class: "sliders" });
    this.choices = h("div", { class: "choices" });
    this.walkChoices = h("div", { class: "choices" });
    this.strip = h("canvas", { role: "img", tabindex: 0 });
    this.key = h("p", { class: "key" });
    this.story = h("p", { class: "story", "aria-live": "polite" });
    this.strip.addEventListener("click", (/** @type {any} */ event) => this.moved(live.walk, this.valueAt(event.offsetX)));
    this.strip.addEventListener("keydown", (/** @type {any} */ event) => {
      const way = /** @type {Record<string, number>} */ ({ ArrowLeft: -STEP, ArrowRight: STEP })[event.key];
      if (way) event.preventDefault(), this.moved(live.walk, live.cell[live.walk] + way);
    });
    this.picture.addEventListener("pointerdown", (/** @type {any} */ event) => (this.picture.setPointerCapture(event.pointerId), this.dragged(event)));
    this.picture.addEventListener("pointermove", (/** @type {any} */ event) => event.buttons && this.dragged(event));
    this.element = h("div", { class: "explorer" },
      h("div", { class: "panel" }, this.choices, this.picture, this.said, this.sliders,
        h("button", { type: "button", class: "quiet", onclick: () => this.toGrid() }, "To the nearest cell of the grid"), this.time),
      h("div", { class: "views" }, this.story, h("h3", {}, "A walk between the grid's values, and beyond them"), this.walkChoices, h("div", { class: "frame" }, this.strip), this.key,
        takeaway(() => `live-${this.about.label}-${this.field.grid.names[live.walk]}`, () => this.strip, () => this.lines())));
    this.valueAt = (/** @type {number} */ _) => 0;
    this.pumping = 0;
    this.remembering = 0;
    /** @type {Map<number, Network>} */ this.networks = new Map();
    /** @type {Walk | null} */ this.walk = null;
    /** @type {Float32Array | null} */ this.answer = null;
    this.about = INDEX.live[live.at];
    this.field = new Field(this.about);
    /** @type {LiveSlider[]} */ this.factors = [];
  }

  /** Another network, or another view of it. */
  async build() {
    this.about = INDEX.live[live.at];
    this.field = new Field(this.about);
    const { grid } = this.field, at = live.at;
    if (!this.networks.has(at)) {
      const buffer = /** @type {ArrayBuffer} */ (await unpacked(`live-${at}`));
      this.networks.set(at, new Network(this.about.layers, buffer));
    }
    if (at !== live.at) return;
    this.choices.replaceChildren(choice("Network", INDEX.live.map((each, number) => [String(number), each.label]), String(at), (value) => (startLive(Number(value)), void this.build())),
      choice(grid.names[0], this.about.labels[0].map((/** @type {string} */ text, /** @type {number} */ value) => [String(value), text]), String(live.cell[0]), (value) => this.moved(0, Number(value))));
    /** @type {[string, string][]} */ const names = grid.names.map((name, axis) => /** @type {[string, string]} */ ([String(axis), name])).slice(1);
    this.walkChoices.replaceChildren(
      choice("Walk along", names, String(live.walk), (value) => ((live.walk = live.of = Number(value)), void this.build())),
      choice("Answers for", [["0", grid.names[0]], ...names], String(live.of), (value) => ((live.of = Number(value)), void this.build())));
    this.factors = grid.names.map((_, axis) => axis).slice(1).map((axis) => new LiveSlider(this, axis));
    this.sliders.replaceChildren(...this.factors.map((slider) => slider.element));
    const entry = (/** @type {any} */ sign, /** @type {string} */ text) => h("span", { class: "entry" }, sign, text);
    this.key.replaceChildren(entry(h("i", { class: "line dotted", style: { "border-color": "var(--text)" } }), "truth"), entry(h("i", { class: "line", style: { "border-color": this.about.color } }), this.about.model),
      entry(h("i", { class: "patch" }), "train has no such value"), entry(h("i", { class: "patch beyond" }), "beyond the grid"), h("span", { class: "quiet" }, "Dots: the grid's values."));
    this.draw();
    this.rememberSoon();
  }

  get network() {
    return /** @type {Network} */ (this.networks.get(live.at));
  }

  /** @param {number} axis @param {number} value */
  moved(axis, value) {
    live.cell[axis] = this.field.within(axis, value);
    this.draw();
    this.rememberSoon();
  }

  /** The shape follows the pointer. @param {any} event */
  dragged(event) {
    const side = this.picture.clientWidth, place = (/** @type {number} */ at) => (((at * SIDE) / side - SIDE / 4) * 31) / (SIDE / 2);
    live.cell[3] = this.field.within(3, place(event.offsetX));
    this.moved(4, place(event.offsetY));
  }

  toGrid() {
    live.cell = live.cell.map((value, axis) => Math.min(this.field.grid.sizes[axis] - 1, Math.max(0, Math.round(value))));
    this.draw();
    this.rememberSoon();
  }

  /** A browser allows only so many addresses in a while. */
  rememberSoon() {
    clearTimeout(this.remembering);
    this.remembering = setTimeout(remember, 250);
  }

  draw() {
    const began = performance.now(), { field } = this, { grid } = field, pixels = dsprite(live.cell), side = Math.min(256, this.picture.parentElement?.clientWidth || 256);
    this.answer = this.network.answer(pixels);
    paint(sized(this.picture, side, side), pixels, 0, 0, side);
    this.picture.setAttribute("aria-label", `The picture of ${live.cell.map((value, axis) => `${grid.names[axis]} ${field.label(axis, value)}`).join(", ")}; drag it to move the shape`);
    this.said.textContent = field.said(live.cell);
    this.said.classList.toggle("is-test", live.cell.some((value, axis) => grid.held[axis].has(value) || !field.onGrid(axis, value)));
    for (const slider of this.factors) slider.draw(this.answer);
    if (!this.walk?.is(live.cell, live.walk, this.network)) this.walk = new Walk(this.network, field, live.cell, live.walk);
    this.valueAt = drawLiveStrip(this, this.strip);
    this.strip.setAttribute("aria-label", `Along ${grid.names[live.walk]}: the truth of ${grid.names[live.of]} and what ${this.about.model} answers; arrow keys move`);
    this.time.textContent = `${this.about.model} runs in this page, from its weights. A step took ${Math.max(1, Math.round(performance.now() - began))} ms.`;
    if (this.walk.waiting.length && !this.pumping) this.pumping = requestAnimationFrame(() => this.pump());
    this.story.textContent = this.walk.waiting.length ? this.story.textContent : leaves(this);
  }

  /** Some of the walk in each frame, so that a slider never waits for it. */
  pump() {
    this.pumping = 0;
    const walk = /** @type {Walk} */ (this.walk);
    walk.goOn(12);
    this.valueAt = drawLiveStrip(this, this.strip);
    if (walk.waiting.length) this.pumping = requestAnimationFrame(() => this.pump());
    else this.story.textContent = leaves(this);
  }

  /** The numbers of the walk. */
  lines() {
    const { grid } = this.field, walk = /** @type {Walk} */ (this.walk);
    walk.goOn(Infinity);
    return [["model", grid.names[walk.axis], "index", "on the grid", "held out", ...grid.names.map((name) => `answer for ${name}, 0 to 1 on the grid`)],
      ...walk.values.map((value, at) => [this.about.label, this.field.label(walk.axis, value), value, String(this.field.onGrid(walk.axis, value)), String(grid.held[walk.axis].has(value)), ...(walk.answers[at] ?? [])])];
  }
}

/** A factor that is dragged through and beyond its grid. */
class LiveSlider {
  /** @param {Live} owner @param {number} axis */
  constructor(owner, axis) {
    const { field } = owner, { grid } = field, [low, high] = field.bounds[axis];
    this.owner = owner;
    this.axis = axis;
    this.value = h("b", {});
    this.answer = h("span", { class: "answer" });
    this.input = h("input", { type: "range", min: low, max: high, step: STEP, "aria-label": grid.names[axis], oninput: () => owner.moved(axis, Number(this.input.value)) });
    this.lane = h("div", { class: "lane", "aria-hidden": "true" });
    const band = (/** @type {string} */ name, /** @type {number} */ from, /** @type {number} */ to) => h("i", { class: name, style: { left: this.place(from), width: `calc(${field.part(axis, to) - field.part(axis, from)} * (100% - 14px))` } });
    const held = spans(grid.held[axis]).map(([first, end]) => band("held", first - 0.5, end - 0.5));
    this.element = h("div", { class: "slider" }, h("p", {}, h("span", {}, grid.names[axis]), this.value, this.answer),
      h("div", { class: "track", style: { "--half": "7px" } }, ...held, band("beyond", low, -0.5), band("beyond", grid.sizes[axis] - 0.5, high), this.input), this.lane);
  }

  /** @param {number} value */
  place(value) {
    return `calc(7px + ${this.owner.field.part(this.axis, value)} * (100% - 14px))`;
  }

  /** @param {Float32Array} answer */
  draw(answer) {
    const { axis, owner } = this, { field } = owner, { grid } = field, value = live.cell[axis];
    this.input.value = String(value);
    this.value.textContent = field.label(axis, value);
    this.input.setAttribute("aria-valuetext", field.onGrid(axis, value) ? `${field.label(axis, value)}${grid.held[axis].has(value) ? ", held out" : ""}` : field.lies(axis, value));
    this.element.classList.toggle("is-held", grid.held[axis].has(value) || !field.onGrid(axis, value));
    const [low, high] = field.bounds[axis], index = answer[axis] * (grid.sizes[axis] - 1);
    this.lane.replaceChildren(h("i", { class: "mark", style: { left: this.place(Math.min(high, Math.max(low, index))), "--own": owner.about.color } }));
    this.answer.replaceChildren(h("span", { class: "said", title: owner.about.label }, h("i", { style: { "--own": owner.about.color } }), grid.said(axis, answer[axis])));
  }
}

/** Where a network starts: at the first value that train lacks, all else amid train. @param {number} at */
function startLive(at) {
  const about = INDEX.live[at], axes = about.sizes.map((/** @type {number} */ _, /** @type {number} */ axis) => axis).slice(1);
  live.at = at;
  if (live.cell.length) {  // of another network, whose grid may be larger
    const field = new Field(about);
    live.cell = live.cell.map((value, axis) => field.within(axis, value));
    return;
  }
  live.walk = live.of = axes.find((/** @type {number} */ axis) => about.held[axis].length && about.sizes[axis] > 1) ?? 1;
  live.cell = about.sizes.map((/** @type {number} */ size, /** @type {number} */ axis) => {
    const seen = Array.from({ length: size }, (_, value) => value).filter((value) => !about.held[axis].includes(value));
    return axis === 0 ? size - 1 : axis === live.walk && about.held[axis].length ? about.held[axis][0] : seen[Math.floor(seen.length / 2)];
  });
}

/** Take what an address says of it. @param {string | null} text */
function recallLive(text) {
  if (!INDEX.live.length) return;
  startLive(0);
  const [at, walk, of, ...cell] = (text ?? "").split(",").map(Number);
  const about = INDEX.live[at];
  if (!about || cell.length !== about.sizes.length || ![walk, of].every((axis) => about.sizes[axis]) || !walk) return;
  const field = new Field(about);
  if (cell.every((value, axis) => field.within(axis, value) === value)) Object.assign(live, { at, walk, of, cell });
}
