// @ts-check
// A small curve with a band around it: an interval, or the lowest and highest of the steps that a point stands for.
import { el } from "./dom.js";

const WIDTH = 240, HEIGHT = 64, EDGE = 3;
const SVG = "http://www.w3.org/2000/svg";

/** @param {string} name @param {Record<string, string>} attributes */
function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** @param {number | undefined} value */
const short = (value) => String(Number(value?.toPrecision(3)));

/** @param {{name: string, seen: number[], values: (number | null)[], ranges: import("./types.js").Ranges, meaning?: string, band: string}} curve */
export function curve({ name, seen, values, ranges, meaning, band }) {
  const known = values.filter((value) => value !== null), bounds = ranges.filter((range) => range !== null);
  const low = Math.min(...known, ...bounds.map(([least]) => least)), span = Math.max(...known, ...bounds.map(([, most]) => most)) - low || 1;
  const from = seen[0] ?? 0, length = (seen[seen.length - 1] ?? 1) - from || 1;
  const at = (/** @type {number} */ n, /** @type {number} */ value) => `${(((seen[n] - from) / length) * WIDTH).toFixed(1)},${(HEIGHT - EDGE - ((value - low) / span) * (HEIGHT - 2 * EDGE)).toFixed(1)}`;
  const wide = ranges.flatMap((range, n) => (range && range[1] > range[0] ? [{ n, range }] : []));
  const latest = ranges[ranges.length - 1], around = latest && latest[1] > latest[0] ? `, ${band} ${short(latest[0])} to ${short(latest[1])}` : "";
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `${name}: from ${short(known[0])} to ${short(known[known.length - 1])}${around}` });
  if (wide.length) svg.append(shape("polygon", { points: [...wide.map(({ n, range }) => at(n, range[1])), ...wide.reverse().map(({ n, range }) => at(n, range[0]))].join(" ") }));
  svg.append(shape("polyline", { points: values.map((value, n) => (value === null ? "" : at(n, value))).filter(Boolean).join(" ") }));
  return el("figure", { title: wide.length ? `Shaded: ${band}` : null }, el("figcaption", {}, name.replace(/_/g, " "), el("span", {}, short(known[known.length - 1]))), svg, meaning ? el("p", { class: "meaning" }, meaning) : null);
}
