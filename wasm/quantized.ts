/**
 * Matrix products with 8- and 4-bit weights, in whole numbers.
 *
 * Activations are rounded to whole numbers of 12 bits (of 8 where 4-bit weights are applied, which nibbles.ts does faster),
 * a scale for each row and block of 256 columns; weights are whole numbers of 13 bits times a step a column (codes.ts).
 * Products of the two add up exactly in 32 bits over such a block, so a row's result has the same bits in whatever tile,
 * batch or thread; blocks add up in floats, in order.
 *
 * 8-bit weights come here in the strict build, and where more than eight bits of activations are asked for: products of bytes
 * (dots.ts) are faster and leave activations 7 or 8 bits. Measured on nano, a trained model: perplexity 0.05 % above
 * floats' here, 0.08 % with 8 bits in groups of 32, 0.20 % with 7. Bare tiles of 4 × 8 here do 79 Gop/s on a Zen 4 core;
 * in floats 48.
 *
 * A product with the transpose (LoRA's backward pass) sums over the columns, whose steps differ: its weights are
 * rounded anew to 13 bits, by a step for each row, slice by slice.
 */
import { blockBytes, codesPanelBytes, GROUP, Q4_CODES, Q8_CODES, ratiosAt, scaleColumns, STEPS } from "./codes";
import { Q4, Q8 } from "./formats";
import { finish, WIDE } from "./matmul";
import {
  BLOCK,
  blocksOf,
  constant,
  factorOf,
  folded,
  groupsOf,
  largest,
  padded,
  rounded,
  ROWS,
  rowsPadded,
} from "./rounding";
import { fma, zero } from "./simd";
import { dot, tileRounded, tileRoundedWide } from "./tile_rounded";
import { PANEL } from "./weights";

/**
 * The largest activation. With weights of at most 4064, 256 products of 12 bits stay below 2³¹. Forward, 4-bit weights meet
 * 8 bits, as llama.cpp's do: 16 levels of a weight err by far more, and half of the products of a row are saved.
 */
// @ts-ignore: decorator
@inline
function mostOf(kind: u32, transposed: bool): f32 {
  return kind == Q4 && !transposed ? 127 : 2047;
}
/** Bytes of (M, K) activations as whole numbers. */
export function activationBytes(M: usize, K: usize): usize {
  return rowsPadded(M) * (padded(K) * 2 + blocksOf(K) * 4);
}

/**
 * Rows begin … end − 1 (begin a multiple of 4) of (M, K) activations as whole numbers: `[M/4][K/2][4][2]`, rows and
 * columns filled with zeros, then each row's scales.
 */
export function roundRows(
  a: usize,
  kind: u32,
  transposed: bool,
  M: usize,
  K: usize,
  to: usize,
  begin: usize,
  end: usize,
): void {
  const most = mostOf(kind, transposed);
  const depth = padded(K);
  const blocks = blocksOf(K);
  const scales = to + rowsPadded(M) * depth * 2;
  const round = constant(2);
  for (let i = begin; i < end; i += ROWS) {
    const rows = min(ROWS, M - i);
    const x = a + i * K * 4;
    for (let b: usize = 0; b < blocks; b++) {
      const k0 = b * BLOCK;
      const count = min(BLOCK, K - k0);
      let f0: f32 = 0, f1: f32 = 0, f2: f32 = 0, f3: f32 = 0;
      for (let r: usize = 0; r < ROWS; r++) {
        const range: f32 = r < rows ? largest(x + (r * K + k0) * 4, count) : 0;
        store<f32>(scales + ((i + r) * blocks + b) * 4, range / most);
        const factor = factorOf(range, most);
        if (r == 0) f0 = factor;
        else if (r == 1) f1 = factor;
        else if (r == 2) f2 = factor;
        else f3 = factor;
      }
      const F0 = f32x4.splat(f0), F1 = f32x4.splat(f1), F2 = f32x4.splat(f2), F3 = f32x4.splat(f3);
      // Rows that are not there are read as the first, and are zeros: their factor is 0.
      const p0 = x + k0 * 4;
      const p1 = rows > 1 ? p0 + K * 4 : p0;
      const p2 = rows > 2 ? p0 + K * 8 : p0;
      const p3 = rows > 3 ? p0 + K * 12 : p0;
      let place = to + (i * depth + k0 * ROWS) * 2;
      for (let k: usize = 0; k < count; k += 4, place += 32) {
        const n = count - k;
        const u = i16x8.narrow_i32x4_s(rounded(p0 + k * 4, n, F0, round), rounded(p1 + k * 4, n, F1, round));
        const v = i16x8.narrow_i32x4_s(rounded(p2 + k * 4, n, F2, round), rounded(p3 + k * 4, n, F3, round));
        v128.store(place, v128.shuffle<i32>(u, v, 0, 2, 4, 6));
        v128.store(place, v128.shuffle<i32>(u, v, 1, 3, 5, 7), 16);
      }
    }
    const used = (K + 3) & ~3;
    memory.fill(to + (i * depth + used * ROWS) * 2, 0, (depth - used) * ROWS * 2);
  }
}

