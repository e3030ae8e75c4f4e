// @ts-check
// The address of any face, as text: the twin of address.py.

/** @typedef {{seed: number, x: number, y: number} | {values: Float32Array, text: string}} Start */
/** @typedef {{start: Start, moves: {target: Address, share: number}[]}} Address */

export const ROW = 1000;
const STEPS = 10000, SEEDS = 2n ** 53n;
const TOKEN = /(\d{1,16})(?:,(-?\d{1,9}(?:\.\d{1,9})?),(-?\d{1,9}(?:\.\d{1,9})?))?|@([A-Za-z0-9_-]+)|(\()/y;
const SHARE = /:(-?\d{1,9}(?:\.\d{1,9})?)/y;

/** The nearest number that an address can say. @param {number} number */
export const rounded = (number) => Math.floor(number * STEPS + 0.5) / STEPS;

/** A seed some steps across and rows down. @param {number} seed @param {number} across @param {number} down */
export function neighbour(seed, across, down) {
  const moved = (BigInt(seed) + BigInt(across) + BigInt(ROW) * BigInt(down)) % SEEDS;
  return Number(moved < 0n ? moved + SEEDS : moved);
}

/** The canonical name of a place in the plane. @param {number} seed @param {number} x @param {number} y */
export function place(seed, x, y) {
  x = rounded(x); y = rounded(y);
  const across = Math.floor(x), down = Math.floor(y);
  return { seed: neighbour(seed, across, down), x: rounded(x - across), y: rounded(y - down) };
}

/** @param {string} text @param {RegExp} pattern @param {number} at */
function match(text, pattern, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

/** The address that a text writes; throws for anything else. @param {string} text @returns {Address} */
export function parse(text) {
  const [address, end] = read(text, 0, 0);
  if (end !== text.length) throw new SyntaxError(`it goes on after character ${end}`);
  return address;
}

/** Why a text is no address, in one sentence; "" where it is one. @param {string} text @param {string} [name] what it stands for */
export function whyNot(text, name = "seed") {
  try { parse(text); return ""; } catch (error) {
    const quoted = `“${text.length > 40 ? `${text.slice(0, 40)}…` : text}”`;
    if (/^\d+$/.test(text)) return `${quoted} is too large for a ${name}: the largest is ${Number.MAX_SAFE_INTEGER}.`;
    if (/[~@(:]|\d,/.test(text)) return `${quoted} is not an address: ${/** @type {Error} */ (error).message}.`;
    return `${quoted} is not a ${name}: a seed is a whole number from 0 on, such as 42.`;
  }
}

/** @param {string} text @param {number} at @param {number} depth @returns {[Address, number]} */
function read(text, at, depth) {
  if (depth > 8) throw new SyntaxError("its brackets are too deep");
  let start;
  [start, at] = point(text, at, depth);
  const moves = [...start.moves];
  while (text[at] === "~") {
    let target;
    [target, at] = point(text, at + 1, depth);
    const share = match(text, SHARE, at);
    if (!share) throw new SyntaxError("a share is missing");
    moves.push({ target, share: rounded(Number(share[1])) });
    at += share[0].length;
    if (moves.length > 256) throw new SyntaxError("it has too many moves");
  }
  return [{ start: start.start, moves }, at];
}

/** @param {string} text @param {number} at @param {number} depth @returns {[Address, number]} */
function point(text, at, depth) {
  const found = match(text, TOKEN, at);
  if (!found) throw new SyntaxError("a face is missing");
  const end = at + found[0].length;
  if (found[5]) {
    const [inner, close] = read(text, end, depth + 1);
    if (text[close] !== ")") throw new SyntaxError("a bracket is not closed");
    return [inner, close + 1];
  }
  if (found[4]) return [{ start: { values: decoded(found[4]), text: found[4] }, moves: [] }, end];
  const seed = Number(found[1]);
  if (!Number.isSafeInteger(seed)) throw new SyntaxError("the seed is too large");
  return [{ start: place(seed, Number(found[2] ?? 0), Number(found[3] ?? 0)), moves: [] }, end];
}

/** @param {string} text */
function decoded(text) {
  const bytes = Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  if (bytes.length % 4) throw new SyntaxError("the latent is cut");
  const view = new DataView(bytes.buffer);
  const values = Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
  if (values.some((value) => !(Math.abs(value) <= 1e4))) throw new SyntaxError("the latent is not finite");
  return values;
}

/** The address of a latent. @param {Float32Array} values @returns {string} */
export function latentAddress(values) {
  const bytes = new Uint8Array(values.length * 4), view = new DataView(bytes.buffer);
  values.forEach((value, i) => view.setFloat32(4 * i, value, true));
  return "@" + btoa(Array.from(bytes, (b) => String.fromCharCode(b)).join("")).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

/** @param {number} value */
const sixDigits = (value) => String(Number(value.toPrecision(6)));

/** An address as text. @param {Address} address @returns {string} */
export function write({ start, moves }) {
  const first = "values" in start ? `@${start.text}`
    : start.x || start.y ? `${start.seed},${sixDigits(start.x)},${sixDigits(start.y)}` : String(start.seed);
  return first + moves.map(({ target, share }) => `~${target.moves.length ? `(${write(target)})` : write(target)}:${sixDigits(share)}`).join("");
}

/** One face, moved a share of the way toward another. @param {string} at @param {string} target @param {number} share @returns {string} */
export function moved(at, target, share) {
  if (!rounded(share)) return at;
  const from = parse(at);
  return write({ start: from.start, moves: [...from.moves, { target: parse(target), share: rounded(share) }] });
}

/** @param {number} t */
const smoothstep = (t) => t * t * (3 - 2 * t);

/**
 * What stands at an address.
 * @template T
 * @param {Address} address
 * @param {(seed: number) => T} ofSeed
 * @param {(values: Float32Array) => T} ofLatent
 * @param {(a: T, b: T, t: number) => T} path
 * @returns {T}
 */
export function resolve(address, ofSeed, ofLatent, path) {
  const { start } = address;
  let here;
  if ("values" in start) here = ofLatent(start.values);
  else {
    const across = smoothstep(start.x), down = smoothstep(start.y);
    /** @param {number} row */
    const line = (row) => {
      const left = ofSeed(neighbour(start.seed, 0, row));
      return across ? path(left, ofSeed(neighbour(start.seed, 1, row)), across) : left;
    };
    here = line(0);
    if (down) here = path(here, line(1), down);
  }
  for (const { target, share } of address.moves) here = path(here, resolve(target, ofSeed, ofLatent, path), share);
  return here;
}

/** The latent at an address. @param {string} text @param {import("./prior.js").Prior} prior @param {number} count @returns {Float32Array} */
export function latent(text, prior, count) {
  return resolve(parse(text), (seed) => prior.draw(seed, count), (values) => {
    if (values.length !== count) throw new RangeError("this latent is another model's");
    return values;
  }, prior.path);
}

/** The addresses of a walk's frames; every stop is met. @param {string[]} stops @param {number} frames @param {boolean} loop @returns {string[]} */
export function along(stops, frames, loop) {
  const line = loop ? [...stops, stops[0]] : stops, legs = line.length - 1, steps = loop ? frames : frames - 1;
  const marks = Array.from({ length: legs + 1 }, (_, leg) => Math.round((leg * steps) / legs));
  const found = [];
  for (let leg = 0; leg < legs; leg++) {
    const length = marks[leg + 1] - marks[leg];
    for (let step = 0; step < length; step++) found.push(moved(line[leg], line[leg + 1], step / length));
  }
  return loop ? found : [...found, line[legs]];
}
