// @ts-check
// The sliders beside the face: those that the model can serve, and no others.
import { whyNot } from "./address.js";
import { byId, el, icon, slider } from "./dom.js";
import { thirds } from "./fit.js";
import { nameOf } from "./names.js";
import { locate } from "./plane.js";
import { address } from "./state.js";

/** @typedef {import("./types.js").Capabilities} Capabilities */

const FIRST = 6;  // sliders of a group that are there by default
const SOLVERS = { multistep: "multistep", euler: "Euler", midpoint: "midpoint", heun: "Heun", rk4: "Runge–Kutta 4", adaptive: "adaptive" };

export class Controls {
  /** @param {import("./state.js").Store} store */
  constructor(store) {
    this.store = store;
    /** @type {((state: import("./types.js").State) => void)[]} */
    this.follow = [];
    /** Opens what finds directions. @type {(() => void) | null} */
    this.find = null;
  }

  /** Offer what a model can do. @param {Capabilities} model */
  offer(model) {
    this.follow = [];
    const { store } = this, rows = [];
    const truncation = slider({
      name: "Truncation", value: store.state.truncation, min: 0, max: 1.5, step: 0.01, rest: 1,
      title: "Toward 0, faces are more typical and less varied; above 1, more unusual and less sure.",
      oninput: (value) => store.drag({ truncation: value }), onchange: (value) => store.rest({ truncation: value }),
    });
    rows.push(truncation.row);
    this.follow.push((state) => truncation.set(state.truncation));
    if (model.scalable) rows.push(this.size(model));
    if (model.flow) rows.push(this.group("Flow", "How the field from noise to face is followed.", this.flow(model.flow)));
    if (model.directions.length) rows.push(this.group("Directions", "Steps in the latent space, in standard deviations. A locked one stays: the others move across it only, and are shuffled or reset without it.",
      [...namedFirst(model.directions).map((direction) => this.direction(direction)), ...(model.styles > 1 ? [this.layers(model)] : []), this.directionButtons(model)]));
    if (model.labels.length) rows.push(this.group("Labels", "Labels that the model was taught.", model.labels.map((name) => this.label(name))));
    if (model.guidance !== null) rows.push(this.guidance(model.guidance));
    if (!model.directions.length) rows.push(this.finder());
    byId("sliders").replaceChildren(...rows);
    this.update();
  }

  update() {
    for (const follow of this.follow) follow(this.store.state);
  }

  /** Sliders that fold away together; of many, the first six are there. @param {string} title @param {string} help @param {HTMLElement[]} rows */
  group(title, help, rows) {
    const sliders = rows.filter((row) => row.matches(".slider")), rest = sliders.length > FIRST + 1 ? sliders.slice(FIRST) : [];
    const body = el("div", { class: "rows" }, ...rows);
    const toggle = el("button", { type: "button", class: "fold", title: help, "aria-expanded": "true", onclick: () => {
      body.hidden = !body.hidden;
      toggle.setAttribute("aria-expanded", String(!body.hidden));
    } }, title, icon("down"));
    if (rest.length) {
      const more = el("button", { type: "button", class: "more", "aria-expanded": "false", onclick: () => show(more.getAttribute("aria-expanded") === "false") });
      const show = (/** @type {boolean} */ all) => {
        for (const row of rest) row.hidden = !all;
        more.setAttribute("aria-expanded", String(all));
        more.textContent = all ? "Fewer" : `All ${sliders.length}`;
      };
      show(false);
      sliders[sliders.length - 1].after(more);
    }
    return el("fieldset", {}, el("legend", {}, toggle), body);
  }

  /** @param {Capabilities} model */
  size(model) {
    const { store } = this, sizes = [model.side, 128, 256, 512, 1024].filter((side, i, all) => all.indexOf(side) === i);
    const box = el("input", { id: "size", type: "number", min: 2, max: 1024, list: "sizes", onchange: () => {
      const side = Math.round(Math.min(1024, Math.max(2, Number(box.value) || model.side)));
      store.rest({ size: side === model.side ? 0 : side });
    } });
    this.follow.push((state) => { box.value = String(state.size || model.side); });
    return el("div", { class: "choice" }, el("label", { for: "size" }, "Pixels a side"), box,
      el("datalist", { id: "sizes" }, ...sizes.map((side) => el("option", { value: side }))));
  }

