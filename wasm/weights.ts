/**
 * Frozen weights: a (K, N) matrix in panels of 16 columns, each stored row after row, so that a matrix
 * product reads one contiguous stream. The last panel's missing columns are zero.
 *
 * - F32: `[N/16][K][16]` floats.
 * - F16: `[N/16][K][16]` halves.
 * - Q8: `[N/16][K/32]` blocks of 32 rows: 16 f32 scales (one a column), then `[32][16]` signed bytes;
 *   a weight is scale · byte. 576 bytes a block: 9 bits a weight.
 * - Q4: `[N/16][K/32]` blocks: 16 half scales, 16 half minima, then `[16][16]` bytes, each holding a
 *   column's nibbles of rows 2i (low) and 2i + 1; a weight is scale · nibble + minimum. 320 bytes a
 *   block: 5 bits a weight.
 */
import { fma, loadSome, zero } from "./simd";
import { fromHalf, toHalf } from "./half";

export const F32: u32 = 0;
export const F16: u32 = 1;
export const Q8: u32 = 2;
export const Q4: u32 = 3;

/** Columns of a panel. */
// @ts-ignore: decorator
@inline
export const PANEL: usize = 16;
/** Rows of a quantised block. */
// @ts-ignore: decorator
@inline
const GROUP: usize = 32;
// @ts-ignore: decorator
@inline
const Q8_BLOCK: usize = 576;
// @ts-ignore: decorator
@inline
const Q4_BLOCK: usize = 320;

/** Bytes of one panel of K rows. */
export function panelBytes(format: u32, K: usize): usize {
  if (format == F32) return K * 64;
  if (format == F16) return K * 32;
  const blocks = (K + GROUP - 1) / GROUP;
  return blocks * (format == Q8 ? Q8_BLOCK : Q4_BLOCK);
}

/**
 * Packs rows begin … end − 1 of those that lie row-major (·, N) at `from`, the first of them row `first`, into
 * the weight at `to`; begin is a multiple of 32, and so is end unless it is K. `scratch` holds 32 × 16 floats.
 */
export function packRows(
  format: u32,
  from: usize,
  first: usize,
  to: usize,
  K: usize,
  N: usize,
  begin: usize,
  end: usize,
  scratch: usize,
): void {
  const bytes = panelBytes(format, K);
  for (let column: usize = 0; column < N; column += PANEL, to += bytes) {
    const width = min(PANEL, N - column);
    for (let k = begin; k < end; k += GROUP) {
      const rows = min(GROUP, end - k);
      const source = from + ((k - first) * N + column) * 4;
      if (format == F32) {
        copyBlock(source, N, width, rows, to + k * 64);
        continue;
      }
      copyBlock(source, N, width, rows, scratch);
      if (format == F16) halveBlock(scratch, rows, to + k * 32);
      else if (format == Q8) quantize8(scratch, rows, to + (k / GROUP) * Q8_BLOCK);
      else quantize4(scratch, rows, to + (k / GROUP) * Q4_BLOCK);
    }
  }
}

/** Copies a (rows, width) block out of a matrix of N columns to rows of 16 floats, filled with zeros. */
export function copyBlock(from: usize, N: usize, width: usize, rows: usize, to: usize): void {
  const step = N * 4;
  if (width == PANEL) {
    for (let k: usize = 0; k < rows; k++, from += step, to += 64) {
      v128.store(to, v128.load(from));
      v128.store(to, v128.load(from, 16), 16);
      v128.store(to, v128.load(from, 32), 32);
      v128.store(to, v128.load(from, 48), 48);
    }
    return;
  }
  for (let k: usize = 0; k < rows; k++, from += step, to += 64) {
    for (let j: usize = 0; j < PANEL; j += 4) {
      v128.store(to + j * 4, j < width ? loadSome(from + j * 4, width - j) : zero());
    }
  }
}

