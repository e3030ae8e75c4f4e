// @ts-check
// The residual generator of models/residual.py, without a library. A plane of features has a border of one zero on each side, so that
// each tap of a 3x3 convolution is the same plane, shifted.
import { arithmetic } from "./gemm.js";

/** @typedef {{shape: number[], data: Float32Array}} Tensor */
/** Features: where they begin, in floats, and how many floats a channel takes. @typedef {{at: number, channels: number, side: number, size: number}} Planes */
/** @typedef {import("./types.js").Feeds} Feeds */
/** What export/single_file.py says of a model. @typedef {{side: number, channels: number, patch: number, slope: number, stages: number, blocks: number, tensors: [string, number[]][]}} Network */

/**
 * Half-precision numbers, one after the other, as tensors.
 * @param {string} base64 @param {[string, number[]][]} names with shapes @returns {Record<string, Tensor>}
 */
export function tensorsOf(base64, names) {
  const text = atob(base64.trim()), bits = new Uint32Array(text.length / 2), values = new Float32Array(bits.buffer);
  for (let i = 0; i < bits.length; i++) {
    const low = text.charCodeAt(2 * i), high = text.charCodeAt(2 * i + 1);
    bits[i] = ((high & 0x80) << 24) | ((((high & 0x7f) << 8) | low) << 13);
    values[i] *= 2 ** 112;  // moves the exponent from a bias of 15 to one of 127
  }
  const found = /** @type {Record<string, Tensor>} */ ({});
  let at = 0;
  for (const [name, shape] of names) {
    const count = shape.reduce((a, b) => a * b, 1);
    found[name] = { shape, data: values.subarray(at, at + count) };
    at += count;
  }
  return found;
}

/** `weight · x + bias`. @param {Record<string, Tensor>} tensors @param {string} name @param {Float32Array} x */
function linear(tensors, name, x) {
  const { shape: [rows, columns], data } = tensors[`${name}.weight`], bias = tensors[`${name}.bias`]?.data, out = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    let sum = bias ? bias[row] : 0;
    for (let i = 0, at = row * columns; i < columns; i++) sum += data[at + i] * x[i];
    out[row] = sum;
  }
  return out;
}

/**
 * A generator that draws pictures in [-1, 1].
 * @param {Network} network @param {Record<string, Tensor>} tensors @param {import("./gemm.js").Arithmetic} [sums]
 * @returns {import("./types.js").Drawer}
 */
