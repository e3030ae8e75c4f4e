// @ts-check
// One's own photograph: levelled by its face or cut to a square by hand, encoded by the model, compared with a wipe, kept nowhere.
import { byId, fault, paint, toast } from "./dom.js";
import { namePhotograph } from "./names.js";
import { readRecipe } from "./png.js";
import { fromRecipe } from "./state.js";

const MOST = 1600;  // pixels of the long side of a photograph that is sent in a copy
const SENT = ["image/jpeg", "image/png", "image/webp"], SENT_BYTES = 10e6;  // what is sent as it is
/** @type {Record<string, string>} How the square was cut, in words. */
const CUT = {
  levelled: "Your face was found, and levelled.", known: "Cut as the faces were that the model learned from.", "no face": "No face was found, so the middle of the picture is used as it is.",
  "no aligner": "Nothing here can find faces (pip install 'mien[faces]'), so the middle of the picture is used as it is.", whole: "The square is used as it is.",
};

/** @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine @param {(state: import("./types.js").State) => Promise<void>} open */
export function photographs(store, engine, open) {
  /** @type {import("./types.js").Capabilities | null} */
  let model = null;
  const file = /** @type {HTMLInputElement} */ (byId("photo-file")), zoom = /** @type {HTMLInputElement} */ (byId("photo-zoom"));
  const cut = /** @type {HTMLCanvasElement} */ (byId("photo-cut")), wipe = /** @type {HTMLInputElement} */ (byId("wipe"));
  const level = /** @type {HTMLInputElement} */ (byId("photo-level"));
  /** @type {ImageBitmap | null} */
  let photo = null;
  let name = "";
  /** @type {Blob | null} The file itself, where it can be sent as it is. */
  let original = null;
  const before = /** @type {HTMLCanvasElement} */ (byId("before")), after = /** @type {HTMLCanvasElement} */ (byId("after"));
  let middle = { x: 0.5, y: 0.5 }, search = new AbortController(), resting = 0;

  /** A file that was dropped or chosen: a picture of mien's restores its state, another is a photograph. @param {File} file */
  async function take(file) {
    if (file.size > 40e6) { toast("This file is too large.", "fault"); return; }
    const recipe = readRecipe(new Uint8Array(await file.slice(0, 1 << 20).arrayBuffer()));
    const state = recipe && fromRecipe(recipe, store.state);
    if (recipe && !state) { toast("This picture's description has no face that this page can find.", "fault"); return; }
    if (state) { await open(state); toast("The picture's state is restored."); return; }
    if (!model?.encodes && !model?.inverts) { toast("This picture carries no recipe, and this model has no encoder for photographs.", "fault"); return; }
    try {
      photo = await createImageBitmap(file);
    } catch { toast("This file is no picture that the browser can read.", "fault"); return; }
    name = file.name;
    original = SENT.includes(file.type) && file.size < SENT_BYTES ? file : null;
    middle = { x: 0.5, y: 0.5 };
    zoom.value = "1";
    level.checked = true;
    byId("photo-work").hidden = false;
    document.dispatchEvent(new CustomEvent("panel", { detail: "photo" }));
    frame();
    await project();
  }

  /** What is sent: the whole photograph, for its face to be found, or the square. @param {boolean} whole @returns {Promise<Blob>} */
  async function content(whole) {
    if (!whole) return new Promise((done) => cut.toBlob((made) => done(/** @type {Blob} */ (made)), "image/png"));
    if (original) return original;
    const { width, height } = /** @type {ImageBitmap} */ (photo), scale = Math.min(1, MOST / Math.max(width, height));
    const canvas = new OffscreenCanvas(Math.round(width * scale), Math.round(height * scale)), pen = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
    pen.drawImage(/** @type {ImageBitmap} */ (photo), 0, 0, canvas.width, canvas.height);
    return canvas.convertToBlob({ type: "image/webp", quality: 0.95 });
  }

  /** The square by hand, from now on. */
  function byHand() {
    level.checked = false;
    return project();
  }

  function frame() {
    if (!photo) return;
    const side = Math.min(photo.width, photo.height) / Number(zoom.value);
    const left = Math.max(0, Math.min(photo.width - side, middle.x * photo.width - side / 2));
    const top = Math.max(0, Math.min(photo.height - side, middle.y * photo.height - side / 2));
    paint(cut, photo, [left, top, side, side]);
  }

  /** @param {number} [steps] of descent; without an encoder there is no other way */
  async function project(steps = model?.encodes ? 0 : 150) {
    if (!photo || !model || !engine.project) return;
    search.abort();
    search = new AbortController();
    const { signal } = search, align = Boolean(model.levels) && level.checked, status = byId("photo-status"), stop = byId("photo-stop"), refine = byId("photo-refine");
    status.textContent = "Looking for this face in the model…";
    stop.hidden = !steps;
    refine.hidden = true;
    try {
      const blob = await content(align);
      paint(before, cut);  // until the levelled face is here
      const found = await engine.project(model.id, blob, { steps, align, signal, onStep: ({ step, error, image }) => {
        status.textContent = `Step ${step} of ${steps}: a pixel is off by ${(error * 100).toFixed(1)} %.`;
        show(after, image);
        byId("wiped").hidden = false;
      } });
      compare(await show(before, found.original), await show(after, found.image));
      byId("wiped").hidden = false;
      byId("rebuilt").hidden = !found.reconstruction;
      if (found.reconstruction) await show(/** @type {HTMLCanvasElement} */ (byId("reconstruction")), found.reconstruction);
      byId("photo-cut-note").textContent = CUT[found.cut === "whole" && engine.kind === "server" && !model.levels ? "no aligner" : found.cut] ?? "";
      status.textContent = `Found. A pixel is off by ${(found.error * 100).toFixed(1)} % of its range, on the mean. Nothing was stored.`;
      namePhotograph(found.at, name);
      store.rest({ at: found.at, mix: null, truncation: 1, directions: {}, style: "", layers: "" });
    } catch (error) {
      status.textContent = signal.aborted ? "Stopped." : "";
      if (!signal.aborted) fault(error);
    }
    if (search.signal === signal) { stop.hidden = true; refine.hidden = !model.inverts; }
  }

  /** @param {HTMLCanvasElement} canvas @param {string} source @returns {Promise<HTMLImageElement>} */
  async function show(canvas, source) {
    const image = new Image();
    image.src = source;
    await image.decode();
    paint(canvas, image);
    return image;
  }

  /** Paint where two pictures differ: from dark over blue to white. @param {HTMLImageElement} one @param {HTMLImageElement} other */
  function compare(one, other) {
    const { naturalWidth: width, naturalHeight: height } = one, map = /** @type {HTMLCanvasElement} */ (byId("error-map"));
    const [a, b] = [one, other].map((image) => {
      const pen = /** @type {OffscreenCanvasRenderingContext2D} */ (new OffscreenCanvas(width, height).getContext("2d"));
      pen.drawImage(image, 0, 0, width, height);
      return pen.getImageData(0, 0, width, height).data;
    });
    const made = new ImageData(width, height);
    for (let at = 0; at < made.data.length; at += 4) {
      const off = (Math.abs(a[at] - b[at]) + Math.abs(a[at + 1] - b[at + 1]) + Math.abs(a[at + 2] - b[at + 2])) / 3;
      made.data.set([off * 5 - 255, off * 5 - 80, off * 5 + 20, 255], at);
    }
    map.width = width; map.height = height;
    /** @type {CanvasRenderingContext2D} */ (map.getContext("2d")).putImageData(made, 0, 0);
  }

  file.addEventListener("change", () => { if (file.files?.[0]) take(file.files[0]); file.value = ""; });
  zoom.addEventListener("input", frame);
  zoom.addEventListener("change", byHand);
  level.addEventListener("change", () => project());
  byId("photo-stop").addEventListener("click", () => search.abort());
  byId("photo-refine").addEventListener("click", () => project(200));
  byId("photo-cancel").addEventListener("click", () => { search.abort(); photo = original = null; byId("photo-work").hidden = true; });
  cut.addEventListener("pointerdown", (event) => cut.setPointerCapture(event.pointerId));
  cut.addEventListener("pointermove", (event) => {
    if (!cut.hasPointerCapture(event.pointerId) || !photo) return;
    const scale = Math.min(photo.width, photo.height) / Number(zoom.value) / cut.clientWidth;
    const half = { x: Math.min(photo.width, photo.height) / Number(zoom.value) / photo.width / 2, y: Math.min(photo.width, photo.height) / Number(zoom.value) / photo.height / 2 };
    middle = {
      x: Math.max(half.x, Math.min(1 - half.x, middle.x - (event.movementX * scale) / photo.width)),
      y: Math.max(half.y, Math.min(1 - half.y, middle.y - (event.movementY * scale) / photo.height)),
    };
    frame();
  });
  cut.addEventListener("pointerup", byHand);
  cut.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!by) return;
    event.preventDefault();
    middle = { x: Math.max(0, Math.min(1, middle.x + by[0] * 0.02)), y: Math.max(0, Math.min(1, middle.y + by[1] * 0.02)) };
    frame();
    clearTimeout(resting);
    resting = window.setTimeout(byHand, 400);
  });
  wipe.addEventListener("input", () => { byId("after").style.clipPath = `inset(0 0 0 ${wipe.value}%)`; });
  addEventListener("dragover", (event) => { if (event.dataTransfer?.types.includes("Files")) { event.preventDefault(); document.body.classList.add("dropping"); } });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
  addEventListener("drop", (event) => {
    document.body.classList.remove("dropping");
    const dropped = event.dataTransfer?.files[0];
    if (dropped) { event.preventDefault(); take(dropped); }
  });
  addEventListener("paste", (event) => { const pasted = event.clipboardData?.files[0]; if (pasted) take(pasted); });
  return {
    /** @param {import("./types.js").Capabilities} offered */
    offer(offered) {
      model = offered;
      const able = Boolean((offered.encodes || offered.inverts) && engine.project);
      byId("photo-offer").hidden = !able;
      byId("photo-levelled").hidden = !offered.levels;
      byId("drop-text").textContent = able ? "Drop a photograph or a picture made here" : "Drop a picture made here";
    },
    take,
  };
}
