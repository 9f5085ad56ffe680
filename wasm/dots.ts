/**
 * Matrix products with 8-bit weights by products of bytes, in relaxed SIMD. What a processor has for them is found out by
 * {@linkcode dotsOf}:
 *
 * - A dot product (AVX-VNNI and AVX-VNNI-INT8 on x86, SDOT on ARM): `i32x4.relaxed_dot_i8x16_i7x16_add_s` is one instruction
 *   for sixteen products. WebAssembly leaves open what the second operand's eighth bit means; activations are that
 *   operand and have 8 bits, with or without a sign.
 * - Pairs (x86 else): `i16x8.relaxed_dot_i8x16_i7x16_s`, whose sums of two products must hold in 16 bits. So activations have
 *   7 bits, and two more instructions add pairs up in 32.
 *
 * Activations are rounded with a factor for each row and group of 32. A group's sum is exact; groups add up in floats, in
 * order: a row's result has the same bits in whatever tile, batch or thread. Where activations have no sign a bias is
 * added to them, and every sum begins with −bias · Σ codes.
 *
 * A product with the transpose sums over the columns, whose steps differ: its weights are rounded anew, with a scale for
 * each row and 32 columns, slice by slice.
 *
 * Gop/s on a Zen 4 core with 1, 4, 16, 64 and 1024 rows, and with the transpose of 1024, in pairs: 43, 66, 81, 86, 87 and 81;
 * by the 16-bit products of quantized.ts 42, 46, 67, 73, 75 and 72. (The same loop by a C compiler, in 128 bits: 99. The
 * multiplications alone: 117.) No machine with a dot product of bytes was at hand, and its speed was not measured; with a
 * multiply-add in its place, which takes as many operands and gives numbers without meaning, 1024 rows did 133.
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
import { fma, lane0, lane1, lane2, lane3, pairs, zero } from "./simd";
import { PANEL } from "./weights";

/** The largest weight of the transpose. */
const MOST: f32 = 127;
/** Groups of a slice of the transpose. */
// @ts-ignore: decorator
@inline
const DEPTH: usize = 16;
/** Bytes of a line of a processor's caches. */
// @ts-ignore: decorator
@inline
const LINE: usize = 64;
/** Bytes of a group's codes of a panel. */
// @ts-ignore: decorator
@inline
const CODES: usize = 512;

// What dotsOf finds.
const UNSIGNED: u32 = 1;
const SIGNED: u32 = 2;
const PAIRS: u32 = 3;

/** What is added to activations, so that they are what the processor takes them for. */
// @ts-ignore: decorator
@inline
function biasOf(kind: u32): i8 {
  return kind == UNSIGNED ? -128 : kind == PAIRS ? 64 : 0;
}

/** The largest activation. */
// @ts-ignore: decorator
@inline
function mostOf(kind: u32): f32 {
  return kind == PAIRS ? 63 : 127;
}

/** c + four products a lane: weights by activations. */
// @ts-ignore: decorator
@inline
function dot(w: v128, x: v128, c: v128, ones: v128, kind: u32): v128 {
  if (kind == PAIRS) return i32x4.add(c, i32x4.dot_i16x8_s(pairs(w, x), ones));
  if (ASC_FEATURE_RELAXED_SIMD) return i32x4.relaxed_dot_i8x16_i7x16_add_s(w, x, c);
  const low = kind == SIGNED ? i16x8.extend_low_i8x16_s(x) : i16x8.extend_low_i8x16_u(x);
  const high = kind == SIGNED ? i16x8.extend_high_i8x16_s(x) : i16x8.extend_high_i8x16_u(x);
  return i32x4.add(
    c,
    folded(
      i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(w), low),
      i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(w), high),
    ),
  );
}

/**
 * What the machine's dot product takes its second operand's bytes for: 1 for numbers from 0 to 255, 2 for −128 to 127; 3 if
 * they may have seven bits, for a sum of two products is cut off at 2¹⁵ − 1; 0 if there is no such instruction.
 */
