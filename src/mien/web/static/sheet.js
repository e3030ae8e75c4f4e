// @ts-check
// The contact sheet: a hundred seeds at once, in the order of their numbers or, of a model whose seeds are ranked, the best first.
import { busy, byId, fault } from "./dom.js";
import { drawn } from "./state.js";
import { thumb } from "./thumb.js";

/** @typedef {import("./types.js").Capabilities} Capabilities */

const PAGE = 100;
const TYPICAL = 0.25;  // the share of ranked seeds that a new face is chosen from

/** @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine */
export function contactSheet(store, engine) {
  const grid = byId("sheet"), box = /** @type {HTMLInputElement} */ (byId("sheet-first")), best = /** @type {HTMLInputElement} */ (byId("order"));
  let filled = "", first = 0;
  /** @type {number[]} */
  let order = [];

  async function fill() {
    const ranked = best.checked && first < order.length;
    const seeds = Array.from({ length: PAGE }, (_, n) => (ranked ? order[first + n] : undefined) ?? first + n);
    const state = { ...drawn(store.state), at: "0", size: 0 }, key = JSON.stringify([state, seeds]);
    if (key === filled) return;
    filled = key;
    box.value = String(first);
    try {
      const image = await busy(grid, async () => createImageBitmap(await (ranked ? engine.faces(state, seeds.map(String), 10) : engine.sheet(state, first))), 100), side = image.width / 10;
      if (key !== filled) return;
      grid.replaceChildren(...seeds.map((seed, n) => thumb({
        at: String(seed), side: 64, image, part: [(n % 10) * side, Math.floor(n / 10) * side, side, side],
        onpick: () => store.rest({ at: String(seed), mix: null }),
      })));
    } catch (error) { fault(error); filled = ""; }
  }

  /** @param {number} to */
  const go = (to) => { first = Math.min(Math.max(0, Math.floor(to) || 0), 2 ** 53 - 102); fill(); };
  byId("sheet-before").addEventListener("click", () => go(first - PAGE));
  byId("sheet-after").addEventListener("click", () => go(first + PAGE));
  box.addEventListener("change", () => go(Number(box.value)));
  best.addEventListener("change", () => go(0));

  /** A seed whose face holds, by chance; null where seeds are not ranked, or where that is switched off. @param {Capabilities | null} model */
  function typical(model) {
    const some = best.checked ? model?.order?.length ?? 0 : 0;
    return some && model ? model.order[Math.floor(Math.random() * Math.ceil(some * TYPICAL))] : null;
  }

  /** @param {Capabilities} model */
  function offer(model) {
    order = model.order ?? [];
    byId("order-row").hidden = !order.length;
    first = 0;
    filled = "";
  }

  return { open: fill, offer, typical };
}
