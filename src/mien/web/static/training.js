// @ts-check
// A run: its checkpoints side by side, its samples over time, and what happens while it trains.
import { busy, byId, reducedMotion, download, el, fault, paint, refill, toast } from "./dom.js";
import { curve } from "./curve.js";
import { drawn } from "./state.js";
import { thumb } from "./thumb.js";

/** @typedef {import("./types.js").Live} Live */

/** @param {number} seconds */
export const duration = (seconds) => (seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : seconds < 172_800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86_400).toFixed(1)} days`);

/** @type {Record<string, string>} States of a run in plain words. */
const STATES = {
  new: "about to begin", running: "learning", paused: "paused", stopped: "stopped", done: "finished", failed: "failed",
  preempted: "stopped and saved; it can go on", interrupted: "stopped and saved; it can go on",
};
/** @type {Record<string, string>} Verdicts of the health check in plain words. */
const VERDICTS = { healthy: "good", warning: "watch", alarm: "bad", pending: "too early to say" };

/** @type {Record<string, string>} What a run can be asked, in plain words. */
const REQUESTS = {
  pause: "to pause", resume: "to resume", save: "to save", stop: "to stop",
  step: "for one step", "step-critic": "for a step of the critic", "step-generator": "for a step of the generator",
};

/** @param {number} number of images in a second */
const rate = (number) => (number < 10 ? `${number.toFixed(1)} images` : `${number.toFixed(0)} images`);

/** @param {number} seconds */
const countdown = (seconds) => (seconds < 1 ? "Finishing…" : seconds < 3600 ? `${Math.floor(seconds / 60)}:${String(Math.round(seconds) % 60).padStart(2, "0")} left` : `${duration(seconds)} left`);

/** @param {import("./state.js").Store} store @param {import("./types.js").Engine} engine @param {(model: string, how?: "rest" | "replace") => void} pick */
export function training(store, engine, pick) {
  let run = "", trusted = false, stop = () => {};
  /** @type {Live | null} */
  let last = null;
  /** @type {"samples" | "reconstructions"} */
  let kind = "samples";
  let sampleKey = "", checkpointsKey = "", curvesAt = 0;
  let begun = false;  // a run that this page has begun shows its first checkpoint too
  let newest = true;  // samples that arrive are shown, until somebody chooses an earlier one
  const time = /** @type {HTMLInputElement} */ (byId("time")), sample = /** @type {HTMLCanvasElement} */ (byId("sample"));

  /** Follow a run. @param {string | null} id @param {boolean} mayControl @param {string} [name] @param {boolean} [anew] whether this page has just begun it */
  function follow(id, mayControl, name = "", anew = false) {
    begun ||= anew;
    trusted = mayControl;
    byId("tab-training").hidden = byId("way-watch").hidden = !engine.live;
    byId("run-name").textContent = name;
    byId("run-none").hidden = Boolean(id);
    byId("main").classList.toggle("unlearned", !id);
    if (!id && engine.live && !reducedMotion() && byId("learning").hidden) {
      /** @type {HTMLImageElement} */ (byId("learning").firstChild).src = "learning.webp";
      byId("learning").hidden = false;
    }
    for (const part of ["run-some", "compared", "samples", "run-curves", "run-health"]) byId(part).hidden = !id;
    if ((id ?? "") === run) return;
    stop();
    run = id ?? ""; last = null; sampleKey = ""; checkpointsKey = ""; curvesAt = 0; newest = true;
    byId("live").hidden = true;
    stop = id && engine.live ? engine.live(id, showState) : () => {};
  }

  /** @param {Live | null} live */
  function showState(live) {
    const pill = byId("live");
    if (!live) {
      if (last?.alive) { pill.textContent = "Reconnecting…"; pill.className = "pill watch"; }
      return;
    }
    const model = live.checkpoints[0]?.model, followed = !last || last.checkpoints[0]?.model === store.state.model;
    const grew = last && model && model !== last.checkpoints[0]?.model;
    last = live;
    pill.hidden = !live.alive;
    pill.className = `pill ${live.state === "paused" ? "watch" : "good"}`;
    pill.textContent = live.state === "paused" ? "Paused" : `Training · ${live.seen.toLocaleString("en")} images${live.left === null ? "" : live.left < 1 ? " · finishing" : ` · ${duration(live.left)} left`}`;
    show();
    if (begun && model) {
      begun = false;
      if (/** @type {HTMLInputElement} */ (byId("follow-newest")).checked) pick(model);
    } else if (grew && followed && byId("follow-newest") instanceof HTMLInputElement && /** @type {HTMLInputElement} */ (byId("follow-newest")).checked) pick(model, "replace");
  }

  function show() {
    if (!last || byId("panel-training").hidden) return;
    const live = last;
    const words = STATES[live.state] ?? live.state;  // a run that was stopped has no other reason
    byId("run-state").textContent = words + (live.reason && !words.includes("saved") ? `: ${live.reason}` : "");
    byId("run-countdown").textContent = live.left === null || !live.alive ? "" : countdown(live.left);
    /** @type {HTMLProgressElement} */ (byId("run-share")).value = live.share;
    byId("run-share").hidden = !live.share && !live.alive;
    byId("run-facts").textContent = [`${live.seen.toLocaleString("en")} images seen`, `${duration(live.seconds)} of training`,
      ...(live.images_per_second ? [`${rate(live.images_per_second)} a second`] : []),
      ...(live.resumes ? [`resumed ${live.resumes === 1 ? "once" : `${live.resumes} times`}`] : []),
      ...(live.steered ? [`${live.steered} step${live.steered === 1 ? "" : "s"} of one player by hand`] : [])].join(" · ");
    byId("run-buttons").hidden = !trusted;
    byId("run-steps").hidden = !trusted || !live.alive;
    for (const player of ["critic", "generator"]) byId(`run-step-${player}`).hidden = !live.players.includes(player);
    for (const [request, able] of /** @type {[string, boolean][]} */ ([["pause", live.alive && live.state !== "paused"], ["resume", !live.alive ? live.state !== "done" : live.state === "paused"], ["save", live.alive && live.state !== "paused"], ["stop", live.alive]])) {
      /** @type {HTMLButtonElement} */ (byId(`run-${request}`)).disabled = !able;
    }
    byId("health").replaceChildren(...live.health.map(({ name, state, evidence, suggestion }) => el("li", { class: state }, el("strong", {}, `${name}: ${VERDICTS[state] ?? state}`), ` ${evidence} ${state === "healthy" ? "" : suggestion}`)));
    byId("samples").hidden = !live.samples.length;
    byId("time-kinds").hidden = !live.reconstructions.length;
    byId("film-save").hidden = !engine.film || kind !== "samples";
    const grids = live[kind];
    time.max = String(Math.max(0, grids.length - 1));
    if (newest) time.value = time.max;
    showSample();
    showCheckpoints();
    showCurves();
  }

  async function showSample() {
    const seen = last?.[kind][Number(time.value)];
    if (seen === undefined || !engine.samples) return;
    byId("time-value").textContent = seen ? `${seen.toLocaleString("en")} images seen` : "before the first step";
    time.setAttribute("aria-valuetext", `${seen} images seen`);
    const key = `${kind} ${seen}`;
    if (key === sampleKey) return;
    sampleKey = key;
    try {
      const image = await busy(sample, async () => createImageBitmap(await /** @type {NonNullable<typeof engine.samples>} */ (engine.samples)(run, seen, kind)));
      if (key !== sampleKey) return;
      if (sample.width !== image.width) { sample.width = image.width; sample.height = image.height; }
      paint(sample, image);
      sample.setAttribute("aria-label", `Grid of ${kind} after ${seen} images`);
    } catch (error) { fault(error); }
  }

  function showCheckpoints() {
    const found = last?.checkpoints ?? [], key = JSON.stringify([found, drawn(store.state)]);
    byId("compared").hidden = found.length < 2;
    if (key === checkpointsKey || found.length < 2) return;
    checkpointsKey = key;
    refill(byId("checkpoints"), ...found.map(({ model, seen, scores }) => {
      const button = thumb({ at: drawn(store.state).at, name: `The same face after ${seen} images`, side: 120, engine, state: { ...drawn(store.state), model }, onpick: () => pick(model) });
      if (model === store.state.model) button.setAttribute("aria-current", "true");
      return el("li", {}, button, el("span", {}, `${seen.toLocaleString("en")} images`), ...scores.map(({ name, value, meaning }) => el("span", { class: "score", title: meaning }, `${name} ${value}`)));
    }));
  }

  async function showCurves() {
    if (!engine.curves || performance.now() - curvesAt < (last?.state === "paused" ? 500 : 5000) && curvesAt) return;
    curvesAt = performance.now();
    try {
      const { seen, curves, ranges, meanings, scores } = await busy(byId("curves"), () => /** @type {NonNullable<typeof engine.curves>} */ (engine.curves)(run), 6);
      byId("curves").replaceChildren(
        ...scores.map((score) => curve({ ...score, band: "95% interval" })),
        ...Object.entries(curves).map(([name, values]) => curve({ name, seen, values, ranges: ranges[name], meaning: meanings[name], band: "lowest to highest" })));
    } catch (error) { fault(error); }
  }

  const atNewest = () => Number(time.value) >= Number(time.max);
  time.addEventListener("input", () => { newest = atNewest(); showSample(); });
  let playing = 0;
  byId("time-play").addEventListener("click", () => {
    if (playing) { clearInterval(playing); playing = 0; byId("time-play").textContent = "Play"; return; }
    if (atNewest()) time.value = "0";
    newest = false;
    byId("time-play").textContent = "Stop";
    playing = window.setInterval(() => {
      time.value = String(Number(time.value) + 1);
      showSample();
      newest = atNewest();
      if (newest) byId("time-play").click();
    }, reducedMotion() ? 600 : 120);
  });
  for (const choice of /** @type {("samples" | "reconstructions")[]} */ (["samples", "reconstructions"])) {
    byId(`time-${choice}`).addEventListener("click", () => {
      kind = choice;
      newest = true;
      for (const other of ["samples", "reconstructions"]) byId(`time-${other}`).setAttribute("aria-pressed", String(other === choice));
      show();
    });
  }
  byId("film-save").addEventListener("click", async () => {
    const button = /** @type {HTMLButtonElement} */ (byId("film-save"));
    button.disabled = true;
    try {
      const film = await /** @type {NonNullable<typeof engine.film>} */ (engine.film)(run);
      download(film, `training.${film.type === "video/mp4" ? "mp4" : "webp"}`);
    } catch (error) { fault(error); }
    button.disabled = false;
  });
  for (const [request, words] of Object.entries(REQUESTS)) {
    byId(`run-${request}`).addEventListener("click", async () => {
      try { await engine.control?.(run, request); toast(`Asked ${words}.`); } catch (error) { fault(error); }
    });
  }
  return { follow, open: () => show(), update: () => { if (!byId("panel-training").hidden) showCheckpoints(); } };
}
