/**
 * Matrix products with 4-bit weights by products of bytes, for relaxed SIMD: a code of 4 bits times an activation of 8 is so small
 * that a group's pairs of sums hold in 16 bits. Codes are multiplied where they lie, without a slice. The same whole
 * numbers come out as of quantized.ts, and the same bits. (Gop/s on a Zen 4 core with 4, 16, 64 and 256 rows:
 * 97, 98, 98 and 97; by 16-bit products out of slices 39, 62, 73 and 75.)
 */
import { blockBytes, codesPanelBytes, GROUP, Q4_CODES, scaleColumns, STEPS } from "./codes";
import { Q4 } from "./formats";
import { finish } from "./matmul";
import {
  BLOCK,
  blocksOf,
  bytesOf,
  bytesOfFour,
  constant,
  factorOf,
  factorsOf,
  groupsOf,
  largest,
  largestOfFour,
  padded,
  ROWS,
  rowsPadded,
} from "./rounding";
import { fma, lane0, lane1, lane2, lane3, pairs, zero } from "./simd";

/** The largest activation. */
const MOST: f32 = 127;

/** Bytes of (M, K) activations as bytes, with their scales and sums. */
export function nibbleBytes(M: usize, K: usize): usize {
  return rowsPadded(M) * (padded(K) + blocksOf(K) * 4 + groupsOf(K) * 4);
}

/**
 * Rows begin … end − 1 (begin a multiple of 4) of (M, K) activations: bytes `[M/4][K/4][4][4]`, rows and columns filled with
 * zeros; then `[M/4][blocks][4]` scales; then `[M/4][groups][4]` sums.
 */
export function nibbleRows(a: usize, M: usize, K: usize, to: usize, begin: usize, end: usize): void {
  const blocks = blocksOf(K), groups = groupsOf(K);
  const scales = to + rowsPadded(M) * padded(K);
  const sums = scales + rowsPadded(M) * blocks * 4;
  for (let i = begin; i < end; i += ROWS) {
    const rows = min(ROWS, M - i);
    for (let b: usize = 0; b < blocks; b++) {
      const k0 = b * BLOCK;
      const count = min(BLOCK, K - k0);
      const from = a + (i * K + k0) * 4;
      const ranges = largestOfFour(from, K * 4, rows, count);
      v128.store(scales + (i * blocks + b * ROWS) * 4, f32x4.div(ranges, f32x4.splat(MOST)));
      const factors = factorsOf(ranges, MOST);
      for (let g: usize = 0; g < count; g += GROUP) {
        const to4 = to + i * padded(K) + (k0 + g) * ROWS;
        const sum = bytesOfFour(from + g * 4, K * 4, rows, min(GROUP, count - g), factors, zero(), to4);
        v128.store(sums + (i * groups + (k0 + g) / GROUP * ROWS) * 4, sum);
      }
    }
  }
}

/** How many rows a call of {@linkcode matmulNibbles} takes at once: their sums fit a cache. */
export function nibbleHeight(M: usize): usize {
  return min<usize>(256, rowsPadded(M));
}

/** Bytes of scratch that a call of {@linkcode matmulNibbles} needs: sums, and a block's of a tile. */
export function nibbleScratch(M: usize): usize {
  return nibbleHeight(M) * 64 + 128;
}

/**
 * out (M, N) = activation(alpha · a (M, K) · b (K, N) + bias) + residual, as {@linkcode matmul} has it.
 *
 * @param a As {@linkcode nibbleRows} leaves it.
 * @param b Packed in 4 bits.
 * @param rowBegin First row of out to compute; a multiple of 4.
 */
