// @ts-check
// Films as animated WebP: the browser encodes each frame, and this puts them into one file with what the film claims of its origin.
import { xmpOf } from "./png.js";

/** Whether this browser encodes WebP: not all do. */
export async function encodesWebp() {
  const canvas = new OffscreenCanvas(1, 1);
  canvas.getContext("2d");  // without one, nothing is encoded
  return (await canvas.convertToBlob({ type: "image/webp" })).type === "image/webp";
}

/** @param {string} name @param {...Uint8Array} parts */
function chunk(name, ...parts) {
  const length = parts.reduce((sum, part) => sum + part.length, 0), made = new Uint8Array(8 + length + (length % 2));
  made.set(new TextEncoder().encode(name));
  new DataView(made.buffer).setUint32(4, length, true);
  let at = 8;
  for (const part of parts) { made.set(part, at); at += part.length; }
  return made;
}

/** Numbers as little-endian bytes: pairs of a number and how many bytes it has. @param {...[number, number]} numbers */
const bytes = (...numbers) => Uint8Array.from(numbers.flatMap(([number, count]) => Array.from({ length: count }, (_, n) => (number >>> (8 * n)) & 255)));

/** The chunks of a still WebP that hold its picture. @param {Uint8Array} file @returns {Uint8Array[]} */
function pictureOf(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength), found = [];
  for (let at = 12; at + 8 <= file.length;) {
    const end = at + 8 + view.getUint32(at + 4, true), name = String.fromCharCode(...file.subarray(at, at + 4));
    if (/^(VP8 |VP8L|ALPH)$/.test(name)) found.push(file.subarray(at, end + (end % 2)));
    at = end + (end % 2);
  }
  return found;
}

/** Frames, each a WebP of one size, as a film that loops. @param {Uint8Array[]} frames @param {number} width @param {number} height @param {number} fps @param {object} recipe */
export function animatedWebp(frames, width, height, fps, recipe) {
  const moment = (/** @type {number} */ n) => Math.round((1000 * n) / fps), BACKGROUND = 0, FOREVER = 0, ANIMATED = 2, WITH_XMP = 4, OPAQUE = 2;
  const parts = frames.map((frame, n) => chunk("ANMF", bytes([0, 6], [width - 1, 3], [height - 1, 3], [moment(n + 1) - moment(n), 3], [OPAQUE, 1]), ...pictureOf(frame)));
  return chunk("RIFF", new TextEncoder().encode("WEBP"), chunk("VP8X", bytes([ANIMATED | WITH_XMP, 4], [width - 1, 3], [height - 1, 3])),
    chunk("ANIM", bytes([BACKGROUND, 4], [FOREVER, 2])), ...parts, chunk("XMP ", xmpOf(recipe)));
}
