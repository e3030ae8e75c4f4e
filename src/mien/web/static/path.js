// @ts-check
// How a flow comes to the face on show: from noise, step by step, on a scrubber.
import { busy, byId, reducedMotion, el, fault, icon, paint, refill } from "./dom.js";
import { drawn } from "./state.js";

const FRAME = 110;  // milliseconds of a step while it plays

/** @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine */
export function fromNoise(store, engine) {
  const scrubber = /** @type {HTMLInputElement} */ (byId("moment")), canvas = /** @type {HTMLCanvasElement} */ (byId("stage-face"));
  const play = byId("path-play"), strip = byId("stages");
  /** @type {ImageBitmap[]} */
  let stages = [];
  let filled = "", playing = 0;

  async function fill() {
    const state = drawn(store.state), key = JSON.stringify(state);
    if (key === filled || !engine.path) return;
    filled = key;
    stop();
    try {
      const { sheet, count, columns } = await busy(strip, () => /** @type {NonNullable<typeof engine.path>} */ (engine.path)(state), 12), image = await createImageBitmap(sheet);
      const side = image.width / Math.min(count, columns);
      const pieces = await Promise.all(Array.from({ length: count }, (_, n) => createImageBitmap(image, (n % columns) * side, Math.floor(n / columns) * side, side, side)));
      if (key !== filled) return;
      const share = stages.length ? Number(scrubber.value) / (stages.length - 1) : 1;
      stages = pieces;
      scrubber.max = String(count - 1);
      scrubber.value = String(Math.round(share * (count - 1)));
      refill(strip, ...stages.map((stage, n) => {
        const small = el("canvas", { width: 104, height: 104, "aria-hidden": "true" });
        paint(small, stage);
        return el("li", {}, el("button", { type: "button", class: "thumb", "aria-label": name(n), title: name(n), onclick: () => { stop(); scrubber.value = String(n); show(); } }, small));
      }));
      show();
    } catch (error) { filled = ""; fault(error); }
  }

  /** @param {number} n */
  const name = (n) => (n === 0 ? "Noise" : n === stages.length - 1 ? "The face" : `Step ${n} of ${stages.length - 1}`);

  function show() {
    const n = Number(scrubber.value);
    if (!stages[n]) return;
    paint(canvas, stages[n]);
    byId("stage-name").textContent = name(n);
    scrubber.setAttribute("aria-valuetext", name(n));
    canvas.setAttribute("aria-label", name(n));
    [...strip.children].forEach((item, at) => {
      const button = /** @type {HTMLElement} */ (item.firstElementChild);
      if (at === n) {
        button.setAttribute("aria-current", "step");
        strip.scrollTo({ left: /** @type {HTMLElement} */ (item).offsetLeft - strip.clientWidth / 2, behavior: "instant" });
      } else button.removeAttribute("aria-current");
    });
  }

  function stop() {
    clearInterval(playing);
    playing = 0;
    play.replaceChildren(icon("play"), "Play");
  }

  play.addEventListener("click", () => {
    if (playing) { stop(); return; }
    if (Number(scrubber.value) >= stages.length - 1) scrubber.value = "0";
    play.replaceChildren(icon("pause"), "Stop");
    show();
    playing = window.setInterval(() => {
      scrubber.value = String(Number(scrubber.value) + 1);
      show();
      if (Number(scrubber.value) >= stages.length - 1) stop();
    }, reducedMotion() ? 400 : FRAME);
  });
  scrubber.addEventListener("input", () => { stop(); show(); });
  return { open: fill, close: stop };
}
