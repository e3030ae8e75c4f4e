// @ts-check
// Undo, redo and the browser's own Back and Forward: one history for all of them, across models.
import { toHash } from "./state.js";

const PATIENCE = 3000;  // milliseconds, more than a busy machine takes, until the browser is taken to have dropped an entry: it keeps about fifty

/**
 * Every step of the store has an entry in the browser's history. An entry knows its number and its step.
 * @param {import("./state.js").Store} store
 * @param {{prepare: (state: import("./types.js").State) => Promise<boolean> | null, arrive: () => Promise<boolean>}} page `prepare`
 * brings a state's model onto the page, null where it is there; `arrive` shows the state that a changed URL describes, and returns whether it describes one
 */
export function navigation(store, { prepare, arrive }) {
  const session = Math.random().toString(36).slice(2);
  let index = 0, expected = -1, timer = 0, calls = 0, following = false, arriving = false;
  /** @type {number[]} The step of each entry. */
  let entries = [0];
  const replace = () => { entries[index] = store.at; history.replaceState({ session, index, step: store.at }, "", toHash(store.state)); };

  /** Enter the state at rest into the browser's history. */
  function record() {
    if (following) return;
    if (arriving || store.steps.length === 1 || store.at === entries[index]) { replace(); return; }
    clearTimeout(timer);
    expected = -1;
    entries = [...entries.slice(0, ++index), store.at];
    history.pushState({ session, index, step: store.at }, "", toHash(store.state));
  }

  /** Show a step, loading its model where it needs one. @param {number} step @returns {Promise<boolean>} */
  async function show(step) {
    const state = store.steps[step], call = ++calls;
    if (!state) return false;
    const prepared = prepare(state);
    if (prepared && (!(await prepared) || call !== calls || store.steps[step] !== state)) return false;
    following = true;
    store.go(step);
    following = false;
    return true;
  }

  /** Go to a step, and take the browser's history there too. @param {number} step */
  async function go(step) {
    if (step === store.at || !(await show(step))) return;
    const here = expected >= 0 ? expected : index, to = nearest(step, here);
    clearTimeout(timer);
    if (to === here) return;
    if (to < 0) { replace(); return; }
    expected = to;
    timer = window.setTimeout(() => { expected = -1; replace(); }, PATIENCE);
    history.go(to - here);
  }

  /** The entry of a step that is next to another entry; -1 where there is none. @param {number} step @param {number} from */
  function nearest(step, from) {
    const found = entries.flatMap((other, at) => (other === step ? [at] : []));
    return found.sort((a, b) => Math.abs(a - from) - Math.abs(b - from))[0] ?? -1;
  }

  addEventListener("popstate", async ({ state }) => {
    if (state?.session === session) {
      index = state.index;
      if (expected >= 0) {  // the page is there already
        if (index === expected) { expected = -1; clearTimeout(timer); }
        return;
      }
      const step = store.steps[state.step];
      if (step && toHash(step) === location.hash) { await show(state.step); return; }
    } else {
      index++;
      entries = entries.slice(0, index);
    }
    arriving = true;
    const there = await arrive();
    arriving = false;
    if (there) replace();
  });

  return { record, go, by: (/** @type {number} */ steps) => go(store.at + steps) };
}
