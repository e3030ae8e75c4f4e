// @ts-check
// A map of faces: their pictures' first two principal components, spread over a grid so that no face hides another.

const SIDE = 12;  // pixels a side at which faces are compared
const TURNS = 40;  // of the power iteration

/** Pictures of a sheet as vectors, less their mean, and the mean. @param {ImageBitmap} sheet @param {number} columns @param {number} count */
export function vectorsOf(sheet, columns, count) {
  const canvas = new OffscreenCanvas(columns * SIDE, Math.ceil(count / columns) * SIDE), pen = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.imageSmoothingQuality = "high";
  pen.drawImage(sheet, 0, 0, canvas.width, canvas.height);
  return Array.from({ length: count }, (_, n) => {
    const { data } = pen.getImageData((n % columns) * SIDE, Math.floor(n / columns) * SIDE, SIDE, SIDE);
    return Float64Array.from({ length: 3 * SIDE * SIDE }, (_, at) => data[4 * Math.floor(at / 3) + (at % 3)]);
  });
}

const dot = (/** @type {Float64Array} */ a, /** @type {Float64Array} */ b) => { let sum = 0; for (let n = 0; n < a.length; n++) sum += a[n] * b[n]; return sum; };

/**
 * The mean and the first two principal components of some vectors, by power iteration.
 * @param {Float64Array[]} vectors @returns {{mean: Float64Array, axes: Float64Array[]}}
 */
export function principal(vectors) {
  const length = vectors[0].length, mean = Float64Array.from({ length }, (_, n) => vectors.reduce((sum, v) => sum + v[n], 0) / vectors.length);
  const centred = vectors.map((v) => v.map((value, n) => value - mean[n]));
  /** @type {Float64Array[]} */
  const axes = [];
  for (let which = 0; which < 2; which++) {
    let axis = Float64Array.from({ length }, (_, n) => Math.sin(n + 1 + which));
    for (let turn = 0; turn < TURNS; turn++) {
      const next = new Float64Array(length);
      for (const v of centred) { const share = dot(v, axis); for (let n = 0; n < length; n++) next[n] += share * v[n]; }
      for (const other of axes) { const share = dot(next, other); for (let n = 0; n < length; n++) next[n] -= share * other[n]; }
      const size = Math.sqrt(dot(next, next)) || 1;
      axis = next.map((value) => value / size);
    }
    axes.push(axis);
  }
  return { mean, axes };
}

/** Where a vector lies. @param {Float64Array} vector @param {ReturnType<typeof principal>} by @returns {[number, number]} */
export const placeOf = (vector, { mean, axes }) => {
  const centred = vector.map((value, n) => value - mean[n]);
  return [dot(centred, axes[0]), dot(centred, axes[1])];
};

/**
 * An order of `columns * columns` places for a grid: columns by the first component, each from top to bottom by the second.
 * @param {[number, number][]} places @param {number} columns @returns {number[]} which place stands in each cell, row by row
 */
export function gridded(places, columns) {
  const across = places.map((_, n) => n).sort((a, b) => places[a][0] - places[b][0]), rows = Math.ceil(places.length / columns);
  const found = new Array(places.length);
  for (let column = 0; column < columns; column++) {
    const down = across.slice(column * rows, (column + 1) * rows).sort((a, b) => places[b][1] - places[a][1]);
    down.forEach((which, row) => { found[row * columns + column] = which; });
  }
  return found;
}
