// @ts-check
// Making elements. Text is always text: nothing here takes markup.
import { enlarged } from "./enlarge.js";

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
  help: "M12 3a9 9 0 1 1 0 18a9 9 0 1 1 0-18M9.600 9.600a2.400 2.400 0 1 1 3.400 2.200c-.700.300-1 .800-1 1.600M12 16.600h.01",
  lock: "M7 11V8.500a5 5 0 0 1 10 0V11M6 11h12v9H6z",
  open: "M7 11V8.500a5 5 0 0 1 9.500-2M6 11h12v9H6z",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
  close: "M7 7l10 10M17 7L7 17",
  down: "M6 10l6 6 6-6",
  plus: "M12 5v14M5 12h14",
  play: "M8 5l11 7-11 7z",
  pause: "M9 5v14M15 5v14",
  reset: "M5 5v5h5M5.500 10a7.500 7.500 0 1 1-.800 5",
  share: "M12 15V4m0 0L8 8m4-4l4 4M6 12v7h12v-7",
  target: "M12 4v4M12 16v4M4 12h4M16 12h4M12 12h.01",
};

let spoken = 0;
/** Say something to a screen reader. @param {string} text */
export function announce(text) {
  clearTimeout(spoken);
  spoken = window.setTimeout(() => { byId("announcement").textContent = text; }, 250);
}

/** Show a short message. @param {string} text @param {"note" | "fault"} [kind] */
export function toast(text, kind = "note") {
  const note = el("p", { class: `toast ${kind}`, role: kind === "fault" ? "alert" : "status" }, text);
  byId("toasts").replaceChildren(note);
  setTimeout(() => note.remove(), kind === "fault" ? 9000 : 3500);
}

/** One plain sentence about an error: what is wrong, and what to do. No path of the machine is in it. @param {unknown} error @returns {string} */
export function sentence(error) {
  const { message = "", hint = "", why } = /** @type {{message?: string, hint?: string, why?: string}} */ (Object(error));
  if (why === undefined) return "Something on this page went wrong: reload it, and your face comes back.";  // no answer of an engine's
  const what = withoutPaths(message).replace(/[.\s]+$/, ""), remedy = withoutPaths(hint).replace(/[.\s]+$/, "").replace(/\.\s+/g, "; ");
  return `${what}${remedy ? `: ${remedy[0].toLowerCase()}${remedy.slice(1)}` : ""}.`;
}

