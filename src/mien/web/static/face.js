// @ts-check
// The large face: draws quick previews while something moves, and the exact face when it rests.
import { announce, busy, byId, reducedMotion, fault, paint, sketch } from "./dom.js";
import { nameOf } from "./names.js";
import { drawn, toHash } from "./state.js";

const AT_ONCE = 2;

/** @typedef {{blob: Blob, image: ImageBitmap}} Picture what an engine drew, and the same decoded */

export class Face {
  /** @param {import("./types.js").Engine} engine */
  constructor(engine) {
    this.engine = engine;
    this.canvas = /** @type {HTMLCanvasElement} */ (byId("face"));
    this.drag = Math.random().toString(36).slice(2, 10);
    this.flying = 0; this.turn = 0; this.painted = 0;
    /** @type {import("./types.js").State | null} */
    this.next = null;
    /** @type {Blob | null} */
    this.blob = null;
    /** @type {ImageBitmap | null} What stands on the canvas; null for a face of a movement. */
    this.image = null;
    this.key = "";  // of the state on show
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    /** @type {((image: ImageBitmap, state: import("./types.js").State) => void)[]} What wants a picture of every face at rest, on show or overtaken. */
    this.listeners = [];
    /** Whether an exact face takes so long that a quick one is shown before it. */
    this.slow = false;
    this.exactKey = ""; this.cut = new AbortController();  // of the exact face on its way, if that is slow
    /** @type {{key: string, picture: Promise<Picture>} | null} A face that is drawn before it is wanted. */
    this.likely = null;
  }

  /** Show a state soon; only the newest of those that wait is drawn. @param {import("./types.js").State} state */
  preview(state) {
    this.next = state;
    this.cut.abort();
    this.send();
  }

  send() {
    if (!this.next || this.flying >= AT_ONCE) return;
    const state = this.next;
    this.next = null;
    this.flying++;
    this.sketch(state).finally(() => { this.flying--; this.send(); });
  }

  /** Show a state exactly. @param {import("./types.js").State} state @param {boolean} [fade] */
  async exact(state, fade = false) {
    this.next = null;
    const key = keyOf(state);
    if (this.slow && this.key !== key) this.sketch(state);
    if (this.exactKey !== key || this.cut.signal.aborted) { this.cut.abort(); this.cut = new AbortController(); }
    this.exactKey = key;
    const { signal } = this.cut;
    try {
      await busy(this.canvas, () => this.fetch(state, fade, this.slow ? signal : undefined));
    } catch (error) {
      if (!signal.aborted) fault(error);
      else this.picture(state, true).then(({ image }) => this.tell(image, state), () => {});
    }
  }

  /** @param {ImageBitmap} image @param {import("./types.js").State} state */
  tell(image, state) {
    for (const listener of this.listeners) listener(image, state);
  }

  /** @param {import("./types.js").State} state @param {boolean} [thumbnail] @param {AbortSignal} [signal] @returns {Promise<Picture>} */
  async picture(state, thumbnail, signal) {
    const blob = await this.engine.image(drawn(state), thumbnail, signal);
    return { blob, image: await createImageBitmap(blob) };
  }

  /** Draw a face that is likely to be wanted next, so that it is there at once. @param {import("./types.js").State} state */
  ahead(state) {
    const key = keyOf(state);
    if (this.slow || this.likely?.key === key) return;
    const picture = this.picture(state);
    this.likely = { key, picture };
    picture.catch(() => { if (this.likely?.key === key) this.likely = null; });  // it is drawn again when it is wanted
  }

  /** Show a face of a movement, unless a newer one is on show already. @param {import("./types.js").State} state */
  async sketch(state) {
    const turn = ++this.turn, data = await this.engine.preview(drawn(state), this.drag).catch(() => null);  // the exact face says what is wrong
    if (!data || turn < this.painted) return;
    this.show(null, state, turn);
    sketch(this.canvas, data);
  }

  /** @param {import("./types.js").State} state @param {boolean} fade @param {AbortSignal} [signal] */
  async fetch(state, fade, signal) {
    const turn = ++this.turn, { blob, image } = await (this.likely?.key === keyOf(state) ? this.likely.picture : this.picture(state, false, signal));
    this.tell(image, state);
    if (turn < this.painted) return;
    if (fade && !reducedMotion()) this.canvas.animate([{ opacity: 0.35 }, { opacity: 1 }], { duration: 220, easing: "ease-out" });
    this.show(image, state, turn);
    this.draw();
    this.blob = blob;
    this.canvas.dataset.at = drawn(state).at;
    this.canvas.setAttribute("aria-label", `A synthetic face, at ${spoken(drawn(state).at)}. Drag to move, space for a new one.`);
    announce(`Face ${spoken(drawn(state).at)}`);
  }

  /** @param {ImageBitmap | null} image @param {import("./types.js").State} state @param {number} turn */
  show(image, state, turn) {
    this.painted = turn;
    this.key = keyOf(state);
    this.image = image;
    this.canvas.dataset.shown = image ? "exact" : "preview";
  }

  /** Paint what stands on the canvas at the size that the canvas has on the page. */
  draw() {
    const side = Math.round(this.canvas.clientWidth * devicePixelRatio) || 512;
    if (!this.image) return;
    if (this.canvas.width !== side) this.canvas.width = this.canvas.height = side;
    paint(this.canvas, this.image);
  }
}

/** What two states have in common that look the same. @param {import("./types.js").State} state */
const keyOf = (state) => toHash(drawn(state));

/** An address in words that are worth hearing. @param {string} at */
export function spoken(at) {
  const name = nameOf(at);
  return name.length > 60 ? `${name.slice(0, 60)} and further` : name;
}
