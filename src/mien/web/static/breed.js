// @ts-check
// Breeding: nine children of the face on show; choose one, and it is the parent of the next nine.
import { moved } from "./address.js";
import { busy, byId, el, fault, refill, skeletons } from "./dom.js";
import { address, drawn } from "./state.js";
import { thumb } from "./thumb.js";

/** @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine */
export function breeding(store, engine) {
  const strength = /** @type {HTMLInputElement} */ (byId("strength")), litter = byId("litter"), line = byId("lineage");
  /** @type {import("./types.js").State[]} */
  let lineage = [];
  let parentKey = "", calls = 0;

  async function fill(anew = false) {
    const { state } = store, parent = address(state), first = Math.floor(Math.random() * 2 ** 40);
    const key = JSON.stringify(drawn(state)) + strength.value;
    if (key === parentKey && !anew) return;
    parentKey = key;
    const call = ++calls;
    try {
      const share = Number(strength.value), image = await busy(litter, async () => createImageBitmap(await engine.children(drawn(state), first, share)), 9);
      if (call !== calls) return;  // a later litter is on its way
      const side = image.width / 3;
      refill(litter, ...Array.from({ length: 9 }, (_, n) => {
        const at = moved(parent, String(first + n), share);
        return thumb({ at, name: `Child ${n + 1}`, side: 112, image, part: [(n % 3) * side, Math.floor(n / 3) * side, side, side], onpick: () => choose(at, state) });
      }));
    } catch (error) { parentKey = ""; fault(error); }
  }

  /**
   * Until the next litter is drawn, another child of the same parent may still be chosen instead.
   * @param {string} at @param {import("./types.js").State} parent
   */
  function choose(at, parent) {
    if (lineage[lineage.length - 1] !== parent) lineage.push(parent);
    store.rest({ at, mix: null });
    trace();
    fill();
  }

  function trace() {
    refill(line, ...lineage.map((state, n) => el("li", {}, thumb({
      at: address(state), name: `Ancestor ${n + 1}`, side: 44, engine, state: { ...state, at: address(state) },
      onpick: () => { lineage = lineage.slice(0, n); store.rest(state); trace(); fill(true); },
    }))));
    byId("lineage-title").hidden = !lineage.length;
  }

  strength.addEventListener("change", () => fill());
  byId("litter-again").addEventListener("click", () => fill(true));
  byId("lineage-clear").addEventListener("click", () => { lineage = []; trace(); });
  return { open: () => fill(), forget: () => { lineage = []; trace(); parentKey = ""; calls++; litter.replaceChildren(...skeletons(9)); } };
}
