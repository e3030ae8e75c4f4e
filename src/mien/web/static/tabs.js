// @ts-check
// The tabs of the tools: beside the face where there is room, as a sheet over it on a phone.
import { byId } from "./dom.js";

const EDGE = 56; // pixels beside the open tab, so that its neighbour shows

/** @param {Record<string, {open?: () => unknown, close?: () => unknown}>} panels what fills a tab when it opens @param {() => boolean} ready */
export function tabs(panels, ready) {
  const list = byId("tabs"), wide = matchMedia("(min-width: 80rem)"), phone = matchMedia("(max-width: 47.99rem)");
  let panel = "";
  const there = () => [...list.querySelectorAll("[role=tab]")].map((tab) => /** @type {HTMLElement} */ (tab)).filter((tab) => !tab.hidden);
  const folded = () => phone.matches && document.body.classList.contains("folded");

  /** @param {string} name @param {boolean} [focus] */
  function choose(name, focus = false) {
    if (panel !== name) panels[panel]?.close?.();
    panel = name;
    byId("main").dataset.panel = name;
    for (const [way, on] of [["teach", name === "teach"], ["watch", name === "training"], ["play", name !== "teach" && name !== "training"]]) {
      byId(`way-${way}`).setAttribute("aria-pressed", String(on));
    }
    document.body.classList.remove("folded");
    mark(focus);
    fill();
  }

  function mark(focus = false) {
    for (const tab of list.querySelectorAll("[role=tab]")) {
      const on = tab.id === `tab-${panel}`, area = byId(/** @type {string} */ (tab.getAttribute("aria-controls")));
      tab.setAttribute("aria-selected", String(on));
      tab.setAttribute("tabindex", on ? "0" : "-1");
      area.hidden = !on && !(wide.matches && area.id === "panel-move");
      if (on && focus) /** @type {HTMLElement} */ (tab).focus({ preventScroll: true });
    }
    inView();
  }

  /** Where the row of tabs is longer than a phone is wide, scroll it alone to the open one. */
  function inView() {
    const tab = list.querySelector("[aria-selected=true]")?.getBoundingClientRect(), row = list.getBoundingClientRect();
    if (tab) list.scrollLeft += Math.max(0, tab.right + EDGE - row.right) - Math.max(0, row.left - tab.left + EDGE);
  }

  /** Bring the open tab up to date. */
  function fill() {
    if (ready() && !folded()) panels[panel]?.open?.();
  }

  /** Where there is room, the pad and the sliders are always there. */
  function arrange() {
    byId("tab-move").hidden = wide.matches;
    byId("panel-move").setAttribute("role", wide.matches ? "region" : "tabpanel");
    byId("panel-move").setAttribute("aria-labelledby", wide.matches ? "move-title" : "tab-move");
    byId(wide.matches ? "main" : "panels").insertBefore(byId("panel-move"), wide.matches ? byId("tools") : byId("panels").firstChild);
    if (wide.matches && panel === "move") panel = "breed";
    if (panel) mark();
  }
  wide.addEventListener("change", arrange);
  phone.addEventListener("change", inView);
  arrange();

  list.addEventListener("click", (event) => {
    const tab = /** @type {HTMLElement} */ (event.target).closest("[role=tab]");
    if (!tab) return;
    if (phone.matches && tab.id === `tab-${panel}` && !folded()) document.body.classList.add("folded");
    else choose(tab.id.slice(4), true);
  });
  list.addEventListener("keydown", (event) => {
    const open = there(), at = open.findIndex((tab) => tab.id === `tab-${panel}`);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: open.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(open[(to + open.length) % open.length].id.slice(4), true);
  });
  document.addEventListener("panel", (event) => choose(/** @type {CustomEvent<string>} */ (event).detail));
  return {
    choose, fill,
    panel: () => panel,
    /** The tab at a place, from 1 on. @param {number} number */
    number: (number) => { const tab = there()[number - 1]; if (tab) choose(tab.id.slice(4), true); },
    /** Close a tab that a model does not have. */
    check() { if (panel && byId(`tab-${panel}`).hidden) choose(wide.matches ? "breed" : "move"); },
    first: () => choose(wide.matches ? "breed" : "move"),
  };
}
