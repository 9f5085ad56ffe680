/**
 * Matrix products with 8-bit weights by the processor's dot product of bytes, where it has one: AVX-VNNI and AVX-VNNI-INT8 on
 * x86, SDOT on ARM. `i32x4.relaxed_dot_i8x16_i7x16_add_s` is then one instruction for sixteen products, and what its
 * second operand's eighth bit means, which WebAssembly leaves open, is found out by {@linkcode dotsOf}. Elsewhere V8
 * makes five instructions of it, and quantized.ts is faster.
 *
 * Activations are rounded to 8 bits, with a factor for each row and group of 32. A group's sum is exact; groups add up in
 * floats, in order: a row's result has the same bits in whatever tile, batch or thread.
 *
 * Where the second operand is unsigned, weights are 128 too large there, and every sum begins with −128 Σ x.
 *
 * A product with the transpose sums over the columns, whose steps differ: its weights are rounded anew, with a scale for
 * each row and 32 columns, slice by slice.
 *
 * No machine with such an instruction was at hand, and its speed was not measured. With a multiply-add in its place, which
 * takes as many operands and gives numbers without meaning, these kernels do 116, 130, 135 and 133 Gop/s on a Zen 4 core
 * with 4, 16, 64 and 1024 rows, and with the transpose of 1024 rows 115; those of quantized.ts 47, 67, 73, 74 and 72.
 */
import { codesPanelBytes, blockBytes, GROUP, Q8_CODES, ratiosAt, STEPS } from "./codes";
import { Q8 } from "./formats";
import { finish } from "./matmul";
import {
  bytesOf,
  bytesOfFour,
  constant,
  factorOf,
  factorsOf,
  folded,
  groupsOf,
  largest,
  largestOfFour,
  padded,
  rounded,
  ROWS,
  rowsPadded,
} from "./rounding";
import { fma, lane0, lane1, lane2, lane3, zero } from "./simd";
import { PANEL } from "./weights";

/** The largest activation, and the largest weight of the transpose. */
const MOST: f32 = 127;
/** Groups of a slice of the transpose. */
// @ts-ignore: decorator
@inline
const DEPTH: usize = 16;
/** Bytes of a group's codes of a panel. */
// @ts-ignore: decorator
@inline
const CODES: usize = 512;

/** c + four products a lane; the bytes of w are without a sign if they are flipped. */
// @ts-ignore: decorator
@inline
function dot(x: v128, w: v128, c: v128, flipped: bool): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i32x4.relaxed_dot_i8x16_i7x16_add_s(x, w, c);
  const low = flipped ? i16x8.extend_low_i8x16_u(w) : i16x8.extend_low_i8x16_s(w);
  const high = flipped ? i16x8.extend_high_i8x16_u(w) : i16x8.extend_high_i8x16_s(w);
  return i32x4.add(
    c,
    folded(
      i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(x), low),
      i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(x), high),
    ),
  );
}

/**
 * What the machine's dot product takes its second operand's bytes for: 1 for numbers from 0 to 255, 2 for −128 to 127; 0 if
 * it has none that holds eight bits, for sums of two products saturate then at 2¹⁵ − 1.
 */
export function dotsOf(): u32 {
  if (!ASC_FEATURE_RELAXED_SIMD) return 0;
  // From memory, so that no compiler does the sum.
  const x = v128.load32_splat(OPERANDS), w = v128.load32_splat(OPERANDS, 4);
  const sum = i32x4.extract_lane(i32x4.relaxed_dot_i8x16_i7x16_add_s(x, w, zero()), 0);
  return sum == 4 * 127 * 255 ? 1 : sum == 4 * 127 * -1 ? 2 : 0;
}

const OPERANDS: usize = memory.data<u32>([0x7f7f7f7f, 0xffffffff]);

/** Bytes of (M, K) activations as bytes, with their factors and what their sums begin with. */
export function dotsBytes(M: usize, K: usize): usize {
  return rowsPadded(M) * (padded(K) + groupsOf(K) * 8);
}

/**
 * Rows begin … end − 1 (begin a multiple of 4) of (M, K) activations: bytes `[M/4][K/4][4][4]`, rows and columns filled with
 * zeros; then `[M/4][groups][4]` factors; then as many whole numbers that sums begin with.
 *
 * @param flip What weights' four bytes are combined with: 0x80808080 or 0.
 */