function halveBlock(from: usize, rows: usize, to: usize): void {
  for (let i: usize = 0; i < rows * 2; i++, from += 32, to += 16) {
    const low = toHalf(v128.load(from));
    const high = toHalf(v128.load(from, 16));
    v128.store(to, i16x8.narrow_i32x4_u(low, high));
  }
}

function quantize8(from: usize, rows: usize, to: usize): void {
  for (let j: usize = 0; j < PANEL; j += 4) {
    const column = from + j * 4;
    let largest = zero();
    for (let k: usize = 0; k < rows; k++) largest = f32x4.max(largest, f32x4.abs(v128.load(column + k * 64)));
    const scale = f32x4.div(largest, f32x4.splat(127.0));
    v128.store(to + j * 4, scale);
    for (let k: usize = 0; k < GROUP; k++) {
      let q = zero();
      if (k < rows) {
        // 0 / 0 is NaN, which the conversion turns into 0.
        const ratio = f32x4.nearest(f32x4.div(v128.load(column + k * 64), scale));
        q = i32x4.max_s(i32x4.min_s(i32x4.trunc_sat_f32x4_s(ratio), i32x4.splat(127)), i32x4.splat(-127));
      }
      const words = i16x8.narrow_i32x4_s(q, q);
      v128.store32_lane(to + 64 + k * 16 + j, i8x16.narrow_i16x8_s(words, words), 0);
    }
  }
}

/** Nibbles of four columns' weights `w` under `scale` and `minimum`, as floats. */
// @ts-ignore: decorator
@inline
function nibbles(w: v128, scale: v128, minimum: v128): v128 {
  const n = f32x4.nearest(f32x4.div(f32x4.sub(w, minimum), scale));
  // Where scale is 0 the quotient may be NaN: max and min in this order turn that into 0.
  return f32x4.pmin(f32x4.splat(15.0), f32x4.pmax(zero(), n));
}

/**
 * Starts from the range of each column, then fits scale and minimum to the chosen nibbles by least
 * squares a few times and keeps what errs least.
 */
function quantize4(from: usize, rows: usize, to: usize): void {
  for (let j: usize = 0; j < PANEL; j += 4) {
    const column = from + j * 4;
    let low = v128.load(column);
    let high = low;
    for (let k: usize = 1; k < rows; k++) {
      const w = v128.load(column + k * 64);
      low = f32x4.min(low, w);
      high = f32x4.max(high, w);
    }
    const count = f32x4.splat(<f32> rows);
    let scale = f32x4.div(f32x4.sub(high, low), f32x4.splat(15.0));
    let minimum = low;
    let bestScale = zero();
    let bestMinimum = zero();
    let bestError = f32x4.splat(Infinity);
    for (let round = 0; round < 4; round++) {
      scale = fromHalf(toHalf(scale));
      minimum = fromHalf(toHalf(minimum));
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
      const solvable = f32x4.gt(determinant, zero());
      const fitted = f32x4.div(f32x4.sub(f32x4.mul(count, nw), f32x4.mul(n1, w1)), determinant);
      scale = v128.bitselect(fitted, scale, solvable);
      const rest = f32x4.div(f32x4.sub(w1, f32x4.mul(scale, n1)), count);
      minimum = v128.bitselect(rest, minimum, solvable);
    }
    const halves = i16x8.narrow_i32x4_u(toHalf(bestScale), toHalf(bestMinimum));
    v128.store64_lane(to + j * 2, halves, 0);
    v128.store64_lane(to + 32 + j * 2, halves, 1);
    for (let k: usize = 0; k < GROUP; k += 2) {
      let even = zero();
      let odd = zero();
      if (k < rows) even = nibbles(v128.load(column + k * 64), bestScale, bestMinimum);
      if (k + 1 < rows) odd = nibbles(v128.load(column + k * 64 + 64), bestScale, bestMinimum);
      const both = v128.or(i32x4.trunc_sat_f32x4_s(even), i32x4.shl(i32x4.trunc_sat_f32x4_s(odd), 4));
      const words = i16x8.narrow_i32x4_u(both, both);
      v128.store32_lane(to + 64 + k * 8 + j, i8x16.narrow_i16x8_u(words, words), 0);
    }
  }
}

