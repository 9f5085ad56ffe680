/**
 * Activations as whole numbers, for the products with 8- and 4-bit weights: what 16-bit products (quantized.ts) and products of
 * bytes (nibbles.ts, dots.ts) share. Rows come in fours, columns are filled up to groups of 32.
 */
import { GROUP } from "./codes";
import { lane0, lane1, lane2, lane3, zero } from "./simd";

/** Columns that share a scale, where not each group has its own. */
// @ts-ignore: decorator
@inline
export const BLOCK: usize = 256;
/** Rows that lie together. */
// @ts-ignore: decorator
@inline
export const ROWS: usize = 4;

/**
 * As in `math.ts`, constants of loops come from memory. 0: the low halves of bytes; 1: the low half of a word; 2: 1.5 · 2²³,
 * which rounds a float that it is added to, to a whole number in its lowest bits; 3, 4: half a byte, a byte of a half word; 5, 6:
 * ones of 16 and of 8 bits.
 */
const CONSTANTS: usize = memory.data<u32>([0x0f0f0f0f, 0xffff, 0x4b400000, 0x000f000f, 0x00ff00ff, 0x00010001, 0x01010101]);

// @ts-ignore: decorator
@inline
export function constant(i: usize): v128 {
  return v128.load32_splat(CONSTANTS + i * 4);
}

// @ts-ignore: decorator
@inline
export function rowsPadded(M: usize): usize {
  return (M + ROWS - 1) & ~(ROWS - 1);
}

// @ts-ignore: decorator
@inline
export function padded(K: usize): usize {
  return (K + GROUP - 1) & ~(GROUP - 1);
}

// @ts-ignore: decorator
@inline
export function blocksOf(K: usize): usize {
  return (K + BLOCK - 1) / BLOCK;
}

// @ts-ignore: decorator
@inline
export function groupsOf(K: usize): usize {
  return padded(K) / GROUP;
}

/** Four numbers times a factor as whole numbers. */
// @ts-ignore: decorator
@inline
export function rounded(p: usize, count: usize, factor: v128, round: v128): v128 {
  let x = v128.load(p);
  if (count < 4) {
    x = v128.load32_zero(p);
    if (count > 1) x = v128.load32_lane(p, x, 1, 4);
    if (count > 2) x = v128.load32_lane(p, x, 2, 8);
  }
  return whole(x, factor, round);
}

// @ts-ignore: decorator
@inline
function whole(x: v128, factor: v128, round: v128): v128 {
  return i32x4.sub(f32x4.add(f32x4.mul(x, factor), round), round);
}

/** The larger of |x| and what came before: as whole numbers, for so NaN is the largest, in two instructions and not eight. */
// @ts-ignore: decorator
@inline
function larger(before: v128, x: v128): v128 {
  return i32x4.max_s(before, v128.and(x, i32x4.splat(0x7fffffff)));
}

/** The largest |x| of `count` numbers; NaN if one is. */
export function largest(x: usize, count: usize): f32 {
  let most = zero();
  let i: usize = 0;
  for (; i + 4 <= count; i += 4) most = larger(most, v128.load(x + i * 4));
  for (; i < count; i++) most = larger(most, v128.load32_zero(x + i * 4));
  const two = i32x4.max_s(most, v128.shuffle<i32>(most, most, 2, 3, 0, 1));
  return reinterpret<f32>(max<i32>(i32x4.extract_lane(two, 0), i32x4.extract_lane(two, 1)));
}

/** What a block's numbers are multiplied by to be at most `most`; 0 where all are 0, or so small that they may pass for it. */
// @ts-ignore: decorator
@inline
export function factorOf(largest: f32, most: f32): f32 {
  return largest > 1e-30 ? most / largest : 0;
}

/** Neighbouring lanes' sums: four columns' out of two vectors that hold two of each. */
// @ts-ignore: decorator
@inline
export function folded(low: v128, high: v128): v128 {
  return i32x4.add(v128.shuffle<i32>(low, high, 0, 2, 4, 6), v128.shuffle<i32>(low, high, 1, 3, 5, 7));
}

// As bytes