export function residualGenerator({ side, channels, patch, slope, stages, blocks }, tensors, sums = arithmetic()) {
  const leaky = (/** @type {number} */ value) => Math.max(value, slope * value);
  /** @type {((styles: Float32Array[]) => void)[]} What is done for a picture, in order. */
  const plan = [];
  let used = 0;  // floats of memory

  /** Room for some floats. @param {number} count */
  function room(count) {
    const at = used;
    used += 8 * Math.ceil(count / 8);
    sums.grow(4 * used + 4096);  // a product reads and writes a little past the end
    return at;
  }
  /** @param {number} count @param {number} side @returns {Planes} */
  function planes(count, side) {
    const size = (side + 2) ** 2;
    return { at: room((count + 4) * size), channels: count, side, size };  // products write four channels at a time
  }
  /** Where the first value inside the border lies. @param {Planes} x @param {number} [channel] */
  const inside = ({ at, side, size }, channel = 0) => at + channel * size + side + 3;

  /**
   * A convolution, 1x1 or 3x3, and the leaky ReLU of its output; with `onto`, its output is added there.
   * @param {string} name @param {Planes} x @param {{slope?: number, onto?: Planes}} [how] @returns {Planes}
   */
  function convolution(name, x, { slope = 1, onto } = {}) {
    const { shape: [outputs, fan, kernel], data } = tensors[`${name}.weight`], taps = kernel * kernel, k = fan * taps, groups = x.channels / fan;
    const m = outputs / groups, padded = 4 * Math.ceil(m / 4), out = onto ?? planes(outputs, x.side), wide = x.side + 2;
    const weights = room(groups * padded * k), offsets = room(k), bias = room(outputs + 4), n = 8 * Math.ceil((x.side * wide - 2) / 8);
    const numbers = sums.floats(), integers = sums.integers();
    for (let group = 0; group < groups; group++) for (let row = 0; row < m; row++) for (let i = 0; i < k; i++) {
      numbers[weights + group * padded * k + (row >> 2) * 4 * k + 4 * i + (row & 3)] = data[(group * m + row) * k + i];
    }
    for (let i = 0; i < k; i++) {
      const tap = i % taps, middle = kernel >> 1;
      integers[offsets + i] = 4 * (Math.floor(i / taps) * x.size + (Math.floor(tap / kernel) - middle) * wide + (tap % kernel) - middle);
    }
    numbers.set(tensors[`${name}.bias`]?.data ?? [], bias);
    plan.push(() => {
      for (let group = 0; group < groups; group++) {
        sums.product(4 * (weights + group * padded * k), 4 * offsets, 4 * inside(x, group * fan), 4 * (bias + group * m), 4 * inside(out, group * m), 4 * out.size, padded, k, n, slope, onto ? 1 : 0);
      }
      const numbers = sums.floats();
      for (let channel = 0; channel < outputs; channel++) {  // the border is zero again
        const start = out.at + channel * out.size;
        for (let at = start + wide; at < start + out.size - wide; at += wide) numbers[at] = numbers[at + wide - 1] = 0;
        numbers.fill(0, start + out.size - wide, start + out.size);
      }
    });
    return out;
  }

  /** New features, each row of them from rows of others. @param {Planes} x @param {number} side @param {(numbers: Float32Array, from: number, to: number, y: number) => void} row `from` and `to` are the first value of a channel and of a row */
  function rows(x, side, row) {
    const out = planes(x.channels, side);
    plan.push(() => {
      const numbers = sums.floats();
      for (let channel = 0; channel < x.channels; channel++) for (let y = 0; y < side; y++) row(numbers, inside(x, channel), inside(out, channel) + y * (side + 2), y);
    });
    return out;
  }
  /** @param {Planes} x */
  const activated = (x) => rows(x, x.side, (numbers, from, to, y) => {
    for (let i = 0, at = from + y * (x.side + 2); i < x.side; i++) numbers[to + i] = leaky(numbers[at + i]);
  });
  /** Nearest neighbours at twice the side. @param {Planes} x */
  const doubled = (x) => rows(x, 2 * x.side, (numbers, from, to, y) => {
    for (let i = 0, at = from + (y >> 1) * (x.side + 2); i < 2 * x.side; i++) numbers[to + i] = numbers[at + (i >> 1)];
  });
  /** Bilinear interpolation to the full side; the centres of the outermost pixels keep their place. @param {Planes} x */
  const enlarged = (x) => {
    const spots = Array.from({ length: patch * x.side }, (_, i) => {
      const place = Math.max(0, (i + 0.5) / patch - 0.5), low = Math.floor(place);
      return { low, high: Math.min(low + 1, x.side - 1), share: place - low };
    });
    return rows(x, patch * x.side, (numbers, from, to, y) => {
      const { low, high, share } = spots[y], above = from + low * (x.side + 2), below = from + high * (x.side + 2);
      spots.forEach(({ low, high, share: across }, i) => {
        const top = numbers[above + low] + across * (numbers[above + high] - numbers[above + low]);
        numbers[to + i] = top + share * (numbers[below + low] + across * (numbers[below + high] - numbers[below + low]) - top);
      });
    });
  };

  /** One resolution. @param {Planes} x @param {number} stage */
  function resolution(x, stage) {
    plan.push((styles) => {
      const factors = linear(tensors, `style.${stage}`, styles[stage]), numbers = sums.floats();
      factors.forEach((factor, channel) => {
        for (let at = x.at + channel * x.size; at < x.at + (channel + 1) * x.size; at++) numbers[at] *= 1 + factor;
      });
    });
    for (let block = 0; block < blocks; block++) {
      const name = `stages.${stage}.${block}`;
      if (`${name}.widen.weight` in tensors) {
        const h = convolution(`${name}.grouped`, convolution(`${name}.widen`, x, { slope }), { slope });
        convolution(`${name}.narrow`, h, { onto: x });
      } else {
        convolution(`${name}.second`, convolution(`${name}.first`, activated(x), { slope }), { onto: x });
      }
    }
    return x;
  }

  const first = planes(tensors["mapping.weight"].shape[0] / 16, 4);
  plan.push((styles) => {
    const values = linear(tensors, "mapping", styles[0]), numbers = sums.floats();
    values.forEach((value, i) => { numbers[inside(first, i >> 4) + ((i >> 2) & 3) * 6 + (i & 3)] = value; });
  });
  let x = resolution(first, 0);
  for (let stage = 1; stage < stages; stage++) {
    const name = `narrow.${stage - 1}`;
    x = resolution(doubled(`${name}.weight` in tensors ? convolution(name, x) : x), stage);
  }
  x = activated(x);
  const shuffled = "last.weight" in tensors;
  if (shuffled) x = convolution("last", x);
  else x = convolution("last.third", convolution("last.second", activated(enlarged(convolution("last.first", x))), { slope }));

  /** A picture inside the borders, clamped. @param {Float32Array} out @param {number} start */
  function copy(out, start) {
    const numbers = sums.floats(), step = shuffled ? patch : 1;
    for (let c = 0; c < channels; c++) for (let y = 0; y < side; y++) for (let i = 0; i < side; i++) {
      const channel = (c * step + (y % step)) * step + (i % step);
      const value = numbers[inside(x, channel) + Math.floor(y / step) * (x.side + 2) + Math.floor(i / step)];
      out[start + (c * side + y) * side + i] = Math.min(1, Math.max(-1, value));
    }
  }
  /** @param {Float32Array} z @returns {Float32Array} */
  function styleOf(z) {
    const scale = 1 / Math.sqrt(z.reduce((sum, value) => sum + value * value, 0) / z.length + 1e-8);
    let style = z.map((value) => value * scale);
    for (let layer = 0; `mapper.layers.${layer}.weight` in tensors; layer++) style = linear(tensors, `mapper.layers.${layer}`, style).map(leaky);
    return style;
  }
  const mean = tensors["mapper.mean"]?.data, vectors = tensors.vectors;

  return {
    name: sums.name,
    async run({ count, latent, truncation, labels, directions, other, shares }) {
      const width = latent.length / count, plane = channels * side * side, out = new Float32Array(count * plane);
      for (let n = 0; n < count; n++) {
        /** @param {Float32Array} values */
        const row = (values) => values.slice((n * values.length) / count, ((n + 1) * values.length) / count);
        const moved = (/** @type {Float32Array} */ z) => z.map((value, i) => value + (directions && vectors ? row(directions).reduce((sum, amount, d) => sum + amount * vectors.data[d * width + i], 0) : 0));
        const own = styleOf(moved(row(latent))), others = other ? styleOf(row(other)) : own, mix = shares ? row(shares) : null;
        const embedded = labels && tensors["labelled.weight"] ? linear(tensors, "labelled", row(labels).map((value) => (Number.isNaN(value) ? 0 : 2 * value - 1))) : [];
        const styles = Array.from({ length: stages }, (_, stage) => {
          const mixed = own.map((value, i) => value + (mix ? mix[stage] : 0) * (others[i] - value));
          return Float32Array.of(...mixed.map((value, i) => (mean?.[i] ?? 0) + truncation * (value - (mean?.[i] ?? 0))), ...embedded);
        });
        plan.forEach((step) => step(styles));
        copy(out, n * plane);
      }
      return out;
    },
  };
}