export function dotsRows(a: usize, flip: u32, M: usize, K: usize, to: usize, begin: usize, end: usize): void {
  const groups = groupsOf(K);
  const factors = to + rowsPadded(M) * padded(K);
  const starts = factors + rowsPadded(M) * groups * 4;
  const offset = i32x4.splat(flip ? -128 : 0);
  for (let i = begin; i < end; i += ROWS) {
    const rows = min(ROWS, M - i);
    for (let g: usize = 0; g < groups; g++) {
      const from = a + (i * K + g * GROUP) * 4;
      const count = min(GROUP, K - g * GROUP);
      const ranges = largestOfFour(from, K * 4, rows, count);
      const place = to + i * padded(K) + g * (GROUP * ROWS);
      const sums = bytesOfFour(from, K * 4, rows, count, factorsOf(ranges, MOST), place);
      const at = (i * groups + g * ROWS) * 4;
      v128.store(factors + at, f32x4.div(ranges, f32x4.splat(MOST)));
      v128.store(starts + at, i32x4.mul(sums, offset));
    }
  }
}

/** One row of K activations: `[K]` bytes, then each group's factor, then what its sum begins with. */
export function dotsRow(a: usize, flip: u32, K: usize, to: usize): void {
  const groups = groupsOf(K);
  const factors = to + padded(K);
  const starts = factors + groups * 4;
  for (let g: usize = 0; g < groups; g++) {
    const from = a + g * (GROUP * 4);
    const count = min(GROUP, K - g * GROUP);
    const range = largest(from, count);
    const sum = bytesOf(from, count, factorOf(range, MOST), to + g * GROUP);
    store<f32>(factors + g * 4, range / MOST);
    store<i32>(starts + g * 4, flip ? -128 * sum : 0);
  }
}

/** How many rows a call of {@linkcode matmulDots} takes at once: what brings a slice of the transpose pays by then. */
export function dotsHeight(M: usize): usize {
  return min<usize>(512, rowsPadded(M));
}

/** Bytes of scratch that a call of {@linkcode matmulDots} needs: sums; scales and a slice's codes; what makes a slice. */
export function dotsScratch(M: usize, K: usize, transposed: bool): usize {
  return dotsHeight(M) * 64 + (transposed ? DEPTH : groupsOf(K)) * 64 + DEPTH * CODES + 128 + 512;
}

/**
 * out (M, N) = activation(alpha · a (M, K) · b (K, N) + bias) + residual, as {@linkcode matmul} has it.
 *
 * @param a As {@linkcode dotsRows} leaves it.
 * @param b Packed in 8 bits; `transposed`: as (N, K), summed over its columns.
 * @param flip What weights' four bytes are combined with: 0x80808080 or 0.
 * @param rowBegin First row of out to compute; a multiple of 4.
 */
export function matmulDots(
  a: usize,
  b: usize,
  flip: u32,
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
  const groups = groupsOf(K);
  const factors = a + rowsPadded(M) * padded(K);
  const starts = factors + rowsPadded(M) * groups * 4;
  const height = dotsHeight(M);
  const strip = scratch;
  const scales = strip + height * 64;
  const slice = scales + (transposed ? DEPTH : groups) * 64;
  // Of the packed matrix, which the transposed product sees from its other side.
  const bytes = codesPanelBytes(Q8, transposed ? N : K);
  for (let i = rowBegin; i < rowEnd; i += height) {
    const rows = min(height, rowEnd - i);
    for (let panel = panelBegin; panel < panelEnd; panel++) {
      memory.fill(strip, 0, rowsPadded(rows) * 64);
      for (let g: usize = 0; g < groups;) {
        const count = transposed ? min(DEPTH, groups - g) : groups;
        let codes = slice, step = CODES;
        if (transposed) {
          sliceTransposed(b, bytes, panel, g, count, K, slice, scales);
        } else {
          codes = b + panel * bytes + STEPS + Q8_CODES, step = blockBytes(Q8);
          scalesOf(b + panel * bytes, groups, scales);
        }
        for (let r: usize = 0; r < rows; r += ROWS) {
          const x = a + (i + r) * padded(K) + g * (GROUP * ROWS);
          const at = ((i + r) * groups + g * ROWS) * 4;
          tile(x, codes, step, scales, count, factors + at, starts + at, flip, strip + r * 64);
          tile(x, codes + 32, step, scales + 32, count, factors + at, starts + at, flip, strip + r * 64 + 32);
        }
        g += count;
      }
      finish(strip, i, rows, panel, N, out, alpha, flags, bias, residual);
    }
  }
}

