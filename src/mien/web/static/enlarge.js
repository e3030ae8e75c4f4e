// @ts-check
// Enlarging a small picture: Lanczos with three lobes, as `mien sample --enlarge` does; the borders repeat nothing.

const LOBES = 3;

/** @typedef {{first: Int32Array, weights: Float32Array, taps: number}} Filter */
/** @type {Map<string, Filter>} */
const filters = new Map();

/** @param {number} x */
const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

/** For each pixel of a longer line: the first pixel of the short one that it is made of, and the weights. @param {number} from @param {number} to @returns {Filter} */
function filter(from, to) {
  const key = `${from} ${to}`, known = filters.get(key);
  if (known) return known;
  const taps = Math.min(from, 2 * LOBES), first = new Int32Array(to), weights = new Float32Array(to * taps);
  for (let at = 0; at < to; at++) {
    const middle = ((at + 0.5) * from) / to - 0.5, start = Math.max(0, Math.min(from - taps, Math.ceil(middle - LOBES)));
    let sum = 0;
    first[at] = start;
    for (let tap = 0; tap < taps; tap++) {
      const x = start + tap - middle, weight = Math.abs(x) < LOBES ? sinc(x) * sinc(x / LOBES) : 0;
      weights[at * taps + tap] = weight;
      sum += weight;
    }
    for (let tap = 0; tap < taps; tap++) weights[at * taps + tap] /= sum;
  }
  if (filters.size > 8) filters.clear();
  const found = { first, weights, taps };
  filters.set(key, found);
  return found;
}

/** A picture at a larger size. @param {CanvasImageSource & {width: number, height: number}} image @param {number} width @param {number} height @returns {ImageData} */
export function enlarged(image, width, height) {
  const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (new OffscreenCanvas(image.width, image.height).getContext("2d", { willReadFrequently: true }));
  pen.drawImage(image, 0, 0);
  const { data } = pen.getImageData(0, 0, image.width, image.height), across = filter(image.width, width), down = filter(image.height, height);
  const rows = new Float32Array(image.height * width * 3), made = new ImageData(width, height), out = made.data;
  for (let y = 0; y < image.height; y++) {
    for (let x = 0; x < width; x++) {
      let red = 0, green = 0, blue = 0;
      for (let tap = 0, at = 4 * (y * image.width + across.first[x]), w = x * across.taps; tap < across.taps; tap++, at += 4, w++) {
        const weight = across.weights[w];
        red += weight * data[at]; green += weight * data[at + 1]; blue += weight * data[at + 2];
      }
      const at = 3 * (y * width + x);
      rows[at] = red; rows[at + 1] = green; rows[at + 2] = blue;
    }
  }
  const line = new Float32Array(width * 3);
  for (let y = 0; y < height; y++) {
    line.fill(0);
    for (let tap = 0; tap < down.taps; tap++) {
      const weight = down.weights[y * down.taps + tap], start = (down.first[y] + tap) * width * 3;
      for (let at = 0; at < line.length; at++) line[at] += weight * rows[start + at];
    }
    for (let x = 0, at = 4 * y * width; x < width; x++, at += 4) {
      out[at] = line[3 * x]; out[at + 1] = line[3 * x + 1]; out[at + 2] = line[3 * x + 2]; out[at + 3] = 255;  // clamped and rounded by the array
    }
  }
  return made;
}
