// @ts-check
// The contact sheet: a hundred seeds at once.
import { byId, fault } from "./dom.js";
import { drawn } from "./state.js";
import { thumb } from "./thumb.js";

/** @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine */
export function contactSheet(store, engine) {
  const grid = byId("sheet"), box = /** @type {HTMLInputElement} */ (byId("sheet-first"));
  let shown = "", first = 0;

  async function fill() {
    const state = { ...drawn(store.state), at: "0", size: 0 }, key = JSON.stringify([state, first]);
    if (key === shown) return;
    shown = key;
    box.value = String(first);
    grid.setAttribute("aria-busy", "true");
    try {
      const image = await createImageBitmap(await engine.sheet(state, first)), side = image.width / 10;
      if (key !== shown) return;
      grid.replaceChildren(...Array.from({ length: 100 }, (_, n) => thumb({
        at: String(first + n), side: 64, image, part: [(n % 10) * side, Math.floor(n / 10) * side, side, side],
        onpick: () => store.rest({ at: String(first + n), mix: null }),
      })));
    } catch (error) { fault(error); shown = ""; }
    grid.setAttribute("aria-busy", "false");
  }

  /** @param {number} to */
  const go = (to) => { first = Math.min(Math.max(0, Math.floor(to) || 0), 2 ** 53 - 102); fill(); };
  byId("sheet-before").addEventListener("click", () => go(first - 100));
  byId("sheet-after").addEventListener("click", () => go(first + 100));
  box.addEventListener("change", () => go(Number(box.value)));
  return { shown: fill };
}