export function dotsOf(): u32 {
  if (!ASC_FEATURE_RELAXED_SIMD) return 0;
  // From memory, so that no compiler does the sum.
  const x = v128.load32_splat(OPERANDS), w = v128.load32_splat(OPERANDS, 4);
  const sum = i32x4.extract_lane(i32x4.relaxed_dot_i8x16_i7x16_add_s(x, w, zero()), 0);
  return sum == 4 * 127 * 255 ? UNSIGNED : sum == 4 * 127 * -1 ? SIGNED : sum == 2 * 32767 ? PAIRS : 0;
}

const OPERANDS: usize = memory.data<u32>([0x7f7f7f7f, 0xffffffff]);

/** Bytes of (M, K) activations as bytes, with their factors. */
export function dotsBytes(M: usize, K: usize): usize {
  return rowsPadded(M) * (padded(K) + groupsOf(K) * 4);
}

/**
 * Rows begin … end − 1 (begin a multiple of 4) of (M, K) activations: bytes `[M/4][K/4][4][4]`, rows and columns filled with
 * zeros, all plus the bias; then `[M/4][groups][4]` factors.
 *
 * @param kind What {@linkcode dotsOf} found.
 */
export function dotsRows(a: usize, kind: u32, M: usize, K: usize, to: usize, begin: usize, end: usize): void {
  const groups = groupsOf(K);
  const factors = to + rowsPadded(M) * padded(K);
  const bias = i8x16.splat(biasOf(kind)), most = mostOf(kind);
  for (let i = begin; i < end; i += ROWS) {
    const rows = min(ROWS, M - i);
    for (let g: usize = 0; g < groups; g++) {
      const from = a + (i * K + g * GROUP) * 4;
      const count = min(GROUP, K - g * GROUP);
      const ranges = largestOfFour(from, K * 4, rows, count);
      bytesOfFour(from, K * 4, rows, count, factorsOf(ranges, most), bias, to + i * padded(K) + g * (GROUP * ROWS));
      v128.store(factors + (i * groups + g * ROWS) * 4, f32x4.div(ranges, f32x4.splat(most)));
    }
  }
}

/** One row of K activations: `[K]` bytes, filled up likewise, then each group's factor. */
export function dotsRow(a: usize, kind: u32, K: usize, to: usize): void {
  const groups = groupsOf(K);
  const factors = to + padded(K);
  const bias = i8x16.splat(biasOf(kind)), most = mostOf(kind);
  for (let g: usize = 0; g < groups; g++) {
    const from = a + g * (GROUP * 4);
    const count = min(GROUP, K - g * GROUP);
    const range = largest(from, count);
    bytesOf(from, count, factorOf(range, most), bias, to + g * GROUP);
    store<f32>(factors + g * 4, range / most);
  }
}

/** How many rows a call of {@linkcode matmulDots} takes at once: what brings a slice of the transpose pays by then. */
export function dotsHeight(M: usize): usize {
  return min<usize>(512, rowsPadded(M));
}

/** Bytes of scratch that a call of {@linkcode matmulDots} needs: sums; scales and a slice's codes; what makes a slice. */
export function dotsScratch(M: usize, K: usize, transposed: bool): usize {
  return dotsHeight(M) * 64 + (transposed ? DEPTH : groupsOf(K)) * 128 + DEPTH * CODES + 128 + 512;
}

/**
 * out (M, N) = activation(alpha · a (M, K) · b (K, N) + bias) + residual, as {@linkcode matmul} has it.
 *
 * @param a As {@linkcode dotsRows} leaves it.
 * @param b Packed in 8 bits; `transposed`: as (N, K), summed over its columns.
 * @param kind What {@linkcode dotsOf} found.
 * @param rowBegin First row of out to compute; a multiple of 4.
 */
