// @ts-check
// The page: one state, one engine, and everything that looks at them.
import { parse, place, write } from "./address.js";
import { breeding } from "./breed.js";
import { Controls, seedBox } from "./controls.js";
import { byId, download, el, fault, icon, toast } from "./dom.js";
import { Face } from "./face.js";
import { favourites } from "./favourites.js";
import { holding } from "./locks.js";
import { pastStrip } from "./history.js";
import { mixing } from "./mix.js";
import { nearestFaces } from "./nearest.js";
import { Pad } from "./pad.js";
import { fromNoise } from "./path.js";
import { photographs } from "./photo.js";
import { contactSheet } from "./sheet.js";
import { START, Store, address, fromHash, toHash } from "./state.js";
import { stylesOfAnother } from "./styles.js";
import { training } from "./training.js";
import { walking } from "./walk.js";

/** @param {import("./types.js").Engine} given */
export async function start(given) {
  const engine = holding(given);
  for (const button of document.querySelectorAll("[data-icon]")) button.prepend(icon(/** @type {HTMLElement} */ (button).dataset.icon ?? ""));
  const store = new Store(), face = new Face(engine), pad = new Pad(store, engine), controls = new Controls(store);
  const past = pastStrip(store, face), follow = seedBox(store, () => pad.snap());
  const breed = breeding(store, engine), mix = mixing(store, engine), walk = walking(store, engine), sheet = contactSheet(store, engine);
  const copies = nearestFaces(store, engine), kept = favourites(store, engine, open), photo = photographs(store, engine, open);
  const run = training(store, engine, (id) => { open({ ...store.state, model: id }); });
  const path = fromNoise(store, engine), styles = stylesOfAnother(store);
  const panels = { path, breed, mix: { shown: mix.update }, walk, sheet, favourites: kept, near: copies, training: run };
  const picker = /** @type {HTMLSelectElement} */ (byId("model"));
  /** @type {import("./types.js").Overview} */
  let all = { runs: [], models: [], trusted: false };
  /** @type {import("./types.js").Capabilities | null} */
  let model = null;
  let panel = "", look = "", soon = 0, near = false;  // near: whether the open tab is in view, or almost

  store.listeners.push((state, how) => {
    if (how === "drag") face.preview(state);
    else {
      const restored = toHash(state) !== location.hash;
      face.exact(state, restored && !pad.moving);
      if (restored) history.replaceState(null, "", toHash(state));
      past.show();
      clearTimeout(soon);
      soon = window.setTimeout(() => { shownPanel(); run.update(); }, 350);  // the face itself comes first
    }
    const now = how === "rest" ? JSON.stringify({ ...state, at: "", mix: null, size: 0 }) : look;
    pad.follow(state, now !== look);
    look = now;
    follow();
    if (state.mix || how === "rest") mix.update();
    if (how === "drag") return;  // what is dragged shows itself, and the rest can wait
    controls.update();
    styles.update();
    /** @type {HTMLButtonElement} */ (byId("reset")).disabled = toHash(state) === toHash(plain());
    kept.mark();
  });

  /** Show a state, of whichever model. @param {import("./types.js").State} state */
  async function open(state) {
    if (state.model === model?.id) { store.rest(state); return; }
    try {
      const other = await engine.capabilities(state.model);
      adopt(other);
      store.rest(fitted(state, other));
    } catch (error) { fault(error); }
  }

  /** A state without what another model does not have. @param {import("./types.js").State} state @param {import("./types.js").Capabilities} able */
  function fitted(state, able) {
    const known = new Set([...able.labels, ...able.directions.map(({ name }) => name)]);
    /** @param {Record<string, number>} amounts */
    const those = (amounts) => Object.fromEntries(Object.entries(amounts).filter(([name]) => known.has(name)));
    const start = parse(state.at).start, length = able.latent.reduce((a, b) => a * b, 1);
    const at = "values" in start && start.values.length !== length ? "0" : state.at;
    return { ...state, model: able.id, at, labels: those(state.labels), directions: those(state.directions), locks: state.locks.filter((name) => known.has(name)),
      size: able.scalable ? state.size : 0, solver: able.flow ? state.solver : "", guidance: able.flow && able.labels.length ? state.guidance : null,
      style: able.styles ? state.style : "" };
  }

  /** @param {import("./types.js").Capabilities} able */
  function adopt(able) {
    model = able;
    document.title = `${able.name} · mien`;
    picker.value = able.id;
    if (picker.value !== able.id) list();
    controls.offer(able);
    walk.offer(able);
    photo.offer(able);
    styles.offer(able);
    breed.forget();
    sheet.offer(able);
    byId("tab-photo").hidden = !(able.encodes || able.inverts) || !engine.project;
    byId("tab-path").hidden = !able.flow || !engine.path;
    byId("tab-near").hidden = !able.neighbours || !engine.neighbours;
    run.follow(able.run, all.trusted);
    about(able);
    if (byId(`tab-${panel || "breed"}`).hidden) choose("breed");
  }

  /** @param {import("./types.js").Capabilities} able */
  function about(able) {
    /** @type {[string, string | null][]} */
    const facts = [["Model", able.name], ["Preset", able.preset], ["Picture", `${able.side} × ${able.side}${able.scalable ? ", painted at any size" : ""}${able.channels === 1 ? ", grey" : ""}`],
      ["Latent", `${able.latent.join(" × ")} numbers, ${able.prior}`], ["Parameters", able.parameters.toLocaleString("en")],
      ["Images seen", able.seen === null ? null : able.seen.toLocaleString("en")], ["Drawn by", engine.by?.said ?? null], ["Licence", able.licence ?? null], ["SHA-256", able.sha256]];
    byId("about").replaceChildren(...facts.filter(([, fact]) => fact).flatMap(([name, fact]) => [el("dt", {}, name), el("dd", {}, fact)]));
    byId("card").hidden = !able.card;
    byId("card").textContent = able.card ?? "";
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
  }

  // Tabs
  /** @type {() => HTMLElement[]} */
  const tabs = () => [...document.querySelectorAll("#tabs [role=tab]")].map((tab) => /** @type {HTMLElement} */ (tab)).filter((tab) => !tab.hidden);
  /** @param {string} name */
  function choose(name, focus = false) {
    if (panel === "walk" && name !== "walk") walk.hidden();
    if (panel === "path" && name !== "path") path.hidden();
    panel = name;
    for (const tab of document.querySelectorAll("#tabs [role=tab]")) {
      const on = tab.id === `tab-${name}`;
      tab.setAttribute("aria-selected", String(on));
      tab.setAttribute("tabindex", on ? "0" : "-1");
      byId(/** @type {string} */ (tab.getAttribute("aria-controls"))).hidden = !on;
      if (on && focus) { /** @type {HTMLElement} */ (tab).focus(); tab.scrollIntoView({ block: "nearest", inline: "nearest" }); }
    }
    shownPanel();
  }
  function shownPanel() {
    const shown = /** @type {Record<string, {shown?: () => unknown}>} */ (panels)[panel];
    if (model && near) shown?.shown?.();
  }
  new IntersectionObserver((seen) => {
    const before = near;
    near = seen[seen.length - 1].isIntersecting;
    if (near && !before) shownPanel();
  }, { rootMargin: "200px" }).observe(byId("tools"));
  byId("tabs").addEventListener("click", (event) => {
    const tab = /** @type {HTMLElement} */ (event.target).closest("[role=tab]");
    if (tab) choose(tab.id.slice(4), true);
  });
  byId("tabs").addEventListener("keydown", (event) => {
    const there = tabs(), at = there.findIndex((tab) => tab.id === `tab-${panel}`);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: there.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(there[(to + there.length) % there.length].id.slice(4), true);
  });
  document.addEventListener("panel", (event) => choose(/** @type {CustomEvent<string>} */ (event).detail));

  // Deeds
  const fresh = () => store.rest({ at: String(sheet.typical(model) ?? Math.floor(Math.random() * 1e6)), mix: null });
  const copy = () => navigator.clipboard?.writeText(location.href).then(() => toast("The link is copied."), () => toast("The link stands in the address bar."));
  const save = () => face.blob && download(face.blob, `face-${address(store.state).replace(/[^\w,.-]+/g, "_").slice(0, 60)}.png`);
  /** As a face is when nothing is said of how it looks. */
  const plain = () => ({ ...START, model: store.state.model, at: store.state.at, mix: store.state.mix });
  const reset = () => store.rest(plain());
  byId("new").addEventListener("click", fresh);
  byId("reset").addEventListener("click", reset);
  byId("link").addEventListener("click", () => { copy(); });
  byId("save").addEventListener("click", save);
  byId("help").addEventListener("click", () => /** @type {HTMLDialogElement} */ (byId("keys")).showModal());
  picker.addEventListener("change", () => { open({ ...store.state, model: picker.value }); });
  addEventListener("hashchange", () => { const state = fromHash(location.hash); if (state && toHash(state) !== toHash(store.state)) open(state); });

  /** @type {Record<string, () => void>} */
  const keys = {
    " ": fresh, f: kept.toggle, s: save, l: () => { copy(); }, r: reset, w: walk.add, "?": () => byId("help").click(),
    p: () => { document.documentElement.classList.toggle("pixels"); store.tell("rest"); },
  };
  addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target), dialog = /** @type {HTMLDialogElement} */ (byId("keys"));
    if (dialog.open || event.altKey || byId("main").hidden) return;
    const typing = target.matches("input:not([type=range], [type=checkbox]), select, textarea");
    if (event.ctrlKey || event.metaKey) {
      const key = event.key.toLowerCase();
      if (typing || (key !== "z" && key !== "y")) return;
      event.preventDefault();
      store.go(store.at + (key === "y" || event.shiftKey ? 1 : -1));
      return;
    }
    if (typing || (event.key === " " && target.matches("button, a, summary, input"))) return;
    if (/^[1-9]$/.test(event.key)) { const tab = tabs()[Number(event.key) - 1]; if (tab) choose(tab.id.slice(4), true); return; }
    if (/^(Arrow|Home)/.test(event.key)) { if (target === document.body || target.id === "face") pad.key(event); return; }
    const deed = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (deed) { event.preventDefault(); deed(); }
  });

  // The beginning
  const where = () => {
    byId("where").textContent = engine.kind === "browser" ? `They are drawn inside your browser, by ${engine.by?.said}; nothing leaves it.` : "They are drawn on this machine; nothing leaves it.";
    if (model) about(model);
  };
  where();
  engine.by?.changed(where);
  byId("train").addEventListener("click", async () => {
    try {
      await engine.train?.(5);
      byId("train-hint").textContent = "It has begun: the first checkpoint comes within a minute, and this page opens it.";
      /** @type {HTMLButtonElement} */ (byId("train")).disabled = true;
    } catch (error) { fault(error); }
  });
  choose("breed");

  async function look_around() {
    try {
      all = await engine.overview();
      list();
      return [...all.runs.flatMap(({ checkpoints }) => checkpoints.map(({ model: id }) => id)), ...all.models.map(({ id }) => id)];
    } catch (error) { fault(error); return []; }
  }
  const wanted = fromHash(location.hash);
  for (let ids = await look_around(); ; ids = await look_around()) {
    if (ids.length || wanted?.model) {
      const tries = [...(wanted?.model ? [wanted.model] : []), ...ids];
      let able = null;
      for (const id of tries) {
        able = await engine.capabilities(id).catch((error) => { fault(error); return null; });
        if (able) break;
      }
      if (able) {
        byId("welcome").hidden = true;
        byId("main").hidden = false;
        adopt(able);
        store.begin(fitted(wanted ?? { ...START, at: write({ start: place(sheet.typical(able) ?? Math.floor(Math.random() * 1000), 0, 0), moves: [] }) }, able));
        break;
      }
    }
    byId("main").hidden = true;
    byId("welcome").hidden = false;
    byId("train").hidden = !all.trusted;
    await new Promise((go) => setTimeout(go, 2000));
  }
  if (engine.live) setInterval(async () => { const before = JSON.stringify(all); await look_around(); if (before !== JSON.stringify(all) && model?.run) run.follow(model.run, all.trusted); }, 15000);
}
