/**
 * Attention over a key-value cache, of floats or of halves, in an order of its own: what a head reads is one
 * contiguous stream, in panels of sixteen that {@linkcode row} and {@linkcode rowOfHalves} multiply as they are.
 *
 * A slot's positions lie in tiles of 80, the last of which may be smaller; of a tile's w positions each head's
 * follow on another, C · w numbers altogether:
 *
 * - keys: panels of 16 positions, `[w/16][D][16]`: scores are sums over d, sixteen at a time;
 * - values: panels of 16 columns, `[D/16][w][16]`: results are sums over positions.
 *
 * A last panel is as wide as what is left for it. Read so, 1024 positions of GPT-2 (12 layers, floats) take 4 ms,
 * and 10 ms row by row. A row's result has the same bits alone, in a block of rows and without a cache.
 */
import { packColumns } from "./attention";
import { beginBlock, blockBytes, finishBlock, fives, KEYS, passBlock } from "./attention_block";
import { fromHalf, toHalfSaturated, unpackHalves } from "./half";
import { exp, exps } from "./math";
import { rowOfHalves, scaleForHalves } from "./row";
import {
  highHalves,
  interleaveHigh,
  interleaveLow,
  loadUpTo,
  lowHalves,
  maxLanes,
  storeUpTo,
  zero,
} from "./simd";
import { row } from "./tile_narrow";

/** Numbers of a panel's row. */
// @ts-ignore: decorator
@inline
const PANEL: usize = 16;

/** Bytes of a number. */
// @ts-ignore: decorator
@inline
function sizeOf(half: bool): usize {
  return half ? 2 : 4;
}

/** How many positions the tile that begins at `position` has. */
// @ts-ignore: decorator
@inline
function tileWidth(position: usize, capacity: usize): usize {
  return min(KEYS, capacity - position);
}

/** Where head h of the tile that begins at `position` of a slot begins, in numbers. */
// @ts-ignore: decorator
@inline
function placeOf(slot: usize, position: usize, capacity: usize, H: usize, D: usize, h: usize): usize {
  return (slot * capacity + position) * H * D + h * D * tileWidth(position, capacity);
}

/** Rows begin … end − 1 of (T, 3C) keys and values into their slots and positions; halves saturate at ±65504. */
export function storeKeysValues(
  qkv: usize,
  keys: usize,
  values: usize,
  half: bool,
  slots: usize,
  positions: usize,
  capacity: usize,
  H: usize,
  D: usize,
  begin: usize,
  end: usize,
): void {
  const C = H * D;
  const size = sizeOf(half);
  for (let t = begin; t < end;) {
    const slot = load<u32>(slots + t * 4);
    const position = <usize> load<u32>(positions + t * 4);
    // Four keys that follow one another inside a panel are turned together.
    let count: usize = 1;
    while (
      count < 4 && t + count < end && load<u32>(slots + (t + count) * 4) == slot &&
      <usize> load<u32>(positions + (t + count) * 4) == position + count
    ) count++;
    if (count < 4 || position % PANEL > PANEL - 4) count = 1;
    const first = (position / KEYS) * KEYS;
    const at = position - first;
    const w = tileWidth(first, capacity);
    const panel = at & ~(PANEL - 1);
    const width = min(PANEL, w - panel);
    for (let h: usize = 0; h < H; h++) {
      const place = placeOf(<usize> slot, first, capacity, H, D, h);
      const key = qkv + ((t * 3 + 1) * C + h * D) * 4;
      const to = keys + (place + panel * D + (at - panel)) * size;
      let d: usize = 0;
      if (count == 4) {
        for (; d + 4 <= D; d += 4) turnKeys(key + d * 4, C * 12, to + d * width * size, width * size, half);
      }
      for (let i: usize = 0; i < count; i++) storeKey(key + i * C * 12, d, D, to + i * size, width * size, half);
      for (let i: usize = 0; i < count; i++) {
        const value = key + (i * 3 + 1) * C * 4;
        for (let column: usize = 0; column < D; column += PANEL) {
          const wide = min(PANEL, D - column);
          storeRow(value + column * 4, wide, values + (place + column * w + (at + i) * wide) * size, half);
        }
      }
    }
    t += count;
  }
}

