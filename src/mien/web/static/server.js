// @ts-check
// The engine that asks `mien explore`: one method, one route.
import { readRecipe } from "./png.js";

/** @typedef {import("./types.js").State} State */

/** @type {[string, string]} Where faces are small, few steps do. */
const THUMBNAIL = ["quick", "1"];
const TRIES = 5;  // to ask a busy server again

/** An answer that is an error, in its three parts. */
export class Refusal extends Error {
  /** @param {{message: string, why: string, hint: string, code: number}} parts */
  constructor({ message, why, hint, code }) {
    super(message);
    this.why = why; this.hint = hint; this.code = code;
  }
}

/** The token stands after # when the page is opened from the printed address; it is kept for this tab and taken out of sight. */
function takeToken() {
  const found = /^#token=([\w-]+)$/.exec(location.hash), name = `token ${location.pathname}`;
  if (found) history.replaceState(null, "", location.pathname);
  try {
    if (found) sessionStorage.setItem(name, found[1]);
    return sessionStorage.getItem(name);
  } catch { return found?.[1] ?? null; }  // a browser stores nothing for a page inside another one
}

/** Server-sent events of an answer. @param {Response} response @returns {AsyncGenerator<{event: string, data: any}>} */
async function* eventsOf(response) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader(), decoder = new TextDecoder();
  for (let text = ""; ;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += decoder.decode(value, { stream: true });
    const events = text.split("\n\n");
    text = events.pop() ?? "";
    for (const part of events) {
      const data = /^data: (.*)$/m.exec(part), event = /^event: (.*)$/m.exec(part);
      if (data && event) yield { event: event[1], data: JSON.parse(data[1]) };
    }
  }
}

