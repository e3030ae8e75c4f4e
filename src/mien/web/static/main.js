// @ts-check
// The page: one state, one engine, and everything that looks at them.
import { breeding } from "./breed.js";
import { cardOf } from "./card.js";
import { comparing } from "./compare.js";
import { Controls, seedBox } from "./controls.js";
import { busy, byId, download, el, fault, icon, toast } from "./dom.js";
import { Face } from "./face.js";
import { directionTools } from "./directions.js";
import { favourites } from "./favourites.js";
import { fitted } from "./fit.js";
import { lockedEngine } from "./locks.js";
import { pastStrip } from "./history.js";
import { mixing } from "./mix.js";
import { fileName } from "./names.js";
import { navigation } from "./navigation.js";
import { nearestFaces } from "./nearest.js";
import { Pad } from "./pad.js";
import { fromNoise } from "./path.js";
import { photographs } from "./photo.js";
import { sharing } from "./share.js";
import { contactSheet } from "./sheet.js";
import { START, Store, address, readHash, toHash } from "./state.js";
import { stylesOfAnother } from "./styles.js";
import { tabs } from "./tabs.js";
import { teaching } from "./teach.js";
import { training } from "./training.js";
import { walking } from "./walk.js";

/** @param {import("./types.js").Engine} source */
export async function start(source) {
  const engine = lockedEngine(source);
  for (const button of document.querySelectorAll("[data-icon]")) button.prepend(icon(/** @type {HTMLElement} */ (button).dataset.icon ?? ""));
  const store = new Store(), face = new Face(engine), pad = new Pad(store, engine), controls = new Controls(store);
  const journey = navigation(store, { prepare, arrive }), past = pastStrip(store, face, journey.go), follow = seedBox(store, () => pad.snap());
  const breed = breeding(store, engine), mix = mixing(store, engine), walk = walking(store, engine), sheet = contactSheet(store, engine);
  const copies = nearestFaces(store, engine), saved = favourites(store, engine, open), photo = photographs(store, engine, open);
  const run = training(store, engine, (id, how) => { open({ ...store.state, model: id }, how); });
  const teach = teaching(engine, begin);
  const compare = comparing(store, engine, () => all, (id) => { open({ ...store.state, model: id }); });
  const directions = directionTools(store, engine, showAnew);
  const path = fromNoise(store, engine), styles = stylesOfAnother(store);
  const tools = tabs({ teach, path, breed, mix: { open: mix.update }, directions, compare, walk, sheet, favourites: saved, near: copies, training: run }, () => Boolean(model));
  const picker = /** @type {HTMLSelectElement} */ (byId("model"));
  /** @type {import("./types.js").Overview} */
  let all = { runs: [], models: [], trusted: false };
  /** @type {import("./types.js").Capabilities | null} */
  let model = null;
  const share = sharing(store, engine, face, () => model, () => (tools.panel() === "walk" ? walk.stops() : []));
  let look = "", soon = 0, openings = 0, upcoming = "";  // the seed of the next new face

  store.listeners.push((state, how) => {
    if (how === "drag") face.preview(state);
    else {
      const restored = toHash(state) !== location.hash;
      face.exact(state, restored && !pad.moving).then(lookAhead);
      journey.record();
      past.show();
      clearTimeout(soon);
      soon = window.setTimeout(() => { tools.fill(); run.update(); }, 350);  // the face itself comes first
    }
    if (how === "rest") look = JSON.stringify({ ...state, at: "", mix: null, size: 0 });
    pad.follow(state, look);
    follow(how);
    if (state.mix || how === "rest") mix.update();
    compare.follow(state, how);
    if (how === "drag") return;  // what is dragged shows itself, and the rest can wait
    controls.update();
    styles.update();
    /** @type {HTMLButtonElement} */ (byId("reset")).disabled = toHash(state) === toHash(plain());
    saved.mark();
  });

  /** Draw the next new face while nothing else is to do: it is there at once when it is wanted. */
  function lookAhead() {
    if (engine.kind !== "server" || pad.moving) return;  // a page that draws by itself would stand still meanwhile
    upcoming ||= anySeed();
    face.ahead({ ...store.state, at: upcoming, mix: null });
  }

  /** Bring the model of a state onto the page; null where it is there. @param {import("./types.js").State} state @returns {Promise<boolean> | null} */
  function prepare(state) {
    const call = ++openings;
    if (state.model === model?.id) return null;
    return busy(byId("main"), () => engine.capabilities(state.model)).then((other) => {
      if (call !== openings) return false;  // another one was opened since
      adopt(other);
      return true;
    }, (error) => { fault(error); return false; });
  }

  /** Show a state, of whichever model, as a new step or in place of the present one. @param {import("./types.js").State} state @param {"rest" | "replace"} [how] */
  async function open(state, how = "rest") {
    const prepared = prepare(state);
    if (prepared && !(await prepared)) { picker.value = model?.id ?? ""; return; }
    store[how](fit(state, /** @type {import("./types.js").Capabilities} */ (model)));
  }

  /** Show the state that the URL describes now. */
  async function arrive() {
    const { state, faults } = readHash(location.hash);
    if (faults.length) toast(faults[0], "fault");
    if (state) await open({ ...state, model: state.model || store.state.model });
    return Boolean(state) || faults.length > 0;
  }

  /** Read what the model can do again, and show the face with some directions. @param {Record<string, number>} [amounts] */
  async function showAnew(amounts) {
    const able = await engine.capabilities(store.state.model);
    if (able.id !== store.state.model) return;
    adopt(able);
    store.rest(amounts ? { directions: amounts } : {});
    tools.fill();
  }

  /** A state without what another model does not have, which is said. @param {import("./types.js").State} wanted @param {import("./types.js").Capabilities} able */
  function fit(wanted, able) {
    const { state, missing } = fitted(wanted, able);
    if (missing.length) toast(`${able.name} has no ${missing.join(", no ")}: the face is shown without.`, "fault");
    return state;
  }

  /** @param {import("./types.js").Capabilities} able */
  function adopt(able) {
    model = able;
    face.slow = Boolean(able.flow);
    upcoming = "";
    document.title = `${able.name} · mien`;
    picker.value = able.id;
    if (picker.value !== able.id) list();
    controls.offer(able);
    walk.offer(able);
    photo.offer(able);
    styles.offer(able);
    directions.offer(able);
    breed.forget();
    sheet.offer(able);
    byId("tab-photo").hidden = !(able.encodes || able.inverts) || !engine.project;
    byId("tab-path").hidden = !able.flow || !engine.path;
    byId("tab-near").hidden = !able.neighbours || !engine.neighbours;
    watch(able.run);
    about(able);
    tools.check();
  }

  let watched = "";
  /** Follow a run: that of the model on show, the one that was begun here, or the newest. @param {string | null} id @param {boolean} [anew] whether it was begun here just now */
  function watch(id, anew = false) {
    const known = [id, watched].map((one) => all.runs.find((other) => other.id === one)).find(Boolean) ?? all.runs.find(({ state }) => state === "running") ?? all.runs[0];
    run.follow(known?.id ?? null, all.trusted, known?.name, anew);
    teach.allow(all.trusted, all.parents);
    directions.allow(all.trusted);
  }

  /** Start a run, and show it from its first step. @param {number} minutes @param {boolean} own photographs of one's own, or drawn faces @param {string} [parent] a model to go on from */
  async function begin(minutes, own, parent) {
    const before = new Set(all.runs.map(({ id }) => id)), started = performance.now();
    await engine.train?.(minutes, own, parent);
    tools.choose("training");
    for (;;) {
      await lookAround();
      const fresh = all.runs.find(({ id }) => !before.has(id));
      byId("run-waiting").textContent = fresh ? "" : `${own ? "Preparing your photographs" : "Preparing"}… ${Math.round((performance.now() - started) / 1000)} s`;
      if (fresh) { watched = fresh.id; watch(null, true); tools.fill(); return; }
      if (all.started && !all.started.alive) { toast(all.started.error || "The run has ended before its first step.", "fault"); return; }
      await new Promise((go) => setTimeout(go, 300));
    }
  }

  /** @param {import("./types.js").Capabilities} able */
  function about(able) {
    /** @type {[string, string | null][]} */
    const facts = [["Model", able.name], ["Preset", able.preset], ["Picture", `${able.side} × ${able.side}${able.scalable ? ", painted at any size" : ""}${able.channels === 1 ? ", grey" : ""}`],
      ["Latent", `${able.latent.join(" × ")} numbers, ${able.prior}`], ["Parameters", able.parameters.toLocaleString("en")],
      ["Images seen", able.seen === null ? null : able.seen.toLocaleString("en")], ["Drawn by", engine.by?.name ?? null], ["Licence", able.licence ?? null], ["SHA-256", able.sha256]];
    byId("about").replaceChildren(...facts.filter(([, fact]) => fact).flatMap(([name, fact]) => [el("dt", {}, name), el("dd", {}, fact)]));
    byId("card").hidden = !able.card;
    byId("card").replaceChildren(...cardOf(able.card ?? ""));
  }

  function list() {
    const option = (/** @type {string} */ value, /** @type {string} */ text) => el("option", { value }, text);
    picker.replaceChildren(
      ...all.runs.filter(({ checkpoints }) => checkpoints.length).map(({ name, checkpoints }) => el("optgroup", { label: name },
        ...checkpoints.map(({ model: id, seen }, n) => option(id, `${name}${n ? `, ${seen.toLocaleString("en")} images` : ""}`)))),
      ...all.models.map(({ id, name }) => option(id, name)));
    if (model && picker.value !== model.id) picker.value = model.id;
    if (model && picker.value !== model.id) { picker.append(option(model.id, model.name)); picker.value = model.id; }
    picker.hidden = picker.options.length === 0;
    byId("tab-compare").hidden = !compare.able();
  }

  // Actions
  const anySeed = () => String(sheet.typical(model) ?? Math.floor(Math.random() * 1e6));
  const fresh = () => { const at = upcoming || anySeed(); upcoming = ""; store.rest({ at, mix: null }); };
  const copy = () => navigator.clipboard?.writeText(location.href).then(() => toast("The link is copied."), () => toast("The link stands in the address bar."));
  const save = () => face.blob && download(face.blob, `face-${fileName(address(store.state))}.png`);
  /** A face without any change of how it looks. */
  const plain = () => ({ ...START, model: store.state.model, at: store.state.at, mix: store.state.mix });
  const reset = () => store.rest(plain());
  byId("new").addEventListener("click", fresh);
  byId("reset").addEventListener("click", reset);
  byId("link").addEventListener("click", () => { copy(); });
  byId("save").addEventListener("click", save);
  byId("share-open").addEventListener("click", share.open);
  byId("help").addEventListener("click", () => /** @type {HTMLDialogElement} */ (byId("keys")).showModal());
  byId("order").addEventListener("change", () => { upcoming = ""; });
  picker.addEventListener("change", () => { open({ ...store.state, model: picker.value }); });

  /** @type {Record<string, () => void>} */
  const keys = {
    " ": fresh, f: saved.toggle, s: save, c: share.open, l: () => { copy(); }, r: reset, w: walk.add, "?": () => byId("help").click(),
    p: () => { document.documentElement.classList.toggle("pixels"); store.tell("rest"); },
  };
  addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (document.querySelector("dialog[open]") || event.altKey || byId("main").hidden) return;
    const typing = target.matches("input:not([type=range], [type=checkbox]), select, textarea");
    if (event.ctrlKey || event.metaKey) {
      const key = event.key.toLowerCase();
      if (typing || (key !== "z" && key !== "y")) return;
      event.preventDefault();
      journey.by(key === "y" || event.shiftKey ? 1 : -1);
      return;
    }
    if (typing || (event.key === " " && target.matches("button, a, summary, input"))) return;
    if (/^[1-9]$/.test(event.key)) { tools.number(Number(event.key)); return; }
    if (/^(Arrow|Home)/.test(event.key)) { if (target === document.body || target.id === "face") pad.key(event); return; }
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (action) { event.preventDefault(); action(); }
  });

  // The beginning
  const where = () => {
    byId("where").textContent = engine.kind === "browser" ? `They are drawn inside your browser, by ${engine.by?.name}; nothing leaves it.` : "They are drawn on this machine; nothing leaves it.";
    if (model) about(model);
  };
  where();
  engine.by?.changed(where);
  controls.find = () => tools.choose("directions");
  byId("train").addEventListener("click", async () => {
    try {
      await engine.train?.(5, false);
      byId("train-hint").textContent = "It has begun: the first checkpoint comes within a minute, and this page opens it.";
      /** @type {HTMLButtonElement} */ (byId("train")).disabled = true;
    } catch (error) { fault(error); }
  });
  tools.first();
  byId("way-play").addEventListener("click", tools.first);
  byId("way-teach").addEventListener("click", () => tools.choose("teach"));
  byId("way-watch").addEventListener("click", () => tools.choose("training"));
  byId("tab-teach").hidden = byId("way-teach").hidden = !engine.train;
  byId("ways").hidden = !engine.train;

  async function lookAround() {
    try {
      all = await engine.overview();
      list();
      return [...all.runs.flatMap(({ checkpoints }) => checkpoints.map(({ model: id }) => id)), ...all.models.map(({ id }) => id)];
    } catch (error) { fault(error); return []; }
  }
  const { state: linked, faults } = readHash(location.hash);
  for (let ids = await lookAround(); ; ids = await lookAround()) {
    if (ids.length || linked?.model) {
      const tries = [...(linked?.model ? [linked.model] : []), ...ids];
      let able = null;
      for (const id of tries) {
        able = await engine.capabilities(id).catch((error) => { fault(error); return null; });
        if (able) break;
      }
      if (able) {
        byId("welcome").hidden = true;
        byId("main").hidden = false;
        adopt(able);
        store.begin(fit(linked ?? { ...START, at: String(sheet.typical(able, true) ?? Math.floor(Math.random() * 1000)) }, able));
        if (faults.length) toast(faults[0], "fault");
        break;
      }
    }
    byId("main").hidden = true;
    byId("welcome").hidden = false;
    byId("train").hidden = !all.trusted;
    await new Promise((go) => setTimeout(go, 2000));
  }
  if (engine.live) setInterval(async () => { const before = JSON.stringify(all); await lookAround(); if (before !== JSON.stringify(all)) watch(watched || (model?.run ?? null)); }, 15000);
}