/** A panel's scales, `[groups][16]`: a step times a ratio. */
function scalesOf(panel: usize, groups: usize, to: usize): void {
  let block = panel + STEPS;
  for (let g: usize = 0; g < groups; g++, block += blockBytes(Q8), to += 64) {
    for (let j: usize = 0; j < 64; j += 16) v128.store(to + j, scaleAt(panel, block, j));
  }
}

/** Four columns' scales in a block, from column j / 4. */
// @ts-ignore: decorator
@inline
function scaleAt(panel: usize, block: usize, j: usize): v128 {
  return f32x4.mul(v128.load(panel + j), f32x4.convert_i32x4_s(ratiosAt(block, j)));
}

/** to + a group's sum, as a float, times scales and a row's factor. */
// @ts-ignore: decorator
@inline
function add(sum: v128, scales: v128, factor: v128, to: v128): v128 {
  return fma(f32x4.convert_i32x4_s(sum), f32x4.mul(scales, factor), to);
}

/**
 * Adds four rows' products with eight columns to what `out` holds, group by group.
 *
 * @param w The columns' codes: 64 bytes hold sixteen columns' four rows, a group begins every `step` bytes.
 * @param scales A group's lie 64 bytes apart.
 * @param factors A group's, of four rows, then the next one's; `starts` likewise.
 * @param out Rows of eight floats, 64 bytes apart.
 */
function tile(
  x: usize,
  w: usize,
  step: usize,
  scales: usize,
  groups: usize,
  factors: usize,
  starts: usize,
  flip: u32,
  out: usize,
): void {
  const mask = i32x4.splat(flip);
  const flipped = flip != 0;
  for (const last = factors + groups * 16; factors < last; factors += 16, starts += 16, scales += 64, w += step - CODES) {
    const begin = v128.load(starts);
    let c00 = lane0(begin), c01 = c00, c10 = lane1(begin), c11 = c10;
    let c20 = lane2(begin), c21 = c20, c30 = lane3(begin), c31 = c30;
    for (const end = w + CODES; w < end; w += 64, x += 16) {
      const w0 = v128.xor(v128.load(w), mask), w1 = v128.xor(v128.load(w + 16), mask);
      const rows = v128.load(x);
      let s = lane0(rows);
      c00 = dot(s, w0, c00, flipped), c01 = dot(s, w1, c01, flipped);
      s = lane1(rows);
      c10 = dot(s, w0, c10, flipped), c11 = dot(s, w1, c11, flipped);
      s = lane2(rows);
      c20 = dot(s, w0, c20, flipped), c21 = dot(s, w1, c21, flipped);
      s = lane3(rows);
      c30 = dot(s, w0, c30, flipped), c31 = dot(s, w1, c31, flipped);
    }
    const m0 = v128.load(scales), m1 = v128.load(scales, 16);
    const factor = v128.load(factors);
    let f = lane0(factor);
    v128.store(out, add(c00, m0, f, v128.load(out))), v128.store(out, add(c01, m1, f, v128.load(out, 16)), 16);
    f = lane1(factor);
    v128.store(out, add(c10, m0, f, v128.load(out, 64)), 64), v128.store(out, add(c11, m1, f, v128.load(out, 80)), 80);
    f = lane2(factor);
    v128.store(out, add(c20, m0, f, v128.load(out, 128)), 128);
    v128.store(out, add(c21, m1, f, v128.load(out, 144)), 144);
    f = lane3(factor);
    v128.store(out, add(c30, m0, f, v128.load(out, 192)), 192);
    v128.store(out, add(c31, m1, f, v128.load(out, 208)), 208);
  }
}

/**
 * Panels of out (N) = activation(alpha · a (K) · b (K, N) + bias) + residual, reading each as one stream.
 *
 * @param a As {@linkcode dotsRow} leaves it.
 */