/** A group's `count` numbers times a factor as bytes, filled up with zeros, all plus a bias; returns their sum without it. */
export function bytesOf(from: usize, count: usize, factor: f32, bias: v128, to: usize): i32 {
  const round = constant(2), F = f32x4.splat(factor);
  let sum = zero();
  let k: usize = 0;
  for (; k < count; k += 4) {
    const x = rounded(from + k * 4, count - k, F, round);
    sum = i32x4.add(sum, x);
    const words = i16x8.narrow_i32x4_s(x, x);
    v128.store32_lane(to + k, i8x16.add(i8x16.narrow_i16x8_s(words, words), bias), 0);
  }
  for (; k < GROUP; k += 4) v128.store32_lane(to + k, bias, 0);
  sum = folded(sum, sum);
  return i32x4.extract_lane(sum, 0) + i32x4.extract_lane(sum, 1);
}

/** The largest |x| of `count` numbers of each of four rows, `step` bytes apart; 0 of rows that are not there. */
export function largestOfFour(from: usize, step: usize, rows: usize, count: usize): v128 {
  if (rows == ROWS && count % 4 == 0) {
    let p0 = from, p1 = from + step, p2 = from + 2 * step, p3 = from + 3 * step;
    let m0 = zero(), m1 = zero(), m2 = zero(), m3 = zero();
    for (const end = from + count * 4; p0 < end; p0 += 16, p1 += 16, p2 += 16, p3 += 16) {
      m0 = larger(m0, v128.load(p0)), m1 = larger(m1, v128.load(p1));
      m2 = larger(m2, v128.load(p2)), m3 = larger(m3, v128.load(p3));
    }
    return largerOfNeighbours(largerOfNeighbours(m0, m1), largerOfNeighbours(m2, m3));
  }
  let all = f32x4.replace_lane(zero(), 0, largest(from, count));
  if (rows > 1) all = f32x4.replace_lane(all, 1, largest(from + step, count));
  if (rows > 2) all = f32x4.replace_lane(all, 2, largest(from + 2 * step, count));
  if (rows > 3) all = f32x4.replace_lane(all, 3, largest(from + 3 * step, count));
  return all;
}

/** Neighbouring lanes' larger numbers. */
// @ts-ignore: decorator
@inline
function largerOfNeighbours(low: v128, high: v128): v128 {
  return i32x4.max_s(v128.shuffle<i32>(low, high, 0, 2, 4, 6), v128.shuffle<i32>(low, high, 1, 3, 5, 7));
}

/** {@linkcode factorOf} of four. */
export function factorsOf(largest: v128, most: f32): v128 {
  const enough = f32x4.gt(largest, f32x4.splat(1e-30));
  return v128.and(f32x4.div(f32x4.splat(most), largest), enough);
}

/**
 * {@linkcode bytesOf} of four rows, `step` bytes apart, four columns after four: `[8][4][4]`; returns each row's sum. Rows
 * that are not there are read as the first, and are zeros and the bias: their factor is 0.
 */
export function bytesOfFour(from: usize, step: usize, rows: usize, count: usize, factors: v128, bias: v128, to: usize): v128 {
  const round = constant(2);
  const p1 = rows > 1 ? from + step : from;
  const p2 = rows > 2 ? from + 2 * step : from;
  const p3 = rows > 3 ? from + 3 * step : from;
  const F0 = lane0(factors), F1 = lane1(factors), F2 = lane2(factors), F3 = lane3(factors);
  let s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
  let k: usize = 0;
  for (; k + 4 <= count; k += 4) {
    const at = k * 4;
    const x0 = whole(v128.load(from + at), F0, round), x1 = whole(v128.load(p1 + at), F1, round);
    const x2 = whole(v128.load(p2 + at), F2, round), x3 = whole(v128.load(p3 + at), F3, round);
    s0 = i32x4.add(s0, x0), s1 = i32x4.add(s1, x1), s2 = i32x4.add(s2, x2), s3 = i32x4.add(s3, x3);
    const bytes = i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(x0, x1), i16x8.narrow_i32x4_s(x2, x3));
    v128.store(to + at, i8x16.add(bytes, bias));
  }
  for (; k < count; k += 4) {
    const at = k * 4, n = count - k;
    const x0 = rounded(from + at, n, F0, round), x1 = rounded(p1 + at, n, F1, round);
    const x2 = rounded(p2 + at, n, F2, round), x3 = rounded(p3 + at, n, F3, round);
    s0 = i32x4.add(s0, x0), s1 = i32x4.add(s1, x1), s2 = i32x4.add(s2, x2), s3 = i32x4.add(s3, x3);
    const bytes = i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(x0, x1), i16x8.narrow_i32x4_s(x2, x3));
    v128.store(to + at, i8x16.add(bytes, bias));
  }
  for (; k < GROUP; k += 4) v128.store(to + k * 4, bias);
  return folded(folded(s0, s1), folded(s2, s3));
}
