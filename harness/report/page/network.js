// @ts-check
// A trained network's answer: what torch computes of the layers that harness/report/live.py writes down, for one picture.

/** @typedef {{data: Float32Array, channels: number, side: number}} Features channel by channel, row by row; a vector has side 1 */

class Network {
  /** @param {any[]} layers @param {ArrayBuffer} weights of all of them, behind each other */
  constructor(layers, weights) {
    let at = 0;
    const take = (/** @type {any} */ kind, /** @type {number} */ count) => new kind(weights.slice(at, (at += count * kind.BYTES_PER_ELEMENT)));
    const fixed = (/** @type {number} */ rows, /** @type {number} */ count) => {
      const units = take(Float32Array, rows), length = count / rows;
      return Float32Array.from(take(Int16Array, count), (multiple, place) => multiple * units[Math.floor(place / length)]);
    };
    /** @type {(some: any[]) => any[]} */ const filled = (some) => some.map((layer) => {
      if (layer.layers) return { ...layer, layers: filled(layer.layers) };
      if (!layer.shape) return layer;
      const rows = layer.shape[0], count = layer.shape.reduce((/** @type {number} */ product, /** @type {number} */ size) => product * size, 1);
      return { ...layer, weight: layer.fixed ? fixed(rows, count) : take(Float32Array, count), bias: take(Float32Array, rows) };
    });
    this.layers = filled(layers);
  }

  /** What it answers to a picture: a number a factor, 0 to 1 on the grid. @param {Uint8Array} pixels 0 or 1, row by row @returns {Float32Array} */
  answer(pixels) {
    return through(this.layers, { data: Float32Array.from(pixels), channels: 1, side: SIDE }).data;
  }
}

/** @param {any[]} layers @param {Features} features @returns {Features} */
function through(layers, features) {
  return layers.reduce((now, layer) => OPERATIONS[layer.op](now, layer), features);
}

/** @type {Record<string, (features: Features, layer: any) => Features>} */
const OPERATIONS = {
  conv: convolved,
  linear: ({ data }, { weight, bias }) => vector(bias.map((/** @type {number} */ start, /** @type {number} */ row) => start + dot(weight, row * data.length, data, 0, data.length))),
  relu(features) {
    const { data } = features;
    for (let at = 0; at < data.length; at++) if (data[at] < 0) data[at] = 0;
    return features;
  },
  first: ({ data }, { count }) => vector(data.slice(0, count)),
  normalize(features, { mean, deviation }) {
    const area = features.side ** 2;
    return { ...features, data: features.data.map((each, at) => (each - mean[Math.floor(at / area)]) / deviation[Math.floor(at / area)]) };
  },
  /** Two more channels, x and y from −1 to 1. */
  coordinates({ data, channels, side }) {
    const more = new Float32Array((channels + 2) * side ** 2), area = side ** 2;
    more.set(data);
    const place = (/** @type {number} */ at) => (side > 1 ? -1 + (2 * at) / (side - 1) : -1);
    for (let at = 0; at < area; at++) {
      more[channels * area + at] = place(at % side);
      more[(channels + 1) * area + at] = place(Math.floor(at / side));
    }
    return { data: more, channels: channels + 2, side };
  },
  transform: (features, { layers }) => resampled(features, through(layers, features).data),
};

/** @param {Float32Array} data @returns {Features} */
const vector = (data) => ({ data, channels: data.length, side: 1 });

/** @param {Float32Array} a @param {number} from @param {Float32Array} b @param {number} start @param {number} count */
function dot(a, from, b, start, count) {
  let s = 0, t = 0, u = 0, v = 0, at = 0;
  for (; at + 3 < count; at += 4) {
    s += a[from + at] * b[start + at];
    t += a[from + at + 1] * b[start + at + 1];
    u += a[from + at + 2] * b[start + at + 2];
    v += a[from + at + 3] * b[start + at + 3];
  }
  for (; at < count; at++) s += a[from + at] * b[start + at];
  return s + t + u + v;
}

/** A convolution with zeros around: what each kernel lies on, as a row, times the kernels. @type {(features: Features, layer: any) => Features} */
function convolved({ data, channels, side }, { weight, bias, shape: [out, , kernel], stride, padding }) {
  const wide = Math.floor((side + 2 * padding - kernel) / stride) + 1, places = wide * wide, length = channels * kernel * kernel;
  const rows = new Float32Array(places * length);
  for (let place = 0; place < places; place++) {
    const top = Math.floor(place / wide) * stride - padding, left = (place % wide) * stride - padding;
    let at = place * length;
    for (let channel = 0; channel < channels; channel++)
      for (let y = top; y < top + kernel; y++)
        for (let x = left; x < left + kernel; x++, at++) if (y >= 0 && y < side && x >= 0 && x < side) rows[at] = data[(channel * side + y) * side + x];
  }
  const found = new Float32Array(out * places);
  for (let each = 0; each + 3 < out; each += 4) // four kernels at once read a row once
    for (let place = 0; place < places; place++) {
      let [s, t, u, v] = bias.subarray(each, each + 4);
      for (let at = 0, row = place * length, own = each * length; at < length; at++, row++, own++) {
        const value = rows[row];
        s += weight[own] * value;
        t += weight[own + length] * value;
        u += weight[own + 2 * length] * value;
        v += weight[own + 3 * length] * value;
      }
      found[each * places + place] = s;
      found[(each + 1) * places + place] = t;
      found[(each + 2) * places + place] = u;
      found[(each + 3) * places + place] = v;
    }
  for (let each = out - (out % 4); each < out; each++)
    for (let place = 0; place < places; place++) found[each * places + place] = bias[each] + dot(weight, each * length, rows, place * length, length);
  return { data: found, channels: out, side: wide };
}

/**
 * The features where an affine map puts their pixels, between four of them in proportion, zeros outside: torch's affine_grid and grid_sample.
 * @param {Features} features @param {Float32Array} map six numbers: of x and then of y, by x, by y, and the shift
 * @returns {Features}
 */
function resampled({ data, channels, side }, map) {
  const found = new Float32Array(data.length), area = side ** 2;
  const centre = (/** @type {number} */ at) => (2 * at + 1) / side - 1;
  for (let place = 0; place < area; place++) {
    const [x, y] = [centre(place % side), centre(Math.floor(place / side))];
    const [column, row] = [0, 3].map((at) => ((map[at] * x + map[at + 1] * y + map[at + 2] + 1) * side - 1) / 2);
    const [left, top] = [Math.floor(column), Math.floor(row)];
    for (let corner = 0; corner < 4; corner++) {
      const [cx, cy] = [left + (corner & 1), top + (corner >> 1)];
      if (cx < 0 || cx >= side || cy < 0 || cy >= side) continue;
      const share = (1 - Math.abs(column - cx)) * (1 - Math.abs(row - cy));
      for (let channel = 0; channel < channels; channel++) found[channel * area + place] += share * data[channel * area + cy * side + cx];
    }
  }
  return { data: found, channels, side };
}
