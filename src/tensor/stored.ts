/**
 * The numbers of a {@linkcode StoredMatrix}: how many there are of each kind, and what they stand for.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import type { GroupAxis, StoredMatrix, WeightFormat } from "./tensor.ts";

/** Numbers that share a scale, at most. */
export const GROUP = 32;

/** The largest half: what q4's scales and minima stay below, for backends may keep them as halves. */
export const LARGEST_HALF = 65504;

/**
 * Refuses numbers that a format which keeps halves cannot hold; infinities and what is no number pass.
 *
 * @param data Row-major, so many columns.
 * @throws {WhetError} `format` if one is too large.
 */
export function refuseBeyondHalves(data: Float32Array, columns: number, format: WeightFormat): void {
  for (let i = 0; i < data.length; i++) {
    if (Math.abs(data[i]) <= LARGEST_HALF || !Number.isFinite(data[i])) continue;
    throw new WhetError(
      "format",
      `a weight of ${data[i]} in row ${Math.floor(i / columns)} does not fit into ${format}, whose largest ` +
        `is ${LARGEST_HALF}: take f32 weights`,
    );
  }
}

/** Bits of one code. */
export const CODE_BITS = { f16: 16, q8: 8, q4: 4 } as const;

/** A storage format other than plain f32. */
export type StoredFormat = StoredMatrix["format"];

/** Whether a format's numbers come in groups that share a scale. */
export function isGrouped(format: WeightFormat): format is "q8" | "q4" {
  return format === "q8" || format === "q4";
}

/** Bytes of a matrix's codes. */
export function codeBytes(format: StoredFormat, rows: number, columns: number): number {
  return Math.ceil(rows * columns * CODE_BITS[format] / 8);
}

/** The shape of a matrix's scales: (⌈rows / 32⌉, columns) for axis 0, (rows, ⌈columns / 32⌉) for axis 1. */
export function scalesShape(rows: number, columns: number, axis: GroupAxis): [number, number] {
  return axis === 0 ? [Math.ceil(rows / GROUP), columns] : [rows, Math.ceil(columns / GROUP)];
}

/**
 * Checks that a matrix has as many codes, scales and minima as its shape and format ask for.
 *
 * @throws {WhetError} `backend` if not: whoever made it is wrong.
 */
export function checkStored({ rows, columns, format, axis, codes, scales, minima }: StoredMatrix): void {
  const [groups, width] = scalesShape(rows, columns, axis);
  const wanted = [
    codeBytes(format, rows, columns),
    isGrouped(format) ? groups * width : undefined,
    format === "q4" ? groups * width : undefined,
  ];
  const given = [codes.length, scales?.length, minima?.length];
  if (wanted.every((length, i) => length === given[i])) return;
  throw new WhetError(
    "backend",
    `a ${format} matrix of ${rows} × ${columns}, its groups along axis ${axis}: expected ${
      wanted[0]
    } bytes of ` +
      `codes, ${wanted[1] ?? 0} scales and ${wanted[2] ?? 0} minima, got ${
        given.map((n) => n ?? 0).join(", ")
      }`,
  );
}

/**
 * The numbers that a stored matrix stands for, each rounded to f32 once it is multiplied and once it is added.
 *
 * @param stored The matrix.
 * @returns Row-major (rows, columns).
 * @throws {WhetError} As {@linkcode checkStored}.
 */
export function dequantize(stored: StoredMatrix): Float32Array<ArrayBuffer> {
  checkStored(stored);
  const { rows, columns, format, axis, codes, scales, minima } = stored;
  const length = rows * columns;
  if (format === "f16") return new Float32Array(new Float16Array(codes.slice().buffer));
  const numbers = new Float32Array(length);
  const [, width] = scalesShape(rows, columns, axis);
  const signed = new Int8Array(codes.buffer, codes.byteOffset, codes.length);
  for (let row = 0, i = 0; row < rows; row++) {
    // Groups down the rows: every column has its scale. Along columns: 32 columns after one another share one.
    const first = (axis === 0 ? row >> 5 : row) * width;
    for (let column = 0; column < columns; column++, i++) {
      const group = first + (axis === 0 ? column : column >> 5);
      numbers[i] = format === "q8"
        ? signed[i] * scales![group]
        : Math.fround(((codes[i >> 1] >> ((i & 1) << 2)) & 15) * scales![group]) + minima![group];
    }
  }
  return numbers;
}
