// @ts-check
// Making elements. Text is always text: nothing here takes markup.

/**
 * An element. Attributes that begin with "on" are listeners; true sets an attribute, false and null leave it out.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} name
 * @param {Record<string, any>} [attributes]
 * @param {...(Node | string | null | false)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== false).map((child) => /** @type {Node | string} */ (child)));
  return made;
}

/** An element of the page by its id. @param {string} id @returns {HTMLElement} */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`#${id} is missing`);
  return found;
}

/** An icon from the page's own set of drawings. @param {string} name */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "path");
  use.setAttribute("d", ICONS[name]);
  svg.append(use);
  return svg;
}

/** @type {Record<string, string>} Drawn on 24 by 24, stroked. */
const ICONS = {
  dice: "M5 4h14a1 1 0 0 1 1 1v14a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1V5a1 1 0 0 1 1-1zM8.5 8.5h.01M15.5 8.5h.01M12 12h.01M8.5 15.5h.01M15.5 15.5h.01",
  undo: "M9 7L4 12l5 5M4 12h10a6 6 0 0 1 6 6",
  redo: "M15 7l5 5-5 5M20 12H10a6 6 0 0 0-6 6",
  heart: "M12 20s-7-4.4-7-9.6A4.2 4.2 0 0 1 12 7a4.2 4.2 0 0 1 7 3.4C19 15.600 12 20 12 20z",
  save: "M12 4v11m0 0l-4-4m4 4l4-4M5 19h14",
  link: "M10 14a4 4 0 0 0 6 .4l3-3a4.200 4.200 0 0 0-6-6l-1.500 1.500M14 10a4 4 0 0 0-6-.4l-3 3a4.200 4.200 0 0 0 6 6l1.500-1.500",
  help: "M9.500 9.500a2.500 2.500 0 1 1 3.500 2.300c-.700.300-1 .800-1 1.700M12 17h.01",
  lock: "M7 11V8.500a5 5 0 0 1 10 0V11M6 11h12v9H6z",
  open: "M7 11V8.500a5 5 0 0 1 9.500-2M6 11h12v9H6z",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
  close: "M7 7l10 10M17 7L7 17",
  plus: "M12 5v14M5 12h14",
  play: "M8 5l11 7-11 7z",
  pause: "M9 5v14M15 5v14",
  reset: "M5 5v5h5M5.500 10a7.500 7.500 0 1 1-.800 5",
  target: "M12 4v4M12 16v4M4 12h4M16 12h4M12 12h.01",
};

let spoken = 0;
/** Say something to a screen reader. @param {string} text */
export function announce(text) {
  clearTimeout(spoken);
  spoken = window.setTimeout(() => { byId("said").textContent = text; }, 250);
}

/** Show a short message. @param {string} text @param {"note" | "fault"} [kind] */
export function toast(text, kind = "note") {
  const note = el("p", { class: `toast ${kind}`, role: kind === "fault" ? "alert" : "status" }, text);
  byId("toasts").replaceChildren(note);
  setTimeout(() => note.remove(), kind === "fault" ? 9000 : 3500);
}

/** Show what went wrong, in its parts. @param {unknown} error */
export function fault(error) {
  const { message, why, hint } = /** @type {any} */ (error);
  toast([message, why, hint].filter(Boolean).join(" "), "fault");
}

/** Give a file to the visitor. @param {Blob} blob @param {string} name */
export function download(blob, name) {
  const address = URL.createObjectURL(blob);
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** A picture twice as large, softly. @param {CanvasImageSource} image @param {number} width @param {number} height */
function doubled(image, width, height) {
  const canvas = new OffscreenCanvas(width * 2, height * 2), pen = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/**
 * Draw a picture, or a part of it, into a canvas at the canvas's own size. Enlarging by doubling leaves no lattice of the pixels;
 * `quick` doubles once, for a third of the computing without a graphics processor: for what the next picture replaces at once.
 * @param {HTMLCanvasElement} canvas @param {CanvasImageSource & {width: number, height: number}} image @param {[number, number, number, number]} [part] @param {boolean} [quick]
 */
export function paint(canvas, image, part, quick = false) {
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  /** @type {CanvasImageSource & {width: number, height: number}} */
  let shown = image;
  pen.imageSmoothingEnabled = !document.documentElement.classList.contains("pixels");
  pen.imageSmoothingQuality = quick ? "low" : "high";
  if (!part && pen.imageSmoothingEnabled) {
    for (let times = quick ? 1 : Infinity; times && shown.width * 2 < canvas.width; times--) shown = doubled(shown, shown.width, shown.height);
  }
  pen.drawImage(shown, ...(part ?? /** @type {[number, number, number, number]} */ ([0, 0, shown.width, shown.height])), 0, 0, canvas.width, canvas.height);
}

/** A slider with its name, its value and a way back. @param {{name: string, value: number, min: number, max: number, step: number, rest: number, title?: string, said?: (value: number) => string, oninput: (value: number) => void, onchange: (value: number) => void}} options */
export function slider({ name, value, min, max, step, rest, title, said = (v) => v.toFixed(2), oninput, onchange }) {
  const id = `slider-${name.replace(/\W+/g, "-")}-${Math.random().toString(36).slice(2, 7)}`;
  const shown = el("output", { for: id }, said(value));
  const input = el("input", { type: "range", id, min, max, step, value, title });
  const set = (/** @type {number} */ next) => {
    input.value = String(next);
    shown.textContent = said(next);
    input.setAttribute("aria-valuetext", said(next));
    back.disabled = next === rest;
  };
  const back = el("button", { type: "button", class: "quiet", "aria-label": `Reset ${name}`, onclick: () => { set(rest); onchange(rest); } }, icon("reset"));
  input.addEventListener("input", () => { set(Number(input.value)); oninput(Number(input.value)); });
  input.addEventListener("change", () => onchange(Number(input.value)));
  input.addEventListener("dblclick", () => { set(rest); onchange(rest); });
  const row = el("div", { class: "slider" }, el("label", { for: id, title }, name), shown, back, input);
  set(value);
  return { row, set, input };
}
