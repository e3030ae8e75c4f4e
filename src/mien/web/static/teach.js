// @ts-check
// Teaching: a new run on one's own photographs or on drawn faces, to watch from its first step.
import { byId, el, fault } from "./dom.js";

const LARGEST = 10e6, SIDE = 1024;  // bytes of a file that is sent as it is; pixels of the long side of one that is sent smaller

/**
 * @param {import("./types.js").Engine} engine
 * @param {(minutes: number, own: boolean, parent?: string) => Promise<void>} begin starts a run and shows it
 */
export function teaching(engine, begin) {
  const files = /** @type {HTMLInputElement} */ (byId("teach-files")), start = /** @type {HTMLButtonElement} */ (byId("teach-start"));
  const status = byId("teach-status"), progress = /** @type {HTMLProgressElement} */ (byId("teach-progress"));
  const from = /** @type {HTMLSelectElement} */ (byId("teach-from"));
  let sending = false;

  function show() {
    const count = files.files?.length ?? 0;
    start.disabled = !count || sending;
    if (!sending) status.textContent = count ? `${count.toLocaleString("en")} photograph${count === 1 ? "" : "s"} chosen${count < 200 ? ": a few hundred teach it more" : ""}.` : "";
  }

  /** A photograph as it is sent: a large one smaller. @param {File} file @returns {Promise<Blob>} */
  async function small(file) {
    if (file.size < LARGEST) return file;
    const image = await createImageBitmap(file), scale = Math.min(1, SIDE / Math.max(image.width, image.height));
    const canvas = new OffscreenCanvas(Math.round(image.width * scale), Math.round(image.height * scale));
    canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
    return canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
  }

  files.addEventListener("change", show);
  start.addEventListener("click", async () => {
    const chosen = [...(files.files ?? [])];
    let refused = 0;
    sending = true;
    show();
    progress.hidden = false;
    try {
      for (const [n, file] of chosen.entries()) {
        try {
          await engine.addPhotograph?.(await small(file));
        } catch (error) {
          if (++refused === chosen.length) throw error;
        }
        progress.value = (n + 1) / chosen.length;
        status.textContent = `${n + 1} of ${chosen.length} are here${refused ? `, ${refused} could not be used` : ""}.`;
      }
      await begin(Number(/** @type {HTMLInputElement} */ (byId("teach-minutes")).value) || 10, true, from.value);
    } catch (error) { fault(error); }
    sending = false;
    progress.hidden = true;
    show();
  });
  byId("train-drawn").addEventListener("click", () => begin(5, false).catch(fault));
  return {
    /** What takes longest begins as soon as somebody looks at this tool. */
    open() { if (!byId("teach-form").hidden) engine.getReady?.().catch(() => { /* the run begins anew */ }); },
    /** @param {boolean} trusted whether this page may start runs @param {string[]} [parents] models that training can go on from */
    allow(trusted, parents = []) {
      if (!from.options.length) {
        from.append(...parents.map((name) => el("option", { value: name }, `the model “${name}”: faces from the first step`)), el("option", { value: "" }, "noise"));
      }
      byId("teach-form").hidden = byId("train-drawn").hidden = !trusted;
      byId("teach-terminal").hidden = trusted;
    },
  };
}