/** Stores sixteen signed bytes times their columns' scales as floats. */
// @ts-ignore: decorator
@inline
function storeScaled(bytes: v128, s0: v128, s1: v128, s2: v128, s3: v128, to: usize): void {
  const low = i16x8.extend_low_i8x16_s(bytes);
  const high = i16x8.extend_high_i8x16_s(bytes);
  v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(low)), s0));
  v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(low)), s1), 16);
  v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(high)), s2), 32);
  v128.store(to, f32x4.mul(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(high)), s3), 48);
}

/** Rows k0 … k1 − 1 of the panel at `panel` as `[·][16]` floats at `to`; `to` is not the panel's own F32. */
export function unpackPanel(format: u32, panel: usize, k0: usize, k1: usize, to: usize): void {
  if (format == F32) {
    memory.copy(to, panel + k0 * 64, (k1 - k0) * 64);
  } else if (format == F16) {
    let from = panel + k0 * 32;
    const end = panel + k1 * 32;
    for (; from < end; from += 16, to += 32) {
      const halves = v128.load(from);
      v128.store(to, fromHalf(i32x4.extend_low_i16x8_u(halves)));
      v128.store(to, fromHalf(i32x4.extend_high_i16x8_u(halves)), 16);
    }
  } else if (format == Q8) {
    for (let k = k0; k < k1;) {
      const block = panel + (k / GROUP) * Q8_BLOCK;
      const last = min(k1, (k / GROUP + 1) * GROUP);
      const s0 = v128.load(block), s1 = v128.load(block, 16);
      const s2 = v128.load(block, 32), s3 = v128.load(block, 48);
      let from = block + 64 + (k % GROUP) * 16;
      for (; k < last; k++, from += 16, to += 64) storeScaled(v128.load(from), s0, s1, s2, s3, to);
    }
  } else {
    for (let k = k0; k < k1;) {
      const block = panel + (k / GROUP) * Q4_BLOCK;
      const last = min(k1, (k / GROUP + 1) * GROUP);
      const row = k % GROUP;
      for (let j: usize = 0; j < PANEL; j += 4) {
        const scale = fromHalf(v128.load16x4_u(block + j * 2));
        const minimum = fromHalf(v128.load16x4_u(block + 32 + j * 2));
        for (let i: usize = 0; i < last - k; i++) {
          const from = block + 64 + ((row + i) / 2) * 16 + j;
          const words = i16x8.extend_low_i8x16_u(v128.load32_zero(from));
          const shift: i32 = <i32> ((row + i) & 1) * 4;
          const n = v128.and(i32x4.shr_u(i32x4.extend_low_i16x8_u(words), shift), i32x4.splat(15));
          v128.store(to + i * 64 + j * 4, fma(f32x4.convert_i32x4_s(n), scale, minimum));
        }
      }
      to += (last - k) * 64;
      k = last;
    }
  }
}

/** Rows begin … end − 1 as row-major (·, N) floats at `to`, where row `first` lies; `scratch` holds 32 × 16 floats. */
export function unpackRows(
  format: u32,
  from: usize,
  to: usize,
  first: usize,
  K: usize,
  N: usize,
  begin: usize,
  end: usize,
  scratch: usize,
): void {
  const bytes = panelBytes(format, K);
  for (let column: usize = 0; column < N; column += PANEL, from += bytes) {
    const width = min(PANEL, N - column);
    for (let k = begin; k < end; k += GROUP) {
      const rows = min(GROUP, end - k);
      unpackPanel(format, from, k, k + rows, scratch);
      for (let i: usize = 0; i < rows; i++) {
        memory.copy(to + ((k - first + i) * N + column) * 4, scratch + i * 64, width * 4);
      }
    }
  }
}
