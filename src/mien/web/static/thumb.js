// @ts-check
// Small pictures of faces: a click shows one, a drag carries its address.
import { busy, el, fault, paint } from "./dom.js";
import { spoken } from "./face.js";
import { drawn } from "./state.js";

/** What a drag carries. */
export const CARRIED = "text/x-mien-face";

/**
 * A button with a face on it.
 * @param {{at: string, name?: string, side?: number, image?: (CanvasImageSource & {width: number, height: number}) | null, part?: [number, number, number, number], onpick: () => void, engine?: import("./types.js").Engine, state?: import("./types.js").State}} options
 */
export function thumb({ at, name = `Face ${spoken(at)}`, side = 96, image, part, onpick, engine, state }) {
  const canvas = el("canvas", { width: side * 2, height: side * 2, "aria-hidden": "true" });
  const button = el("button", { type: "button", class: "thumb", "aria-label": name, title: name, draggable: "true", onclick: onpick,
    ondragstart: (/** @type {DragEvent} */ event) => {
      event.dataTransfer?.setData(CARRIED, at);
      event.dataTransfer?.setData("text/plain", at);
    } }, canvas);
  if (image) paint(canvas, image, part);
  else if (engine && state) {
    busy(button, async () => {
      const blob = await engine.image(drawn({ ...state, at, mix: null }), true);
      if (blob) paint(canvas, await createImageBitmap(blob));
    }).catch((error) => { if (error.code !== 404) fault(error); });  // an old checkpoint may have been deleted since
  }
  return button;
}

/** Where faces can be dropped. @param {HTMLElement} area @param {(at: string) => void} ondrop */
export function acceptFaces(area, ondrop) {
  area.addEventListener("dragover", (event) => {
    if (event.dataTransfer?.types.includes(CARRIED)) { event.preventDefault(); area.classList.add("over"); }
  });
  area.addEventListener("dragleave", () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    area.classList.remove("over");
    const at = event.dataTransfer?.getData(CARRIED);
    if (at) { event.preventDefault(); event.stopPropagation(); ondrop(at); }
  });
}
