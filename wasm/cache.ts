/**
 * A cache of keys and values, of floats or of halves, in an order of its own: what a head reads is one contiguous
 * stream, in panels of sixteen that {@linkcode row} and {@linkcode rowOfHalves} multiply as they are.
 *
 * A slot's positions lie in tiles of 80, the last of which may be smaller; of a tile's w positions each head's
 * follow one another, C · w numbers altogether:
 *
 * - keys: panels of 16 positions, `[w/16][D][16]`: scores are sums over d, sixteen at a time;
 * - values: panels of 16 columns, `[D/16][w][16]`: results are sums over positions.
 *
 * A last panel is as wide as what is left for it. A slot's tiles lie one behind the other, or where a table says: (slots,
 * capacity / 80) numbers of tiles, capacity being a multiple of 80 then. So decoding reads 1024 positions of GPT-2 (12 layers, floats) in
 * 3.4 ms, halves in 2.5; row by row floats took 10 (a Zen 4 core).
 */
import { KEYS } from "./attention_block";
import { fromHalf, toHalfSaturated, unpackHalves } from "./half";
import { highHalves, interleaveHigh, interleaveLow, loadUpTo, lowHalves, storeUpTo } from "./simd";

/** Numbers of a panel's row. */
// @ts-ignore: decorator
@inline
export const PANEL: usize = 16;

/** Bytes of a number. */
// @ts-ignore: decorator
@inline
export function sizeOf(half: bool): usize {
  return half ? 2 : 4;
}

/** How many positions the tile that begins at `position` has. */
// @ts-ignore: decorator
@inline
export function tileWidth(position: usize, capacity: usize): usize {
  return min(KEYS, capacity - position);
}

/**
 * Where head h of the tile that begins at `position` of a slot begins, in numbers.
 *
 * @param table Where each tile lies, or 0.
 */
// @ts-ignore: decorator
@inline
export function placeOf(
  slot: usize,
  position: usize,
  capacity: usize,
  table: usize,
  H: usize,
  D: usize,
  h: usize,
): usize {
  const first = table
    ? <usize> load<u32>(table + (slot * (capacity / KEYS) + position / KEYS) * 4) * KEYS
    : slot * capacity + position;
  return first * H * D + h * D * tileWidth(position, capacity);
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
  table: usize,
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
      const place = placeOf(<usize> slot, first, capacity, table, H, D, h);
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
export function unpackRows(from: usize, half: bool, rows: usize, width: usize, to: usize, step: usize): void {
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
