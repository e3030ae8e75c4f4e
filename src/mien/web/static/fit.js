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
  if (foreign(state.at)) missing.push("place for this photograph");
  return { missing, state: { ...state, model: model.id, at: foreign(state.at) ? "0" : state.at, ...usable, locks: state.locks.filter((name) => directions.has(name)),
    size: model.scalable ? state.size : 0, solver: model.flow ? state.solver : "", guidance: model.flow && model.labels.length ? state.guidance : null,
    style: model.styles ? state.style : "" } };
}
