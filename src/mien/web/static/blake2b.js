// @ts-check
// BLAKE2b of one block (RFC 7693): which row of the training labels a seed has.

const MASK = 2n ** 64n - 1n;
const IV = [
  0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
  0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n,
];
const SIGMA = [
  [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
  [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4], [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
  [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13], [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
  [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11], [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
  [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5], [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
];

/** @param {bigint} value @param {bigint} by */
const turned = (value, by) => ((value >> by) | (value << (64n - by))) & MASK;

/** The same 63-bit number as Python's `mix(seed)`. @param {number} seed */
export function mix(seed) {
  const words = [BigInt(seed), ...Array(15).fill(0n)], h = [...IV];
  h[0] ^= 0x01010000n ^ 8n;  // no key, eight bytes of digest
  const v = [...h, ...IV];
  v[12] ^= 8n;  // bytes of the message
  v[14] ^= MASK;  // the last block
  /** @param {number} a @param {number} b @param {number} c @param {number} d @param {bigint} x @param {bigint} y */
  const blend = (a, b, c, d, x, y) => {
    v[a] = (v[a] + v[b] + x) & MASK; v[d] = turned(v[d] ^ v[a], 32n);
    v[c] = (v[c] + v[d]) & MASK; v[b] = turned(v[b] ^ v[c], 24n);
    v[a] = (v[a] + v[b] + y) & MASK; v[d] = turned(v[d] ^ v[a], 16n);
    v[c] = (v[c] + v[d]) & MASK; v[b] = turned(v[b] ^ v[c], 63n);
  };
  for (let round = 0; round < 12; round++) {
    const s = SIGMA[round % 10].map((at) => words[at]);
    blend(0, 4, 8, 12, s[0], s[1]); blend(1, 5, 9, 13, s[2], s[3]); blend(2, 6, 10, 14, s[4], s[5]); blend(3, 7, 11, 15, s[6], s[7]);
    blend(0, 5, 10, 15, s[8], s[9]); blend(1, 6, 11, 12, s[10], s[11]); blend(2, 7, 8, 13, s[12], s[13]); blend(3, 4, 9, 14, s[14], s[15]);
  }
  return (h[0] ^ v[0] ^ v[8]) >> 1n;
}
