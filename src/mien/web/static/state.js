// @ts-check
// The state of the page: everything on show, in the URL, with every step for undo.
import { moved, whyNot } from "./address.js";

/** @typedef {import("./types.js").State} State */

/** @type {State} */
export const START = { model: "", at: "0", mix: null, truncation: 1, labels: {}, directions: {}, locks: [], size: 0, solver: "", guidance: null, style: "", layers: "" };

export const MOST_PARTS = 7;  // faces that a mixture has beside the first

/** The address of the face on show, mixing included: each face in turn takes its share of what is there with it. @param {State} state */
export function address({ at, mix }) {
  let there = 1 - (mix ?? []).reduce((sum, { share }) => sum + share, 0);
  for (const { with: other, share } of mix ?? []) {
    there += share;
    at = moved(at, other, there > 0 ? share / there : 0);
  }
  return at;
}

/** The state as the engine draws it. @param {State} state @returns {State} */
export const drawn = (state) => ({ ...state, at: address(state), mix: null });

/** A state as the part of a URL after #. @param {State} state */
export function toHash(state) {
  const query = new URLSearchParams({ m: state.model, at: state.at });
  for (const { with: other, share } of state.mix ?? []) { query.append("with", other); query.append("share", String(share)); }
  if (state.truncation !== 1) query.set("t", String(state.truncation));
  for (const [name, value] of Object.entries(state.labels)) query.append("label", `${name}:${value}`);
  for (const [name, value] of Object.entries(state.directions)) if (value) query.append("direction", `${name}:${value}`);
  for (const name of state.locks) query.append("lock", name);
  if (state.size) query.set("size", String(state.size));
  if (state.solver) query.set("solver", state.solver);
  if (state.guidance !== null) query.set("guidance", String(state.guidance));
  if (state.style) query.set("style", state.style);
  if (state.layers) query.set("layers", state.layers);
  return `#${query.toString().replace(/%2C/g, ",").replace(/%3A/g, ":").replace(/%7E/g, "~").replace(/%40/g, "@").replace(/%28/g, "(").replace(/%29/g, ")")}`;
}

/** The style of an address: a seed and stages. */
const STYLE = /^\d{1,16}:(coarse|middle|fine|\d{1,2}(-\d{1,2})?)$/, LAYERS = /^(coarse|middle|fine|\d{1,2}(-\d{1,2})?)$/, SOLVER = /^[a-z0-9]{2,12}:\d*\.?\d+(e-?\d+)?$/;

/**
 * The state that the part of a URL after # describes, and one sentence for each of its parts that has no meaning. Without a face to
 * show, the state is null.
 * @param {string} hash @returns {{state: State | null, faults: string[]}}
 */
export function readHash(hash) {
  const query = new URLSearchParams(hash.slice(1)), at = query.get("at"), /** @type {string[]} */ faults = [];
  if (at === null) return { state: null, faults };
  const short = (/** @type {string} */ text) => (text.length > 40 ? `${text.slice(0, 40)}…` : text);
  /** @param {string} text @param {string} name */
  const isAddress = (text, name) => {
    const why = whyNot(text, name);
    if (why) faults.push(why);
    return !why;
  };
  /** @template T @param {string} key @param {string} name @param {T} otherwise @param {number} low @param {number} high @param {string | null} [text] @returns {number | T} */
  const number = (key, name, otherwise, low, high, text = query.get(key)) => {
    const value = Number(text);
    if (text === null) return otherwise;
    if (text.trim() && value >= low && value <= high) return value;
    faults.push(`The link's ${name}, “${short(text)}”, is not a number from ${low} to ${high}.`);
    return otherwise;
  };
  /** @param {string} key @param {string} name @param {number} most */
  const amounts = (key, name, most) => Object.fromEntries(query.getAll(key).flatMap((text) => {
    const end = text.lastIndexOf(":"), value = Number(text.slice(end + 1));
    if (end > 0 && text.slice(end + 1).trim() && Math.abs(value) <= most) return [[text.slice(0, end), value]];
    faults.push(`The link's ${name} “${short(text)}” has no amount from ${-most} to ${most}.`);
    return [];
  }));
  /** @param {string} key @param {RegExp} pattern @param {string} [name] */
  const text = (key, pattern, name = key) => {
    const value = query.get(key) ?? "";
    if (!value || pattern.test(value)) return value;
    faults.push(`The link's ${name}, “${short(value)}”, has no meaning here.`);
    return "";
  };
  if (!isAddress(at, "seed")) return { state: null, faults };
  const shares = query.getAll("share");
  const parts = query.getAll("with").slice(0, MOST_PARTS).filter((other) => isAddress(other, "seed to mix with"))
    .map((other, n) => ({ with: other, share: number("share", "share", 0.5, 0, 1, shares[n] ?? null) }));
  if (parts.reduce((sum, { share }) => sum + share, 0) > 1.001) {
    faults.push("The link's shares of a mixture come to more than 1: the faces are mixed equally.");
    for (const part of parts) part.share = Math.floor(1e4 / (parts.length + 1)) / 1e4;
  }
  return { faults, state: {
    model: text("m", /^[0-9a-f]{1,64}$/, "model"), at, mix: parts.length ? parts : null,
    truncation: number("t", "truncation", 1, -4, 4), labels: amounts("label", "label", 1), directions: amounts("direction", "direction", 20),
    locks: query.getAll("lock"), size: number("size", "size", 0, 2, 1024), solver: text("solver", SOLVER),
    guidance: number("guidance", "guidance", /** @type {null} */ (null), 0, 20), style: text("style", STYLE), layers: text("layers", LAYERS),
  } };
}

/** A state from the part of a URL after #, or null. @param {string} hash */
export const fromHash = (hash) => readHash(hash).state;

/** A state from a recipe in a PNG, or null where it has no face that this page can find. @param {Record<string, any>} recipe @param {State} state @returns {State | null} */
export function fromRecipe(recipe, state) {
  const at = recipe.at ?? (Array.isArray(recipe.seeds) ? recipe.seeds[0] : null);
  if (at === null || typeof at === "object") return null;
  const query = new URLSearchParams({ at: String(at), m: typeof recipe.model === "string" ? recipe.model.slice(0, 16) : state.model });
  for (const [key, name] of [["t", "truncation"], ["size", "size"], ["solver", "solver"], ["guidance", "guidance"], ["style", "style"], ["layers", "layers"]]) {
    if (recipe[name]) query.set(key, String(recipe[name]));
  }
  for (const [key, name] of [["label", "labels"], ["direction", "directions"]]) {
    for (const [what, amount] of Object.entries(Object(recipe[name]))) query.append(key, `${what}:${amount}`);
  }
  return fromHash(`#${query}`);
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
    if (toHash(this.state) !== toHash(this.steps[this.at])) {  // else nothing has changed
      this.steps = [...this.steps.slice(0, this.at + 1), this.state];
      this.at++;
    }
    this.tell("rest");
  }

  /** Change the present step itself: nothing that undo should take back. @param {Partial<State>} change */
  replace(change) {
    this.state = { ...this.state, ...change };
    this.steps = this.steps.map((step, n) => (n === this.at ? this.state : step));
    this.tell("rest");
  }

  /** Begin anew: nothing to undo. @param {State} state */
  begin(state) {
    this.steps = [state]; this.at = 0; this.state = state;
    this.tell("rest");
  }

  /** Go to an earlier or later step. @param {number} to */
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
