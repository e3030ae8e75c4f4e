// @ts-check
// The training images that are most like the face on show.
import { byId, el, fault } from "./dom.js";
import { drawn } from "./state.js";

/** @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine */
export function nearestFaces(store, engine) {
  let shown = "";
  async function fill() {
    const key = JSON.stringify(drawn(store.state));
    if (key === shown || !engine.neighbours) return;
    shown = key;
    const list = byId("near"), badge = byId("memorised");
    list.setAttribute("aria-busy", "true");
    try {
      const found = await engine.neighbours(drawn(store.state));
      if (key !== shown) return;
      badge.textContent = found.memorised ? "Memorised?" : "Not a copy";
      badge.className = `pill ${found.memorised ? "bad" : "good"}`;
      byId("near-said").textContent = `The nearest of ${found.compared.toLocaleString("en")} training images is nearer than ${Math.round(found.nearer_than_training * 100)} % of them are to their own nearest. Compared by pixels at 16 px.`;
      list.replaceChildren(...found.neighbours.map(({ image, distance, row }) => el("li", {}, el("img", { src: image, alt: `Training image ${row}`, width: 112, height: 112 }), el("span", {}, distance.toFixed(3)))));
    } catch (error) { shown = ""; fault(error); }
    list.setAttribute("aria-busy", "false");
  }
  return { shown: fill };
}
