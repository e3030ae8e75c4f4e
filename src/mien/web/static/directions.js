// @ts-check
// Directions: find them without labels, see one over ±3 standard deviations, and give what the sliders do a name.
import { byId, el, fault, toast } from "./dom.js";
import { compensated } from "./locks.js";
import { drawn } from "./state.js";
import { thumb } from "./thumb.js";

const RANGE = [-3, -2, -1, 0, 1, 2, 3], COUNT = 10;

/** How long the step is that some amounts make together, in standard deviations of the prior. @param {Record<string, number>} amounts @param {import("./types.js").Capabilities} model */
export function lengthOf(amounts, { directions, gram }) {
  const by = directions.map(({ name }) => amounts[name] ?? 0);
  return Math.sqrt(Math.max(0, by.reduce((sum, a, i) => sum + by.reduce((row, b, j) => row + a * b * gram[i][j], 0), 0)));
}

/**
 * @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine
 * @param {(directions?: Record<string, number>) => Promise<void>} again shows the model anew, as its directions have changed
 */
export function directionTools(store, engine, again) {
  const choice = /** @type {HTMLSelectElement} */ (byId("direction-choice")), strip = byId("direction-range"), name = /** @type {HTMLInputElement} */ (byId("direction-name"));
  const find = /** @type {HTMLButtonElement} */ (byId("direction-find")), progress = /** @type {HTMLProgressElement} */ (byId("direction-progress"));
  /** @type {import("./types.js").Capabilities | null} */
  let model = null;
  let filled = "", trusted = false, chosen = false;

  /** What the sliders do, less what locked ones take back. */
  const together = () => { const { directions, locks } = store.state; return model ? compensated(directions, locks, model.directions.map(({ name: one }) => one), model.gram) : {}; };

  /** The amounts of one step along what is chosen; null where there is none. @returns {Record<string, number> | null} */
  function unit() {
    if (!model) return null;
    if (choice.value) return { [choice.value]: 1 };
    const amounts = together(), length = lengthOf(amounts, model);
    return length > 1e-3 ? Object.fromEntries(Object.entries(amounts).map(([key, value]) => [key, value / length])) : null;
  }

  function show() {
    if (!model) return;
    if (!chosen) choice.value = lengthOf(together(), model) > 1e-3 ? "" : model.directions[0]?.name ?? "";  // something to see at once
    const step = unit(), { state } = store, base = choice.value ? state.directions : {};
    byId("direction-none").hidden = Boolean(step);
    byId("direction-how").hidden = !choice.value || !trusted;
    /** @type {HTMLButtonElement} */ (byId("direction-save")).disabled = !step || Boolean(choice.value);
    const key = JSON.stringify([drawn({ ...state, directions: base }), step]);
    if (key === filled) return;
    filled = key;
    strip.replaceChildren(...(step ? RANGE.map((far) => {
      const directions = { ...base, ...Object.fromEntries(Object.entries(step).map(([one, amount]) => [one, Math.round(1000 * far * amount) / 1000])) };
      return el("li", {}, thumb({ at: drawn(state).at, name: `${far} standard deviations`, side: 96, engine, state: { ...drawn(state), directions }, onpick: () => store.rest({ directions }) }),
        el("span", {}, far > 0 ? `+${far}` : String(far).replace("-", "−")));
    }) : []));
  }

  choice.addEventListener("change", () => { chosen = true; show(); });
  byId("direction-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const amounts = together(), text = name.value.trim();
    if (!model || !engine.nameDirection) return;
    try {
      await engine.nameDirection(model.id, text, amounts);
      const length = Math.round(100 * lengthOf(amounts, model)) / 100;
      name.value = "";
      await again({ [text]: length });
      toast(`“${text}” is stored with the model.`);
    } catch (error) { fault(error); }
  });
  find.addEventListener("click", async () => {
    if (!model || !engine.findDirections) return;
    find.disabled = true;
    progress.hidden = false;
    progress.value = 0;
    try {
      const names = await engine.findDirections(model.id, Math.min(COUNT, model.latent.reduce((a, b) => a * b, 1)), (share) => { progress.value = share; });
      await again();
      toast(`${names.length} directions are with the sliders now.`);
    } catch (error) { fault(error); }
    find.disabled = false;
    progress.hidden = true;
  });

  /** Whether there is anything to do here; the offer among the sliders leads to it. @param {import("./types.js").Capabilities} able */
  function mark(able) {
    byId("tab-directions").hidden = !able.directions.length && !(trusted && engine.findDirections);
    document.getElementById("find-offer")?.toggleAttribute("hidden", Boolean(byId("tab-directions").hidden));
  }

  return {
    open: show,
    /** @param {import("./types.js").Capabilities} able */
    offer(able) {
      model = able;
      filled = "";
      chosen = false;
      choice.replaceChildren(el("option", { value: "" }, "what the sliders do now"), ...able.directions.map(({ name: one }) => el("option", { value: one }, one.replace(/_/g, " "))));
      mark(able);
      byId("direction-test").hidden = byId("direction-form").hidden = !able.directions.length;
    },
    /** @param {boolean} may whether this page may write beside the model */
    allow(may) {
      trusted = may && Boolean(engine.findDirections);
      byId("direction-finder").hidden = !trusted;
      byId("direction-name-row").hidden = !trusted;
      byId("direction-terminal").hidden = trusted;
      if (model) mark(model);
    },
  };
}
