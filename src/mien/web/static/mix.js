// @ts-check
// Mixing: the face on show with others, by one slider for two faces, by a weight for each where there are more.
import { whyNot } from "./address.js";
import { byId, el, fault, icon, paint, slider, toast } from "./dom.js";
import { spoken } from "./face.js";
import { MOST_PARTS, address, drawn } from "./state.js";
import { acceptFaces } from "./thumb.js";

/** @typedef {import("./types.js").Part} Part */

const percent = (/** @type {number} */ share) => `${Math.round(share * 100)} %`;
const rounded = (/** @type {number} */ share) => Math.round(share * 1e6) / 1e6;

/** The weights of all faces, the first one's first. @param {Part[]} mix */
const weightsOf = (mix) => [Math.max(0, rounded(1 - mix.reduce((sum, { share }) => sum + share, 0))), ...mix.map(({ share }) => share)];

/** Weights in which one is as wanted, and the others share the rest as they did. @param {number[]} weights @param {number} which @param {number} value */
export function reweighted(weights, which, value) {
  const rest = 1 - weights[which];
  return weights.map((weight, n) => (n === which ? value : rounded((1 - value) * (rest > 1e-6 ? weight / rest : 1 / (weights.length - 1)))));
}

/** @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine */
export function mixing(store, engine) {
  const share = /** @type {HTMLInputElement} */ (byId("share")), amount = byId("share-value"), list = byId("mix-weights");
  const first = /** @type {HTMLCanvasElement} */ (byId("mix-first")), second = /** @type {HTMLCanvasElement} */ (byId("mix-second"));
  let filled = "", listed = "";
  /** @type {ReturnType<typeof slider>[]} */
  let sliders = [];

  const random = () => String(Math.floor(Math.random() * 1e6));
  /** Show the faces with some weights, the first face's first. @param {Part[]} mix @param {number[]} weights @param {"drag" | "rest"} how */
  const weigh = (mix, weights, how) => store[how]({ mix: mix.map((part, n) => ({ ...part, share: weights[n + 1] })) });

  /** Mix with one more face. @param {string} other */
  function add(other) {
    const { mix } = store.state;
    if (!mix) { store.rest({ mix: [{ with: other, share: 0.5 }] }); return; }
    if (mix.length >= MOST_PARTS) { toast(`A mixture has ${MOST_PARTS + 1} faces at most.`); return; }
    const more = [...mix, { with: other, share: 0 }];
    weigh(more, reweighted([...weightsOf(mix), 0], more.length, rounded(1 / (more.length + 1))), "rest");
  }

  /** @param {number} which 0 is the first face */
  function remove(which) {
    const { at, mix } = store.state;
    if (!mix) return;
    const faces = [at, ...mix.map((part) => part.with)], weights = reweighted(weightsOf(mix), which, 0).filter((_, n) => n !== which);
    const [start, ...others] = faces.filter((_, n) => n !== which);
    store.rest({ at: start, mix: others.map((other, n) => ({ with: other, share: weights[n + 1] })) });
  }

  share.addEventListener("input", () => store.state.mix && store.drag({ mix: [{ ...store.state.mix[0], share: Number(share.value) }] }));
  share.addEventListener("change", () => store.rest());
  byId("mix-begin").addEventListener("click", () => add(random()));
  byId("mix-more").addEventListener("click", () => add(random()));
  byId("mix-keep").addEventListener("click", () => store.rest({ at: address(store.state), mix: null }));
  byId("mix-end").addEventListener("click", () => store.rest({ mix: null }));
  byId("mix-swap").addEventListener("click", () => {
    const { at, mix } = store.state;
    if (mix) store.rest({ at: mix[0].with, mix: [{ with: at, share: rounded(1 - mix[0].share) }] });
  });
  byId("mix-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const box = /** @type {HTMLInputElement} */ (byId("mix-with"));
    const text = box.value.trim(), why = whyNot(text);
    box.setCustomValidity(why);
    if (why) box.reportValidity(); else add(text);
  });
  byId("mix-with").addEventListener("input", (event) => /** @type {HTMLInputElement} */ (event.target).setCustomValidity(""));
  acceptFaces(byId("panel-mix"), add);

  /** A row for each face of a mixture of three or more. @param {string[]} faces @returns {HTMLCanvasElement[]} */
  function rows(faces) {
    const canvases = faces.map(() => el("canvas", { width: 96, height: 96, "aria-hidden": "true" }));
    sliders = faces.map((at, n) => slider({
      name: `Face ${n + 1}`, title: spoken(at), value: 0, min: 0, max: 1, step: 0.01, rest: rounded(1 / faces.length), format: percent,
      oninput: (value) => { const { mix } = store.state; if (mix) weigh(mix, reweighted(weightsOf(mix), n, value), "drag"); },
      onchange: (value) => { const { mix } = store.state; if (mix) weigh(mix, reweighted(weightsOf(mix), n, value), "rest"); },
    }));
    list.replaceChildren(...faces.map((_, n) => el("li", {}, canvases[n], sliders[n].row,
      el("button", { type: "button", class: "quiet", "aria-label": `Take face ${n + 1} out of the mixture`, onclick: () => remove(n) }, icon("close")))));
    return canvases;
  }

  /** Before anything is mixed: the face on show, beside an empty place. */
  async function showOwn() {
    if (byId("panel-mix").hidden) return;
    const own = /** @type {HTMLCanvasElement} */ (byId("mix-own")), { state } = store;
    try {
      const blob = await engine.image(drawn(state), true);
      if (blob && state === store.state) paint(own, await createImageBitmap(blob));
    } catch { /* the face itself says what is wrong */ }
  }

  async function update() {
    const { state } = store, { mix } = state;
    byId("mix-on").hidden = !mix;
    byId("mix-off").hidden = Boolean(mix);
    byId("mix-add").textContent = mix ? "Add" : "Mix";
    if (!mix) { filled = listed = ""; showOwn(); return; }
    const many = mix.length > 1, faces = [state.at, ...mix.map((part) => part.with)];
    byId("mix-two").hidden = byId("mix-swap").hidden = many;
    list.hidden = !many;
    share.value = String(mix[0].share);
    amount.textContent = percent(mix[0].share);
    share.setAttribute("aria-valuetext", `${percent(mix[0].share)} of the second face`);
    const key = JSON.stringify([drawn({ ...state, mix: null }), faces]), which = JSON.stringify(faces);
    let canvases = [first, second];
    if (many && which !== listed) canvases = rows(faces);
    else if (many) canvases = [...list.querySelectorAll("canvas")];
    listed = many ? which : "";
    if (many) weightsOf(mix).forEach((weight, n) => sliders[n].set(weight));
    if (key === filled) return;
    filled = key;
    try {
      for (const [n, at] of faces.entries()) {
        const blob = await engine.image({ ...drawn(state), at }, true);
        if (blob && key === filled) paint(canvases[n], await createImageBitmap(blob));
      }
    } catch (error) { fault(error); }
  }
  return { update };
}
