// @ts-check
// The error of one factor's answer over every pair of values of two factors.

const MAP = { left: 62, top: 10, bottom: 36, right: 10 };

/** @param {Grid} grid @param {any} canvas */
function mapBounds(grid, canvas) {
  const [across, down] = [grid.sizes[state.x], grid.sizes[state.y]];
  const width = Math.max(240, canvas.parentElement.clientWidth), room = width - MAP.left - MAP.right;
  const tall = Math.min(360, Math.max(120, (room / across) * down, 16 * Math.min(down, 20)));
  return { across, down, width, room, tall, wide: room / across, high: tall / down };
}

/**
 * All of a map but where the cell is: what a step of a slider leaves as it is.
 * @param {Opened} opened @param {any} canvas @param {Pairs} pairs @param {Pairs | null} less subtracted, for a difference
 */
function drawGround(opened, canvas, pairs, less) {
  const { grid } = opened, { x, y, mapOf, side } = state, { across, down, width, room, tall, wide, high } = mapBounds(grid, canvas);
  const ground = document.createElement("canvas"), context = sized(ground, width, MAP.top + tall + MAP.bottom);
  for (let vx = 0; vx < across; vx++)
    for (let vy = 0; vy < down; vy++) {
      const found = pairs.at(side, x, vx, y, vy, mapOf);
      const other = less?.at(side, x, vx, y, vy, mapOf);
      if (!found.n || (other && !other.n)) continue;
      context.fillStyle = other
        ? ramp(DIVERGING, 0.5 + found.rms - other.rms)
        : state.measure === "bias" ? ramp(DIVERGING, 0.5 + found.bias) : ramp(SEQUENTIAL, found.rms / 0.5);
      context.fillRect(MAP.left + vx * wide, MAP.top + vy * high, wide + 0.4, high + 0.4);
    }
  context.strokeStyle = color("line");
  context.strokeRect(MAP.left, MAP.top, room, tall);
  context.strokeStyle = color("test");
  context.lineWidth = 1.5;
  for (const [first, end] of spans(grid.held[x])) context.strokeRect(MAP.left + first * wide, MAP.top, (end - first) * wide, tall);
  for (const [first, end] of spans(grid.held[y])) context.strokeRect(MAP.left, MAP.top + first * high, room, (end - first) * high);
  context.fillStyle = color("quiet");
  context.textAlign = "center";
  context.textBaseline = "top";
  for (const value of ticks(grid, x, room / 34)) context.fillText(grid.label(x, value).slice(0, 9), MAP.left + (value + 0.5) * wide, MAP.top + tall + 5);
  context.fillText(grid.names[x], MAP.left + room / 2, MAP.top + tall + 20);
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const value of ticks(grid, y, tall / 15)) context.fillText(grid.label(y, value).slice(0, 9), MAP.left - 6, MAP.top + (value + 0.5) * high);
  context.save();
  context.translate(8, MAP.top + tall / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText(grid.names[y], 0, 0);
  context.restore();
  return ground;
}

/**
 * A map: its ground, and where the cell is.
 * @param {Opened} opened @param {any} canvas @param {any} ground
 * @returns {(x: number, y: number) => [number, number]} the values under a place of the canvas
 */
function drawMap(opened, canvas, ground) {
  const { cell, x, y } = state, { across, down, width, tall, wide, high } = mapBounds(opened.grid, canvas);
  const context = sized(canvas, width, MAP.top + tall + MAP.bottom);
  context.drawImage(ground, 0, 0, width, MAP.top + tall + MAP.bottom);
  context.strokeStyle = color("text");
  context.lineWidth = 2;
  context.strokeRect(MAP.left + cell[x] * wide - 1, MAP.top + cell[y] * high - 1, Math.max(wide, 4) + 2, Math.max(high, 4) + 2);
  const within = (/** @type {number} */ place, /** @type {number} */ count) => Math.min(count - 1, Math.max(0, Math.floor(place)));
  return (px, py) => [within((px - MAP.left) / wide, across), within((py - MAP.top) / high, down)];
}

/** Runs of values, [first, end). @param {Set<number>} values @returns {[number, number][]} */
function spans(values) {
  /** @type {[number, number][]} */ const found = [];
  for (const value of [...values].sort((a, b) => a - b)) {
    const last = found[found.length - 1];
    if (last && last[1] === value) last[1]++;
    else found.push([value, value + 1]);
  }
  return found;
}

/** The values that are labelled: all of a few, else the ends and the borders of train, as far as they are apart. @param {Grid} grid @param {number} axis @param {number} most */
function ticks(grid, axis, most) {
  const size = grid.sizes[axis];
  if (size <= most) return Array.from({ length: size }, (_, value) => value);
  const apart = size / Math.max(2, most);
  const wanted = [0, size - 1, ...spans(grid.held[axis]).map(([first]) => first)];
  return wanted.filter((value, place) => wanted.slice(0, place).every((other) => Math.abs(other - value) >= apart));
}

/** The numbers of the picture. @param {Opened} opened @param {[RowData, Pairs][]} shown */
function mapLines(opened, shown) {
  const { grid } = opened, { x, y, mapOf, side } = state;
  const lines = [["model", grid.names[x], grid.names[y], "side", "scored (at most 255)", `rms error of ${grid.names[mapOf]}`, "mean error"]];
  for (const [row, pairs] of shown)
    for (let vx = 0; vx < grid.sizes[x]; vx++)
      for (let vy = 0; vy < grid.sizes[y]; vy++) {
        const found = pairs.at(side, x, vx, y, vy, mapOf);
        lines.push([row.label, grid.label(x, vx), grid.label(y, vy), side, ...[found.n, found.rms.toFixed(3), found.bias.toFixed(3)].map(String)]);
      }
  return lines;
}
