/**
 * 8- and 4-bit weights: a (K, N) matrix that is summed over K, in panels of 16 columns. A weight is
 *
 *     step · (ratio · code − offset)
 *
 * with a float `step` a column, and whole numbers of a group of 32 rows: `ratio`, and in 4 bits `offset`. So
 * ratio · code − offset is a whole number of at most {@linkcode LARGEST}: a product with activations that are whole
 * numbers too is a sum of whole numbers, exact, whoever adds it up in whatever order.
 *
 * A panel: 16 f32 steps, then ⌈K/32⌉ blocks, the last one filled with zeros:
 *
 * - Q8: 16 ratios (1 … 32, a byte each), codes −127 … 127 as `[8][16][4]`: four rows of a column lie together.
 *   528 bytes: 8.25 bits a weight.
 * - Q4: 16 ratios (1 … 128), 16 offsets (two bytes each), codes 0 … 15 as `[4][16][4]` bytes: a byte holds rows
 *   8i + j (low) and 8i + 4 + j (high). 304 bytes: 4.75 bits a weight.
 *
 * Behind the panels: for each row its largest |weight| / LARGEST, for products with the transpose.
 */
import { fma, zero } from "./simd";
import { Q8 } from "./formats";

/** Rows of a group. */
// @ts-ignore: decorator
@inline
export const GROUP: usize = 32;
/** Bytes of a panel's steps. */
// @ts-ignore: decorator
@inline
export const STEPS: usize = 64;
// @ts-ignore: decorator
@inline
const Q8_BLOCK: usize = 528;
// @ts-ignore: decorator
@inline
const Q4_BLOCK: usize = 304;
/** Where codes begin in a block. */
// @ts-ignore: decorator
@inline
export const Q8_CODES: usize = 16;
// @ts-ignore: decorator
@inline
export const Q4_CODES: usize = 48;
/** The largest |ratio · code − offset|. */
export const LARGEST: f32 = 4064;
/** The largest ratios: powers of two, so that a step is the largest scale divided without rounding. */
const Q8_RATIO: f32 = 32;
const Q4_RATIO: f32 = 128;

/** Bytes of a block. */
// @ts-ignore: decorator
@inline
export function blockBytes(kind: u32): usize {
  return kind == Q8 ? Q8_BLOCK : Q4_BLOCK;
}

/** Bytes of a panel of K rows. */
// @ts-ignore: decorator
@inline
export function codesPanelBytes(kind: u32, K: usize): usize {
  return STEPS + ((K + GROUP - 1) / GROUP) * blockBytes(kind);
}

/** Scales (and minima) of a block of `rows` rows of 16 floats: what codes of full range need. */
export function chooseScales(kind: u32, from: usize, rows: usize, scales: usize, minima: usize): void {
  for (let j: usize = 0; j < 64; j += 16) {
    if (kind == Q8) {
      let largest = zero();
      for (let k: usize = 0; k < rows; k++) {
        largest = f32x4.max(largest, f32x4.abs(v128.load(from + k * 64 + j)));
      }
      v128.store(scales + j, f32x4.div(largest, f32x4.splat(127.0)));
    } else {
      fitNibbles(from + j, rows, scales + j, minima + j);
    }
  }
}

/** The nearest of 0 … 15 to (w − minimum) / scale, as floats. */
// @ts-ignore: decorator
@inline
function nibbles(w: v128, scale: v128, minimum: v128): v128 {
  const n = f32x4.nearest(f32x4.div(f32x4.sub(w, minimum), scale));
  // Where scale is 0 the quotient may be NaN: max and min in this order turn that into 0.
  return f32x4.pmin(f32x4.splat(15.0), f32x4.pmax(zero(), n));
}

/**
 * Starts from the range of each column (with 0 in it, so that the minimum is 0 or below), then fits scale and
 * minimum to the chosen nibbles by least squares a few times and keeps what errs least.
 */
