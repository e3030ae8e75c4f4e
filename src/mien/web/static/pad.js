// @ts-check
// The latent pad: a window on the plane of seeds, or around a photograph. Between its crossings every face is a mixture.
import { byId } from "./dom.js";
import { addressOf, crossing, locate, same, shifted } from "./plane.js";

/** @typedef {import("./plane.js").Spot} Spot */

const ACROSS = 5;  // seeds that the window shows in a row
const TOGETHER = 8;  // seeds' pictures at a time, which a movement cuts off
const QUIET = 350;  // milliseconds without a movement before the seeds' pictures are requested

export class Pad {
  /** @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine */
  constructor(store, engine) {
    this.store = store; this.engine = engine;
    this.canvas = /** @type {HTMLCanvasElement} */ (byId("pad"));
    this.dot = byId("dot");
    /** @type {Spot} The place in the middle of the window. */
    this.middle = locate("0").spot;
    /** @type {Spot | null} */
    this.place = null;
    this.offset = { x: 0, y: 0 };  // of the dot from the middle, in seeds
    /** @type {Map<string, {image: ImageBitmap, look: string, model: string}>} Pictures by address; one of another look stays until the new one is drawn, one of another model does not. */
    this.pictures = new Map();
    this.look = "";
    this.painting = 0; this.resting = 0; this.moving = false;
    this.loading = new AbortController();
    this.listen(byId("pad-area"), (event) => {
      const box = this.canvas.getBoundingClientRect();
      return { x: ((event.clientX - box.left) / box.width - 0.5) * ACROSS, y: ((event.clientY - box.top) / box.height - 0.5) * ACROSS };
    });
    this.listenFace(byId("face"));
    byId("pad-area").addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.paintSoon()).observe(this.canvas);
  }

  /** Drags on the pad put the dot under the pointer. @param {HTMLElement} area @param {(event: PointerEvent) => {x: number, y: number}} where */
  listen(area, where) {
    const clamp = (/** @type {number} */ v) => Math.max(-ACROSS / 2, Math.min(ACROSS / 2, v));
    const move = (/** @type {PointerEvent} */ event) => {
      const { x, y } = where(event);
      this.to(clamp(x), clamp(y), "drag");
    };
    area.addEventListener("pointerdown", (event) => {
      if (event.button || !this.place) return;
      area.setPointerCapture(event.pointerId);
      event.preventDefault();
      area.focus({ preventScroll: true });
      move(event);
    });
    area.addEventListener("pointermove", (event) => { if (area.hasPointerCapture(event.pointerId)) move(event); });
    area.addEventListener("pointerup", () => this.settle());
    area.addEventListener("pointercancel", () => this.settle());
  }

  /** Drags on the face itself move through the plane too, a seed for its width. @param {HTMLElement} face */
  listenFace(face) {
    let last = { x: 0, y: 0 };
    face.addEventListener("pointerdown", (event) => {
      if (event.button || !this.place) return;
      face.setPointerCapture(event.pointerId);
      last = { x: event.clientX, y: event.clientY };
    });
    face.addEventListener("pointermove", (event) => {
      if (!face.hasPointerCapture(event.pointerId)) return;
      const width = face.clientWidth;
      this.by((last.x - event.clientX) / width, (last.y - event.clientY) / width, "drag");
      last = { x: event.clientX, y: event.clientY };
    });
    const end = (/** @type {PointerEvent} */ event) => { if (event.type !== "pointercancel" || face.hasPointerCapture(event.pointerId)) this.settle(); };
    face.addEventListener("pointerup", end);
    face.addEventListener("pointercancel", end);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const step = event.shiftKey ? 1 : 0.1;
    const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (event.key === "Home") { event.preventDefault(); this.snap(); }
    if (!by || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.by(by[0], by[1], "drag");
    clearTimeout(this.resting);
    this.resting = window.setTimeout(() => this.settle(), 350);
  }

  /** Move the dot to an offset from the window's middle. @param {number} x @param {number} y @param {"drag" | "rest"} how */
  to(x, y, how) {
    this.offset = { x, y };
    this.change(shifted(this.middle, x, y), how);
  }

  /** Move by some seeds. @param {number} x @param {number} y @param {"drag" | "rest"} how */
  by(x, y, how) {
    if (!this.place) return;
    this.change(shifted(this.place, x, y), how);
    this.offset = { x: this.offset.x + x, y: this.offset.y + y };
    const most = ACROSS / 2 - 0.5;
    const over = { x: Math.max(0, Math.abs(this.offset.x) - most) * Math.sign(this.offset.x), y: Math.max(0, Math.abs(this.offset.y) - most) * Math.sign(this.offset.y) };
    if (over.x || over.y) {
      this.middle = shifted(this.middle, over.x, over.y);
      this.offset = { x: this.offset.x - over.x, y: this.offset.y - over.y };
      this.paintSoon();
    }
    this.aim();
  }

  /** @param {Spot} next @param {"drag" | "rest"} how */
  change(next, how) {
    this.place = next;
    this.moving = true;
    this.loading.abort();  // what waits to be drawn would keep the next face waiting
    const { moves } = locate(this.store.state.at);
    this.store[how]({ at: addressOf(next, moves) });
    this.aim();
  }

  settle() {
    if (!this.moving) return;
    this.moving = false;
    this.store.rest();
    this.paintSoon();
  }

  /** To the nearest crossing. */
  snap() {
    if (!this.place) return;
    const { x, y } = this.place;
    this.change(shifted(this.place, Math.round(x) - x, Math.round(y) - y), "rest");
    this.moving = false;
    this.aimAt(/** @type {Spot} */ (this.place));
    this.paintSoon();
  }

  /** Put the window around a place. @param {Spot} here */
  aimAt(here) {
    const x = Math.round(here.x), y = Math.round(here.y);
    this.middle = shifted(here, x - here.x, y - here.y);
    this.offset = { x: here.x - x, y: here.y - y };
    this.aim();
  }

  /** Show where a state stands. @param {import("./types.js").State} state @param {string} look what all its pictures have in common */
  follow(state, look) {
    const here = locate(state.at).spot, known = same(this.place, here), anew = look !== this.look;
    this.place = here;
    this.look = look;
    if (!known) this.aimAt(here);
    if (!known || anew) {
      byId("pad-title").textContent = here.origin ? "Around the photograph" : "Latent pad";
      this.paintSoon();
    }
    this.aim();
  }

  aim() {
    this.dot.style.transform = `translate(${(this.offset.x / ACROSS) * 100}%, ${(this.offset.y / ACROSS) * 100}%)`;  // moves without a new layout
  }

  paintSoon() {
    cancelAnimationFrame(this.painting);
    this.painting = requestAnimationFrame(() => this.load(this.draw()));
  }

  /** Draw the window; the seeds whose pictures are missing come back, nearest first. @returns {string[]} */
  draw() {
    const side = Math.round(this.canvas.clientWidth * devicePixelRatio);
    if (!side) return [];
    if (this.canvas.width !== side) this.canvas.width = this.canvas.height = side;
    const pen = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    pen.clearRect(0, 0, side, side);
    const cell = side / ACROSS, { x, y } = this.middle, missing = [];
    for (let down = -3; down <= 3; down++) {
      for (let across = -3; across <= 3; across++) {
        const left = (across - x) * cell + side / 2, top = (down - y) * cell + side / 2;
        if (Math.max(Math.abs(left - side / 2), Math.abs(top - side / 2)) > side / 2 + cell / 2) continue;
        const name = addressOf(crossing(this.middle, across, down)), known = this.pictures.get(name), width = cell * 0.84;
        if (known?.look !== this.look) missing.push({ name, far: Math.hypot(across - x, down - y) });
        if (known?.model === this.store.state.model) {
          pen.save();
          pen.beginPath();
          pen.roundRect(left - width / 2, top - width / 2, width, width, width * 0.16);
          pen.clip();
          pen.imageSmoothingQuality = "high";
          pen.drawImage(known.image, left - width / 2, top - width / 2, width, width);
          pen.restore();
        } else {
          pen.fillStyle = getComputedStyle(this.canvas).color;
          pen.globalAlpha = 0.12;
          pen.beginPath();
          pen.roundRect(left - width / 2, top - width / 2, width, width, width * 0.16);
          pen.fill();
          pen.globalAlpha = 1;
        }
      }
    }
    return missing.sort((a, b) => a.far - b.far).map(({ name }) => name);
  }

  /** Fetch the pictures of some seeds, nearest first, when nothing moves. @param {string[]} names */
  async load(names) {
    this.loading.abort();
    if (!this.store.state.model || !names.length || this.moving) return;
    const { state } = this.store, { look } = this, { signal } = this.loading = new AbortController();
    await new Promise((go) => setTimeout(go, QUIET));  // the face itself comes first
    for (let start = 0; start < names.length && !signal.aborted; start += TOGETHER) {
      const some = names.slice(start, start + TOGETHER);
      try {
        const image = await createImageBitmap(await this.engine.faces({ ...state, mix: null, size: 0 }, some, some.length, signal)), side = image.height;
        const pictures = await Promise.all(some.map((_, n) => createImageBitmap(image, n * side, 0, side, side)));
        if (signal.aborted) return;
        some.forEach((name, n) => this.pictures.set(name, { image: pictures[n], look, model: state.model }));
      } catch { return; /* the face itself says what is wrong, or it was cut off */ }
      while (this.pictures.size > 400) this.pictures.delete(/** @type {string} */ (this.pictures.keys().next().value));
      this.draw();
    }
  }
}