/** One row of K activations as whole numbers for 8-bit weights: `[K]`, filled with zeros, then its scales. */
export function roundRow(a: usize, K: usize, to: usize): void {
  const most = mostOf(Q8, false);
  const depth = padded(K);
  const blocks = blocksOf(K);
  const scales = to + depth * 2;
  const round = constant(2);
  for (let b: usize = 0; b < blocks; b++) {
    const k0 = b * BLOCK;
    const count = min(BLOCK, K - k0);
    const range = largest(a + k0 * 4, count);
    store<f32>(scales + b * 4, range / most);
    const factor = f32x4.splat(factorOf(range, most));
    for (let k: usize = 0; k < count; k += 4) {
      const x = rounded(a + (k0 + k) * 4, count - k, factor, round);
      v128.store64_lane(to + (k0 + k) * 2, i16x8.narrow_i32x4_s(x, x), 0);
    }
  }
  const used = (K + 3) & ~3;
  memory.fill(to + used * 2, 0, (depth - used) * 2);
}

/** How many rows a call of {@linkcode matmulRounded} takes at once: a block of their activations fits a cache. */
export function roundedRows(M: usize): usize {
  return min<usize>(256, rowsPadded(M));
}

/** So few rows are multiplied panel by panel: all of their activations fit a cache, and weights are read in one stream. */
// @ts-ignore: decorator
@inline
const FEW: usize = 64;

/**
 * How many panels' sums wait for the next block: a quarter of a megabyte; of few rows none do. (All products of a 124M with
 * two rows: 18 instead of 28 ms, with sixteen 36 instead of 39, on two Zen 4 cores.)
 */
function groupPanels(height: usize): usize {
  return height <= FEW ? 1 : 262144 / (height * 64);
}

/** Bytes of scratch that a call of {@linkcode matmulRounded} needs. */
export function roundedScratch(M: usize, N: usize): usize {
  const height = roundedRows(M);
  return BLOCK * PANEL * 2 + 1152 + min((N + PANEL - 1) / PANEL, groupPanels(height)) * height * 64;
}

/**
 * out (M, N) = activation(alpha · a (M, K) · b (K, N) + bias) + residual, as {@linkcode matmul} has it.
 *
 * @param a As {@linkcode roundRows} leaves it.
 * @param b Packed; `transposed`: as (N, K), summed over its columns, its rows measured.
 * @param rowBegin First row of out to compute; a multiple of 4.
 */