  /** @param {NonNullable<Capabilities["flow"]>} flow @returns {HTMLElement[]} */
  flow(flow) {
    const { store } = this, own = `${flow.method}:${flow.method === "adaptive" ? flow.tolerance : flow.steps}`;
    /** @param {string} word */
    const unlessDefault = (word) => (word === own ? "" : word);
    const now = () => {
      const [method, number] = (store.state.solver || own).split(":");
      return { method, steps: method === "adaptive" ? flow.steps : Number(number) };
    };
    const choice = el("select", { id: "solver", onchange: () => {
      const word = choice.value === "adaptive" ? `adaptive:${flow.method === "adaptive" ? flow.tolerance : 0.001}` : `${choice.value}:${now().steps}`;
      store.rest({ solver: unlessDefault(word) });
    } }, ...Object.entries(SOLVERS).map(([value, name]) => el("option", { value }, name)));
    const steps = slider({
      name: "Steps", value: flow.steps, min: 1, max: 48, step: 1, rest: flow.steps, format: (v) => String(v),
      title: "More steps follow the field more closely, and take longer.",
      oninput: (value) => store.drag({ solver: unlessDefault(`${choice.value}:${value}`) }), onchange: (value) => store.rest({ solver: unlessDefault(`${choice.value}:${value}`) }),
    });
    steps.row.id = "steps";
    this.follow.push(() => {
      const { method, steps: count } = now();
      choice.value = method;
      steps.row.hidden = method === "adaptive";
      steps.set(count);
    });
    return [el("div", { class: "choice" }, el("label", { for: "solver" }, "Solver"), choice), steps.row];
  }

  /** How closely labels are followed. @param {number} own @returns {HTMLElement} */
  guidance(own) {
    const { store } = this;
    /** @param {number} value */
    const leaning = (value) => ({ guidance: value === own ? null : value });
    const guidance = slider({
      name: "Guidance", value: own, min: 0, max: 6, step: 0.1, rest: own, format: (v) => v.toFixed(1),
      title: "Over 1, faces show more of what the labels ask for, and vary less.",
      oninput: (value) => store.drag(leaning(value)), onchange: (value) => store.rest(leaning(value)),
    });
    guidance.row.id = "guidance";
    this.follow.push((state) => guidance.set(state.guidance ?? own));
    return guidance.row;
  }

  /** @param {string} name */
  label(name) {
    const { store } = this;
    const set = (/** @type {number | null} */ value, /** @type {"drag" | "rest"} */ how) => {
      const others = Object.entries(store.state.labels).filter(([other]) => other !== name);
      store[how]({ labels: Object.fromEntries(value === null ? others : [...others, [name, value]]) });
    };
    const row = slider({
      name: name.replace(/_/g, " "), value: 0.5, min: 0, max: 1, step: 0.01, rest: -1, format: (v) => (v < 0 ? "as it comes" : v.toFixed(2)),
      oninput: (value) => set(value, "drag"), onchange: (value) => set(value < 0 ? null : value, "rest"),
    });
    this.follow.push(({ labels }) => {
      const set = Object.hasOwn(labels, name);
      row.set(set ? labels[name] : -1);
      if (!set) row.input.value = "0.5";
      row.row.classList.toggle("idle", !set);
    });
    return row.row;
  }

  /** @param {import("./types.js").Direction} direction */
  direction({ name, note }) {
    const { store } = this;
    const set = (/** @type {number} */ value, /** @type {"drag" | "rest"} */ how) => {
      store[how]({ directions: Object.fromEntries([...Object.entries(store.state.directions).filter(([other]) => other !== name), [name, value]]) });
    };
    const row = slider({
      name: name.replace(/_/g, " "), title: note, value: 0, min: -4, max: 4, step: 0.05, rest: 0, format: (v) => (v > 0 ? "+" : "") + v.toFixed(2),
      oninput: (value) => set(value, "drag"), onchange: (value) => set(value, "rest"),
    });
    const lock = el("button", { type: "button", class: "quiet", "aria-pressed": "false", "aria-label": `Lock ${name}`, onclick: () => {
      const { locks } = store.state;
      store.rest({ locks: locks.includes(name) ? locks.filter((other) => other !== name) : [...locks, name] });
    } }, icon("open"));
    row.row.append(lock);
    row.row.classList.add("lockable");
    this.follow.push(({ directions, locks }) => {
      const on = locks.includes(name);
      row.set(Object.hasOwn(directions, name) ? directions[name] : 0);
      row.input.disabled = on;
      if (lock.getAttribute("aria-pressed") === String(on)) return;
      lock.setAttribute("aria-pressed", String(on));
      lock.replaceChildren(icon(on ? "lock" : "open"));
    });
    return row.row;
  }

