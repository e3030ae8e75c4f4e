// @ts-check
// The state of the page: everything on show, in the URL, with every step kept for undo.
import { moved, parse } from "./address.js";

/** @typedef {import("./types.js").State} State */

/** @type {State} */
export const START = { model: "", at: "0", mix: null, truncation: 1, labels: {}, directions: {}, locks: [], size: 0, solver: "", guidance: null, style: "" };

/** The address of the face on show, mixing included. @param {State} state */
export const address = (state) => (state.mix ? moved(state.at, state.mix.with, state.mix.share) : state.at);

/** The state as the engine draws it. @param {State} state @returns {State} */
export const drawn = (state) => ({ ...state, at: address(state), mix: null });

/** A state as the part of a URL after #. @param {State} state */
export function toHash(state) {
  const query = new URLSearchParams({ m: state.model, at: state.at });
  if (state.mix) { query.set("with", state.mix.with); query.set("share", String(state.mix.share)); }
  if (state.truncation !== 1) query.set("t", String(state.truncation));
  for (const [name, value] of Object.entries(state.labels)) query.append("label", `${name}:${value}`);
  for (const [name, value] of Object.entries(state.directions)) if (value) query.append("direction", `${name}:${value}`);
  for (const name of state.locks) query.append("lock", name);
  if (state.size) query.set("size", String(state.size));
  if (state.solver) query.set("solver", state.solver);
  if (state.guidance !== null) query.set("guidance", String(state.guidance));
  if (state.style) query.set("style", state.style);
  return `#${query.toString().replace(/%2C/g, ",").replace(/%3A/g, ":").replace(/%7E/g, "~").replace(/%40/g, "@").replace(/%28/g, "(").replace(/%29/g, ")")}`;
}

/** A state from the part of a URL after #, or null. @param {string} hash @returns {State | null} */
export function fromHash(hash) {
  const query = new URLSearchParams(hash.slice(1)), at = query.get("at");
  if (at === null) return null;
  const number = (/** @type {string | null} */ text, /** @type {number} */ rest) => (text !== null && isFinite(Number(text)) ? Number(text) : rest);
  const amounts = (/** @type {string} */ key) => Object.fromEntries(query.getAll(key).map((text) => {
    const end = text.lastIndexOf(":");
    return [text.slice(0, end), number(text.slice(end + 1), 0)];
  }));
  try {
    parse(at);
    const other = query.get("with");
    if (other !== null) parse(other);
    return {
      model: query.get("m") ?? "", at, mix: other === null ? null : { with: other, share: number(query.get("share"), 0.5) },
      truncation: number(query.get("t"), 1), labels: amounts("label"), directions: amounts("direction"), locks: query.getAll("lock"), size: number(query.get("size"), 0),
      solver: query.get("solver") ?? "", guidance: query.has("guidance") ? number(query.get("guidance"), 1) : null,
      style: query.get("style") ?? "",
    };
  } catch { return null; }
}

/** A state from a recipe in a PNG, on top of another. @param {Record<string, any>} recipe @param {State} state @returns {State | null} */
export function fromRecipe(recipe, state) {
  const at = recipe.at ?? (Array.isArray(recipe.seeds) ? recipe.seeds[0] : null);
  if (at === null || Array.isArray(at)) return null;
  try { parse(String(at)); } catch { return null; }
  return {
    ...START, model: typeof recipe.model === "string" ? recipe.model.slice(0, 16) : state.model, at: String(at),
    truncation: Number(recipe.truncation ?? 1), labels: { ...recipe.labels }, directions: { ...recipe.directions }, size: Number(recipe.size ?? 0),
    solver: String(recipe.solver ?? ""), guidance: recipe.guidance === undefined ? null : Number(recipe.guidance), style: String(recipe.style ?? ""),
  };
}

/** One state, those before and after it, and whoever wants to know. */
export class Store {
  constructor() {
    /** @type {State[]} */
    this.steps = [START];
    this.at = 0;
    /** @type {State} */
    this.state = START;
    /** @type {((state: State, how: "drag" | "rest") => void)[]} */
    this.listeners = [];
  }

  /** Change for now: a movement that is not over. @param {Partial<State>} change */
  drag(change) {
    this.state = { ...this.state, ...change };
    this.tell("drag");
  }

  /** Change for good: a step that undo takes back. @param {Partial<State>} [change] */
  rest(change = {}) {
    this.state = { ...this.state, ...change };
    if (toHash(this.state) !== toHash(this.steps[this.at])) {
      this.steps = [...this.steps.slice(0, this.at + 1), this.state];
      this.at++;
    }
    this.tell("rest");
  }

  /** Begin anew: nothing to undo. @param {State} state */
  begin(state) {
    this.steps = [state]; this.at = 0; this.state = state;
    this.tell("rest");
  }

  /** Go to a step that was kept. @param {number} to */
  go(to) {
    if (to < 0 || to >= this.steps.length || to === this.at) return;
    this.at = to;
    this.state = this.steps[to];
    this.tell("rest");
  }

  /** @param {"drag" | "rest"} how */
  tell(how) {
    for (const listener of this.listeners) listener(this.state, how);
  }
}
