// @ts-check
// Which engine draws in an exported page: WebAssembly at first, WebGPU where the browser has it and it draws the same faces.

/** @typedef {import("./types.js").Drawer} Drawer */

const LEVELS = 2;  // of 255 that two engines may differ by

/**
 * Try a graphics processor. Without one, or where it fails or draws other faces, `drawer` is null and `why` says so.
 * @param {{gpu: any, open: () => Promise<Drawer>, apart: (drawer: Drawer) => Promise<number>}} have `apart` gives the largest difference in levels
 * @returns {Promise<{drawer: Drawer | null, why: string}>}
 */
export async function quicker({ gpu, open, apart }) {
  if (!gpu) return { drawer: null, why: "this browser has no WebGPU" };
  try {
    const adapter = await gpu.requestAdapter();
    if (!adapter) return { drawer: null, why: "there is no graphics processor" };
    if (adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter) return { drawer: null, why: "WebGPU has no graphics processor here" };
    const drawer = await open(), levels = await apart(drawer);
    if (levels <= LEVELS) return { drawer, why: "" };
    return { drawer: null, why: `WebGPU drew other faces, ${Math.round(levels)} of 255 levels off` };
  } catch (error) {
    return { drawer: null, why: `WebGPU failed: ${String(/** @type {Error} */ (error)?.message ?? error).slice(0, 80)}` };
  }
}

/** The largest difference of two pictures in [-1, 1], in levels; NaN where there is one. @param {Float32Array} a @param {Float32Array} b */
export function levelsApart(a, b) {
  if (a.length !== b.length) return NaN;
  let most = 0;
  for (let at = 0; at < a.length; at++) {
    const off = Math.abs(a[at] - b[at]) * 127.5;
    if (!(off <= most)) most = off;
    if (Number.isNaN(most)) return NaN;
  }
  return most;
}