export function matmulRounded(
  a: usize,
  b: usize,
  kind: u32,
  transposed: bool,
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
  const slice = scratch;
  const factors = slice + BLOCK * PANEL * 2;
  const strips = factors + 1152;
  const depth = padded(K);
  const blocks = blocksOf(K);
  const scales = a + rowsPadded(M) * depth * 2;
  const height = roundedRows(M);
  const group = groupPanels(height);
  // Of the packed matrix, which the transposed product sees from its other side.
  const bytes = codesPanelBytes(kind, transposed ? N : K);
  const rowSteps = transposed ? b + ((K + PANEL - 1) / PANEL) * bytes : 0;
  for (let i = rowBegin; i < rowEnd; i += height) {
    const rows = min(height, rowEnd - i);
    for (let first = panelBegin; first < panelEnd; first += group) {
      const last = min(panelEnd, first + group);
      for (let block: usize = 0; block < blocks; block++) {
        const k = block * BLOCK;
        const count = min(BLOCK, K - k);
        const half = ((count + 15) & ~15) * PANEL;
        for (let panel = first; panel < last; panel++) {
          if (transposed) sliceTransposed(b, kind, bytes, rowSteps, panel, k, count, slice, factors);
          else sliceBlocks(b + panel * bytes, kind, k, count, slice);
          const strip = strips + (panel - first) * height * 64;
          for (let r: usize = 0; r < rows; r += ROWS) {
            const x = a + ((i + r) * depth + k * ROWS) * 2;
            const s = scales + ((i + r) * blocks + block) * 4;
            const sums = strip + r * 64;
            const pairs = (count + 1) / 2;
            if (flags & WIDE) {
              tileRoundedWide(x, slice, slice + half, pairs, s, blocks * 4, sums, block == 0);
            } else {
              tileRounded(x, slice, pairs, s, blocks * 4, sums, block == 0);
              tileRounded(x, slice + half, pairs, s, blocks * 4, sums + 32, block == 0);
            }
          }
        }
      }
      for (let panel = first; panel < last; panel++) {
        const strip = strips + (panel - first) * height * 64;
        scaleColumns(strip, rows, transposed ? rowSteps + panel * 64 : b + panel * bytes);
        finish(strip, i, rows, panel, N, out, alpha, flags, bias, residual);
      }
    }
  }
}

/** Four columns by four rows of bytes as 16-bit numbers: two columns of four rows in each of two vectors. */
// @ts-ignore: decorator
@inline
function storePairs(low: v128, high: v128, to: usize): void {
  v128.store(to, v128.shuffle<i32>(low, high, 0, 2, 4, 6));
  v128.store(to, v128.shuffle<i32>(low, high, 1, 3, 5, 7), 32);
}

/** Numbers of two columns, each four times over: columns 2i and 2i + 1 of eight. */
// @ts-ignore: decorator
@inline
function twice01(x: v128): v128 {
  return v128.shuffle<i16>(x, x, 0, 0, 0, 0, 1, 1, 1, 1);
}
// @ts-ignore: decorator
@inline
function twice23(x: v128): v128 {
  return v128.shuffle<i16>(x, x, 2, 2, 2, 2, 3, 3, 3, 3);
}
// @ts-ignore: decorator
@inline
function twice45(x: v128): v128 {
  return v128.shuffle<i16>(x, x, 4, 4, 4, 4, 5, 5, 5, 5);
}
// @ts-ignore: decorator
@inline
function twice67(x: v128): v128 {
  return v128.shuffle<i16>(x, x, 6, 6, 6, 6, 7, 7, 7, 7);
}

/**
 * Rows k … k + count − 1 (k a multiple of 256) of a panel as whole numbers, `[2][count/2][8][2]`: of each half of its
 * columns pairs of rows.
 */