function fitNibbles(column: usize, rows: usize, scales: usize, minima: usize): void {
  let low = zero();
  let high = zero();
  for (let k: usize = 0; k < rows; k++) {
    const w = v128.load(column + k * 64);
    low = f32x4.min(low, w);
    high = f32x4.max(high, w);
  }
  const count = f32x4.splat(<f32> rows);
  let scale = f32x4.div(f32x4.sub(high, low), f32x4.splat(15.0));
  let minimum = low;
  let bestScale = scale;
  let bestMinimum = minimum;
  let bestError = f32x4.splat(Infinity);
  for (let round = 0; round < 4; round++) {
    let error = zero(), n1 = zero(), n2 = zero(), w1 = zero(), nw = zero();
    for (let k: usize = 0; k < rows; k++) {
      const w = v128.load(column + k * 64);
      const n = nibbles(w, scale, minimum);
      const miss = f32x4.sub(w, fma(n, scale, minimum));
      error = fma(miss, miss, error);
      n1 = f32x4.add(n1, n);
      n2 = fma(n, n, n2);
      w1 = f32x4.add(w1, w);
      nw = fma(n, w, nw);
    }
    const better = f32x4.lt(error, bestError);
    bestScale = v128.bitselect(scale, bestScale, better);
    bestMinimum = v128.bitselect(minimum, bestMinimum, better);
    bestError = v128.bitselect(error, bestError, better);
    const determinant = f32x4.sub(f32x4.mul(count, n2), f32x4.mul(n1, n1));
    const fitted = f32x4.div(f32x4.sub(f32x4.mul(count, nw), f32x4.mul(n1, w1)), determinant);
    const solvable = v128.and(f32x4.gt(determinant, zero()), f32x4.gt(fitted, zero()));
    scale = v128.bitselect(fitted, scale, solvable);
    const rest = f32x4.div(f32x4.sub(w1, f32x4.mul(scale, n1)), count);
    minimum = f32x4.min(zero(), v128.bitselect(rest, minimum, solvable));
    minimum = f32x4.max(minimum, f32x4.mul(scale, f32x4.splat(-15.0)));
  }
  v128.store(scales, bestScale);
  v128.store(minima, bestMinimum);
}

/** The steps of a panel out of its blocks' scales, `[blocks][16]`. */
export function chooseSteps(kind: u32, scales: usize, blocks: usize, panel: usize): void {
  const ratio = f32x4.splat(kind == Q8 ? Q8_RATIO : Q4_RATIO);
  for (let j: usize = 0; j < 64; j += 16) {
    let largest = zero();
    for (let i: usize = 0; i < blocks; i++) largest = f32x4.max(largest, v128.load(scales + i * 64 + j));
    v128.store(panel + j, f32x4.div(largest, ratio));
  }
}

/**
 * A block's ratios (and offsets) for scales (and minima). A scale that is a multiple of its column's step keeps its
 * codes; any other is rounded: up in 8 bits, so that the largest code still holds, to the nearest in 4.
 */
export function chooseRatios(
  kind: u32,
  panel: usize,
  scales: usize,
  minima: usize,
  block: usize,
): void {
  for (let j: usize = 0; j < 64; j += 16) {
    const step = v128.load(panel + j);
    const quotient = f32x4.div(v128.load(scales + j), step);
    let ratio = f32x4.nearest(quotient);
    if (kind == Q8) {
      const exact = f32x4.eq(f32x4.mul(ratio, step), v128.load(scales + j));
      ratio = v128.bitselect(ratio, f32x4.ceil(quotient), exact);
    }
    // A column of zeros has no step, and the quotient is NaN: max and min in this order turn that into 1.
    const most = f32x4.splat(kind == Q8 ? Q8_RATIO : Q4_RATIO);
    ratio = f32x4.pmin(most, f32x4.pmax(f32x4.splat(1.0), ratio));
    const whole = i32x4.trunc_sat_f32x4_s(ratio);
    const words = i16x8.narrow_i32x4_s(whole, whole);
    v128.store32_lane(block + j / 4, i8x16.narrow_i16x8_u(words, words), 0);
    if (kind == Q8) continue;
    const offset = f32x4.nearest(f32x4.div(f32x4.neg(v128.load(minima + j)), step));
    const least = f32x4.pmin(f32x4.mul(ratio, f32x4.splat(15.0)), f32x4.pmax(zero(), offset));
    const offsets = i32x4.trunc_sat_f32x4_s(least);
    v128.store64_lane(block + 16 + j / 2, i16x8.narrow_i32x4_s(offsets, offsets), 0);
  }
}