export function matmulDots(
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
  const groups = groupsOf(K);
  const factors = a + rowsPadded(M) * padded(K);
  const height = dotsHeight(M);
  const strip = scratch;
  const scales = strip + height * 64;
  const starts = scales + (transposed ? DEPTH : groups) * 64;
  const slice = starts + (transposed ? DEPTH : groups) * 64;
  // Of the packed matrix, which the transposed product sees from its other side.
  const bytes = codesPanelBytes(Q8, transposed ? N : K);
  let seen: u32 = 0;
  for (let i = rowBegin; i < rowEnd; i += height) {
    const rows = min(height, rowEnd - i);
    for (let panel = panelBegin; panel < panelEnd; panel++) {
      memory.fill(strip, 0, rowsPadded(rows) * 64);
      for (let g: usize = 0; g < groups;) {
        const count = transposed ? min(DEPTH, groups - g) : groups;
        let codes = slice, step = CODES;
        let ahead = b, stretch: usize = 0;
        if (transposed) {
          sliceTransposed(b, bytes, panel, g, count, K, slice, scales);
        } else {
          const here = b + panel * bytes;
          codes = here + STEPS + Q8_CODES, step = blockBytes(Q8);
          scalesOf(here, groups, scales);
          ahead = panel + 1 < panelEnd ? here + bytes : here;
          stretch = max<usize>(LINE, bytes / (rowsPadded(rows) / ROWS * 2 * groups) & ~(LINE - 1));
        }
        const last = ahead + bytes - count * stretch;
        startsOf(codes, step, count, kind, starts);
        for (let r: usize = 0; r < rows; r += ROWS) {
          const x = a + (i + r) * padded(K) + g * (GROUP * ROWS);
          const f = factors + ((i + r) * groups + g * ROWS) * 4;
          for (let j: usize = 0; j < 64; j += 32) {
            const w = codes + j, m = scales + j, c = starts + j, to = strip + r * 64 + j;
            if (kind == PAIRS) seen |= tilePairs(x, w, step, m, c, count, f, ahead, stretch, to);
            else seen |= tileDots(x, w, step, m, c, count, f, ahead, stretch, to, kind);
            ahead = min(last, ahead + count * stretch);
          }
        }
        g += count;
      }
      store<u32>(slice, seen); // Lest a compiler finds that nobody needs what was read ahead.
      finish(strip, i, rows, panel, N, out, alpha, flags, bias, residual);
    }
  }
}