function sliceBlocks(panel: usize, kind: u32, k: usize, count: usize, slice: usize): void {
  const half = ((count + 15) & ~15) * PANEL;
  let block = panel + STEPS + (k / GROUP) * blockBytes(kind);
  for (let i: usize = 0; i < count; i += GROUP, block += blockBytes(kind)) {
    const quads = (min(GROUP, count - i) + 3) / 4;
    for (let h: usize = 0; h < 2; h++) {
      const ratios = v128.load8x8_u(block + h * 8);
      const r0 = twice01(ratios), r1 = twice23(ratios), r2 = twice45(ratios), r3 = twice67(ratios);
      let to = slice + h * half + i * PANEL;
      if (kind == Q8) {
        let from = block + Q8_CODES + h * 32;
        for (let quad: usize = 0; quad < quads; quad++, from += 64, to += 64) {
          const u = v128.load(from), v = v128.load(from, 16);
          storePairs(
            i16x8.mul(i16x8.extend_low_i8x16_s(u), r0),
            i16x8.mul(i16x8.extend_high_i8x16_s(u), r1),
            to,
          );
          storePairs(
            i16x8.mul(i16x8.extend_low_i8x16_s(v), r2),
            i16x8.mul(i16x8.extend_high_i8x16_s(v), r3),
            to + 16,
          );
        }
      } else {
        const offsets = v128.load(block + 16 + h * 16);
        const o0 = twice01(offsets), o1 = twice23(offsets), o2 = twice45(offsets), o3 = twice67(offsets);
        for (let quad: usize = 0; quad < quads; quad++, to += 64) {
          const from = block + Q4_CODES + (quad / 2) * 64 + h * 32;
          let u = v128.load(from), v = v128.load(from, 16);
          if (quad & 1) u = i32x4.shr_u(u, 4), v = i32x4.shr_u(v, 4);
          const mask = constant(0);
          u = v128.and(u, mask), v = v128.and(v, mask);
          storePairs(
            i16x8.sub(i16x8.mul(i16x8.extend_low_i8x16_u(u), r0), o0),
            i16x8.sub(i16x8.mul(i16x8.extend_high_i8x16_u(u), r1), o1),
            to,
          );
          storePairs(
            i16x8.sub(i16x8.mul(i16x8.extend_low_i8x16_u(v), r2), o2),
            i16x8.sub(i16x8.mul(i16x8.extend_high_i8x16_u(v), r3), o3),
            to + 16,
          );
        }
      }
    }
  }
}

/**
 * The same of the transpose: columns k … k + count − 1 of the packed matrix by its rows 16 · panel on, rounded to whole
 * numbers of those rows' steps.
 */
function sliceTransposed(
  b: usize,
  kind: u32,
  bytes: usize,
  rowSteps: usize,
  panel: usize,
  k: usize,
  count: usize,
  slice: usize,
  factors: usize,
): void {
  const row = panel * PANEL;
  const width = (count + 15) & ~15;
  const half = width * PANEL;
  const at = STEPS + (row / GROUP) * blockBytes(kind);
  const inGroup = row % GROUP;
  // Each column's factor, that many floats; behind them the rows' inverse steps.
  for (let n: usize = 0; n < width; n += PANEL) {
    const from = b + ((k + n) / PANEL) * bytes;
    for (let c: usize = 0; c < PANEL; c++) {
      const ratio: f32 = kind == Q8 ? <f32> load<u8>(from + at + c) : 1;
      store<f32>(factors + (n + c) * 4, load<f32>(from + c * 4) * ratio);
    }
  }
  const inverse = factors + BLOCK * 4;
  for (let r: usize = 0; r < PANEL; r++) {
    const step = load<f32>(rowSteps + (row + r) * 4);
    store<f32>(inverse + r * 4, step > 0 ? 1 / step : 0);
  }
  const round = constant(2);
  const low = constant(1);
  const nibble = constant(3), byte = constant(4);
  for (let q: usize = 0; q < 4; q++) {
    const scale = v128.load(inverse + q * 16);
    let to = slice + (q / 2) * half + (q & 1) * 16;
    for (let n: usize = 0; n < width; n += PANEL) {
      const block = b + ((k + n) / PANEL) * bytes + at;
      for (let c: usize = 0; c < PANEL; c += 2, to += 32) {
        let pair: v128;
        if (kind == Q8) {
          pair = v128.load8x8_s(block + Q8_CODES + (inGroup + q * 4) * 16 + c * 4);
        } else {
          const first = inGroup + q * 4;
          let both = v128.load8x8_u(block + Q4_CODES + (first & ~7) * 8 + c * 4);
          if (first & 4) both = i16x8.shr_u(both, 4);
          both = v128.and(both, nibble);
          const ratios = i32x4.splat(<i32> load<u16>(block + c)); // two bytes
          const offsets = v128.load32_splat(block + 16 + c * 2);
          const r = v128.and(v128.shuffle<i8>(ratios, ratios, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1), byte);
          const o = v128.shuffle<i16>(offsets, offsets, 0, 0, 0, 0, 1, 1, 1, 1);
          pair = i16x8.sub(i16x8.mul(both, r), o);
        }
        const f0 = f32x4.mul(scale, v128.load32_splat(factors + (n + c) * 4));
        const f1 = f32x4.mul(scale, v128.load32_splat(factors + (n + c) * 4, 4));
        const w0 = f32x4.add(f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(pair)), f0), round);
        const w1 = f32x4.add(f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(pair)), f1), round);
        // The lowest 16 bits are the whole number's.
        v128.store(to, v128.or(v128.and(w0, low), i32x4.shl(w1, 16)));
      }
    }
  }
}

