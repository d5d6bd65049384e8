// @ts-check
// The pictures of dSprites by the rules of harness/formats/dsprites.py, of which this is a port: whole numbers after the vertices.

const RADIUS = 9.6, LATTICE = 256, SIDE = 64;

/** The vertices of a shape at scale 1. @param {number} shape 0 square, 1 ellipse, 2 heart @returns {[number, number][]} */
function outline(shape) {
  if (shape === 0) return [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([x, y]) => [RADIUS * x, RADIUS * y]);
  const count = shape === 1 ? 100 : 150;
  return Array.from({ length: count }, (_, vertex) => {
    const t = (2 * Math.PI * vertex) / count;
    if (shape === 1) return [1.33 * RADIUS * Math.cos(t), (RADIUS / 1.33) * Math.sin(t)];
    const height = 13 * Math.cos(t) - 5 * Math.cos(2 * t) - 2 * Math.cos(3 * t) - Math.cos(4 * t);
    return [RADIUS * Math.sin(t) ** 3, -2 * RADIUS * (height / 29 + 0.075)];
  });
}

/** @type {[number, number][][]} */
const OUTLINES = [0, 1, 2].map(outline);

/**
 * The pixels of a cell, row by row: 1 where the shape is.
 * @param {number[]} cell shape, scale, orientation, x-position, y-position
 */
function dsprite([shape, scale, orientation, x, y]) {
  const size = 0.5 + 0.1 * scale, angle = (2 * Math.PI * orientation) / 39, cos = Math.cos(angle), sin = Math.sin(angle);
  const centreX = SIDE / 4 + ((SIDE / 2) * x) / 31, centreY = SIDE / 4 + ((SIDE / 2) * y) / 31;
  const vertices = OUTLINES[shape].map(([vx, vy]) => [
    Math.floor(LATTICE * (centreX + size * (vx * cos + vy * sin)) + 0.5),
    Math.floor(LATTICE * (centreY + size * (vy * cos - vx * sin)) + 0.5),
  ]);
  const pixels = new Uint8Array(SIDE * SIDE);
  for (let vertex = 0; vertex < vertices.length; vertex++) {
    const [x0, y0] = vertices[vertex], [x1, y1] = vertices[(vertex + 1) % vertices.length];
    const low = Math.min(y0, y1), high = Math.max(y0, y1), dx = x1 - x0, dy = y1 - y0;
    for (let row = Math.max(0, Math.floor(low / LATTICE) - 1); row < SIDE; row++) {
      const line = LATTICE * row + LATTICE / 2;
      if (line <= low) continue;
      if (line > high) break;
      const column = Math.ceil(((x0 - LATTICE / 2) * dy + (line - y0) * dx) / (LATTICE * dy));
      for (let each = Math.min(SIDE, Math.max(0, column)); each < SIDE; each++) pixels[row * SIDE + each] ^= 1;
    }
  }
  return pixels;
}
