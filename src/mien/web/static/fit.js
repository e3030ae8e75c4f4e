// @ts-check
// A state for another model: without what that model does not have.
import { parse } from "./address.js";

/**
 * The state as a model can show it, and what that model does not have of it, in words.
 * @param {import("./types.js").State} state @param {import("./types.js").Capabilities} model
 * @returns {{state: import("./types.js").State, missing: string[]}}
 */
export function fitted(state, model) {
  const labels = new Set(model.labels), directions = new Set(model.directions.map(({ name }) => name)), length = model.latent.reduce((a, b) => a * b, 1);
  /** @type {string[]} */
  const missing = [];
  /** @param {Record<string, number>} amounts @param {Set<string>} known @param {string} kind */
  const those = (amounts, known, kind) => Object.fromEntries(Object.entries(amounts).filter(([name]) => {
    if (!known.has(name)) missing.push(`${kind} “${name.slice(0, 40)}”`);
    return known.has(name);
  }));
  const foreign = (/** @type {string} */ at) => { const { start } = parse(at); return "values" in start && start.values.length !== length; };
  const usable = { labels: those(state.labels, labels, "label"), directions: those(state.directions, directions, "direction") };
  const within = (/** @type {string} */ stages) => model.styles > 0 && thirds(stages, model.styles)[1] <= model.styles, style = within(state.style.split(":")[1] ?? "");
  if (state.layers && !within(state.layers) && Object.values(usable.directions).some(Boolean)) missing.push(`layers ${state.layers}`);
  if (foreign(state.at)) missing.push("place for this photograph");
  return { missing, state: { ...state, model: model.id, at: foreign(state.at) ? "0" : state.at, ...usable, locks: state.locks.filter((name) => directions.has(name)),
    size: model.scalable ? state.size : 0, solver: model.flow ? state.solver : "", guidance: model.guidance === null ? null : state.guidance,
    style: style ? state.style : "", layers: within(state.layers) ? state.layers : "" } };
}

/** Which stages are meant by a word, or by numbers from 1 on, as in styles.py. @param {string} stages @param {number} count @returns {[number, number]} */
export function thirds(stages, count) {
  const at = ["coarse", "middle", "fine"].indexOf(stages);
  if (at >= 0) return [Math.round((count * at) / 3), Math.round((count * (at + 1)) / 3)];
  const [first, last] = stages.split("-").map(Number);
  return [first - 1, last ?? first];
}
