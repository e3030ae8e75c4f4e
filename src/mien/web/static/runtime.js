// @ts-check
// An exported generator in onnxruntime-web, whose files stand beside this one: by WebAssembly, then by WebGPU where that is better.
// @ts-ignore - the runtime's file is there in an exported page only
import * as ort from "./ort.wasm.min.mjs";
import { quicker } from "./gpu.js";

/** @typedef {import("./types.js").Drawer} Drawer */
/** @typedef {import("./browser.js").Description} Description */

/** What the page of a model draws with. @param {Description} model @param {Promise<any>} opening its session @returns {Promise<import("./browser.js").Means>} */
export async function runtime(model, opening) {
  /** @type {Promise<any> | null} */
  let encoder = null;
  return {
    drawer: drawing(model, ort, await opening, "WebAssembly"),
    encode: model.encodes ? async (images, labels) => {
      const feeds = tensors(ort, { images: [images, [1, model.channels, model.side, model.side]], ...(model.labels.length ? { labels: [labels, [1, labels.length]] } : {}) });
      encoder ??= open("encoder.onnx");
      return Float32Array.from((await (await encoder).run(feeds)).latent.data);
    } : undefined,
    faster: (apart) => quicker({
      gpu: /** @type {any} */ (navigator).gpu,
      async open() {
        // @ts-ignore - as above
        const gpu = await import("./ort.webgpu.min.mjs");
        return drawing(model, gpu, await open("model.onnx", gpu, "webgpu"), "WebGPU");
      },
      apart,
    }),
  };
}

/** A session. @param {string} file @param {any} runtime @param {"wasm" | "webgpu"} on */
export async function open(file, runtime = ort, on = "wasm") {
  runtime.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
  runtime.env.wasm.numThreads = 1;  // more would need headers that a static host rarely sends
  runtime.env.logLevel = "fatal";  // the page says what fails
  return runtime.InferenceSession.create(await (await fetch(file)).arrayBuffer(), { executionProviders: [on], graphOptimizationLevel: "all" });
}

/** @param {any} runtime @param {Record<string, [Float32Array, number[]]>} values with their shapes */
const tensors = (runtime, values) => Object.fromEntries(Object.entries(values).map(([name, [value, shape]]) => [name, new runtime.Tensor("float32", value, shape)]));

/** @param {Description} model @param {any} runtime @param {any} session @param {string} name @returns {Drawer} */
function drawing(model, runtime, session, name) {
  return {
    name,
    async run({ count, latent, truncation, other, ...rest }) {
      /** @type {Record<string, [Float32Array, number[]]>} */
      const values = { latent: [latent, [count, ...model.latent]], truncation: [Float32Array.of(truncation), []], ...(other ? { other: [other, [count, ...model.latent]] } : {}) };
      for (const [name, value] of Object.entries(rest)) values[name] = [value, [count, value.length / count]];
      return (await session.run(tensors(runtime, values))).images.data;
    },
  };
}
