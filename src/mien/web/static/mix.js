// @ts-check
// Mixing: a slider from the face on show to another.
import { parse } from "./address.js";
import { byId, el, fault, paint } from "./dom.js";
import { address, drawn } from "./state.js";
import { acceptFaces } from "./thumb.js";

/** @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine */
export function mixing(store, engine) {
  const share = /** @type {HTMLInputElement} */ (byId("share")), amount = byId("share-value");
  const first = /** @type {HTMLCanvasElement} */ (byId("mix-first")), second = /** @type {HTMLCanvasElement} */ (byId("mix-second"));
  let filled = "";

  const random = () => String(Math.floor(Math.random() * 1e6));
  const begin = (/** @type {string} */ other) => store.rest({ mix: { with: other, share: store.state.mix?.share ?? 0.5 } });
  share.addEventListener("input", () => store.state.mix && store.drag({ mix: { ...store.state.mix, share: Number(share.value) } }));
  share.addEventListener("change", () => store.rest());
  byId("mix-begin").addEventListener("click", () => begin(random()));
  byId("mix-keep").addEventListener("click", () => store.rest({ at: address(store.state), mix: null }));
  byId("mix-end").addEventListener("click", () => store.rest({ mix: null }));
  byId("mix-swap").addEventListener("click", () => {
    const { at, mix } = store.state;
    if (mix) store.rest({ at: mix.with, mix: { with: at, share: Math.round((1 - mix.share) * 1e4) / 1e4 } });
  });
  byId("mix-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const box = /** @type {HTMLInputElement} */ (byId("mix-with"));
    try { parse(box.value.trim()); begin(box.value.trim()); } catch { box.setCustomValidity("This is no seed or address."); box.reportValidity(); }
  });
  byId("mix-with").addEventListener("input", (event) => /** @type {HTMLInputElement} */ (event.target).setCustomValidity(""));
  acceptFaces(byId("panel-mix"), begin);

  async function update() {
    const { state } = store, { mix } = state;
    byId("mix-on").hidden = !mix;
    byId("mix-off").hidden = Boolean(mix);
    if (!mix) { filled = ""; return; }
    share.value = String(mix.share);
    amount.textContent = `${Math.round(mix.share * 100)} %`;
    share.setAttribute("aria-valuetext", `${Math.round(mix.share * 100)} percent of the second face`);
    const key = JSON.stringify([drawn({ ...state, mix: null }), mix.with]);
    if (key === filled) return;
    filled = key;
    try {
      for (const [canvas, at] of /** @type {[HTMLCanvasElement, string][]} */ ([[first, state.at], [second, mix.with]])) {
        const blob = await engine.image({ ...drawn(state), at });
        if (blob && key === filled) paint(canvas, await createImageBitmap(blob));
      }
    } catch (error) { fault(error); }
  }
  return { update };
}