export function rowDots(
  a: usize,
  b: usize,
  flip: u32,
  out: usize,
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
  const bytes = codesPanelBytes(Q8, K);
  const groups = groupsOf(K);
  const mask = i32x4.splat(flip);
  const flipped = flip != 0;
  for (let panel = panelBegin; panel < panelEnd; panel++) {
    const steps = b + panel * bytes;
    let x = a, factors = a + padded(K), starts = factors + groups * 4;
    let y0 = zero(), y1 = zero(), y2 = zero(), y3 = zero();
    let block = steps + STEPS;
    for (const last = starts; factors < last; factors += 4, starts += 4, block += blockBytes(Q8)) {
      let c0 = v128.load32_splat(starts), c1 = c0, c2 = c0, c3 = c0;
      let w = block + Q8_CODES;
      for (const end = w + CODES; w < end; w += 64, x += 4) {
        const s = v128.load32_splat(x);
        c0 = dot(s, v128.xor(v128.load(w), mask), c0, flipped);
        c1 = dot(s, v128.xor(v128.load(w + 16), mask), c1, flipped);
        c2 = dot(s, v128.xor(v128.load(w + 32), mask), c2, flipped);
        c3 = dot(s, v128.xor(v128.load(w + 48), mask), c3, flipped);
      }
      const factor = v128.load32_splat(factors);
      y0 = add(c0, scaleAt(steps, block, 0), factor, y0);
      y1 = add(c1, scaleAt(steps, block, 16), factor, y1);
      y2 = add(c2, scaleAt(steps, block, 32), factor, y2);
      y3 = add(c3, scaleAt(steps, block, 48), factor, y3);
    }
    v128.store(scratch, y0), v128.store(scratch, y1, 16);
    v128.store(scratch, y2, 32), v128.store(scratch, y3, 48);
    finish(scratch, 0, 1, panel, N, out, alpha, flags, bias, residual);
  }
}

/**
 * `count` groups of 32 columns, from group `group` on, of the packed matrix by its rows 16 · panel on, as a panel's groups: codes
 * `[count][8][16][4]` and scales `[count][16]`.
 *
 * @param columns The packed matrix's.
 */
function sliceTransposed(
  b: usize,
  bytes: usize,
  panel: usize,
  group: usize,
  count: usize,
  columns: usize,
  codes: usize,
  scales: usize,
): void {
  const row = panel * PANEL;
  const at = STEPS + (row / GROUP) * blockBytes(Q8);
  const inGroup = Q8_CODES + (row % GROUP) * PANEL;
  const panels = (columns + PANEL - 1) / PANEL;
  const columnScales = codes + DEPTH * CODES; // (32)
  const numbers = columnScales + 128; // (32, 4)
  const round = constant(2);
  for (let g: usize = 0; g < count; g++, codes += CODES, scales += 64) {
    const first = (group + g) * (GROUP / PANEL);
    const there = min<usize>(GROUP / PANEL, panels - first);
    const from = b + first * bytes;
    for (let p: usize = 0; p < there; p++) {
      const columnPanel = from + p * bytes;
      for (let j: usize = 0; j < 64; j += 16) {
        v128.store(columnScales + p * 64 + j, scaleAt(columnPanel, columnPanel + at, j));
      }
    }
    if (there < GROUP / PANEL) memory.fill(numbers + there * PANEL * 16, 0, PANEL * 16);
    for (let q: usize = 0; q < 4; q++) {
      let most = zero();
      for (let p: usize = 0; p < there; p++) {
        let code = from + p * bytes + at + inGroup + q * 64;
        let scale = columnScales + p * 64;
        let number = numbers + p * (PANEL * 16);
        for (const end = code + 64; code < end; code += 16, scale += 16, number += 64) {
          const bytes = v128.load(code); // four columns' four rows
          const low = i16x8.extend_low_i8x16_s(bytes), high = i16x8.extend_high_i8x16_s(bytes);
          const four = v128.load(scale);
          const v0 = f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(low)), lane0(four));
          const v1 = f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(low)), lane1(four));
          const v2 = f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(high)), lane2(four));
          const v3 = f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(high)), lane3(four));
          v128.store(number, v0), v128.store(number, v1, 16), v128.store(number, v2, 32), v128.store(number, v3, 48);
          const m01 = f32x4.max(f32x4.abs(v0), f32x4.abs(v1)), m23 = f32x4.max(f32x4.abs(v2), f32x4.abs(v3));
          most = f32x4.max(most, f32x4.max(m01, m23));
        }
      }
      v128.store(scales + q * 16, f32x4.div(most, f32x4.splat(MOST)));
      const inverse = factorsOf(most, MOST);
      let number = numbers;
      for (let to = codes + q * 16, end = to + CODES; to < end; to += 64, number += 64) {
        const n0 = rounded(number, 4, inverse, round), n1 = rounded(number + 16, 4, inverse, round);
        const n2 = rounded(number + 32, 4, inverse, round), n3 = rounded(number + 48, 4, inverse, round);
        const four = i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(n0, n1), i16x8.narrow_i32x4_s(n2, n3));
        v128.store(to, v128.shuffle<i8>(four, four, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
      }
    }
  }
}