/** @returns {import("./types.js").Engine} */
export function server() {
  const token = takeToken();

  /** @param {string} path @param {{query?: [string, string][], post?: object | Blob, signal?: AbortSignal}} [more] @returns {Promise<Response>} */
  async function ask(path, { query = [], post, signal } = {}) {
    const headers = /** @type {Record<string, string>} */ (token ? { Authorization: `Bearer ${token}` } : {});
    /** @type {RequestInit} */
    let init = { headers, signal };
    const text = new URLSearchParams(query).toString();
    if (post instanceof Blob) init = { ...init, method: "POST", body: post };
    else if (post) init = { ...init, method: "POST", body: JSON.stringify(post) };
    else if (text.length > 12000) {  // a long latent: too long for an address
      /** @type {Record<string, string[]>} */
      const body = {};
      for (const [name, value] of query) (body[name] ??= []).push(value);
      init = { ...init, method: "POST", body: JSON.stringify(body) };
    } else if (text) path += `?${text}`;
    let response;
    for (let tries = 0; ; tries++) {
      try {
        response = await fetch(path, init);
      } catch (error) {
        if (signal?.aborted) throw error;
        if (!post && !tries) { await new Promise((go) => setTimeout(go, 300)); continue; }  // a connection that was kept open may have been closed just now
        throw new Refusal({ code: 0, message: "The explorer does not answer.", why: "It may have been stopped.", hint: "Start `mien explore` again; this page goes on by itself." });
      }
      const pause = Number(response.headers.get("Retry-After"));
      if (response.status !== 503 || !pause || post || query.some(([name]) => name === "drag") || tries === TRIES) break;  // a busy server is asked again: what waits shows that it waits
      await new Promise((go) => setTimeout(go, 1000 * pause));
    }
    if (response.ok) return response;
    const answer = await response.json().catch(() => null);
    throw new Refusal(answer?.error ?? { code: response.status, message: "The server refused.", why: `HTTP ${response.status}`, hint: "Try again." });
  }

  /** @param {State} state @returns {[string, string][]} */
  const drawParams = ({ truncation, labels, directions, size, solver, guidance, style, layers }) => [
    .../** @type {[string, string][]} */ (truncation === 1 ? [] : [["truncation", String(truncation)]]),
    ...Object.entries(labels).map(([name, value]) => /** @type {[string, string]} */ (["label", `${name}:${value}`])),
    ...Object.entries(directions).filter(([, value]) => value).map(([name, value]) => /** @type {[string, string]} */ (["direction", `${name}:${value}`])),
    .../** @type {[string, string][]} */ (size ? [["size", String(size)]] : []),
    .../** @type {[string, string][]} */ (solver ? [["solver", solver]] : []),
    .../** @type {[string, string][]} */ (style ? [["style", style]] : []),
    .../** @type {[string, string][]} */ (layers ? [["layers", layers]] : []),
    .../** @type {[string, string][]} */ (guidance === null ? [] : [["guidance", String(guidance)]]),
  ];

  return {
    kind: "server",
    overview: async () => (await ask("api/models")).json(),
    capabilities: async (id) => (await ask(`api/model/${id}`)).json(),
    image: async (state, thumbnail = false, signal = undefined) => (await ask(`api/model/${state.model}/image`, { query: [["at", state.at], ...drawParams(state), ...(thumbnail ? [THUMBNAIL] : [])], signal })).blob(),
    async preview(state, drag) {
      const response = await ask(`api/model/${state.model}/preview`, { query: [["at", state.at], ...drawParams(state), ["drag", drag]] });
      const data = new Uint8ClampedArray(await response.arrayBuffer());
      return data.length ? new ImageData(data, Math.sqrt(data.length / 4)) : null;
    },
    sheet: async (state, first) => (await ask(`api/model/${state.model}/sheet`, { query: [["first", String(first)], ...drawParams(state), THUMBNAIL] })).blob(),
    children: async (state, first, strength) => (await ask(`api/model/${state.model}/children`, {
      query: [["at", state.at], ["first", String(first)], ["strength", String(strength)], ...drawParams(state), THUMBNAIL],
    })).blob(),
    walk: async (state, { stops, frames, fps, loop, format, zoom }) => (await ask(`api/model/${state.model}/walk`, {
      query: [...stops.map((at) => /** @type {[string, string]} */ (["at", at])), ["frames", String(frames)], ["fps", String(fps)],
        ["loop", loop ? "1" : "0"], ["format", format], ["zoom", String(zoom)], ...drawParams(state)],
    })).blob(),
    faces: async (state, places, columns, signal) => (await ask(`api/model/${state.model}/sheet`, {
      query: [...places.map((at) => /** @type {[string, string]} */ (["at", at])), ["columns", String(columns)], ...drawParams(state), THUMBNAIL], signal,
    })).blob(),
    async path(state) {
      const sheet = await (await ask(`api/model/${state.model}/path`, { query: [["at", state.at], ...drawParams(state)] })).blob();
      const { stages, columns } = readRecipe(new Uint8Array(await sheet.arrayBuffer())) ?? {};
      return { sheet, count: stages, columns };
    },
    async project(id, photo, { steps, align, onStep, signal }) {
      const query = new URLSearchParams({ ...(steps ? { steps: String(steps) } : {}), ...(align ? { align: "1" } : {}) }).toString();
      const response = await ask(`api/model/${id}/project${query && `?${query}`}`, { post: photo, signal });
      if (!steps) return response.json();
      for await (const { event, data } of eventsOf(response)) {
        if (event === "found") return data;
        if (event === "failed") throw new Refusal(data);
        onStep(data);
      }
      throw new Refusal({ code: 0, message: "The search was cut off.", why: "", hint: "Try again." });
    },
    neighbours: async (state) => (await ask(`api/model/${state.model}/neighbours`, { query: [["at", state.at], ...drawParams(state)] })).json(),
    curves: async (run) => (await (await ask(`api/run/${run}`)).json()).curves,
    samples: async (run, seen, kind) => (await ask(`api/run/${run}/${kind}/${seen}`)).blob(),
    film: async (run) => (await ask(`api/run/${run}/film`)).blob(),
    control: async (run, request) => { await ask(`api/run/${run}/control`, { post: { request } }); },
    train: async (minutes, own, parent = "") => { await ask("api/train", { post: { minutes, photographs: own ? "1" : "0", from: parent } }); },
    getReady: async () => { await ask("api/train/ready", { post: {} }); },
    addPhotograph: async (photo) => { await ask("api/photographs", { post: photo }); },
    nameDirection: async (id, name, directions) => {
      await ask(`api/model/${id}/directions`, { post: { name, direction: Object.entries(directions).filter(([, value]) => value).map(([key, value]) => `${key}:${value}`) } });
    },
    async findDirections(id, count, onShare) {
      for await (const { event, data } of eventsOf(await ask(`api/model/${id}/find-directions`, { post: { count } }))) {
        if (event === "found") return data.names;
        if (event === "failed") throw new Refusal(data);
        onShare(data.done / data.of);
      }
      throw new Refusal({ code: 0, message: "The search was cut off.", why: "", hint: "Try again." });
    },
    live(run, onState) {
      const end = new AbortController();
      (async () => {
        for (let pause = 500; !end.signal.aborted; pause = Math.min(8000, pause * 2)) {
          try {
            const response = await ask(`api/run/${run}/events`, { signal: end.signal });
            for await (const { data } of eventsOf(response)) { onState(data); pause = 500; }
          } catch { /* the server was stopped: the loop tries again */ }
          if (!end.signal.aborted) { onState(null); await new Promise((go) => setTimeout(go, pause)); }
        }
      })();
      return () => end.abort();
    },
  };
}
