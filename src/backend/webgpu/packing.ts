/**
 * Frozen weights as the kernels store them: by rows, padded to whole vectors, in as many buffers as the
 * device's limit on one binding asks for. One copy serves products with the matrix and its transpose.
 *
 * - f32: as it is.
 * - f16: halves, two to a word.
 * - q8: codes −127 … 127, four to a word, times a scale.
 * - q4: codes 0 … 15, eight to a word, times a scale, plus a minimum.
 *
 * A group of {@linkcode GROUP} rows shares one scale per column: an f32 in q8; two halves in one word in
 * q4, the scale and the minimum.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import type { WeightFormat } from "../../tensor/tensor.ts";

/** Rows that share a scale. */
export const GROUP = 32;

/** How a format lies in memory. */
export interface Layout {
  /** Columns with padding. */
  readonly stride: number;
  /** Bytes of one row's codes. */
  readonly rowBytes: number;
  /** Bytes of one group's scales; 0 without. */
  readonly scaleBytes: number;
}

/** The layout of a matrix with so many columns. */
export function layoutOf(format: WeightFormat, columns: number): Layout {
  const stride = format === "q4" ? Math.ceil(columns / 8) * 8 : Math.ceil(columns / 4) * 4;
  const rowBytes = { f32: stride * 4, f16: stride * 2, q8: stride, q4: stride / 2 }[format];
  return { stride, rowBytes, scaleBytes: format === "q8" || format === "q4" ? stride * 4 : 0 };
}

/** Some rows in their packed form. */
export interface Packed {
  /** Numbers or codes, as words. */
  readonly codes: Uint32Array<ArrayBuffer>;
  /** Scales, as words; empty without. */
  readonly scales: Uint32Array<ArrayBuffer>;
}

/** Row-major numbers, some rows of which are being packed. */
interface Rows {
  /** Row r of them. */
  row(r: number): Float32Array;
  /** How many rows. */
  rows: number;
  /** How many columns. */
  columns: number;
  /** Columns with padding. */
  stride: number;
}

/**
 * Packs some rows of a matrix.
 *
 * @param data Row-major (rows, columns).
 * @param columns The matrix's columns.
 * @param first The first row; a multiple of {@linkcode GROUP}.
 * @param rows How many rows.
 * @param format How.
 * @throws {WhetError} `format` if a number does not fit into a half.
 */
export function packRows(
  data: Float32Array,
  columns: number,
  first: number,
  rows: number,
  format: WeightFormat,
): Packed {
  const { stride, rowBytes, scaleBytes } = layoutOf(format, columns);
  const codes = new Uint32Array(rows * rowBytes / 4);
  const scales = new Uint32Array(Math.ceil(rows / GROUP) * scaleBytes / 4);
  const row = (r: number) => data.subarray((first + r) * columns, (first + r + 1) * columns);
  const from = { row, rows, columns, stride };
  switch (format) {
    case "f32": {
      const floats = new Float32Array(codes.buffer);
      for (let r = 0; r < rows; r++) floats.set(row(r), r * stride);
      break;
    }
    case "f16":
      packHalves(from, new Float16Array(codes.buffer), first);
      break;
    case "q8":
      packBytes(from, new Int8Array(codes.buffer), new Float32Array(scales.buffer));
      break;
    case "q4":
      packNibbles(from, new Uint8Array(codes.buffer), new Float16Array(scales.buffer));
  }
  return { codes, scales };
}

function packHalves({ row, rows, columns, stride }: Rows, halves: Float16Array, first: number): void {
  for (let r = 0; r < rows; r++) {
    halves.set(row(r), r * stride);
    for (let c = 0; c < columns; c++) {
      if (Math.abs(halves[r * stride + c]) !== Infinity || Math.abs(row(r)[c]) === Infinity) continue;
      throw new WhetError(
        "format",
        `a weight of ${row(r)[c]} in row ${
          first + r
        } does not fit into f16 (65504 at most); take f32 weights`,
      );
    }
  }
}

function packBytes({ row, rows, columns, stride }: Rows, codes: Int8Array, scales: Float32Array): void {
  for (let r0 = 0; r0 < rows; r0 += GROUP) {
    const scale = scales.subarray(r0 / GROUP * stride, (r0 / GROUP + 1) * stride);
    const end = Math.min(r0 + GROUP, rows);
    for (let r = r0; r < end; r++) {
      const w = row(r);
      for (let c = 0; c < columns; c++) scale[c] = Math.max(scale[c], Math.abs(w[c]));
    }
    for (let c = 0; c < columns; c++) scale[c] /= 127;
    for (let r = r0; r < end; r++) {
      const w = row(r);
      for (let c = 0; c < columns; c++) {
        codes[r * stride + c] = scale[c] ? Math.max(-127, Math.min(127, Math.round(w[c] / scale[c]))) : 0;
      }
    }
  }
}

/** How often q4's scales and minima are fitted to the codes that the fit before had led to. */
const FITS = 3;

/**
 * Each column of a group begins with its range in 15 steps; then scale and minimum are fitted to the
 * codes by least squares, and the codes chosen anew. Of all rounds the one that errs least is kept.
 */
function packNibbles({ row, rows, columns, stride }: Rows, codes: Uint8Array, scales: Float16Array): void {
  const column = new Float64Array(GROUP);
  for (let r0 = 0; r0 < rows; r0 += GROUP) {
    const n = Math.min(GROUP, rows - r0);
    for (let c = 0; c < columns; c++) {
      for (let i = 0; i < n; i++) column[i] = row(r0 + i)[c];
      const [scale, minimum] = fitNibbles(column.subarray(0, n));
      const at = (r0 / GROUP * stride + c) * 2;
      scales[at] = scale;
      scales[at + 1] = minimum;
      for (let i = 0; i < n; i++) {
        codes[((r0 + i) * stride + c) >> 1] |= nibble(column[i], scale, minimum) << (c & 1) * 4;
      }
    }
  }
}

/** The code 0 … 15 whose scale · code + minimum is nearest to w. */
function nibble(w: number, scale: number, minimum: number): number {
  return scale ? Math.max(0, Math.min(15, Math.round((w - minimum) / scale))) : 0;
}

/** The scale and the minimum, both halves, for one column of a group. */
function fitNibbles(w: Float64Array): [scale: number, minimum: number] {
  let low = w[0], high = w[0], sum = 0;
  for (let i = 0; i < w.length; i++) {
    if (w[i] < low) low = w[i];
    if (w[i] > high) high = w[i];
    sum += w[i];
  }
  let scale = (high - low) / 15, minimum = low;
  let best: [number, number] = [0, 0], least = Infinity;
  for (let round = 0; round <= FITS; round++) {
    scale = Math.f16round(scale);
    minimum = Math.f16round(minimum);
    let error = 0, codes = 0, squares = 0, products = 0;
    for (let i = 0; i < w.length; i++) {
      const code = nibble(w[i], scale, minimum);
      error += (w[i] - scale * code - minimum) ** 2;
      codes += code;
      squares += code * code;
      products += code * w[i];
    }
    if (error < least) {
      least = error;
      best = [scale, minimum];
    }
    const determinant = w.length * squares - codes * codes;
    if (determinant <= 0) break;
    scale = (w.length * products - codes * sum) / determinant;
    minimum = (sum - scale * codes) / w.length;
  }
  return best;
}
