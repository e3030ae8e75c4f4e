// @ts-check
// Favourites: kept in this browser, given away as a ZIP of PNG files with their recipes.
import { byId, download, el, fault, icon, placeholders, toast } from "./dom.js";
import { fileName } from "./names.js";
import { address, drawn, toHash, fromHash } from "./state.js";
import { thumb } from "./thumb.js";
import { zip } from "./png.js";

const PLACE = "mien.favourites", MOST = 500;

/** @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine @param {(state: import("./types.js").State) => Promise<void>} open */
export function favourites(store, engine, open) {
  /** @type {string[]} States as hashes. */
  let saved = [];
  try { saved = JSON.parse(localStorage.getItem(PLACE) ?? "[]").filter((/** @type {unknown} */ hash) => typeof hash === "string" && fromHash(hash)); } catch { saved = []; }

  function persist() {
    try { localStorage.setItem(PLACE, JSON.stringify(saved)); } catch { /* a private window: kept until it closes */ }
    mark();
  }

  function mark() {
    byId("favourite").setAttribute("aria-pressed", String(saved.includes(toHash(store.state))));
    byId("favourite-count").textContent = saved.length ? String(saved.length) : "";
  }

  function toggle() {
    const hash = toHash(store.state), there = saved.includes(hash);
    saved = there ? saved.filter((other) => other !== hash) : [...saved, hash].slice(-MOST);
    toast(there ? "No longer a favourite." : "Kept as a favourite.");
    persist();
    if (!byId("panel-favourites").hidden) show();
  }

  function show() {
    byId("favourites-empty").hidden = byId("favourites-add").hidden = saved.length > 0;
    byId("favourites-zip").hidden = byId("favourites-clear").hidden = !saved.length;
    byId("favourites").replaceChildren(...saved.map((hash) => {
      const state = /** @type {import("./types.js").State} */ (fromHash(hash)), at = address(state);
      return el("li", {}, thumb({ at, side: 88, engine, state: { ...state, at }, onpick: () => { open(state); } }),
        el("button", { type: "button", class: "quiet", "aria-label": "Remove this favourite", onclick: () => { saved = saved.filter((other) => other !== hash); persist(); show(); } }, icon("close")));
    }), ...(saved.length ? [] : placeholders(3)));
  }

  for (const id of ["favourite", "favourites-add"]) byId(id).addEventListener("click", toggle);
  byId("favourites-clear").addEventListener("click", () => { saved = []; persist(); show(); });
  byId("favourites-zip").addEventListener("click", async () => {
    try {
      const files = [];
      for (const [n, hash] of saved.entries()) {
        const state = drawn(/** @type {import("./types.js").State} */ (fromHash(hash))), blob = await engine.image(state);
        const name = `${String(n + 1).padStart(3, "0")}-${fileName(state.at)}.png`;
        if (blob) files.push({ name, bytes: new Uint8Array(await blob.arrayBuffer()) });
      }
      download(zip(files), "faces.zip");
    } catch (error) { fault(error); }
  });
  return { toggle, open: show, mark };
}