/** What groups' sums begin with, `[groups][16]`: less what the bias of activations adds. */
function startsOf(codes: usize, step: usize, groups: usize, kind: u32, to: usize): void {
  if (kind == SIGNED) {
    memory.fill(to, 0, groups * 64);
    return;
  }
  const one = constant(6), bias = i16x8.splat(kind == UNSIGNED ? -128 : -64);
  for (const end = to + groups * 64; to < end; to += 64, codes += step) {
    let a = zero(), b = zero(), c = zero(), d = zero();
    for (let w = codes, last = w + CODES; w < last; w += 64) {
      a = i16x8.add(a, pairs(v128.load(w), one)), b = i16x8.add(b, pairs(v128.load(w, 16), one));
      c = i16x8.add(c, pairs(v128.load(w, 32), one)), d = i16x8.add(d, pairs(v128.load(w, 48), one));
    }
    v128.store(to, i32x4.dot_i16x8_s(a, bias)), v128.store(to, i32x4.dot_i16x8_s(b, bias), 16);
    v128.store(to, i32x4.dot_i16x8_s(c, bias), 32), v128.store(to, i32x4.dot_i16x8_s(d, bias), 48);
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

// Functions of their own, for one would choose between its products in the inner loop. Both kinds of dot products are the
// same instruction.

function tilePairs(
  x: usize,
  w: usize,
  step: usize,
  scales: usize,
  starts: usize,
  groups: usize,
  factors: usize,
  ahead: usize,
  stretch: usize,
  out: usize,
): u32 {
  return tile(x, w, step, scales, starts, groups, factors, ahead, stretch, out, PAIRS);
}

function tileDots(
  x: usize,
  w: usize,
  step: usize,
  scales: usize,
  starts: usize,
  groups: usize,
  factors: usize,
  ahead: usize,
  stretch: usize,
  out: usize,
  kind: u32,
): u32 {
  return tile(x, w, step, scales, starts, groups, factors, ahead, stretch, out, kind == SIGNED ? SIGNED : UNSIGNED);
}

/**
 * Adds four rows' products with eight columns to what `out` holds, group by group. Meanwhile a byte of each line of what is
 * needed next is read, for WebAssembly has no other way to bring it into a cache: with weights that are in none, 16
 * rows did 67 Gop/s a Zen 4 core without and do 78 (on two cores 115 and 144).
 *
 * @param w The columns' codes: 64 bytes hold sixteen columns' four rows, a group begins every `step` bytes.
 * @param scales A group's lie 64 bytes apart; `starts` likewise.
 * @param factors A group's, of four rows, then the next one's.
 * @param ahead What is needed next, `stretch` bytes of it for each group.
 * @param out Rows of eight floats, 64 bytes apart.
 * @returns Something that depends on what was read ahead.
 */
// @ts-ignore: decorator
@inline
function tile(
  x: usize,
  w: usize,
  step: usize,
  scales: usize,
  starts: usize,
  groups: usize,
  factors: usize,
  ahead: usize,
  stretch: usize,
  out: usize,
  kind: u32,
): u32 {
  let seen: u32 = 0;
  const ones = constant(5);
  let y00 = v128.load(out), y01 = v128.load(out, 16), y10 = v128.load(out, 64), y11 = v128.load(out, 80);
  let y20 = v128.load(out, 128), y21 = v128.load(out, 144), y30 = v128.load(out, 192), y31 = v128.load(out, 208);
  for (const last = factors + groups * 16; factors < last; factors += 16, starts += 64, scales += 64, w += step - CODES) {
    let c00 = v128.load(starts), c01 = v128.load(starts, 16);
    let c10 = c00, c11 = c01, c20 = c00, c21 = c01, c30 = c00, c31 = c01;
    for (const end = w + CODES; w < end; w += 64, x += 16) {
      const w0 = v128.load(w), w1 = v128.load(w + 16), rows = v128.load(x);
      let s = lane0(rows);
      c00 = dot(w0, s, c00, ones, kind), c01 = dot(w1, s, c01, ones, kind);
      s = lane1(rows);
      c10 = dot(w0, s, c10, ones, kind), c11 = dot(w1, s, c11, ones, kind);
      s = lane2(rows);
      c20 = dot(w0, s, c20, ones, kind), c21 = dot(w1, s, c21, ones, kind);
      s = lane3(rows);
      c30 = dot(w0, s, c30, ones, kind), c31 = dot(w1, s, c31, ones, kind);
    }
    for (const end = ahead + stretch; ahead < end; ahead += LINE) seen |= load<u8>(ahead);
    const m0 = v128.load(scales), m1 = v128.load(scales, 16);
    const factor = v128.load(factors);
    let f = lane0(factor);
    y00 = add(c00, m0, f, y00), y01 = add(c01, m1, f, y01);
    f = lane1(factor);
    y10 = add(c10, m0, f, y10), y11 = add(c11, m1, f, y11);
    f = lane2(factor);
    y20 = add(c20, m0, f, y20), y21 = add(c21, m1, f, y21);
    f = lane3(factor);
    y30 = add(c30, m0, f, y30), y31 = add(c31, m1, f, y31);
  }
  v128.store(out, y00), v128.store(out, y01, 16), v128.store(out, y10, 64), v128.store(out, y11, 80);
  v128.store(out, y20, 128), v128.store(out, y21, 144), v128.store(out, y30, 192), v128.store(out, y31, 208);
  return seen;
}

/**
 * Panels of out (M, N) = activation(alpha · a (M, K) · b (K, N) + bias) + residual, a row at a time, reading each as one stream.
 *
 * @param a Rows as {@linkcode dotsRow} leaves them, `step` bytes apart.
 */
export function rowDots(
  a: usize,
  step: usize,
  b: usize,
  kind: u32,
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
      if (kind == PAIRS) panelPairs(x, steps, K, scratch);
      else if (kind == SIGNED) panelSigned(x, steps, K, scratch);
      else panelUnsigned(x, steps, K, scratch);
      finish(scratch, m, 1, panel, N, out, alpha, flags, bias, residual);
    }
  }
}

