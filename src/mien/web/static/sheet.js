// @ts-check
// The contact sheet: a hundred seeds at once.
import { busy, byId, fault } from "./dom.js";
import { drawn } from "./state.js";
import { thumb } from "./thumb.js";

/** @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine */
export function contactSheet(store, engine) {
  const grid = byId("sheet"), box = /** @type {HTMLInputElement} */ (byId("sheet-first"));
  let filled = "", first = 0;

  async function fill() {
    const state = { ...drawn(store.state), at: "0", size: 0 }, key = JSON.stringify([state, first]);
    if (key === filled) return;
    filled = key;
    box.value = String(first);
    try {
      const image = await busy(grid, async () => createImageBitmap(await engine.sheet(state, first)), 100), side = image.width / 10;
      if (key !== filled) return;
      grid.replaceChildren(...Array.from({ length: 100 }, (_, n) => thumb({
        at: String(first + n), side: 64, image, part: [(n % 10) * side, Math.floor(n / 10) * side, side, side],
        onpick: () => store.rest({ at: String(first + n), mix: null }),
      })));
    } catch (error) { fault(error); filled = ""; }
  }

  /** @param {number} to */
  const go = (to) => { first = Math.min(Math.max(0, Math.floor(to) || 0), 2 ** 53 - 102); fill(); };
  byId("sheet-before").addEventListener("click", () => go(first - 100));
  byId("sheet-after").addEventListener("click", () => go(first + 100));
  box.addEventListener("change", () => go(Number(box.value)));
  return { open: fill };
}
