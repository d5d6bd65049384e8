// @ts-check
// Canvases that are sharp, follow the colour scheme, and can be taken away.

/** The colour scheme, asked for once: a picture asks for its colours thousands of times. */
const scheme = { query: matchMedia("(prefers-color-scheme: dark)"), dark: false, colors: /** @type {Map<string, string>} */ (new Map()) };
scheme.dark = scheme.query.matches;
scheme.query.addEventListener("change", () => ((scheme.dark = scheme.query.matches), scheme.colors.clear()));

/** A colour of the style sheet. @param {string} name @returns {string} */
function color(name) {
  if (!scheme.colors.has(name)) scheme.colors.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return /** @type {string} */ (scheme.colors.get(name));
}

/**
 * Make a canvas as sharp as the screen; returns its context, in which a unit is a CSS pixel.
 * @param {any} canvas @param {number} width @param {number} height
 * @returns {CanvasRenderingContext2D}
 */
function sized(canvas, width, height) {
  const ratio = Math.min(3, Math.max(2, window.devicePixelRatio || 1));
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.font = "12px system-ui, sans-serif";
  return context;
}

const SEQUENTIAL = { light: ["#f3f1ec", "#f6d9a8", "#eda05a", "#cf5340", "#7d1a3c"], dark: ["#232327", "#4d2a4d", "#9c3754", "#e2703f", "#fbd27c"] };
const DIVERGING = { light: ["#2b5fb0", "#9fbfe8", "#f3f1ec", "#efb08f", "#b8322f"], dark: ["#7fb0f5", "#34588e", "#232327", "#8c4433", "#f58d6b"] };

/** The colour at 0 to 1 along a ramp. @param {{light: string[], dark: string[]}} ramps @param {number} part */
function ramp(ramps, part) {
  const stops = scheme.dark ? ramps.dark : ramps.light;
  const at = Math.min(0.9999, Math.max(0, part)) * (stops.length - 1), low = Math.floor(at), share = at - low;
  const mix = [1, 3, 5].map((start) => {
    const [a, b] = [stops[low], stops[low + 1]].map((stop) => parseInt(stop.slice(start, start + 2), 16));
    return Math.round(a + share * (b - a));
  });
  return `rgb(${mix.join()})`;
}

/** @param {string} name @param {Blob} blob */
function save(name, blob) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A canvas as it is shown, on the page's ground. @param {any} canvas @param {string} kind */
function flat(canvas, kind) {
  const copy = h("canvas", { width: canvas.width, height: canvas.height }), context = copy.getContext("2d");
  context.fillStyle = color("page");
  context.fillRect(0, 0, copy.width, copy.height);
  context.drawImage(canvas, 0, 0);
  return new Promise((resolve) => copy.toBlob(resolve, kind, 0.95));
}

/** A PDF of one page that holds a JPEG. @param {Uint8Array} jpeg @param {number} width @param {number} height */
function pdf(jpeg, width, height) {
  const [w, high] = [width / 2, height / 2].map((side) => side.toFixed(1));
  const draw = `q ${w} 0 0 ${high} 0 0 cm /I Do Q`;
  const objects = [
    "<</Type/Catalog/Pages 2 0 R>>",
    "<</Type/Pages/Kids[3 0 R]/Count 1>>",
    `<</Type/Page/Parent 2 0 R/MediaBox[0 0 ${w} ${high}]/Resources<</XObject<</I 4 0 R>>>>/Contents 5 0 R>>`,
    `<</Type/XObject/Subtype/Image/Width ${width}/Height ${height}/ColorSpace/DeviceRGB/BitsPerComponent 8/Filter/DCTDecode/Length ${jpeg.length}>>`,
    `<</Length ${draw.length}>>`,
  ];
  /** @type {(string | Uint8Array)[]} */ const parts = ["%PDF-1.4\n"];
  /** @type {number[]} */ const places = [];
  let at = parts[0].length;
  const put = (/** @type {string | Uint8Array} */ part) => (parts.push(part), (at += part.length));
  objects.forEach((object, index) => {
    places.push(at);
    put(`${index + 1} 0 obj${object}`);
    if (index >= 3) put("\nstream\n"), put(index === 3 ? jpeg : draw), put("\nendstream");
    put("\nendobj\n");
  });
  const start = at;
  put(`xref\n0 6\n0000000000 65535 f \n${places.map((place) => `${String(place).padStart(10, "0")} 00000 n \n`).join("")}`);
  put(`trailer<</Size 6/Root 1 0 R>>\nstartxref\n${start}\n%%EOF`);
  return new Blob(/** @type {any} */ (parts), { type: "application/pdf" });
}

/** @param {(string | number | null | undefined)[][]} lines */
function csv(lines) {
  const cell = (/** @type {any} */ value) => {
    const text = value === null || value === undefined ? "" : String(value);
    const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
    return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return new Blob([lines.map((line) => line.map(cell).join(",") + "\n").join("")], { type: "text/csv" });
}

/**
 * The links below a picture by which it is taken away.
 * @param {() => string} name without its ending @param {() => any} canvas @param {() => (string | number | null | undefined)[][]} lines
 */
function takeaway(name, canvas, lines) {
  const file = (/** @type {string} */ ending) => `${name().replace(/[^\w.-]+/g, "-")}.${ending}`;
  const button = (/** @type {string} */ text, /** @type {() => any} */ act) => h("button", { type: "button", class: "quiet", onclick: act }, text);
  return h(
    "p", { class: "takeaway" }, "Save ",
    button("PNG", async () => save(file("png"), await flat(canvas(), "image/png"))),
    button("PDF", async () => {
      const jpeg = new Uint8Array(await (await flat(canvas(), "image/jpeg")).arrayBuffer());
      save(file("pdf"), pdf(jpeg, canvas().width, canvas().height));
    }),
    button("CSV", () => save(file("csv"), csv(lines()))),
  );
}