  /** Which stages directions act in: folded away, since it is all of them by default. @param {Capabilities} model */
  layers({ styles }) {
    const { store } = this, summary = el("summary", {});
    const choice = (/** @type {string} */ name) => el("select", { "aria-label": name, onchange: change }, ...Array.from({ length: styles }, (_, n) => el("option", { value: n + 1 }, String(n + 1))));
    const change = () => {
      const [low, high] = [Number(from.value), Number(to.value)].sort((a, b) => a - b);
      store.rest({ layers: low === 1 && high === styles ? "" : low === high ? String(low) : `${low}-${high}` });
    };
    const from = choice("First layer that directions act in"), to = choice("Last layer that directions act in");
    this.follow.push(({ layers }) => {
      const [start, end] = layers ? thirds(layers, styles) : [0, styles];
      from.value = String(start + 1);
      to.value = String(end);
      summary.textContent = !layers ? "In all layers" : end - start === 1 ? `In layer ${end} of ${styles}` : `In layers ${start + 1} to ${end} of ${styles}`;
    });
    return el("details", { class: "layers" }, summary, el("p", { class: "choice" }, "Layers", from, "to", to, el("span", { class: "hint" }, "1 is the coarsest: pose and shape; the last is colour and texture.")));
  }

  /** For a model without directions: where they are found. */
  finder() {
    return el("p", { id: "find-offer", class: "offer" }, "Smile, age, pose: directions become sliders here.",
      el("button", { type: "button", onclick: () => this.find?.() }, "Find directions"));
  }

  /** @param {Capabilities} model */
  directionButtons({ directions }) {
    const free = () => directions.map(({ name }) => name).filter((name) => !this.store.state.locks.includes(name));
    const to = (/** @type {() => number} */ value) => this.store.rest({ directions: { ...this.store.state.directions, ...Object.fromEntries(free().map((name) => [name, value()])) } });
    return el("p", { class: "buttons" },
      el("button", { type: "button", onclick: () => to(() => Math.round((Math.random() + Math.random() - 1) * 50) / 20) }, "Shuffle"),
      el("button", { type: "button", onclick: () => to(() => 0) }, "Reset all"));
  }
}

/** Directions that were found by labels or named by hand before those without a meaning of their own. @param {import("./types.js").Direction[]} directions */
const namedFirst = (directions) => [...directions].sort((a, b) => Number(/^Found without/.test(a.note ?? "")) - Number(/^Found without/.test(b.note ?? "")));

/** The line under the face: which seed it is. @param {import("./state.js").Store} store @param {() => void} snap */
export function seedBox(store, snap) {
  const box = /** @type {HTMLInputElement} */ (byId("seed"));
  const button = /** @type {HTMLButtonElement} */ (byId("snap"));
  byId("seed-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = box.value.trim();
    if (text === nameOf(address(store.state))) return;
    const why = whyNot(text);
    box.setCustomValidity(why);
    if (why) { box.reportValidity(); return; }
    box.blur();  // the keys are the page's again
    store.rest({ at: text, mix: null });
  });
  box.addEventListener("input", () => box.setCustomValidity(""));
  button.addEventListener("click", snap);
  let said = 0;
  return (/** @type {"drag" | "rest"} */ how) => {
    if (how === "drag" && performance.now() - said < 100) return;  // nobody reads faster, and each change is a layout
    said = performance.now();
    if (document.activeElement !== box) box.value = nameOf(address(store.state));
    const { spot: { x, y }, moves } = locate(store.state.at);
    button.disabled = !x && !y && !moves.length;
  };
}
