// @ts-check
// The picture of a cell: drawn if it is of dSprites, else cut from the sheet of the kept cells.

/** @type {Map<string, Promise<ImageBitmap | null>>} */
const SHEETS = new Map();

/** @param {SplitData} split @returns {Promise<ImageBitmap | null>} */
function sheetOf(split) {
  if (!split.sheet) return Promise.resolve(null);
  const name = split.sheet.blob;
  if (!SHEETS.has(name)) {
    const bytes = stored(name);
    SHEETS.set(name, bytes ? createImageBitmap(new Blob([/** @type {any} */ (bytes)], { type: "image/webp" })) : Promise.resolve(null));
  }
  return /** @type {Promise<ImageBitmap | null>} */ (SHEETS.get(name));
}

const SCRATCH = h("canvas", { width: SIDE, height: SIDE });

/** Black and white pixels into a square. @param {CanvasRenderingContext2D} context @param {Uint8Array} pixels @param {number} x @param {number} y @param {number} size */
function paint(context, pixels, x, y, size) {
  const own = /** @type {CanvasRenderingContext2D} */ (SCRATCH.getContext("2d"));
  const image = own.createImageData(SIDE, SIDE), words = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) words[i] = pixels[i] ? 0xffffffff : 0xff000000;
  own.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = size < SIDE;
  context.drawImage(SCRATCH, x, y, size, size);
}

class Pictures {
  /** @param {Grid} grid @param {ImageBitmap | null} sheet */
  constructor(grid, sheet) {
    this.grid = grid;
    this.sheet = sheet;
    this.any = Boolean(grid.split.draws || sheet);
  }

  /**
   * Draw a cell's picture into a square; false if there is none.
   * @param {CanvasRenderingContext2D} context @param {number[]} cell @param {number} x @param {number} y @param {number} size
   */
  draw(context, cell, x, y, size) {
    if (this.grid.split.draws) {
      paint(context, dsprite(cell), x, y, size);
      return true;
    }
    const place = this.grid.place(cell);
    if (!this.sheet || place < 0) return false;
    const { side, columns } = this.grid.split.sheet;
    context.imageSmoothingEnabled = true;
    context.drawImage(this.sheet, (place % columns) * side, Math.floor(place / columns) * side, side, side, x, y, size, size);
    return true;
  }
}