export function matmulNibbles(
  a: usize,
  b: usize,
  out: usize,
  M: usize,
  N: usize,
  K: usize,
  alpha: f32,
  flags: u32,
  bias: usize,
  residual: usize,
  scratch: usize,
  rowBegin: usize,
  rowEnd: usize,
  panelBegin: usize,
  panelEnd: usize,
): void {
  const blocks = blocksOf(K), groups = groupsOf(K);
  const scales = a + rowsPadded(M) * padded(K);
  const sums = scales + rowsPadded(M) * blocks * 4;
  const bytes = codesPanelBytes(Q4, K);
  const height = nibbleHeight(M);
  const strip = scratch + 128;
  for (let i = rowBegin; i < rowEnd; i += height) {
    const rows = min(height, rowEnd - i);
    for (let panel = panelBegin; panel < panelEnd; panel++) {
      memory.fill(strip, 0, rowsPadded(rows) * 64);
      for (let r: usize = 0; r < rows; r += ROWS) {
        const x = a + (i + r) * padded(K);
        const scale = scales + (i + r) * blocks * 4, sum = sums + (i + r) * groups * 4;
        for (let h: usize = 0; h < 2; h++) {
          tile(x, b + panel * bytes + STEPS, h, groups, scale, sum, scratch, strip + r * 64 + h * 32);
        }
      }
      scaleColumns(strip, rows, b + panel * bytes);
      finish(strip, i, rows, panel, N, out, alpha, flags, bias, residual);
    }
  }
}

/** c + two products of bytes a lane of 16 bits; those of `w` have 7 bits. */
// @ts-ignore: decorator
@inline
function dot8(c: v128, x: v128, w: v128): v128 {
  return i16x8.add(c, pairs(x, w));
}

/** y + four columns' pairs of sums times their ratios − Σ x times their offsets; ratios lie twice, offsets alone in 32 bits. */
// @ts-ignore: decorator
@inline
function scaled4(y: v128, pairs: v128, ratios: v128, offsets: v128, sum: v128): v128 {
  return i32x4.sub(i32x4.add(y, i32x4.dot_i16x8_s(pairs, ratios)), i32x4.dot_i16x8_s(offsets, sum));
}

// Rows in fours

/** Adds a row's eight sums of a group to those of its block. */
// @ts-ignore: decorator
@inline
function addGroup(
  low: v128,
  high: v128,
  r0: v128,
  r1: v128,
  o0: v128,
  o1: v128,
  sum: v128,
  to: usize,
): void {
  v128.store(to, scaled4(v128.load(to), low, r0, o0, sum));
  v128.store(to + 16, scaled4(v128.load(to + 16), high, r1, o1, sum));
}

/**
 * Adds four rows' products with eight columns to what `out` holds, block by block.
 *
 * @param block The first of a panel's groups.
 * @param h Which half of its columns.
 * @param scales A block's, of four rows, then the next one's; `sums` likewise of groups.
 * @param whole For a block's sums, (4, 8).
 * @param out Rows of eight floats, 64 bytes apart.
 */