/** Text with the last names of paths alone. @param {string} text */
export const withoutPaths = (text) => text.replace(/(\w{2,}:\/\/\S+)|(?<![\w/:])(?:(?:[A-Za-z]:)?(?:~|\.{1,2})?[\\/](?:[^\s\\/'"`]+[\\/])+|(?:[\w.-]+[\\/]){2,})([^\s\\/'"`:,;]*)/g, (_, url, name) => url ?? name);

/** Say what went wrong. @param {unknown} error */
export function fault(error) {
  toast(sentence(error), "fault");
}

/** Tiles that are drawn soon. @param {number} count */
export const skeletons = (count) => Array.from({ length: count }, () => el("div", { class: "tile", "aria-hidden": "true" }));

/** Empty places of a list, where faces will be. @param {number} count */
export const placeholders = (count) => Array.from({ length: count }, () => el("li", { class: "place", "aria-hidden": "true" }));

/** Put other children into a list; one at the same place gets the keyboard's focus where one had it. @param {HTMLElement} list @param {...Node} children */
export function refill(list, ...children) {
  const at = [...list.children].findIndex((child) => child.contains(document.activeElement));
  list.replaceChildren(...children);
  const next = at < 0 ? null : list.children[Math.min(at, list.children.length - 1)];
  /** @type {HTMLElement | null | undefined} */ (next?.matches("button") ? next : next?.querySelector("button"))?.focus({ preventScroll: true });
}

const LARGEST = 2048;  // pixels a side that are enlarged in the page
const WAIT = 200;  // milliseconds until a wait is shown

/**
 * Mark an element as busy while work is done. A wait that takes longer than a moment has a skeleton: the element itself, or so many
 * tiles in a list that is empty.
 * @template T @param {HTMLElement} area @param {() => Promise<T>} work @param {number} [tiles] @returns {Promise<T>}
 */
export async function busy(area, work, tiles = 0) {
  const turn = String(Number(area.dataset.waits ?? 0) + 1);
  area.dataset.waits = turn;
  area.setAttribute("aria-busy", "true");
  const timer = setTimeout(() => {
    area.classList.add("waiting");
    if (!area.children.length && tiles) area.replaceChildren(...Array.from({ length: tiles }, () => el(/^[UO]L$/.test(area.tagName) ? "li" : "div", { class: "tile", "aria-hidden": "true" })));
  }, WAIT);
  try {
    return await work();
  } finally {
    clearTimeout(timer);
    if (area.dataset.waits === turn) {  // else later work goes on
      area.setAttribute("aria-busy", "false");
      area.classList.remove("waiting");
      for (const tile of area.querySelectorAll(":scope > .tile")) tile.remove();
    }
  }
}

/** Give a file to the visitor. @param {Blob} blob @param {string} name */
export function download(blob, name) {
  const address = URL.createObjectURL(blob);
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

export const reducedMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

const smooth = () => !document.documentElement.classList.contains("pixels");

/**
 * Draw a picture, or a part of it, into a canvas at the canvas's own size. A whole picture is enlarged by Lanczos.
 * @param {HTMLCanvasElement} canvas @param {CanvasImageSource & {width: number, height: number}} image @param {[number, number, number, number]} [part]
 */
export function paint(canvas, image, part) {
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")), { width, height } = canvas;
  if (smooth() && !part && Math.min(width / image.width, height / image.height) > 1 && width <= LARGEST) { pen.putImageData(enlarged(image, width, height), 0, 0); return; }
  pen.imageSmoothingEnabled = smooth();
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, ...(part ?? /** @type {[number, number, number, number]} */ ([0, 0, image.width, image.height])), 0, 0, width, height);
}

/** Show what the next picture replaces at once: doubled, and enlarged further by the browser as it shows the canvas. @param {HTMLCanvasElement} canvas @param {ImageData} data */
export function sketch(canvas, data) {
  const side = data.width * (smooth() && data.width <= 256 ? 2 : 1), source = new OffscreenCanvas(data.width, data.height);
  source.getContext("2d")?.putImageData(data, 0, 0);
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.imageSmoothingQuality = "high";
  pen.drawImage(source, 0, 0, side, side);
}

/** A slider with its name, its value and a way back. @param {{name: string, value: number, min: number, max: number, step: number, rest: number, title?: string, format?: (value: number) => string, oninput: (value: number) => void, onchange: (value: number) => void}} options */
export function slider({ name, value, min, max, step, rest, title, format = (v) => v.toFixed(2), oninput, onchange }) {
  const id = `slider-${name.replace(/\W+/g, "-")}-${Math.random().toString(36).slice(2, 7)}`;
  const output = el("output", { for: id }, format(value));
  const input = el("input", { type: "range", id, min, max, step, value, title });
  const zero = min < 0 && rest === 0 ? -min / (max - min) : 0;  // from where a value is counted
  input.classList.add("tracked");
  input.classList.toggle("centred", zero > 0);
  const set = (/** @type {number} */ next) => {
    const at = (Math.min(max, Math.max(min, next)) - min) / (max - min);
    input.value = String(next);
    input.style.setProperty("--from", String(Math.min(zero, at)));
    input.style.setProperty("--to", String(Math.max(zero, at)));
    output.textContent = format(next);
    input.setAttribute("aria-valuetext", format(next));
    back.disabled = next === rest;
  };
  const back = el("button", { type: "button", class: "quiet", "aria-label": `Reset ${name}`, onclick: () => { set(rest); onchange(rest); } }, icon("reset"));
  input.addEventListener("input", () => { set(Number(input.value)); oninput(Number(input.value)); });
  input.addEventListener("change", () => onchange(Number(input.value)));
  input.addEventListener("dblclick", () => { set(rest); onchange(rest); });
  const row = el("div", { class: "slider" }, el("label", { for: id, title }, name), back, output, input);
  set(value);
  return { row, set, input };
}
