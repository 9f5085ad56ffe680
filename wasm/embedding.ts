/** Rows picked by number: embeddings and the positions that have a target. */
import { loadUpTo, storeUpTo } from "./simd";
import { PLAIN } from "./formats";
import { PANEL, panelBytes, unpackColumn, unpackPanel } from "./weights";

/**
 * Rows begin … end − 1 of out[t] = wte[tokens[t]] + wpe[positions[t]].
 *
 * @param byColumn Whether `wte` was packed as its transpose: a token's row is a column.
 * @param scratch C floats, rounded up to 16.
 */
export function embedding(
  wte: usize,
  kind: u32,
  byColumn: bool,
  V: usize,
  wpe: usize,
  tokens: usize,
  positions: usize,
  out: usize,
  C: usize,
  begin: usize,
  end: usize,
  scratch: usize,
): void {
  for (let t = begin; t < end; t++) {
    const token = <usize> load<u32>(tokens + t * 4);
    const position = wpe + <usize> load<u32>(positions + t * 4) * C * 4;
    const to = out + t * C * 4;
    if (kind == PLAIN) {
      addRows(wte + token * C * 4, position, to, C);
      continue;
    }
    if (byColumn) {
      unpackColumn(kind, wte, C, token, scratch);
      addRows(scratch, position, to, C);
      continue;
    }
    const bytes = panelBytes(kind, V);
    let panel = wte;
    for (let c: usize = 0; c < C; c += PANEL, panel += bytes) {
      unpackPanel(kind, panel, token, token + 1, scratch);
      addRows(scratch, position + c * 4, to + c * 4, min(PANEL, C - c));
    }
  }
}

// @ts-ignore: decorator
@inline
function addRows(a: usize, b: usize, out: usize, C: usize): void {
  for (let c: usize = 0; c < C; c += 4) {
    const n = C - c;
    storeUpTo(out + c * 4, f32x4.add(loadUpTo(a + c * 4, n), loadUpTo(b + c * 4, n)), n);
  }
}

/** Columns begin … end − 1 of out[rows[i]] += x[i] for i = 0 … N − 1, in that order. */
export function addToRows(
  x: usize,
  rows: usize,
  out: usize,
  N: usize,
  C: usize,
  begin: usize,
  end: usize,
): void {
  for (let i: usize = 0; i < N; i++) {
    const from = x + (i * C + begin) * 4;
    const to = out + (<usize> load<u32>(rows + i * 4) * C + begin) * 4;
    addRows(from, to, to, end - begin);
  }
}

/** Rows begin … end − 1 of out[i] = x[rows[i]]. */
export function gather(x: usize, rows: usize, out: usize, C: usize, begin: usize, end: usize): void {
  for (let i = begin; i < end; i++) {
    memory.copy(out + i * C * 4, x + <usize> load<u32>(rows + i * 4) * C * 4, C * 4);
  }
}