function tile(
  x: usize,
  block: usize,
  h: usize,
  groups: usize,
  scales: usize,
  sums: usize,
  whole: usize,
  out: usize,
): void {
  const mask = constant(0);
  const end = sums + groups * 16;
  while (sums < end) {
    const blockEnd = min(end, sums + BLOCK / GROUP * 16);
    for (let p = whole, last = whole + 128; p < last; p += 16) v128.store(p, zero());
    for (; sums < blockEnd; sums += 16, block += blockBytes(Q4)) {
      let a0 = zero(), a1 = zero(), b0 = zero(), b1 = zero(), c0 = zero(), c1 = zero(), d0 = zero(), d1 = zero();
      let p = block + Q4_CODES + h * 32;
      for (const last = p + 256; p < last; p += 64, x += 32) {
        const codes0 = v128.load(p), codes1 = v128.load(p + 16);
        let u = v128.and(codes0, mask), v = v128.and(codes1, mask);
        let rows = v128.load(x);
        let s = lane0(rows);
        a0 = dot8(a0, s, u), a1 = dot8(a1, s, v);
        s = lane1(rows);
        b0 = dot8(b0, s, u), b1 = dot8(b1, s, v);
        s = lane2(rows);
        c0 = dot8(c0, s, u), c1 = dot8(c1, s, v);
        s = lane3(rows);
        d0 = dot8(d0, s, u), d1 = dot8(d1, s, v);
        u = v128.and(i16x8.shr_u(codes0, 4), mask), v = v128.and(i16x8.shr_u(codes1, 4), mask);
        rows = v128.load(x + 16);
        s = lane0(rows);
        a0 = dot8(a0, s, u), a1 = dot8(a1, s, v);
        s = lane1(rows);
        b0 = dot8(b0, s, u), b1 = dot8(b1, s, v);
        s = lane2(rows);
        c0 = dot8(c0, s, u), c1 = dot8(c1, s, v);
        s = lane3(rows);
        d0 = dot8(d0, s, u), d1 = dot8(d1, s, v);
      }
      const ratios = v128.load8x8_u(block + h * 8), offsets = v128.load(block + 16 + h * 16);
      const r0 = v128.shuffle<i16>(ratios, ratios, 0, 0, 1, 1, 2, 2, 3, 3);
      const r1 = v128.shuffle<i16>(ratios, ratios, 4, 4, 5, 5, 6, 6, 7, 7);
      const o0 = i32x4.extend_low_i16x8_u(offsets), o1 = i32x4.extend_high_i16x8_u(offsets);
      const sum = v128.load(sums);
      addGroup(a0, a1, r0, r1, o0, o1, lane0(sum), whole);
      addGroup(b0, b1, r0, r1, o0, o1, lane1(sum), whole + 32);
      addGroup(c0, c1, r0, r1, o0, o1, lane2(sum), whole + 64);
      addGroup(d0, d1, r0, r1, o0, o1, lane3(sum), whole + 96);
    }
    const scale = v128.load(scales);
    addBlock(whole, lane0(scale), out);
    addBlock(whole + 32, lane1(scale), out + 64);
    addBlock(whole + 64, lane2(scale), out + 128);
    addBlock(whole + 96, lane3(scale), out + 192);
    scales += 16;
  }
}

/** Adds a row's eight sums of a block, times its scale, to floats. */
// @ts-ignore: decorator
@inline
function addBlock(whole: usize, scale: v128, out: usize): void {
  v128.store(out, fma(f32x4.convert_i32x4_s(v128.load(whole)), scale, v128.load(out)));
  v128.store(out + 16, fma(f32x4.convert_i32x4_s(v128.load(whole + 16)), scale, v128.load(out + 16)));
}

// A single row

/** One row of K activations: `[K]` bytes, filled with zeros, its blocks' scales, its groups' sums. */
export function nibbleRow(a: usize, K: usize, to: usize): void {
  const scales = to + padded(K);
  const sums = scales + blocksOf(K) * 4;
  for (let b: usize = 0; b < blocksOf(K); b++) {
    const k0 = b * BLOCK;
    const count = min(BLOCK, K - k0);
    const range = largest(a + k0 * 4, count);
    store<f32>(scales + b * 4, range / MOST);
    const factor = factorOf(range, MOST);
    for (let g = k0, end = k0 + count; g < end; g += GROUP) {
      store<i32>(sums + g / GROUP * 4, bytesOf(a + g * 4, min(GROUP, end - g), factor, zero(), to + g));
    }
  }
}

/**
 * Panels of out (M, N) = activation(alpha · a (M, K) · b (K, N) + bias) + residual, a row at a time, reading each as one stream.
 *
 * @param a Rows as {@linkcode nibbleRow} leaves them, `step` bytes apart.
 */
export function rowNibbles(
  a: usize,
  step: usize,
  b: usize,
  out: usize,
  M: usize,
  N: usize,
  K: usize,
  alpha: f32,
  flags: u32,
  bias: usize,
  residual: usize,
  scratch: usize,
  panelBegin: usize,
  panelEnd: usize,
): void {
  for (let panel = panelBegin; panel < panelEnd; panel++) {
    const steps = b + panel * codesPanelBytes(Q4, K);
    for (let m: usize = 0, x = a; m < M; m++, x += step) {
      panelOfRow(x, steps, K, scratch);
      finish(scratch, m, 1, panel, N, out, alpha, flags, bias, residual);
    }
  }
}