/** c + a row's products with eight rows of four columns, four in each vector; what the bias adds is taken off. */
// @ts-ignore: decorator
@inline
function eightRows(w0: v128, x0: v128, w1: v128, x1: v128, c: v128, bias: v128, ones: v128, kind: u32): v128 {
  if (kind == PAIRS) {
    // Without the bias two pairs hold in 16 bits.
    const first = i16x8.sub(pairs(w0, x0), pairs(w0, bias)), second = i16x8.sub(pairs(w1, x1), pairs(w1, bias));
    return i32x4.add(c, i32x4.dot_i16x8_s(i16x8.add(first, second), ones));
  }
  const all = dot(w1, x1, dot(w0, x0, c, ones, kind), ones, kind);
  return kind == SIGNED ? all : i32x4.sub(all, dot(w1, bias, dot(w0, bias, zero(), ones, kind), ones, kind));
}

function panelPairs(x: usize, steps: usize, K: usize, to: usize): void {
  panelOfRow(x, steps, K, to, PAIRS);
}

function panelSigned(x: usize, steps: usize, K: usize, to: usize): void {
  panelOfRow(x, steps, K, to, SIGNED);
}

function panelUnsigned(x: usize, steps: usize, K: usize, to: usize): void {
  panelOfRow(x, steps, K, to, UNSIGNED);
}

/** A row's products with a panel, sixteen sums. */
// @ts-ignore: decorator
@inline
function panelOfRow(x: usize, steps: usize, K: usize, to: usize, kind: u32): void {
  const bias = i8x16.splat(biasOf(kind)), ones = constant(5);
  let y0 = zero(), y1 = zero(), y2 = zero(), y3 = zero();
  let factors = x + padded(K), block = steps + STEPS;
  for (const last = factors + groupsOf(K) * 4; factors < last; factors += 4, block += blockBytes(Q8)) {
    let c0 = zero(), c1 = zero(), c2 = zero(), c3 = zero();
    let w = block + Q8_CODES;
    for (const end = w + CODES; w < end; w += 256, x += 16) {
      const rows = v128.load(x);
      let s = lane0(rows), t = lane1(rows);
      c0 = eightRows(v128.load(w), s, v128.load(w, 64), t, c0, bias, ones, kind);
      c1 = eightRows(v128.load(w, 16), s, v128.load(w, 80), t, c1, bias, ones, kind);
      c2 = eightRows(v128.load(w, 32), s, v128.load(w, 96), t, c2, bias, ones, kind);
      c3 = eightRows(v128.load(w, 48), s, v128.load(w, 112), t, c3, bias, ones, kind);
      s = lane2(rows), t = lane3(rows);
      c0 = eightRows(v128.load(w, 128), s, v128.load(w, 192), t, c0, bias, ones, kind);
      c1 = eightRows(v128.load(w, 144), s, v128.load(w, 208), t, c1, bias, ones, kind);
      c2 = eightRows(v128.load(w, 160), s, v128.load(w, 224), t, c2, bias, ones, kind);
      c3 = eightRows(v128.load(w, 176), s, v128.load(w, 240), t, c3, bias, ones, kind);
    }
    const factor = v128.load32_splat(factors);
    y0 = add(c0, scaleAt(steps, block, 0), factor, y0);
    y1 = add(c1, scaleAt(steps, block, 16), factor, y1);
    y2 = add(c2, scaleAt(steps, block, 32), factor, y2);
    y3 = add(c3, scaleAt(steps, block, 48), factor, y3);
  }
  v128.store(to, y0), v128.store(to, y1, 16), v128.store(to, y2, 32), v128.store(to, y3, 48);
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
