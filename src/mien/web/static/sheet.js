// @ts-check
// The contact sheet: a hundred seeds at once, in the order of their numbers, the best first where seeds are ranked, or as a map.
import { busy, byId, fault, refill, skeletons } from "./dom.js";
import { drawn } from "./state.js";
import { gridded, placeOf, principal, vectorsOf } from "./map.js";
import { thumb } from "./thumb.js";

/** @typedef {import("./types.js").Capabilities} Capabilities */

const PAGE = 100;
const TYPICAL = 0.25;  // the share of ranked seeds that a new face is chosen from
const FIRST = 64;  // the best seeds, of which one is the page's first face: a visitor judges by it

/** @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine */
export function contactSheet(store, engine) {
  const grid = byId("sheet"), box = /** @type {HTMLInputElement} */ (byId("sheet-first")), best = /** @type {HTMLInputElement} */ (byId("order"));
  let filled = "", first = 0, mapped = false;
  /** @type {{by: ReturnType<typeof principal>, places: [number, number][], cells: number[]} | null} What the map on show was made from. */
  let map = null;
  /** @type {number[]} */
  let order = [];

  async function fill() {
    const ranked = best.checked && first < order.length;
    const seeds = Array.from({ length: PAGE }, (_, n) => (ranked ? order[first + n] : undefined) ?? first + n);
    const state = { ...drawn(store.state), at: "0", size: 0 }, key = JSON.stringify([state, seeds, mapped]);
    if (key === filled) { mark(); return; }
    filled = key;
    box.value = String(first);
    try {
      const image = await busy(grid, async () => createImageBitmap(await (ranked ? engine.faces(state, seeds.map(String), 10) : engine.sheet(state, first))), 100), side = image.width / 10;
      if (key !== filled) return;
      map = null;
      if (mapped) {
        const vectors = vectorsOf(image, 10, PAGE), by = principal(vectors), places = vectors.map((vector) => placeOf(vector, by));
        map = { by, places, cells: gridded(places, 10) };
      }
      const cells = map?.cells ?? seeds.map((_, n) => n);
      refill(grid, ...cells.map((n) => thumb({
        at: String(seeds[n]), side: 64, image, part: [(n % 10) * side, Math.floor(n / 10) * side, side, side],
        onpick: () => store.rest({ at: String(seeds[n]), mix: null }),
      })));
      mark();
    } catch (error) { fault(error); filled = ""; }
  }

  /** Frame the face of the map that is nearest to the one on show. */
  async function mark() {
    for (const face of grid.querySelectorAll("[aria-current]")) face.removeAttribute("aria-current");
    const there = map;
    if (!there) return;
    const blob = await engine.image(drawn(store.state), true).catch(() => null);
    if (!blob || there !== map) return;
    const [x, y] = placeOf(vectorsOf(await createImageBitmap(blob), 1, 1)[0], there.by);
    const far = there.places.map(([a, b]) => Math.hypot(a - x, b - y)), nearest = far.indexOf(Math.min(...far));
    grid.children[there.cells.indexOf(nearest)]?.setAttribute("aria-current", "true");
  }

  /** Arrow keys go from face to face. @param {KeyboardEvent} event */
  function key(event) {
    const faces = [...grid.children], at = faces.indexOf(/** @type {Element} */ (event.target)), columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key], next = faces[at + (by ?? 0)];
    if (at < 0 || !by || !next) return;
    event.preventDefault();
    event.stopPropagation();
    /** @type {HTMLElement} */ (next).focus();
  }
  grid.addEventListener("keydown", key);
  for (const as of [false, true]) {
    byId(as ? "sheet-map" : "sheet-rows").addEventListener("click", () => {
      mapped = as;
      byId("sheet-map").setAttribute("aria-pressed", String(as));
      byId("sheet-rows").setAttribute("aria-pressed", String(!as));
      byId("map-note").hidden = !as;
      fill();
    });
  }

  /** @param {number} to */
  const go = (to) => { first = Math.min(Math.max(0, Math.floor(to) || 0), 2 ** 53 - 102); fill(); };
  byId("sheet-before").addEventListener("click", () => go(first - PAGE));
  byId("sheet-after").addEventListener("click", () => go(first + PAGE));
  box.addEventListener("change", () => go(Number(box.value)));
  best.addEventListener("change", () => go(0));

  /** A seed whose face holds, by chance; null where seeds are not ranked, or where that is switched off. @param {Capabilities | null} model @param {boolean} [first] for the page's first face */
  function typical(model, first = false) {
    const some = best.checked ? model?.order?.length ?? 0 : 0, quarter = Math.ceil(some * TYPICAL);
    return some && model ? model.order[Math.floor(Math.random() * (first ? Math.min(FIRST, quarter) : quarter))] : null;
  }

  /** @param {Capabilities} model */
  function offer(model) {
    order = model.order ?? [];
    byId("order-row").hidden = !order.length;
    first = 0;
    filled = "";
    map = null;
    grid.replaceChildren(...skeletons(PAGE));
  }

  return { open: fill, offer, typical };
}
