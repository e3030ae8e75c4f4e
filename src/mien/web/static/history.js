// @ts-check
// The strip of every step.
import { byId, el } from "./dom.js";
import { address, toHash } from "./state.js";
import { thumb } from "./thumb.js";

const LENGTH = 40;  // of the strip, in steps

/** @param {import("./state.js").Store} store @param {import("./face.js").Face} face @param {(step: number) => unknown} go */
export function pastStrip(store, face, go) {
  const strip = byId("past"), undo = /** @type {HTMLButtonElement} */ (byId("undo")), redo = /** @type {HTMLButtonElement} */ (byId("redo"));
  /** @type {Map<string, ImageBitmap>} Pictures by state. */
  const pictures = new Map();
  /** @type {WeakMap<object, {item: HTMLElement, painted: boolean}>} What stands in the strip for each step. */
  const items = new WeakMap();

  /** @param {number} n */
  function item(n) {
    const state = store.steps[n], image = pictures.get(toHash(state)), drawn = items.get(state);
    if (drawn && (drawn.painted || !image)) return drawn.item;
    const made = el("li", {}, thumb({ at: address(state), name: `Step ${n + 1}`, side: 52, image, onpick: () => { go(store.steps.indexOf(state)); } }));
    items.set(state, { item: made, painted: Boolean(image) });
    return made;
  }

  let frame = 0;
  /** Bring the strip up to date, once before the next frame: its layout waits for the face. */
  function show() {
    undo.disabled = store.at === 0;
    redo.disabled = store.at === store.steps.length - 1;
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(fill);
  }

  function fill() {
    const start = Math.max(0, Math.min(store.at - LENGTH / 2, store.steps.length - LENGTH)), current = store.steps[store.at];
    const tiles = store.steps.slice(start, start + LENGTH).map((_, n) => item(start + n));
    const focused = strip.contains(document.activeElement);
    if (tiles.length !== strip.children.length || tiles.some((one, n) => one !== strip.children[n])) strip.replaceChildren(...tiles);
    tiles.forEach((one, n) => {
      const button = /** @type {HTMLElement} */ (one.firstElementChild);
      if (store.steps[start + n] === current) {
        button.setAttribute("aria-current", "step");
        if (focused) button.focus();
        strip.scrollLeft = one.offsetLeft - strip.clientWidth / 2;
      } else button.removeAttribute("aria-current");
    });
  }

  face.listeners.push((image, state) => {
    pictures.set(toHash(state), image);
    while (pictures.size > 200) pictures.delete(/** @type {string} */ (pictures.keys().next().value));
    show();
  });
  undo.addEventListener("click", () => { go(store.at - 1); });
  redo.addEventListener("click", () => { go(store.at + 1); });
  return { show };
}
