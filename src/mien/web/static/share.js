// @ts-check
// Sharing what is on show: a link, a card, the raw face, or a clip that loops.
import { moved } from "./address.js";
import { byId, download, el, fault, paint, toast } from "./dom.js";
import { enlarged } from "./enlarge.js";
import { fileName, nameOf } from "./names.js";
import { readRecipe, withRecipe } from "./png.js";
import { address, drawn } from "./state.js";

const CARD = 1024, MARGIN = 64, FACE = CARD - 2 * MARGIN - 128;  // pixels
const CLIP = 480, FRAMES = 72, FPS = 24, SWAY = 0.35;  // SWAY: how far a clip goes from the face, toward seeds around it

/**
 * @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine @param {import("./face.js").Face} face
 * @param {() => import("./types.js").Capabilities | null} model @param {() => string[]} walk the stops of the walk, if that is on show
 */
export function sharing(store, engine, face, model, walk) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("share-dialog")), formats = /** @type {HTMLSelectElement} */ (byId("clip-format"));
  const clip = /** @type {HTMLButtonElement} */ (byId("share-clip"));
  const name = () => fileName(address(store.state));

  /** Hand a file over: to the system's share sheet on a phone, else to the downloads. @param {Blob} blob @param {string} file */
  async function give(blob, file) {
    const sent = new File([blob], file, { type: blob.type });
    if (matchMedia("(hover: none)").matches && navigator.canShare?.({ files: [sent] })) {
      try { await navigator.share({ files: [sent], url: engine.kind === "browser" ? location.href : undefined }); return; } catch (error) { if (/** @type {Error} */ (error).name === "AbortError") return; }
    }
    download(blob, file);
  }

  /** The stops of a clip: the walk or the mixture on show, else a round near the face. @returns {string[]} */
  function stops() {
    const { state } = store, at = address(state);
    if (walk().length >= 2) return walk();
    if (state.mix) return [state.at, ...state.mix.map((part) => part.with)];
    return [at, ...[1, 2, 3].map((n) => moved(at, String(2 ** 52 + n), SWAY))];
  }

  /** The face with what restores it, on one card. @returns {Promise<Blob>} */
  async function card() {
    const able = /** @type {import("./types.js").Capabilities} */ (model()), blob = /** @type {Blob} */ (face.blob), image = /** @type {ImageBitmap} */ (face.image);
    const canvas = new OffscreenCanvas(CARD, CARD), pen = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
    pen.fillStyle = "#f7f5f1";
    pen.fillRect(0, 0, CARD, CARD);
    const left = (CARD - FACE) / 2, square = new OffscreenCanvas(FACE, FACE), inner = /** @type {OffscreenCanvasRenderingContext2D} */ (square.getContext("2d"));
    if (document.documentElement.classList.contains("pixels")) { inner.imageSmoothingEnabled = false; inner.drawImage(image, 0, 0, FACE, FACE); } else inner.putImageData(enlarged(image, FACE, FACE), 0, 0);
    pen.beginPath();
    pen.roundRect(left, MARGIN, FACE, FACE, 36);
    pen.save(); pen.clip();
    pen.drawImage(square, left, MARGIN);
    pen.restore();
    /** @param {string} text @param {number} y @param {string} font @param {string} colour */
    const line = (text, y, font, colour) => { pen.font = `${font} system-ui, sans-serif`; pen.fillStyle = colour; pen.fillText(text, left, y, FACE); };
    const seed = nameOf(address(store.state));
    line(/^\d+$/.test(seed) ? `Seed ${seed}` : seed.length > 44 ? `${seed.slice(0, 44)}…` : seed, MARGIN + FACE + 62, "650 40px", "#20222a");
    line(`${able.name} · model ${able.id} · synthetic: no real person`, MARGIN + FACE + 104, "400 25px", "#5b5e69");
    line("Drop this card on the page of mien, and the face comes back.", MARGIN + FACE + 140, "400 25px", "#5b5e69");
    const made = await canvas.convertToBlob({ type: "image/png" }), recipe = readRecipe(new Uint8Array(await blob.arrayBuffer()));
    return recipe ? new Blob([withRecipe(new Uint8Array(await made.arrayBuffer()), recipe)], { type: "image/png" }) : made;
  }

  clip.addEventListener("click", async () => {
    const able = model(), format = formats.value;
    if (!able) return;
    clip.disabled = true;
    clip.textContent = "Making the clip…";
    try {
      const zoom = Math.max(1, Math.min(8, Math.ceil(CLIP / able.side)));
      const blob = await engine.walk(drawn(store.state), { stops: stops(), frames: FRAMES, fps: FPS, loop: true, format, zoom });
      await give(blob, `face-${name()}.${format === "apng" ? "png" : format}`);
      dialog.close();
      toast("The clip is ready.");
    } catch (error) { dialog.close(); fault(error); }
    clip.textContent = "A clip that loops";
    clip.disabled = false;
  });
  byId("share-card").addEventListener("click", async () => {
    if (!face.blob || !face.image) return;
    try { await give(await card(), `card-${name()}.png`); } catch (error) { fault(error); }
    dialog.close();
  });
  byId("share-face").addEventListener("click", () => { if (face.blob) give(face.blob, `face-${name()}.png`); dialog.close(); });
  byId("share-link").addEventListener("click", () => {
    navigator.clipboard?.writeText(location.href).then(() => toast("The link is copied."), () => toast("The link is in the address bar."));
    dialog.close();
  });
  return {
    open() {
      formats.replaceChildren(...(model()?.formats ?? []).map((format) => el("option", {}, format)));
      byId("share-note").replaceChildren(...(engine.kind === "browser" ? ["The link holds the whole state: whoever opens it sees this face."]
        : ["The link works where this explorer is reachable. To publish, ", el("code", {}, "mien export --to web"), " makes a page for any static host."]));
      if (face.image) paint(/** @type {HTMLCanvasElement} */ (byId("share-picture")), face.image);
      dialog.showModal();
    },
  };
}
