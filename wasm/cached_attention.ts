/**
 * Attention over a key-value cache. A row's result has the same bits alone, in a block of rows and without a cache
 * (of floats): sums go over the same tiles in the same order.
 */
import { packColumns } from "./attention";
import { beginBlock, blockBytes, finishBlock, fives, KEYS, passBlock } from "./attention_block";
import { PANEL, placeOf, sizeOf, tileWidth, unpackRows } from "./cache";
import { exp, exps } from "./math";
import { rowOfHalves, scaleForHalves } from "./row";
import { loadUpTo, maxLanes, storeUpTo, zero } from "./simd";
import { row } from "./tile_narrow";

// A block of neighbouring rows

/** Bytes of scratch for {@linkcode cachedAttention}. */
export function cachedAttentionScratch(D: usize): usize {
  return blockBytes(D) + (2 * D + fives(D)) * KEYS * 4;
}

/**
 * Heads headBegin … headEnd − 1 of up to 128 neighbouring rows of one slot.
 *
 * @param qkv Of the first of them.
 * @param out Likewise.
 * @param count How many.
 * @param first The first one's position.
 */
export function cachedAttention(
  qkv: usize,
  keys: usize,
  values: usize,
  half: bool,
  slot: usize,
  capacity: usize,
  table: usize,
  out: usize,
  H: usize,
  D: usize,
  scale: f32,
  count: usize,
  first: usize,
  wide: bool,
  headBegin: usize,
  headEnd: usize,
  scratch: usize,
): void {
  const size = sizeOf(half);
  const block = scratch;
  const K = block + blockBytes(D); // (16, D, 5)
  const V = K + KEYS * D * 4; // (D5 / 5, 80, 5)
  const plain = V + KEYS * fives(D) * 4; // (D, 80 keys), (80 keys, D)
  const total = first + count;
  for (let h = headBegin; h < headEnd; h++) {
    beginBlock(qkv + h * D * 4, H * D * 12, D, scale, count, block);
    for (let position: usize = 0; position < total; position += KEYS) {
      const place = placeOf(slot, position, capacity, table, H, D, h) * size;
      const w = tileWidth(position, capacity);
      const here = min(KEYS, total - position);
      for (let j: usize = 0; j < here; j += PANEL) {
        unpackRows(keys + place + j * D * size, half, D, min(PANEL, w - j), plain + j * 4, KEYS * 4);
      }
      packColumns(plain, KEYS * 4, D, here, D, K);
      for (let d: usize = 0; d < D; d += PANEL) {
        unpackRows(values + place + d * w * size, half, here, min(PANEL, D - d), plain + d * 4, D * 4);
      }
      packColumns(plain, D * 4, here, D, KEYS, V);
      passBlock(K, V, here, <i32> first - <i32> position, D, count, block, wide);
    }
    finishBlock(block, D, count, out + h * D * 4, H * D * 4, 0, 0);
  }
}

// Single rows

/** D rounded up to panels. */
// @ts-ignore: decorator
@inline
function sixteens(D: usize): usize {
  return (D + PANEL - 1) & ~(PANEL - 1);
}

/** Bytes of what is kept of a head while a row's tiles pass by: query, scores, sums; the largest and the denominator. */
// @ts-ignore: decorator
@inline
function headBytes(D: usize): usize {
  return (3 * sixteens(D) + 2 * KEYS + 4) * 4;
}

/** Bytes of scratch for {@linkcode cachedRows}. */
export function cachedRowsScratch(H: usize, D: usize): usize {
  return H * headBytes(D) + max(KEYS, D) * PANEL * 4;
}

/**
 * Heads begin … end − 1 of rows that are each the only one of its slot: number t · H + h is head h of row t.
 *
 * @param qkv (T, 3C)
 * @param out (T, C)
 */
export function cachedRows(
  qkv: usize,
  keys: usize,
  values: usize,
  half: bool,
  slots: usize,
  positions: usize,
  capacity: usize,
  table: usize,
  out: usize,
  H: usize,
  D: usize,
  scale: f32,
  begin: usize,
  end: usize,
  scratch: usize,
): void {
  for (let i = begin; i < end;) {
    const t = i / H;
    const first = i - t * H;
    const last = min(H, first + end - i);
    cachedRow(
      qkv + t * H * D * 12, keys, values, half, <usize> load<u32>(slots + t * 4), capacity, table,
      <usize> load<u32>(positions + t * 4) + 1, out + t * H * D * 4, H, D, scale, first, last, scratch,
    );
    i += last - first;
  }
}

