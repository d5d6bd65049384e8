// @ts-check
// A split's grid, and what models answer there.

/** @typedef {any} SplitData */
/** @typedef {any} RowData */

/** The grid of a split: which values are held out, which cells are test, of which cells answers are kept. */
class Grid {
  /** @param {SplitData} split */
  constructor(split) {
    this.split = split;
    /** @type {string[]} */ this.names = split.factors;
    /** @type {number[]} */ this.sizes = split.sizes;
    this.held = /** @type {number[][]} */ (split.held).map((values) => new Set(values));
    this.kept = /** @type {number[][]} */ (split.kept);
    this.places = this.kept.map((values) => new Map(values.map((value, place) => [value, place])));
    this.first = this.sizes.map((_, axis) => this.sizes.slice(0, axis).reduce((sum, size) => sum + size, 0));
    this.singles = this.sizes.reduce((sum, size) => sum + size, 0);
    this.keptCount = this.kept.reduce((product, values) => product * values.length, 1);
  }

  /** @param {number} axis @param {number} value */
  label(axis, value) {
    const labels = this.split.labels[axis];
    return labels ? labels[value].replace(/^-(?=[\d.])/, "−") : String(value);
  }

  /** The target, 0 to 1. @param {number} axis @param {number} value */
  target(axis, value) {
    return value / Math.max(1, this.sizes[axis] - 1);
  }

  /** An answer in words: the value that it lies nearest to, in tenths of an index where values have no names. @param {number} axis @param {number} answer */
  said(axis, answer) {
    const value = answer * Math.max(1, this.sizes[axis] - 1);
    const labels = this.split.labels[axis];
    if (!labels) return number(value, 1);
    return this.split.categorical[axis] ? labels[Math.min(this.sizes[axis] - 1, Math.max(0, Math.round(value)))] : this.between(axis, value);
  }

  /** @param {number} axis @param {number} value between two indices */
  between(axis, value) {
    const labels = this.split.labels[axis].map(Number);
    if (labels.some(Number.isNaN) || labels.length < 2) return number(value, 1);
    const low = Math.min(labels.length - 2, Math.max(0, Math.floor(value)));
    return number(labels[low] + (value - low) * (labels[low + 1] - labels[low]), 2);
  }

  /** Its place among the kept cells, −1 if it is none. @param {number[]} cell */
  place(cell) {
    let place = 0;
    for (let axis = 0; axis < cell.length; axis++) {
      const at = this.places[axis].get(cell[axis]);
      if (at === undefined) return -1;
      place = place * this.kept[axis].length + at;
    }
    return place;
  }

  /** The kept cell of that place. @param {number} place */
  cell(place) {
    const cell = new Array(this.sizes.length);
    for (let axis = cell.length - 1; axis >= 0; axis--) {
      const count = this.kept[axis].length;
      cell[axis] = this.kept[axis][place % count];
      place = Math.floor(place / count);
    }
    return /** @type {number[]} */ (cell);
  }

  /** The kept value nearest to one. @param {number} axis @param {number} value */
  nearest(axis, value) {
    return this.kept[axis].reduce((best, each) => (Math.abs(each - value) < Math.abs(best - value) ? each : best));
  }

  /** The axes on which a cell has a held-out value. @param {number[]} cell */
  heldOut(cell) {
    return cell.map((_, axis) => axis).filter((axis) => this.held[axis].has(cell[axis]));
  }

  /** Whether a cell is test; null where only a draw says that, and it is not kept here. @param {number[]} cell @returns {boolean | null} */
  isTest(cell) {
    if (this.split.test_if === "any") return this.heldOut(cell).length > 0;
    if (this.split.test_if === "all") return this.held.every((values, axis) => !values.size || values.has(cell[axis]));
    const place = this.place(cell);
    return place < 0 ? null : this.split.random_test[place] === 1;
  }

  /** Train or test, and why, in words. @param {number[]} cell */
  side(cell) {
    const test = this.isTest(cell), out = this.heldOut(cell);
    if (test === null) return "drawn at random";
    if (this.split.test_if === null) return test ? "test, drawn at random" : "train, drawn at random";
    const named = out.map((axis) => `${this.names[axis]} ${this.label(axis, cell[axis])}`);
    const list = named.length > 1 ? `${named.slice(0, -1).join(", ")} and ${named[named.length - 1]}` : named[0];
    if (this.split.test_if === "all") return test ? "test: train has each of these values, and not together" : "train";
    return test ? `test: train has no ${list.replace(" and ", " and no ")}` : "train: it has all of these values";
  }
}