/** A row's products with a panel, sixteen numbers. */
function panelOfRow(a: usize, steps: usize, K: usize, to: usize): void {
  const groups = groupsOf(K);
  const scales = a + padded(K);
  const sums = scales + blocksOf(K) * 4;
  let block = steps + STEPS;
  let y0 = zero(), y1 = zero(), y2 = zero(), y3 = zero();
  for (let g: usize = 0; g < groups;) {
    const last = min(groups, g + BLOCK / GROUP);
    const s = v128.load32_splat(scales + (g / (BLOCK / GROUP)) * 4);
    blockOfNibbles(a + g * GROUP, sums + g * 4, last - g, block, to);
    block += (last - g) * blockBytes(Q4), g = last;
    y0 = fma(f32x4.convert_i32x4_s(v128.load(to)), s, y0);
    y1 = fma(f32x4.convert_i32x4_s(v128.load(to, 16)), s, y1);
    y2 = fma(f32x4.convert_i32x4_s(v128.load(to, 32)), s, y2);
    y3 = fma(f32x4.convert_i32x4_s(v128.load(to, 48)), s, y3);
  }
  v128.store(to, y0), v128.store(to, y1, 16);
  v128.store(to, y2, 32), v128.store(to, y3, 48);
  scaleColumns(to, 1, steps);
}

/** c + the products of eight rows: four rows' codes are the lower halves of bytes, the next four's the upper ones. */
// @ts-ignore: decorator
@inline
function eightRows(c: v128, codes: v128, x: v128, next: v128, mask: v128): v128 {
  return dot8(dot8(c, x, v128.and(codes, mask)), next, v128.and(i16x8.shr_u(codes, 4), mask));
}

/**
 * A panel's sums over a block of groups, all sixteen columns at once, for what spreads the
 * activations counts.
 *
 * @param x The activations as bytes.
 * @param sums Each group's Σ x.
 */
function blockOfNibbles(x: usize, sums: usize, groups: usize, block: usize, to: usize): void {
  let y0 = zero(), y1 = zero(), y2 = zero(), y3 = zero();
  const mask = constant(0);
  for (const end = sums + groups * 4; sums < end; sums += 4, block += blockBytes(Q4)) {
    let a = zero(), b = zero(), c = zero(), d = zero();
    let p = block + Q4_CODES;
    for (const last = p + 256; p < last; p += 128, x += 16) {
      // One load, for V8 checks every one's bounds.
      const rows = v128.load(x);
      let s = lane0(rows), t = lane1(rows);
      a = eightRows(a, v128.load(p), s, t, mask);
      b = eightRows(b, v128.load(p, 16), s, t, mask);
      c = eightRows(c, v128.load(p, 32), s, t, mask);
      d = eightRows(d, v128.load(p, 48), s, t, mask);
      s = lane2(rows), t = lane3(rows);
      a = eightRows(a, v128.load(p, 64), s, t, mask);
      b = eightRows(b, v128.load(p, 80), s, t, mask);
      c = eightRows(c, v128.load(p, 96), s, t, mask);
      d = eightRows(d, v128.load(p, 112), s, t, mask);
    }
    const sum = v128.load32_splat(sums);
    const ratios = v128.load(block);
    const r0 = i16x8.extend_low_i8x16_u(ratios), r1 = i16x8.extend_high_i8x16_u(ratios);
    const o0 = v128.load(block, 16), o1 = v128.load(block, 32);
    y0 = scaled4(y0, a, v128.shuffle<i16>(r0, r0, 0, 0, 1, 1, 2, 2, 3, 3), i32x4.extend_low_i16x8_u(o0), sum);
    y1 = scaled4(y1, b, v128.shuffle<i16>(r0, r0, 4, 4, 5, 5, 6, 6, 7, 7), i32x4.extend_high_i16x8_u(o0), sum);
    y2 = scaled4(y2, c, v128.shuffle<i16>(r1, r1, 0, 0, 1, 1, 2, 2, 3, 3), i32x4.extend_low_i16x8_u(o1), sum);
    y3 = scaled4(y3, d, v128.shuffle<i16>(r1, r1, 4, 4, 5, 5, 6, 6, 7, 7), i32x4.extend_high_i16x8_u(o1), sum);
  }
  v128.store(to, y0), v128.store(to, y1, 16), v128.store(to, y2, 32), v128.store(to, y3, 48);
}
