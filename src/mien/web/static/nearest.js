// @ts-check
// The training images that are most like the face on show.
import { busy, byId, el, fault } from "./dom.js";
import { drawn } from "./state.js";

/** @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine */
export function nearestFaces(store, engine) {
  let filled = "";
  async function fill() {
    const key = JSON.stringify(drawn(store.state));
    if (key === filled || !engine.neighbours) return;
    filled = key;
    const list = byId("near"), badge = byId("memorised");
    try {
      const found = await busy(list, () => /** @type {NonNullable<typeof engine.neighbours>} */ (engine.neighbours)(drawn(store.state)), 6);
      if (key !== filled) return;
      badge.textContent = found.memorised ? "Memorised?" : "Not a copy";
      badge.className = `pill ${found.memorised ? "bad" : "good"}`;
      byId("near-summary").textContent = `The nearest of ${found.compared.toLocaleString("en")} training images is nearer than ${Math.round(found.nearer_than_training * 100)} % of them are to their own nearest. Compared by pixels at 16 px.`;
      list.replaceChildren(...found.neighbours.map(({ image, distance, row }) => el("li", {}, el("img", { src: image, alt: `Training image ${row}`, width: 112, height: 112 }), el("span", {}, distance.toFixed(3)))));
    } catch (error) { filled = ""; fault(error); }
  }
  return { open: fill };
}
