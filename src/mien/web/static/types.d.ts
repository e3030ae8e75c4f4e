/** A face of a mixture. */
export interface Part { with: string; share: number }
/** What a face on show is made of: the whole state of the page. */
export interface State {
  model: string;
  at: string;
  /** Other faces, and the share of the mixture that each has; the rest is the first face's. */
  mix: Part[] | null;
  /** Style stages in which directions act, as `coarse` or `2-3`; empty for all. */
  layers: string;
  truncation: number;
  labels: Record<string, number>;
  directions: Record<string, number>;
  /** Directions that stay where they are while others move. */
  locks: string[];
  size: number;
  /** How a flow is followed, as `heun:12`; empty as its model says. */
  solver: string;
  guidance: number | null;
  /** Styles of another face, as `42:coarse`. */
  style: string;
}
export interface Score { name: string; value: string; meaning: string }
export interface Direction { name: string; note?: string }
export interface Capabilities {
  id: string; sha256: string; name: string; run: string | null; seen: number | null; preset: string; side: number; channels: number;
  latent: number[]; prior: string; labels: string[]; directions: Direction[]; encodes: boolean; inverts: boolean; scalable: boolean;
  flow: { method: string; steps: number; tolerance: number } | null;
  /** How much of what labels change shows unless asked otherwise; null without labels. */
  guidance: number | null;
  /** Stages, coarse to fine, that have a style of their own; 0 where there are none. */
  styles: number;
  /** Dot products of the directions, in their order. */
  gram: number[][];
  /** Seeds whose faces hold first; empty where they were not ranked. */
  order: number[];
  /** Whether faces of photographs can be found and levelled here. */
  levels?: boolean;
  /** What evaluations said of this checkpoint. */
  scores?: Score[];
  parameters: number; neighbours: boolean; formats: string[]; card?: string; licence?: string;
}
export interface RunEntry {
  id: string; name: string; preset: string; side: number | null; state: string; seen: number; samples: number;
  checkpoints: { model: string; seen: number }[];
}
export interface Overview { runs: RunEntry[]; models: { id: string; name: string }[]; trusted: boolean; /** Models that training can go on from. */ parents?: string[]; started?: { alive: boolean; error: string } | null }
export interface Live {
  state: string; alive: boolean; seen: number; seconds: number; images_per_second: number; share: number; left: number | null;
  resumes: number; reason: string; /** Who can move alone in a step by hand, and how often one has. */ players: string[]; steered: number; health: { name: string; state: string; evidence: string; suggestion: string }[];
  samples: number[]; reconstructions: number[]; checkpoints: { model: string; seen: number; scores: Score[] }[];
}
/** Lowest and highest values, or the ends of an interval. */
export type Ranges = ([number, number] | null)[];
export interface Curves {
  seen: number[]; curves: Record<string, (number | null)[]>; ranges: Record<string, Ranges>; meanings: Record<string, string>;
  /** Of evaluations, with 95% intervals. */
  scores: { name: string; seen: number[]; values: number[]; ranges: Ranges; meaning: string }[];
}
export interface Found { at: string; error: number; image: string; original: string; cut: string; reconstruction?: string }
export interface Step { step: number; steps: number; error: number; image: string }
export interface Near {
  neighbours: { row: number; distance: number; image: string }[]; nearer_than_training: number; memorised: boolean; compared: number;
}
export interface Walk { stops: string[]; frames: number; fps: number; loop: boolean; format: string; zoom: number }
/** Where faces come from: a server, or the browser itself. */
export interface Engine {
  kind: "server" | "browser";
  /** What draws, in words, and a way to hear when that changes. */
  by?: { name: string; changed: (listener: () => void) => void };
  overview(): Promise<Overview>;
  capabilities(id: string): Promise<Capabilities>;
  /** A face; a thumbnail of a model whose faces are slow may be in fewer steps. */
  image(state: State, thumbnail?: boolean, signal?: AbortSignal): Promise<Blob>;
  /** A face of a movement, nearly exact; null where a newer one of the same movement is wanted. */
  preview(state: State, drag: string): Promise<ImageData | null>;
  sheet(state: State, first: number): Promise<Blob>;
  children(state: State, first: number, strength: number): Promise<Blob>;
  walk(state: State, walk: Walk): Promise<Blob>;
  /** Thumbnails of faces at some places on one sheet. */
  faces(state: State, places: string[], columns: number, signal?: AbortSignal): Promise<Blob>;
  /** A photograph's face: at once, or by steps of descent. */
  project?(id: string, photo: Blob, how: { steps: number; align: boolean; onStep: (step: Step) => void; signal?: AbortSignal }): Promise<Found>;
  /** How a flow comes to a face: what it has after each step on one sheet, noise first. */
  path?(state: State): Promise<{ sheet: Blob; count: number; columns: number }>;
  neighbours?(state: State): Promise<Near>;
  live?(run: string, onState: (live: Live | null) => void): () => void;
  curves?(run: string): Promise<Curves>;
  /** A grid of samples, or of real faces and what becomes of them. */
  samples?(run: string, seen: number, kind: "samples" | "reconstructions"): Promise<Blob>;
  film?(run: string): Promise<Blob>;
  control?(run: string, request: string): Promise<void>;
  /** Start a run on drawn faces, or on the photographs that were added, from noise or on from another model. */
  train?(minutes: number, own: boolean, parent?: string): Promise<void>;
  /** Begin the process of the next run before it is known what it trains. */
  getReady?(): Promise<void>;
  addPhotograph?(photo: Blob): Promise<void>;
  /** Store the direction in which others lead together under a name of its own. */
  nameDirection?(id: string, name: string, directions: Record<string, number>): Promise<void>;
  /** Find directions without labels; their names come back. */
  findDirections?(id: string, count: number, onShare: (share: number) => void): Promise<string[]>;
}
/** What an exported generator takes, row after row. */
export interface Feeds {
  count: number;
  latent: Float32Array;
  truncation: number;
  labels?: Float32Array;
  directions?: Float32Array;
  /** Latents of other faces, and how much of each stage's style is theirs. */
  other?: Float32Array;
  shares?: Float32Array;
}
/** What draws inside an exported page: pictures as numbers in [-1, 1]. */
export interface Drawer { name: string; run(feeds: Feeds): Promise<Float32Array> }