/**
 * Panels of out (M, N), with 8-bit weights, = activation(alpha · a (M, K) · b (K, N) + bias) + residual, a row at a time, reading each as one stream.
 *
 * @param a Rows as {@linkcode roundRow} leaves them, `step` bytes apart.
 */
export function rowRounded(
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
    const steps = b + panel * codesPanelBytes(Q8, K);
    for (let m: usize = 0, x = a; m < M; m++, x += step) {
      panelOfRow(x, steps, K, scratch);
      finish(scratch, m, 1, panel, N, out, alpha, flags, bias, residual);
    }
  }
}

/** A row's products with a panel, sixteen numbers. */
function panelOfRow(a: usize, steps: usize, K: usize, to: usize): void {
  const groups = groupsOf(K);
  const scales = a + padded(K) * 2;
  let block = steps + STEPS;
  let y0 = zero(), y1 = zero(), y2 = zero(), y3 = zero();
  for (let g: usize = 0; g < groups;) {
    const last = min(groups, g + BLOCK / GROUP);
    const s = v128.load32_splat(scales + (g / (BLOCK / GROUP)) * 4);
    v128.store(to, zero()), v128.store(to, zero(), 16);
    v128.store(to, zero(), 32), v128.store(to, zero(), 48);
    for (; g < last; g++, block += blockBytes(Q8)) groupOf8(a + g * (GROUP * 2), block, to);
    y0 = fma(f32x4.convert_i32x4_s(v128.load(to)), s, y0);
    y1 = fma(f32x4.convert_i32x4_s(v128.load(to, 16)), s, y1);
    y2 = fma(f32x4.convert_i32x4_s(v128.load(to, 32)), s, y2);
    y3 = fma(f32x4.convert_i32x4_s(v128.load(to, 48)), s, y3);
  }
  v128.store(to, y0), v128.store(to, y1, 16);
  v128.store(to, y2, 32), v128.store(to, y3, 48);
  scaleColumns(to, 1, steps);
}

/** Four columns' sums, from column j / 4, times their ratios, added to what `to` holds. */
// @ts-ignore: decorator
@inline
function addRatios(sums: v128, block: usize, j: usize, to: usize): void {
  v128.store(to + j, i32x4.add(v128.load(to + j), i32x4.mul(sums, ratiosAt(block, j))));
}

/** Adds Σ over a group's 32 rows of x · ratio · code to 16 sums. */
// @ts-ignore: decorator
@inline
function groupOf8(x: usize, block: usize, to: usize): void {
  let a0 = zero(), a1 = zero(), b0 = zero(), b1 = zero(), c0 = zero(), c1 = zero(), d0 = zero(), d1 = zero();
  let p = block + Q8_CODES;
  for (const end = p + 512; p < end; p += 64, x += 8) {
    const s = v128.load64_splat(x);
    const a = v128.load(p), b = v128.load(p + 16), c = v128.load(p + 32), d = v128.load(p + 48);
    a0 = dot(i16x8.extend_low_i8x16_s(a), s, a0), a1 = dot(i16x8.extend_high_i8x16_s(a), s, a1);
    b0 = dot(i16x8.extend_low_i8x16_s(b), s, b0), b1 = dot(i16x8.extend_high_i8x16_s(b), s, b1);
    c0 = dot(i16x8.extend_low_i8x16_s(c), s, c0), c1 = dot(i16x8.extend_high_i8x16_s(c), s, c1);
    d0 = dot(i16x8.extend_low_i8x16_s(d), s, d0), d1 = dot(i16x8.extend_high_i8x16_s(d), s, d1);
  }
  addRatios(folded(a0, a1), block, 0, to), addRatios(folded(b0, b1), block, 16, to);
  addRatios(folded(c0, c1), block, 32, to), addRatios(folded(d0, d1), block, 48, to);
}
