// @ts-check
// The smallest tools that everything else here is built with. Text only ever becomes text: nothing is parsed as markup.

/**
 * An element. Attributes that begin with "on" are listeners, `style` takes an object; false and null leave an attribute out.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string | number | null | undefined | false)} children
 * @returns {any}
 */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, each] of Object.entries(value)) element.style.setProperty(key, String(each));
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child !== null && child !== undefined && child !== false) element.append(typeof child === "number" ? String(child) : child);
  return element;
}

/** @param {string} id @returns {any} */
const byId = (id) => document.getElementById(id);

/** A table that scrolls by itself where it is too wide, by keyboard too. @param {string} label @param {any[]} head @param {any[]} body */
function wide(label, head, body) {
  const cells = head.map((text) => h("th", {}, text));
  return h("div", { class: "wide", tabindex: 0, role: "region", "aria-label": label }, h("table", {}, h("thead", {}, h("tr", {}, ...cells)), h("tbody", {}, ...body)));
}

/**
 * A labelled choice.
 * @param {string} label
 * @param {[string, string][]} options value and text
 * @param {string} chosen
 * @param {(value: string) => void} changed
 */
function choice(label, options, chosen, changed) {
  const select = h("select", { onchange: (/** @type {any} */ event) => changed(event.target.value) });
  for (const [value, text] of options) select.append(h("option", { value, selected: value === chosen }, text));
  return h("label", { class: "choice" }, h("span", {}, label), select);
}

/** A number with two or three digits and a real minus. @param {number | null | undefined} value @param {number} [digits] */
function number(value, digits = 2) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Math.abs(value) >= 1000) return value.toExponential(1).replace("-", "−");
  const text = value.toFixed(digits);
  return (Number(text) === 0 ? (0).toFixed(digits) : text).replace("-", "−");
}

/** As many digits as an interval of that half width bears. @param {number | null} half */
function digitsOf(half) {
  return half === null || half <= 0 ? 3 : Math.min(3, Math.max(1, Math.ceil(-Math.log10(half))));
}

/** @param {number} value */
const percent = (value) => `${Math.round(100 * value)} %`;

/** The bytes of a blob of this page. @param {string} name @returns {Uint8Array | null} */
function stored(name) {
  const element = byId(`blob-${name}`);
  return element ? Uint8Array.from(atob(element.textContent.trim()), (letter) => letter.charCodeAt(0)) : null;
}

/** The same, unzipped. @param {string} name @returns {Promise<ArrayBuffer | null>} */
async function unpacked(name) {
  const bytes = stored(name);
  if (!bytes) return null;
  const stream = new Blob([/** @type {any} */ (bytes)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

/** float16 numbers as float32. @param {ArrayBuffer} buffer @param {number} start in bytes @param {number} count */
function halves(buffer, start, count) {
  const bits = new Uint16Array(buffer.slice(start, start + 2 * count));
  const numbers = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const exponent = (bits[i] >> 10) & 31, fraction = bits[i] & 1023, sign = bits[i] & 32768 ? -1 : 1;
    numbers[i] = sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : (2 ** -14 * fraction) / 1024);
  }
  return numbers;
}
