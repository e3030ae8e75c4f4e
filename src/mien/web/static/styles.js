// @ts-check
// Styles of another face: for a model whose stages, coarse to fine, are steered one by one.
import { whyNot } from "./address.js";
import { byId, el } from "./dom.js";
import { address } from "./state.js";

/** @param {import("./state.js").Store} store */
export function stylesOfAnother(store) {
  const seed = /** @type {HTMLInputElement} */ (byId("style-seed")), stages = /** @type {HTMLSelectElement} */ (byId("style-stages"));
  const off = /** @type {HTMLButtonElement} */ (byId("style-off")), swap = /** @type {HTMLButtonElement} */ (byId("style-swap"));

  byId("style-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const number = seed.value.trim();
    const why = whyNot(number) || (/^\d+$/.test(number) ? "" : "Styles are taken from a seed, such as 42.");
    seed.setCustomValidity(why);
    if (why) seed.reportValidity(); else store.rest({ style: `${number}:${stages.value}` });
  });
  seed.addEventListener("input", () => seed.setCustomValidity(""));
  stages.addEventListener("change", () => { if (store.state.style) store.rest({ style: `${store.state.style.split(":")[0]}:${stages.value}` }); });
  byId("style-random").addEventListener("click", () => store.rest({ style: `${Math.floor(Math.random() * 1e6)}:${stages.value}` }));
  swap.addEventListener("click", () => { const [number, word] = store.state.style.split(":"); store.rest({ at: number, style: `${address(store.state)}:${word}`, mix: null }); });
  off.addEventListener("click", () => store.rest({ style: "" }));
  return {
    /** @param {import("./types.js").Capabilities} model */
    offer({ styles }) {
      byId("style-form").hidden = !styles;
      const words = styles >= 3 ? ["coarse", "middle", "fine"] : [];
      stages.replaceChildren(...[...words, ...Array.from({ length: styles }, (_, n) => String(n + 1))].map((value) => el("option", { value }, words.includes(value) ? `${value} stages` : `stage ${value} of ${styles}`)));
    },
    update() {
      const [number, word] = store.state.style.split(":");
      if (number && document.activeElement !== seed) seed.value = number;
      if (word) stages.value = word;
      off.disabled = !number;
      swap.disabled = !number || !/^\d+$/.test(address(store.state));  // styles are a seed's
    },
  };
}
