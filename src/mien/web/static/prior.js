// @ts-check
// Where latents come from, and the walk between two of them: the twin of priors.py.
import { normals, uniforms } from "./philox.js";

/** @typedef {{draw: (seed: number, count: number) => Float32Array, path: (a: Float32Array, b: Float32Array, t: number) => Float32Array}} Prior */

/** @param {Float32Array} a */
const norm = (a) => Math.sqrt(a.reduce((sum, value) => sum + value * value, 0));

/** @type {Prior} Standard normal: great circles, lengths interpolated. */
const normal = {
  draw: (seed, count) => Float32Array.from(normals(seed, count)),
  path(a, b, t) {
    const lengthA = norm(a), lengthB = norm(b);
    let cosine = 0;
    for (let i = 0; i < a.length; i++) cosine += (a[i] / lengthA) * (b[i] / lengthB);
    const angle = Math.acos(Math.min(1, Math.max(-1, cosine))), sine = Math.sin(angle), apart = sine > 1e-6;
    const weightA = apart ? Math.sin((1 - t) * angle) / sine : 1 - t, weightB = apart ? Math.sin(t * angle) / sine : t;
    const length = (1 - t) * lengthA + t * lengthB;
    return a.map((value, i) => (weightA * (value / lengthA) + weightB * (b[i] / lengthB)) * length);
  },
};

/** @type {Prior} Uniform in the cube: straight lines. */
const uniform = {
  draw: (seed, count) => Float32Array.from(uniforms(seed, count), (u) => 2 * u - 1),
  path: (a, b, t) => a.map((value, i) => value + (b[i] - value) * t),
};

/** @type {Record<string, Prior>} */
export const PRIORS = { normal, uniform };
