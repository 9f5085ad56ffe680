/**
 * Sequences of unequal lengths, end to end, as the kernels take them.
 *
 * @module
 */

/** T rows, and for each its token, its place in its sequence, and its sequence's first row and end. */
export interface EndToEnd {
  /** (T). */
  tokens: Uint32Array;
  /** (T). */
  positions: Uint32Array;
  /** (T). */
  starts: Uint32Array;
  /** (T). */
  ends: Uint32Array;
}

/** Lays sequences end to end; empty ones take no row. */
export function endToEnd(sequences: readonly ArrayLike<number>[]): EndToEnd {
  const T = sequences.reduce((sum, { length }) => sum + length, 0);
  const rows = {
    tokens: new Uint32Array(T),
    positions: new Uint32Array(T),
    starts: new Uint32Array(T),
    ends: new Uint32Array(T),
  };
  let start = 0;
  for (const sequence of sequences) {
    const end = start + sequence.length;
    rows.tokens.set(sequence, start);
    rows.starts.fill(start, start, end);
    rows.ends.fill(end, start, end);
    for (let row = start; row < end; row++) rows.positions[row] = row - start;
    start = end;
  }
  return rows;
}

/** Groups of indices, in order, whose lengths sum to at most `limit` (a longer one goes alone); lengths of 0 are left out. */
export function groupByRows(lengths: readonly number[], limit: number): number[][] {
  const groups: number[][] = [];
  let rows = Infinity;
  for (const [index, length] of lengths.entries()) {
    if (length === 0) continue;
    if (rows + length > limit) {
      groups.push([]);
      rows = 0;
    }
    groups.at(-1)!.push(index);
    rows += length;
  }
  return groups;
}