/** Heads first … last − 1 of one row over `total` positions: of every tile first all the scores, then all the sums. */
function cachedRow(
  query: usize,
  keys: usize,
  values: usize,
  half: bool,
  slot: usize,
  capacity: usize,
  table: usize,
  total: usize,
  out: usize,
  H: usize,
  D: usize,
  scale: f32,
  first: usize,
  last: usize,
  scratch: usize,
): void {
  const D16 = sixteens(D) * 4;
  const size = sizeOf(half);
  const wide = scratch + H * headBytes(D);
  let quick = half;
  for (let h = first; h < last; h++) {
    const state = scratch + h * headBytes(D); // scaled query, that for halves, sums: (D16) each
    for (let d: usize = 0; d < D; d += 4) {
      v128.store(state + d * 4, f32x4.mul(loadUpTo(query + (h * D + d) * 4, D - d), f32x4.splat(scale)));
    }
    for (let p = state + 2 * D16, end = p + D16; p < end; p += 16) v128.store(p, zero());
    if (half && !scaleForHalves(state, D, state + D16)) quick = false;
    const sums = state + 3 * D16 + 2 * KEYS * 4;
    store<f32>(sums, -Infinity);
    store<f32>(sums, 0, 4);
  }
  for (let position: usize = 0; position < total; position += KEYS) {
    const w = tileWidth(position, capacity);
    const here = min(KEYS, total - position);
    for (let h = first; h < last; h++) {
      const state = scratch + h * headBytes(D);
      const scores = state + 3 * D16;
      const place = keys + placeOf(slot, position, capacity, table, H, D, h) * size;
      for (let j: usize = 0; j < here; j += PANEL) {
        const width = min(PANEL, w - j);
        const panel = place + j * D * size;
        const to = scores + j * 4;
        if (width == PANEL) {
          if (!half) {
            row(state, panel, D, to, true);
            continue;
          }
          if (quick && rowOfHalves(state + D16, panel, D, to, true)) continue;
        }
        unpackRows(panel, half, D, width, wide, PANEL * 4);
        row(state, wide, D, to, true);
      }
      softmaxOfOne(scores, here, state + 2 * D16, D, scores + 2 * KEYS * 4);
      if (half) scaleForHalves(scores, here, scores + KEYS * 4);
    }
    for (let h = first; h < last; h++) {
      const state = scratch + h * headBytes(D);
      const scores = state + 3 * D16;
      const place = values + placeOf(slot, position, capacity, table, H, D, h) * size;
      for (let d: usize = 0; d < D; d += PANEL) {
        const width = min(PANEL, D - d);
        const panel = place + d * w * size;
        const to = state + 2 * D16 + d * 4;
        if (width == PANEL) {
          if (!half) {
            row(scores, panel, here, to, false);
            continue;
          }
          if (rowOfHalves(scores + KEYS * 4, panel, here, to, false)) continue;
        }
        unpackRows(panel, half, here, width, wide, PANEL * 4);
        row(scores, wide, here, to, false);
      }
    }
  }
  for (let h = first; h < last; h++) {
    const state = scratch + h * headBytes(D);
    const denominator = v128.load32_splat(state + 3 * D16 + 2 * KEYS * 4 + 4);
    for (let d: usize = 0; d < D; d += 4) {
      storeUpTo(out + (h * D + d) * 4, f32x4.div(v128.load(state + 2 * D16 + d * 4), denominator), D - d);
    }
  }
}

/**
 * Turns `count` scores into exponentials and carries their maximum and, behind it, their sum on; `sums` (D) shrink
 * to the new maximum.
 */
function softmaxOfOne(scores: usize, count: usize, sums: usize, D: usize, state: usize): void {
  const end = scores + count * 4;
  for (let p = end; p & 15; p += 4) store<f32>(p, -Infinity);
  const before = load<f32>(state);
  let most = f32x4.splat(before);
  for (let p = scores; p < end; p += 16) most = f32x4.pmax(most, v128.load(p));
  const largest = maxLanes(most);
  const shift = f32x4.splat(largest);
  const factor = exp(f32x4.sub(f32x4.splat(before), shift));
  let sum = load<f32>(state, 4) * f32x4.extract_lane(factor, 0);
  if (f32x4.extract_lane(factor, 0) != 1) {
    for (let d: usize = 0; d < D; d += 4) v128.store(sums + d * 4, f32x4.mul(v128.load(sums + d * 4), factor));
  }
  exps(scores, end, 16, shift, zero(), true);
  for (let p = scores; p < end; p += 4) sum += load<f32>(p);
  store<f32>(state, largest);
  store<f32>(state, sum, 4);
}
