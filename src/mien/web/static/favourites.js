// @ts-check
// Favourites: kept in this browser, given away as a ZIP of PNG files with their recipes.
import { byId, download, el, fault, icon, toast } from "./dom.js";
import { address, drawn, toHash, fromHash } from "./state.js";
import { thumb } from "./thumb.js";
import { zip } from "./png.js";

const PLACE = "mien.favourites", MOST = 500;

/** @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine @param {(state: import("./types.js").State) => Promise<void>} open */
export function favourites(store, engine, open) {
  /** @type {string[]} States as hashes. */
  let kept = [];
  try { kept = JSON.parse(localStorage.getItem(PLACE) ?? "[]").filter((/** @type {unknown} */ hash) => typeof hash === "string" && fromHash(hash)); } catch { kept = []; }

  function keep() {
    try { localStorage.setItem(PLACE, JSON.stringify(kept)); } catch { /* a private window: kept until it closes */ }
    mark();
  }

  function mark() {
    byId("favourite").setAttribute("aria-pressed", String(kept.includes(toHash(store.state))));
    byId("favourite-count").textContent = kept.length ? String(kept.length) : "";
  }

  function toggle() {
    const hash = toHash(store.state), there = kept.includes(hash);
    kept = there ? kept.filter((other) => other !== hash) : [...kept, hash].slice(-MOST);
    toast(there ? "No longer a favourite." : "Kept as a favourite.");
    keep();
    if (!byId("panel-favourites").hidden) show();
  }

  function show() {
    byId("favourites-empty").hidden = kept.length > 0;
    byId("favourites-zip").hidden = byId("favourites-clear").hidden = !kept.length;
    byId("favourites").replaceChildren(...kept.map((hash) => {
      const state = /** @type {import("./types.js").State} */ (fromHash(hash)), at = address(state);
      return el("li", {}, thumb({ at, side: 88, engine, state: { ...state, at }, onpick: () => { open(state); } }),
        el("button", { type: "button", class: "quiet", "aria-label": "Remove this favourite", onclick: () => { kept = kept.filter((other) => other !== hash); keep(); show(); } }, icon("close")));
    }));
  }

  byId("favourite").addEventListener("click", toggle);
  byId("favourites-clear").addEventListener("click", () => { kept = []; keep(); show(); });
  byId("favourites-zip").addEventListener("click", async () => {
    try {
      const files = [];
      for (const [n, hash] of kept.entries()) {
        const state = drawn(/** @type {import("./types.js").State} */ (fromHash(hash))), blob = await engine.image(state);
        const name = `${String(n + 1).padStart(3, "0")}-${state.at.replace(/[^\w,.-]+/g, "_").slice(0, 60)}.png`;
        if (blob) files.push({ name, bytes: new Uint8Array(await blob.arrayBuffer()) });
      }
      download(zip(files), "faces.zip");
    } catch (error) { fault(error); }
  });
  return { toggle, shown: show, mark };
}
