// @ts-check
// A walk: faces on a strip, played on the page, given away as a film.
import { along } from "./address.js";
import { byId, download, el, fault, icon, paint, placeholders, toast } from "./dom.js";
import { address, drawn } from "./state.js";
import { acceptFaces, thumb } from "./thumb.js";

const MOST = 32, ROW = "text/x-mien-stop";

/** @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine */
export function walking(store, engine) {
  /** @type {string[]} */
  let stops = [];
  let playing = 0;
  const strip = byId("stops"), canvas = /** @type {HTMLCanvasElement} */ (byId("film"));
  const input = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (byId(id));
  const play = byId("play"), save = /** @type {HTMLButtonElement} */ (byId("export"));

  /** @param {string} at @param {number} [where] */
  function add(at, where = stops.length) {
    if (stops.length >= MOST) { toast(`A walk has ${MOST} faces at most.`); return; }
    stops.splice(where, 0, at);
    show();
  }

  /** @param {number} from @param {number} to */
  function shift(from, to) {
    if (to < 0 || to >= stops.length) return;
    const [at] = stops.splice(from, 1);
    stops.splice(to, 0, at);
    show();
    /** @type {HTMLElement | null} */ (strip.children[to]?.querySelector(".thumb"))?.focus();
  }

  function show() {
    stop();
    strip.replaceChildren(...stops.map((at, n) => {
      const face = thumb({ at, name: `Face ${n + 1} of the walk`, side: 72, engine, state: store.state, onpick: () => store.rest({ at, mix: null }) });
      face.addEventListener("dragstart", (event) => event.dataTransfer?.setData(ROW, String(n)));
      const item = el("li", {}, face, el("span", { class: "moves" },
        el("button", { type: "button", class: "quiet", "aria-label": `Move face ${n + 1} left`, disabled: n === 0, onclick: () => shift(n, n - 1) }, icon("left")),
        el("button", { type: "button", class: "quiet", "aria-label": `Take face ${n + 1} out`, onclick: () => { stops.splice(n, 1); show(); } }, icon("close")),
        el("button", { type: "button", class: "quiet", "aria-label": `Move face ${n + 1} right`, disabled: n === stops.length - 1, onclick: () => shift(n, n + 1) }, icon("right"))));
      item.addEventListener("dragover", (event) => { if (event.dataTransfer?.types.includes(ROW)) event.preventDefault(); });
      item.addEventListener("drop", (event) => {
        const from = event.dataTransfer?.getData(ROW);
        if (from) { event.preventDefault(); event.stopPropagation(); shift(Number(from), n); }
      });
      return item;
    }));
    if (!stops.length) strip.replaceChildren(...placeholders(4));
    const ready = stops.length >= 2;
    byId("walk-empty").hidden = ready;
    /** @type {HTMLButtonElement} */ (play).disabled = save.disabled = !ready;
    canvas.hidden = !ready;
    if (ready) engine.image({ ...drawn(store.state), at: stops[0] }, true).then(async (blob) => { if (blob) paint(canvas, await createImageBitmap(blob)); }).catch(fault);
  }

  function stop() {
    playing++;
    play.replaceChildren(icon("play"), "Play");
  }

  async function start() {
    const turn = ++playing, loop = input("loop").checked, frames = Math.max(Number(input("frames").value) || 96, stops.length);
    play.replaceChildren(icon("pause"), "Stop");
    const line = along(stops, frames, loop), fps = Number(input("fps").value) || 24;
    /** @type {Promise<ImageBitmap | null>[]} */
    const drawing = [];
    const fetch = (/** @type {number} */ n) => (drawing[n] ??= engine.image({ ...drawn(store.state), at: line[n] }, true).then((blob) => blob && createImageBitmap(blob)));
    try {
      for (let n = 0, began = performance.now(); playing === turn; n = (n + 1) % line.length) {
        for (let ahead = 1; ahead < 6; ahead++) fetch((n + ahead) % line.length).catch(() => {});
        const image = await fetch(n);
        if (playing !== turn) return;
        if (image) paint(canvas, image);
        began = Math.max(began + 1000 / fps, performance.now());
        await new Promise((go) => setTimeout(go, began - performance.now()));
        if (!loop && n === line.length - 1) break;
      }
    } catch (error) { fault(error); }
    if (playing === turn) stop();
  }

  play.addEventListener("click", () => (play.textContent === "Stop" ? stop() : start()));
  byId("walk-add").addEventListener("click", () => add(address(store.state)));
  byId("walk-fill").addEventListener("click", () => { stops = Array.from({ length: 4 }, () => String(Math.floor(Math.random() * 1e6))); show(); });
  acceptFaces(byId("panel-walk"), (at) => add(at));
  save.addEventListener("click", async () => {
    const format = input("format").value;
    save.disabled = true;
    save.textContent = "Making the film…";
    try {
      const frames = Math.max(Number(input("frames").value) || 96, stops.length);
      const blob = await engine.walk(drawn(store.state), { stops, frames, fps: Number(input("fps").value) || 24, loop: input("loop").checked, format, zoom: 4 });
      download(blob, `walk.${format === "apng" ? "png" : format}`);
      toast("The film is in your downloads.");
    } catch (error) { fault(error); }
    save.textContent = "Export";
    save.disabled = false;
  });
  show();
  return {
    add: () => { add(address(store.state)); toast("Added to the walk."); },
    /** @param {import("./types.js").Capabilities} model */
    offer(model) {
      byId("format").replaceChildren(...model.formats.map((format) => el("option", {}, format)));
      show();
    },
    close: stop,
    stops: () => stops,
  };
}
