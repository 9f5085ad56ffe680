/** Causal attention within sequences, a block of queries at a time; never a [T × T] block. */
import { beginBlock, blockBytes, finishBlock, fives, KEYS, passBlock } from "./attention_block";
import { packTileColumns, packTileRows, ROWS } from "./tile_narrow";

/** Bytes of scratch for {@linkcode attention}. */
export function attentionScratch(D: usize): usize {
  return blockBytes(D) + (D + fives(D)) * KEYS * 4;
}

/**
 * Heads headBegin … headEnd − 1 of rows first … first + count − 1 (at most 128) of one sequence; the pointers
 * are to its first row.
 *
 * @param qkv (rows, 3C)
 * @param out (rows, C)
 * @param logSumExp (rows, H)
 * @param wide Whether to compute products 16 columns at once.
 */
export function attention(
  qkv: usize,
  out: usize,
  logSumExp: usize,
  H: usize,
  D: usize,
  scale: f32,
  first: usize,
  count: usize,
  wide: bool,
  headBegin: usize,
  headEnd: usize,
  scratch: usize,
): void {
  const C = H * D;
  const step = C * 12;
  const block = scratch;
  const K = block + blockBytes(D); // (16, D, 5)
  const V = K + KEYS * D * 4; // (D5 / 5, 80, 5)
  const total = first + count;
  for (let h = headBegin; h < headEnd; h++) {
    const queries = qkv + h * D * 4;
    const keys = queries + C * 4;
    const values = keys + C * 4;
    beginBlock(queries + first * step, step, D, scale, count, block);
    for (let key: usize = 0; key < total; key += KEYS) {
      const here = min(KEYS, total - key);
      packKeys(keys + key * step, step, here, D, K);
      packColumns(values + key * step, step, here, D, KEYS, V);
      passBlock(K, V, here, <i32> first - <i32> key, D, count, block, wide);
    }
    finishBlock(block, D, count, out + (first * C + h * D) * 4, C * 4, logSumExp + (first * H + h) * 4, H * 4);
  }
}

/** (16, D, 5) out of a tile's rows of D floats. */
export function packKeys(from: usize, step: usize, rows: usize, D: usize, to: usize): void {
  for (let r: usize = 0; r < rows; r += ROWS, from += ROWS * step, to += ROWS * D * 4) {
    packTileRows(from, step, min(ROWS, rows - r), D, to);
  }
}

/** (columns / 5, room, 5) out of rows of so many columns. */
export function packColumns(from: usize, step: usize, rows: usize, columns: usize, room: usize, to: usize): void {
  for (let c: usize = 0; c < columns; c += ROWS, from += ROWS * 4, to += room * ROWS * 4) {
    packTileColumns(from, step, min(ROWS, columns - c), rows, to);
  }
}
