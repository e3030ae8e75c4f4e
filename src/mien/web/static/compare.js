// @ts-check
// Comparing: the same face in two to four models or checkpoints, side by side.
import { busy, byId, el, fault, icon, paint, sketch } from "./dom.js";
import { fitted } from "./fit.js";
import { drawn } from "./state.js";

/** @typedef {import("./types.js").State} State */
/** @typedef {{model: string, drag: string, next: {state: State, how: "drag" | "rest"} | null, busy: boolean, drawnKey: string, item: HTMLElement, canvas: HTMLCanvasElement, note: HTMLElement, choice: HTMLSelectElement}} Column */

const LEAST = 2, MOST = 4, SIDE = 320;  // pixels

/**
 * @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine
 * @param {() => import("./types.js").Overview} overview what there is to choose from @param {(model: string) => void} pick
 */
export function comparing(store, engine, overview, pick) {
  const list = byId("comparison"), more = /** @type {HTMLButtonElement} */ (byId("compare-more"));
  /** @type {Column[]} */
  let columns = [];
  /** @type {Map<string, Promise<import("./types.js").Capabilities>>} */
  const known = new Map();

  /** Every model that can be chosen, with what it is called. @returns {{id: string, name: string, run: string, seen: number | null}[]} */
  const choices = () => {
    const { runs, models } = overview();
    return [...runs.flatMap(({ name, id: run, checkpoints }) => checkpoints.map(({ model: id, seen }) => ({ id, name: `${seen.toLocaleString("en")} images, ${name}`, run, seen }))),
      ...models.map(({ id, name }) => ({ id, name, run: "", seen: null }))];
  };

  /** @param {string} id */
  function ableOf(id) {
    const found = known.get(id) ?? engine.capabilities(id);
    known.set(id, found);
    found.catch(() => known.delete(id));
    return found;
  }

  /** @param {string} model */
  function column(model) {
    const canvas = el("canvas", { width: SIDE, height: SIDE, "aria-hidden": "true" }), note = el("p", { class: "hint" });
    const choice = el("select", { "aria-label": "Model of this column", onchange: () => { made.model = choice.value; made.drawnKey = ""; name(); show(); } });
    const face = el("button", { type: "button", class: "thumb", onclick: () => pick(made.model) }, canvas);
    const remove = el("button", { type: "button", class: "quiet", "aria-label": "Take this column out", onclick: () => { columns = columns.filter((one) => one !== made); arrange(); } }, icon("close"));
    const item = el("li", {}, el("div", { class: "row" }, choice, remove), face, note);
    /** @type {Column} */
    const made = { model, drag: Math.random().toString(36).slice(2, 10), next: null, busy: false, drawnKey: "", item, canvas, note, choice };
    const name = () => face.setAttribute("aria-label", `This face by ${choice.selectedOptions[0]?.textContent ?? "this model"}: open the model`);
    const there = choices();
    choice.append(...there.map(({ id, name: text }) => el("option", { value: id }, text)));
    choice.value = model;
    name();
    return made;
  }

  function arrange() {
    list.replaceChildren(...columns.map(({ item }) => item));
    list.style.setProperty("--columns", String(columns.length));
    more.hidden = columns.length >= MOST || choices().length <= columns.length;
    for (const { item } of columns) item.querySelector(".quiet")?.toggleAttribute("hidden", columns.length <= LEAST);
  }

  /** Which models stand side by side at first: the one on show, and the furthest of its own run, or another. */
  function begin() {
    const there = choices(), own = there.find(({ id }) => id === store.state.model), earlier = there.filter(({ run }) => own?.run && run === own.run);
    const other = earlier.filter(({ id }) => id !== own?.id).pop() ?? there.find(({ id }) => id !== own?.id);
    columns = [store.state.model, other?.id ?? store.state.model].map(column);
    arrange();
  }

  /** Draw a column; of what comes while it is drawn, only the newest is drawn next. @param {Column} one @param {State} state @param {"drag" | "rest"} how */
  async function draw(one, state, how) {
    const key = `${one.model} ${JSON.stringify(drawn(state))}`;
    if (how === "rest" && key === one.drawnKey) return;
    one.next = { state, how };
    if (one.busy) return;
    one.busy = true;
    try {
      while (one.next) {
        const { state: wanted, how: moves } = one.next, resting = moves === "rest";
        one.next = null;
        const work = async () => {
          const able = await ableOf(one.model), { state: own, missing } = fitted(drawn(wanted), able);
          const data = resting ? null : await engine.preview(own, one.drag);
          if (data) sketch(one.canvas, data);
          if (!resting) return;
          const image = await createImageBitmap(await engine.image(own));
          one.canvas.width = one.canvas.height = SIDE;
          paint(one.canvas, image);
          one.note.textContent = [`${able.side} px`, ...(able.scores ?? []).map(({ name, value }) => `${name} ${value}`), ...(missing.length ? [`no ${missing.join(", no ")}`] : [])].join(" · ");
          one.drawnKey = `${one.model} ${JSON.stringify(drawn(wanted))}`;
        };
        await (resting ? busy(one.canvas, work) : work());
      }
    } catch (error) { fault(error); }
    one.busy = false;
  }

  function show() {
    if (columns.length < LEAST) begin();
    for (const one of columns) draw(one, store.state, "rest");
  }

  more.addEventListener("click", () => {
    const next = choices().find(({ id }) => !columns.some(({ model }) => model === id));
    if (next) columns.push(column(next.id));
    arrange();
    show();
  });
  return {
    open: show,
    /** Whether there is anything to compare. */
    able: () => choices().length > 1,
    /** Follow a drag; faces at rest come with the rest of the tools. @param {State} state @param {"drag" | "rest"} how */
    follow(state, how) {
      if (how === "drag" && !byId("panel-compare").hidden) for (const one of columns) draw(one, state, "drag");
    },
  };
}
