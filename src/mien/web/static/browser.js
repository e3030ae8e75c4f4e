// @ts-check
// The engine of an exported page: the generator runs here, and no server is used.
import { along, latentAddress, latent, parse, resolve } from "./address.js";
import { mix } from "./blake2b.js";
import { thirds } from "./fit.js";
import { levelsApart } from "./gpu.js";
import { animated, withRecipe } from "./png.js";
import { animatedWebp, encodesWebp } from "./webp.js";
import { PRIORS } from "./prior.js";
import { START } from "./state.js";

/** @typedef {import("./types.js").State} State */
/** @typedef {import("./types.js").Drawer} Drawer */
/** @typedef {import("./types.js").Capabilities & {label_rows: (number | null)[][], encodes: boolean}} Description */
/** What a page draws with: at once, perhaps faster later, and the latents of photographs where there is an encoder. @typedef {{drawer: Drawer, encode?: (images: Float32Array, labels: Float32Array) => Promise<Float32Array>, faster?: (apart: (other: Drawer) => Promise<number>) => Promise<{drawer: Drawer | null, why: string}>}} Means */

const TOGETHER = 5;  // faces drawn at a time: a single one waits no longer
const SETTLED = 800;  // milliseconds after the first face until a graphics processor is looked for

/** @param {Description} model @param {Means} means @returns {import("./types.js").Engine} */
export function browser(model, { drawer, encode, faster }) {
  /** @type {(() => void)[]} */
  const listeners = [];
  const by = { name: drawer.name, changed: (/** @type {() => void} */ listener) => { listeners.push(listener); } };
  const prior = PRIORS[model.prior], count = model.latent.reduce((a, b) => a * b, 1), { side, channels } = model;
  /** @type {Promise<unknown>} One computation at a time. */
  let turn = Promise.resolve();
  /** @template T @param {() => Promise<T>} work @returns {Promise<T>} */
  const queued = (work) => {
    const next = turn.then(work, work);
    turn = next.catch(() => {});
    return next;
  };
  /** @type {Map<string, number>} The newest question of each drag. */
  const newest = new Map();

  const known = model.label_rows.map((row) => Float32Array.from(row, (value) => value ?? NaN));
  const middle = Float32Array.from(model.labels, (_, at) => {
    const values = known.map((row) => row[at]).filter((value) => !Number.isNaN(value));
    return values.reduce((a, b) => a + b, 0) / (values.length || 1);
  });

  /** The label row of a face, as the network gets it. @param {State} state */
  function labelled({ at, labels, guidance }) {
    const row = resolve(parse(at), (seed) => known[Number(mix(seed) % BigInt(known.length))], () => middle,
      (a, b, t) => a.map((value, i) => value + t * (b[i] - value)));
    const scale = guidance ?? model.guidance ?? 1;
    return row.map((value, i) => 0.5 + scale * ((labels[model.labels[i]] ?? value) - 0.5));
  }

  /** Pictures at some places, as RGBA. @param {State} state @param {string[]} places @returns {Promise<ImageData[]>} */
  async function draw(state, places) {
    const found = [];
    for (let start = 0; start < places.length; start += TOGETHER) {
      const some = places.slice(start, start + TOGETHER), data = await queued(() => run(drawer, state, some));
      for (let n = 0; n < some.length; n++) found.push(picture(data, n));
    }
    return found;
  }

  /** Pictures at a few places as numbers in [-1, 1]. @param {Drawer} on @param {State} state @param {string[]} some @returns {Promise<Float32Array>} */
  async function run(on, state, some) {
    const z = new Float32Array(some.length * count);
    some.forEach((at, n) => z.set(latent(at, prior, count), n * count));
    /** @type {import("./types.js").Feeds} */
    const feeds = { count: some.length, latent: z, truncation: state.truncation };
    if (model.labels.length) feeds.labels = Float32Array.from(some.flatMap((at) => Array.from(labelled({ ...state, at }))));
    if (model.directions.length) {
      const amounts = model.directions.map(({ name }) => state.directions[name] ?? 0);
      feeds.directions = Float32Array.from(some.flatMap(() => amounts));
    }
    if (model.styles) {
      const [seed, stages] = state.style.split(":"), other = z.slice(), shares = new Float32Array(some.length * model.styles);
      if (stages && state.layers) throw new Error("This page takes the styles of another face or edits some layers, not both at once: choose all layers, or no styles.");
      if (state.layers) {  // there, the face before the edit is the other one
        const [from, to] = thirds(state.layers, model.styles);
        some.forEach((_, n) => { shares.fill(1, n * model.styles, n * model.styles + from); shares.fill(1, n * model.styles + to, (n + 1) * model.styles); });
      }
      if (stages) {
        const z = latent(seed, prior, count), [from, to] = thirds(stages, model.styles);
        some.forEach((_, n) => { other.set(z, n * count); shares.fill(1, n * model.styles + from, n * model.styles + to); });
      }
      Object.assign(feeds, { other, shares });
    }
    return on.run(feeds);
  }

  /** Draw with something faster from now on, if there is such a thing and it draws the same faces. */
  async function speedUp() {
    if (!faster) return;
    const first = drawer, state = { ...START, model: model.id }, seeds = Array.from({ length: TOGETHER }, (_, seed) => String(seed));
    const { drawer: found, why } = await faster(async (other) => levelsApart(await queued(() => run(other, state, seeds)), await queued(() => run(first, state, seeds))));
    if (found) drawer = found;
    by.name = found ? found.name : `${first.name} (${why})`;
    listeners.forEach((listener) => listener());
  }
  /** @type {(() => void) | null} */
  let settle = () => { settle = null; setTimeout(speedUp, SETTLED); };

  /** @param {Float32Array} data in [-1, 1] @param {number} n @returns {ImageData} */
  function picture(data, n) {
    const made = new ImageData(side, side), plane = side * side, start = n * channels * plane;
    for (let at = 0; at < plane; at++) {
      for (let c = 0; c < 3; c++) made.data[4 * at + c] = Math.round((data[start + (channels === 1 ? 0 : c) * plane + at] + 1) * 127.5);
      made.data[4 * at + 3] = 255;
    }
    return made;
  }

  /** Pictures side by side. @param {ImageData[]} pictures @param {number} columns @param {object} metadata @returns {Promise<Blob>} */
  async function sheetOf(pictures, columns, metadata) {
    const canvas = new OffscreenCanvas(columns * side, Math.ceil(pictures.length / columns) * side), pen = canvas.getContext("2d");
    pictures.forEach((image, n) => pen?.putImageData(image, (n % columns) * side, Math.floor(n / columns) * side));
    const bytes = new Uint8Array(await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer());
    return new Blob([withRecipe(bytes, metadata)], { type: "image/png" });
  }

  /** @param {State} state @param {object} [where] */
  const recipe = (state, where = { at: state.at }) => ({
    model: model.sha256, preset: model.preset, synthetic: true, ...where, truncation: state.truncation, ...(state.style ? { style: state.style } : {}), ...(state.layers ? { layers: state.layers } : {}),
    ...(Object.keys(state.labels).length ? { labels: state.labels } : {}), ...(state.guidance === null ? {} : { guidance: state.guidance }), ...(Object.keys(state.directions).length ? { directions: state.directions } : {}),
  });

  /** Pictures at some places on a sheet. @param {State} state @param {string[]} at @param {number} columns */
  const sheet = async (state, at, columns) => sheetOf(await draw(state, at), columns, recipe(state, { at, columns }));

  return {
    kind: "browser",
    by,
    overview: async () => ({ runs: [], models: [{ id: model.id, name: model.name }], trusted: false }),
    async capabilities(id) {
      if (id !== model.id) throw new Error("This page holds another model.");
      return (await encodesWebp()) ? model : { ...model, formats: model.formats.filter((format) => format !== "webp") };
    },
    async preview(state, drag) {
      const mine = (newest.get(drag) ?? 0) + 1;
      newest.set(drag, mine);
      await turn;
      return newest.get(drag) === mine ? (await draw(state, [state.at]))[0] : null;
    },
    async image(state) {
      const blob = await sheetOf(await draw(state, [state.at]), 1, recipe(state));
      settle?.();
      return blob;
    },
    sheet: (state, first) => sheet(state, Array.from({ length: 100 }, (_, n) => String(first + n)), 10),
    faces: sheet,
    children: (state, first, strength) => sheet(state, Array.from({ length: 9 }, (_, n) => `${state.at}~${first + n}:${strength}`), 3),
    async walk(state, { stops, frames, fps, loop, zoom, format }) {
      const pictures = await draw(state, along(stops, frames, loop)), canvas = new OffscreenCanvas(side * zoom, side * zoom), pen = canvas.getContext("2d");
      const type = `image/${format === "webp" ? "webp" : "png"}`, metadata = recipe(state, { walk: stops, frames, fps, loop, zoom }), files = [];
      for (const image of pictures) {
        pen?.drawImage(await createImageBitmap(image), 0, 0, side * zoom, side * zoom);
        files.push(new Uint8Array(await (await canvas.convertToBlob({ type, quality: 0.9 })).arrayBuffer()));
      }
      return format === "webp" ? new Blob([animatedWebp(files, canvas.width, canvas.height, fps, metadata)], { type }) : new Blob([animated(files, fps, metadata)], { type: "image/apng" });
    },
    project: encode ? async (_, photo) => {
      const canvas = new OffscreenCanvas(side, side), pen = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
      pen.imageSmoothingQuality = "high";
      pen.drawImage(await createImageBitmap(photo), 0, 0, side, side);
      const pixels = pen.getImageData(0, 0, side, side).data, plane = side * side, values = new Float32Array(channels * plane);
      for (let at = 0; at < plane; at++) {
        const colours = [0, 1, 2].map((c) => pixels[4 * at + c] / 127.5 - 1);
        if (channels === 1) values[at] = (colours[0] + colours[1] + colours[2]) / 3;
        else colours.forEach((value, c) => { values[c * plane + at] = value; });
      }
      const at = latentAddress(await queued(() => encode(values, middle)));
      const [image] = await draw({ ...START, model: model.id, at }, [at]);
      let error = 0;
      for (let n = 0; n < plane; n++) for (let c = 0; c < 3; c++) error += Math.abs(image.data[4 * n + c] - pixels[4 * n + c]) / 255 / (3 * plane);
      return { at, error, cut: "whole", image: await address(await sheetOf([image], 1, recipe({ ...START, at }))), original: await address(await canvas.convertToBlob({ type: "image/png" })) };
    } : undefined,
  };
}

/** A picture inside an address. @param {Blob} blob @returns {Promise<string>} */
function address(blob) {
  return new Promise((done) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => done(String(reader.result)));
    reader.readAsDataURL(blob);
  });
}