/** Four columns' ratios, from column j / 4. */
// @ts-ignore: decorator
@inline
export function ratiosAt(block: usize, j: usize): v128 {
  return i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(block + j / 4)));
}

/** Four columns' offsets; 0 in 8 bits. */
// @ts-ignore: decorator
@inline
export function offsetsAt(kind: u32, block: usize, j: usize): v128 {
  return kind == Q8 ? zero() : v128.load16x4_u(block + 16 + j / 2);
}

/** The code of four columns' weights `w`, under a block's ratios and offsets, as whole numbers. */
// @ts-ignore: decorator
@inline
function codesOf(kind: u32, w: v128, scale: v128, shift: v128): v128 {
  const code = f32x4.nearest(f32x4.div(f32x4.add(w, shift), scale));
  const whole = i32x4.trunc_sat_f32x4_s(code); // NaN, of 0 / 0, turns to 0
  if (kind == Q8) return i32x4.max_s(i32x4.min_s(whole, i32x4.splat(127)), i32x4.splat(-127));
  return i32x4.max_s(i32x4.min_s(whole, i32x4.splat(15)), zero());
}

/** Four rows' codes of four columns, a byte each, from `rows` rows on. */
// @ts-ignore: decorator
@inline
function quadOf(kind: u32, from: usize, rows: i32, scale: v128, shift: v128): v128 {
  let quad = zero();
  for (let i = 0; i < 4; i++) {
    if (i >= rows) break;
    const code = codesOf(kind, v128.load(from + i * 64), scale, shift);
    quad = v128.or(quad, i32x4.shl(v128.and(code, i32x4.splat(255)), i * 8));
  }
  return quad;
}

/** The codes of `rows` rows of 16 floats, under ratios that were chosen. */
export function encodeBlock(kind: u32, from: usize, rows: usize, panel: usize, block: usize): void {
  for (let j: usize = 0; j < 64; j += 16) {
    const step = v128.load(panel + j);
    const scale = f32x4.mul(step, f32x4.convert_i32x4_s(ratiosAt(block, j)));
    const shift = f32x4.mul(step, f32x4.convert_i32x4_s(offsetsAt(kind, block, j)));
    if (kind == Q8) {
      for (let k: usize = 0; k < GROUP; k += 4) {
        const quad = quadOf(kind, from + k * 64 + j, <i32> rows - <i32> k, scale, shift);
        v128.store(block + Q8_CODES + k * 16 + j, quad);
      }
    } else {
      for (let k: usize = 0; k < GROUP; k += 8) {
        const left = <i32> rows - <i32> k;
        const low = quadOf(kind, from + k * 64 + j, left, scale, shift);
        const high = quadOf(kind, from + k * 64 + 256 + j, left - 4, scale, shift);
        v128.store(block + Q4_CODES + k * 8 + j, v128.or(low, i32x4.shl(high, 4)));
      }
    }
  }
}

/** Four rows' codes (rows k … k + 3 of the block, a multiple of 4) of four columns, a byte each. */
// @ts-ignore: decorator
@inline
function quadAt(kind: u32, block: usize, k: usize, j: usize): v128 {
  if (kind == Q8) return v128.load(block + Q8_CODES + k * 16 + j);
  const both = v128.load(block + Q4_CODES + (k & ~7) * 8 + j);
  return v128.and(k & 4 ? i32x4.shr_u(both, 4) : both, i32x4.splat(0x0f0f0f0f));
}

/** Rows first … first + rows − 1 of a block, as rows of 16 floats. */
export function decodeBlock(
  kind: u32,
  panel: usize,
  block: usize,
  first: usize,
  rows: usize,
  to: usize,
): void {
  for (let j: usize = 0; j < 64; j += 16) {
    const step = v128.load(panel + j);
    const ratio = ratiosAt(block, j);
    const offset = offsetsAt(kind, block, j);
    for (let i: usize = 0; i < rows; i++) {
      const k = first + i;
      const quad = quadAt(kind, block, k & ~3, j);
      const code = i32x4.shr_s(i32x4.shl(quad, 24 - 8 * <i32> (k & 3)), 24);
      const whole = i32x4.sub(i32x4.mul(code, ratio), offset);
      v128.store(to + i * 64 + j, f32x4.mul(f32x4.convert_i32x4_s(whole), step));
    }
  }
}