/** Numbers d … D − 1 of a key into their panel, `step` bytes apart. */
function storeKey(key: usize, d: usize, D: usize, to: usize, step: usize, half: bool): void {
  for (to += d * step; d < D; d += 4, to += 4 * step) {
    const n = min<usize>(4, D - d);
    const k = loadUpTo(key + d * 4, n);
    if (half) {
      const bits = toHalfSaturated(k);
      v128.store16_lane(to, bits, 0);
      if (n > 1) v128.store16_lane(to + step, bits, 2);
      if (n > 2) v128.store16_lane(to + 2 * step, bits, 4);
      if (n > 3) v128.store16_lane(to + 3 * step, bits, 6);
    } else {
      v128.store32_lane(to, k, 0);
      if (n > 1) v128.store32_lane(to + step, k, 1);
      if (n > 2) v128.store32_lane(to + 2 * step, k, 2);
      if (n > 3) v128.store32_lane(to + 3 * step, k, 3);
    }
  }
}

/** Four numbers of four keys, `keyStep` bytes apart, into their panel. */
// @ts-ignore: decorator
@inline
function turnKeys(key: usize, keyStep: usize, to: usize, step: usize, half: bool): void {
  const r0 = v128.load(key);
  const r1 = v128.load(key + keyStep);
  const r2 = v128.load(key + 2 * keyStep);
  const r3 = v128.load(key + 3 * keyStep);
  const a = interleaveLow(r0, r1);
  const b = interleaveLow(r2, r3);
  const c = interleaveHigh(r0, r1);
  const d = interleaveHigh(r2, r3);
  if (half) {
    const k01 = i16x8.narrow_i32x4_u(toHalfSaturated(lowHalves(a, b)), toHalfSaturated(highHalves(a, b)));
    const k23 = i16x8.narrow_i32x4_u(toHalfSaturated(lowHalves(c, d)), toHalfSaturated(highHalves(c, d)));
    v128.store64_lane(to, k01, 0), v128.store64_lane(to + step, k01, 1);
    v128.store64_lane(to + 2 * step, k23, 0), v128.store64_lane(to + 3 * step, k23, 1);
  } else {
    v128.store(to, lowHalves(a, b)), v128.store(to + step, highHalves(a, b));
    v128.store(to + 2 * step, lowHalves(c, d)), v128.store(to + 3 * step, highHalves(c, d));
  }
}

/** `count` neighbouring numbers of a value. */
function storeRow(from: usize, count: usize, to: usize, half: bool): void {
  if (!half) {
    for (let i: usize = 0; i < count; i += 4) storeUpTo(to + i * 4, loadUpTo(from + i * 4, count - i), count - i);
    return;
  }
  let i: usize = 0;
  for (; i + 8 <= count; i += 8) {
    const low = toHalfSaturated(v128.load(from + i * 4));
    const high = toHalfSaturated(v128.load(from + i * 4 + 16));
    v128.store(to + i * 2, i16x8.narrow_i32x4_u(low, high));
  }
  for (; i < count; i++) v128.store16_lane(to + i * 2, toHalfSaturated(v128.load32_splat(from + i * 4)), 0);
}

/** A panel's `rows` rows of `width` numbers as floats, `step` bytes apart. */
function unpackRows(from: usize, half: bool, rows: usize, width: usize, to: usize, step: usize): void {
  if (half && width == PANEL) {
    unpackHalves(from, rows, to, step);
    return;
  }
  for (let r: usize = 0; r < rows; r++, to += step) {
    if (!half) {
      for (let i: usize = 0; i < width; i += 4) storeUpTo(to + i * 4, loadUpTo(from + i * 4, width - i), width - i);
    } else {
      for (let i: usize = 0; i < width; i++) {
        store<f32>(to + i * 4, f32x4.extract_lane(fromHalf(i32x4.splat(<i32> load<u16>(from + i * 2))), 0));
      }
    }
    from += width * sizeOf(half);
  }
}

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
      const place = placeOf(slot, position, capacity, H, D, h) * size;
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
      qkv + t * H * D * 12, keys, values, half, <usize> load<u32>(slots + t * 4), capacity,
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
      const place = keys + placeOf(slot, position, capacity, H, D, h) * size;
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
      const place = values + placeOf(slot, position, capacity, H, D, h) * size;
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
