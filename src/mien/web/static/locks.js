// @ts-check
// Locked directions: what the others do, they do without moving along a locked one (InterFaceGAN, arXiv:1907.10786, section 3.3).

/**
 * The amounts with which the free directions keep the locked ones lockedOnes. `gram` has the dot products of all directions, in the
 * order of `names`; the locked ones keep their own amounts, less what the others have in common with them.
 * @param {Record<string, number>} amounts @param {string[]} locked @param {string[]} names @param {number[][]} gram @returns {Record<string, number>}
 */
export function compensated(amounts, locked, names, gram) {
  const lockedOnes = names.map((_, i) => i).filter((i) => locked.includes(names[i]));
  const free = names.map((_, i) => i).filter((i) => !locked.includes(names[i]) && amounts[names[i]]);
  if (!lockedOnes.length || !free.length) return amounts;
  const shared = lockedOnes.map((i) => free.reduce((sum, j) => sum + gram[i][j] * amounts[names[j]], 0));
  const taken = solved(lockedOnes.map((i) => lockedOnes.map((j) => gram[i][j])), shared);
  return { ...amounts, ...Object.fromEntries(lockedOnes.map((i, at) => [names[i], (amounts[names[i]] ?? 0) - taken[at]])) };
}

/** x of A x = b, by elimination; what two equal rows leave open is 0. @param {number[][]} matrix @param {number[]} right @returns {number[]} */
function solved(matrix, right) {
  const size = right.length, rows = matrix.map((row, i) => [...row, right[i]]);
  for (let at = 0; at < size; at++) {
    let best = at;
    for (let i = at + 1; i < size; i++) if (Math.abs(rows[i][at]) > Math.abs(rows[best][at])) best = i;
    [rows[at], rows[best]] = [rows[best], rows[at]];
    if (Math.abs(rows[at][at]) < 1e-9) { rows[at] = rows[at].map(() => 0); rows[at][at] = 1; continue; }
    for (let i = 0; i < size; i++) {
      if (i === at) continue;
      const factor = rows[i][at] / rows[at][at];
      for (let j = at; j <= size; j++) rows[i][j] -= factor * rows[at][j];
    }
  }
  return rows.map((row, i) => row[size] / row[i]);
}

/** An engine whose faces hold still what is locked. @param {import("./types.js").Engine} engine @returns {import("./types.js").Engine} */
export function lockedEngine(engine) {
  /** @type {Map<string, import("./types.js").Capabilities>} */
  const known = new Map();
  /** @param {import("./types.js").State} state @returns {import("./types.js").State} */
  const withLocks = (state) => {
    const able = known.get(state.model);
    if (!able || !state.locks.length) return state;
    return { ...state, directions: compensated(state.directions, state.locks, able.directions.map(({ name }) => name), able.gram), locks: [] };
  };
  return {
    ...engine,
    async capabilities(id) {
      const able = await engine.capabilities(id);
      known.set(able.id, able);
      return able;
    },
    image: (state, thumbnail, signal) => engine.image(withLocks(state), thumbnail, signal),
    preview: (state, drag) => engine.preview(withLocks(state), drag),
    sheet: (state, first) => engine.sheet(withLocks(state), first),
    children: (state, first, strength) => engine.children(withLocks(state), first, strength),
    walk: (state, walk) => engine.walk(withLocks(state), walk),
    faces: (state, places, columns, signal) => engine.faces(withLocks(state), places, columns, signal),
    path: engine.path && ((state) => /** @type {NonNullable<typeof engine.path>} */ (engine.path)(withLocks(state))),
    neighbours: engine.neighbours && ((state) => /** @type {NonNullable<typeof engine.neighbours>} */ (engine.neighbours)(withLocks(state))),
  };
}