/** Column c of a panel, K floats. */
export function decodeColumn(kind: u32, panel: usize, c: usize, K: usize, to: usize): void {
  const step = load<f32>(panel + c * 4);
  let block = panel + STEPS;
  for (let first: usize = 0; first < K; first += GROUP, block += blockBytes(kind)) {
    const ratio = <i32> load<u8>(block + c);
    const offset = kind == Q8 ? 0 : <i32> load<u16>(block + 16 + c * 2);
    const rows = min(GROUP, K - first);
    for (let k: usize = 0; k < rows; k++) {
      store<f32>(to + (first + k) * 4, <f32> (codeAt(kind, block, k, c) * ratio - offset) * step);
    }
  }
}

/** One code. */
// @ts-ignore: decorator
@inline
export function codeAt(kind: u32, block: usize, k: usize, c: usize): i32 {
  if (kind == Q8) return <i32> load<i8>(block + Q8_CODES + (k & ~3) * 16 + c * 4 + (k & 3));
  const both = <i32> load<u8>(block + Q4_CODES + (k & ~7) * 8 + c * 4 + (k & 3));
  return k & 4 ? both >> 4 : both & 15;
}

/** Blocks begin … end − 1 of the rows' largest |weight| / LARGEST, which lie behind the panels. */
export function measureRows(
  kind: u32,
  weight: usize,
  K: usize,
  N: usize,
  begin: usize,
  end: usize,
): void {
  const bytes = codesPanelBytes(kind, K);
  const panels = (N + 15) / 16;
  const largest = weight + panels * bytes;
  const most = <f32> 1 / LARGEST;
  for (let i = begin; i < end; i++) {
    const to = largest + i * GROUP * 4;
    memory.fill(to, 0, GROUP * 4);
    for (let p: usize = 0; p < panels; p++) {
      const panel = weight + p * bytes;
      const block = panel + STEPS + i * blockBytes(kind);
      for (let j: usize = 0; j < 64; j += 16) {
        const step = v128.load(panel + j);
        const ratio = ratiosAt(block, j);
        const offset = offsetsAt(kind, block, j);
        for (let k: usize = 0; k < GROUP; k += 4) {
          const quad = quadAt(kind, block, k, j);
          for (let r: usize = 0; r < 4; r++) {
            const code = i32x4.shr_s(i32x4.shl(quad, 24 - 8 * <i32> r), 24);
            const whole = i32x4.sub(i32x4.mul(code, ratio), offset);
            const w = f32x4.abs(f32x4.mul(f32x4.convert_i32x4_s(whole), step));
            const two = f32x4.max(w, v128.shuffle<i32>(w, w, 2, 3, 0, 1));
            const one = max<f32>(f32x4.extract_lane(two, 0), f32x4.extract_lane(two, 1));
            const at = to + (k + r) * 4;
            store<f32>(at, max<f32>(load<f32>(at), one));
          }
        }
      }
    }
    for (let k: usize = 0; k < GROUP; k++) store<f32>(to + k * 4, load<f32>(to + k * 4) * most);
  }
}

/** Multiplies 16 columns by their steps. */
// @ts-ignore: decorator
@inline
export function scaleColumns(strip: usize, rows: usize, steps: usize): void {
  const s0 = v128.load(steps), s1 = v128.load(steps, 16), s2 = v128.load(steps, 32), s3 = v128.load(steps, 48);
  for (let r: usize = 0; r < rows; r++, strip += 64) {
    v128.store(strip, f32x4.mul(v128.load(strip), s0));
    v128.store(strip, f32x4.mul(v128.load(strip, 16), s1), 16);
    v128.store(strip, f32x4.mul(v128.load(strip, 32), s2), 32);
    v128.store(strip, f32x4.mul(v128.load(strip, 48), s3), 48);
  }
}
