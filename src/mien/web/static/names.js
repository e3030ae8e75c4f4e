// @ts-check
// What a face is called on the page: its address, or for a photograph, whose latent nobody could read, the name of its file.

/** @type {Map<string, string>} Names of photographs by the beginning of their latent. */
const photographs = new Map();
const LATENT = /@[A-Za-z0-9_-]+/g, KEY = 64;

/** Remember what a photograph is called, until the page closes. @param {string} at @param {string} name */
export function namePhotograph(at, name) {
  photographs.set(at.slice(0, KEY), name.replace(/\.\w{1,5}$/, "").slice(0, 40) || "photograph");
}

/** What a face is called. @param {string} at */
export function nameOf(at) {
  const [start] = at.split("~");
  if (!start.startsWith("@")) return at.replace(LATENT, (latent) => photographs.get(latent.slice(0, KEY)) ?? "photograph");
  return (photographs.get(start.slice(0, KEY)) ?? "photograph") + (start === at ? "" : ", moved");
}

/** The beginning of a file's name. @param {string} at */
export const fileName = (at) => nameOf(at).replace(/[^\w,.-]+/g, "_").slice(0, 60);
