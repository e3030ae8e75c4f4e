// @ts-check
// The plane that the pad shows: of the seeds, or around a photograph's latent, where both ways lead toward a seed each.
import { neighbour, parse, place, rounded, write } from "./address.js";

const AXES = [2 ** 53 - 2, 2 ** 53 - 3];  // seeds that nobody draws
const SHARE = 0.15;  // of the way to them, for one crossing

/**
 * A place in a plane: a crossing, and how far it is to the next one, in [0, 1). In the plane of seeds the crossing is a seed; around a
 * latent it is a column and a row.
 * @typedef {{origin: string, seed: number, column: number, row: number, x: number, y: number}} Spot
 */

/** Where an address stands, and its moves from there. @param {string} at @returns {{spot: Spot, moves: import("./address.js").Address["moves"]}} */
export function locate(at) {
  const { start, moves } = parse(at);
  if (!("values" in start)) return { spot: { origin: "", column: 0, row: 0, ...start }, moves };
  let rest = moves;
  const [x, y] = AXES.map((axis) => {
    const first = rest[0]?.target.start;
    if (!first || "values" in first || first.seed !== axis || rest[0].target.moves.length) return 0;
    const { share } = rest[0];
    rest = rest.slice(1);
    return share / SHARE;
  });
  return { spot: shifted({ origin: `@${start.text}`, seed: 0, column: 0, row: 0, x: 0, y: 0 }, x, y), moves: rest };
}

/** A place some crossings further. @param {Spot} spot @param {number} across @param {number} down @returns {Spot} */
export function shifted(spot, across, down) {
  if (!spot.origin) return { ...spot, ...place(spot.seed, spot.x + across, spot.y + down) };
  const x = rounded(spot.column + spot.x + across), y = rounded(spot.row + spot.y + down), column = Math.floor(x), row = Math.floor(y);
  return { ...spot, column, row, x: rounded(x - column), y: rounded(y - row) };
}

/** The crossing some steps from that of a place. @param {Spot} spot @param {number} across @param {number} down @returns {Spot} */
export function crossing(spot, across, down) {
  if (!spot.origin) return { ...spot, seed: neighbour(spot.seed, across, down), x: 0, y: 0 };
  return { ...spot, column: spot.column + across, row: spot.row + down, x: 0, y: 0 };
}

/** A place and moves from there as an address. @param {Spot} spot @param {import("./address.js").Address["moves"]} [moves] */
export function addressOf(spot, moves = []) {
  if (!spot.origin) return write({ start: { seed: spot.seed, x: spot.x, y: spot.y }, moves });
  const ways = [spot.column + spot.x, spot.row + spot.y].flatMap((far, axis) => {
    const share = rounded(far * SHARE);
    return share ? [{ target: { start: { seed: AXES[axis], x: 0, y: 0 }, moves: [] }, share }] : [];
  });
  return write({ start: parse(spot.origin).start, moves: [...ways, ...moves] });
}

/** Whether two places are the same. @param {Spot | null} a @param {Spot} b */
export const same = (a, b) => Boolean(a && ["origin", "seed", "column", "row", "x", "y"].every((key) => /** @type {any} */ (a)[key] === /** @type {any} */ (b)[key]));