/** What the models of a split answer. */
class Answers {
  /** @param {Grid} grid @param {ArrayBuffer} buffer @param {number} count of models */
  constructor(grid, buffer, count) {
    this.grid = grid;
    const factors = grid.sizes.length, singles = grid.singles, size = buffer.byteLength / count;
    this.models = Array.from({ length: count }, (_, model) => {
      let at = model * size;
      const halvesHere = (/** @type {number} */ length) => halves(buffer, (at += 2 * length) - 2 * length, length);
      const answers = halvesHere(grid.keptCount * factors);
      const sides = ["test", "train"].map(() => {
        const n = new Float32Array(buffer.slice(at, (at += 4 * singles)));
        return { n, rms: halvesHere(singles * factors), bias: halvesHere(singles * factors) };
      });
      return { answers, test: sides[0], train: sides[1] };
    });
  }

  /** What a model answers on a kept cell. @param {number} model @param {number} place @param {number} axis */
  at(model, place, axis) {
    return this.models[model].answers[place * this.grid.sizes.length + axis];
  }

  /**
   * Over all that was scored with a value of a factor: how many, and of the answers for `of` the mean error and its root mean square.
   * @param {number} model @param {number} axis @param {number} value @param {number} of @param {("test" | "train")[]} [sides]
   */
  mean(model, axis, value, of, sides = ["test", "train"]) {
    const at = this.grid.first[axis] + value, factors = this.grid.sizes.length;
    let n = 0, bias = 0, squares = 0;
    for (const side of sides) {
      const maps = this.models[model][side], count = maps.n[at];
      n += count;
      bias += count * maps.bias[at * factors + of];
      squares += count * maps.rms[at * factors + of] ** 2;
    }
    return { n, bias: n ? bias / n : NaN, rms: n ? Math.sqrt(squares / n) : NaN };
  }

  /** The root mean square error on train. @param {number} model @param {number} of */
  onTrain(model, of) {
    let n = 0, squares = 0;
    for (let value = 0; value < this.grid.sizes[of]; value++) {
      const found = this.mean(model, of, value, of, ["train"]);
      if (found.n) (n += found.n), (squares += found.n * found.rms ** 2);
    }
    return n ? Math.sqrt(squares / n) : NaN;
  }

  /** The first held-out value, walking away from train, where test's error is more than twice train's; null if none. @param {number} model @param {number} of */
  leaves(model, of) {
    const limit = 2 * this.onTrain(model, of), held = this.grid.held[of];
    const steps = (/** @type {number} */ value) => {
      let nearest = Infinity;
      for (let each = 0; each < this.grid.sizes[of]; each++) if (!held.has(each)) nearest = Math.min(nearest, Math.abs(each - value));
      return nearest;
    };
    const order = [...held].sort((a, b) => steps(a) - steps(b) || a - b);
    return order.find((value) => this.mean(model, of, value, of, ["test"]).rms > limit) ?? null;
  }
}

/** The maps over pairs of factors of one model. */
class Pairs {
  /** @param {Grid} grid @param {ArrayBuffer} buffer */
  constructor(grid, buffer) {
    this.grid = grid;
    const factors = grid.sizes.length;
    /** @type {Map<string, number>} */ this.starts = new Map();
    let cells = 0;
    for (const group of grid.split.groups) {
      if (group.length < 2) continue;
      this.starts.set(group.join(), cells);
      cells += grid.sizes[group[0]] * grid.sizes[group[1]];
    }
    let at = 0;
    const part = (/** @type {any} */ kind, /** @type {number} */ length) => new kind(buffer, (at += length) - length, length);
    const side = () => ({ n: part(Uint8Array, cells), rms: part(Uint8Array, cells * factors), bias: part(Int8Array, cells * factors) });
    this.test = side();
    this.train = side();
  }

  /** Whether there is a map over two factors. @param {number} x @param {number} y */
  has(x, y) {
    return this.starts.has([Math.min(x, y), Math.max(x, y)].join());
  }

  /**
   * @param {"test" | "train"} side @param {number} x an axis @param {number} vx its value @param {number} y @param {number} vy @param {number} of
   * @returns {{n: number, rms: number, bias: number}}
   */
  at(side, x, vx, y, vy, of) {
    const [low, high, a, b] = x < y ? [x, y, vx, vy] : [y, x, vy, vx];
    const cell = /** @type {number} */ (this.starts.get([low, high].join())) + a * this.grid.sizes[high] + b;
    const maps = this[side], place = cell * this.grid.sizes.length + of;
    return { n: maps.n[cell], rms: maps.rms[place] / 255, bias: maps.bias[place] / 127 };
  }
}
