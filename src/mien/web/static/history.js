// @ts-check
// The strip of everything that was on show.
import { byId, el } from "./dom.js";
import { address, toHash } from "./state.js";
import { thumb } from "./thumb.js";

const SHOWN = 40;

/** @param {import("./state.js").Store} store @param {import("./face.js").Face} face */
export function pastStrip(store, face) {
  const strip = byId("past"), undo = /** @type {HTMLButtonElement} */ (byId("undo")), redo = /** @type {HTMLButtonElement} */ (byId("redo"));
  /** @type {Map<string, ImageBitmap>} */
  const pictures = new Map();

  function show() {
    undo.disabled = store.at === 0;
    redo.disabled = store.at === store.steps.length - 1;
    const start = Math.max(0, Math.min(store.at - SHOWN / 2, store.steps.length - SHOWN));
    strip.replaceChildren(...store.steps.slice(start, start + SHOWN).map((state, n) => {
      const button = thumb({ at: address(state), name: `Step ${start + n + 1}`, side: 52, image: pictures.get(toHash(state)), onpick: () => store.go(start + n) });
      if (start + n === store.at) button.setAttribute("aria-current", "step");
      return el("li", {}, button);
    }));
    const current = /** @type {HTMLElement | null} */ (strip.querySelector("[aria-current]")?.parentElement ?? null);
    if (current) strip.scrollLeft = current.offsetLeft - strip.clientWidth / 2;
  }

  face.listeners.push((image) => {
    pictures.set(toHash(store.state), image);
    while (pictures.size > 200) pictures.delete(/** @type {string} */ (pictures.keys().next().value));
    show();
  });
  undo.addEventListener("click", () => store.go(store.at - 1));
  redo.addEventListener("click", () => store.go(store.at + 1));
  return { show };
}
