// @ts-check
// Philox4x32-10 on (seed, index), as in docs/seeds.md: the same numbers here as in Python.

/** High and low 32 bits of a product. @param {number} a @param {number} b @returns {[number, number]} */
function product(a, b) {
  const a0 = a & 0xffff, a1 = a >>> 16, b0 = b & 0xffff, b1 = b >>> 16;
  const low = a0 * b0, middle = a1 * b0 + (low >>> 16), other = a0 * b1 + (middle & 0xffff);
  const high = a1 * b1 + Math.floor(middle / 0x10000) + Math.floor(other / 0x10000);
  return [high >>> 0, Math.imul(a, b) >>> 0];
}

/** `4 * blocks` words in [0, 2^32) of a seed in [0, 2^53). @param {number} seed @param {number} blocks @returns {Uint32Array} */
export function philox(seed, blocks) {
  if (!Number.isSafeInteger(seed) || seed < 0) throw new RangeError(`${seed} is not a seed`);
  const words = new Uint32Array(4 * blocks);
  for (let block = 0; block < blocks; block++) {
    let c0 = block, c1 = 0, c2 = 0, c3 = 0;
    let k0 = seed % 0x100000000, k1 = Math.floor(seed / 0x100000000);
    for (let round = 0; round < 10; round++) {
      const [h0, l0] = product(c0, 0xd2511f53), [h1, l1] = product(c2, 0xcd9e8d57);
      c0 = (h1 ^ c1 ^ k0) >>> 0; c1 = l1; c2 = (h0 ^ c3 ^ k1) >>> 0; c3 = l0;
      k0 = (k0 + 0x9e3779b9) >>> 0; k1 = (k1 + 0xbb67ae85) >>> 0;
    }
    words.set([c0, c1, c2, c3], 4 * block);
  }
  return words;
}

/** Numbers in (0, 1). @param {number} seed @param {number} count @returns {Float64Array} */
export function uniforms(seed, count) {
  const words = philox(seed, Math.ceil(count / 4));
  return Float64Array.from({ length: count }, (_, index) => (words[index] + 0.5) / 0x100000000);
}

/** Standard normal numbers, by Box and Muller. @param {number} seed @param {number} count @returns {Float64Array} */
export function normals(seed, count) {
  const u = uniforms(seed, count + (count % 2)), found = new Float64Array(u.length);
  for (let at = 0; at < u.length; at += 2) {
    const radius = Math.sqrt(-2 * Math.log(u[at])), angle = 2 * Math.PI * u[at + 1];
    found[at] = radius * Math.cos(angle);
    found[at + 1] = radius * Math.sin(angle);
  }
  return found.slice(0, count);
}
