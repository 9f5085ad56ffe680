/**
 * What a file of named tensors looks like, whatever its format, and what all formats do alike.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { type FloatDType, isFloat, type StoredDType, widen } from "./dtype.ts";

/** What a file says of one tensor. */
export interface TensorInfo {
  /** What an element is. */
  readonly dtype: StoredDType;
  /** Its extents, outermost first; none for a scalar. */
  readonly shape: readonly number[];
  /** Its place in the file: tensors read in ascending order are read in one pass. */
  readonly offset: number;
  /** How many bytes its elements have. */
  readonly bytes: number;
}

/** An open file of tensors whose description of them was read and found true. */
export interface TensorFile extends Disposable {
  /** What messages call the file. */
  readonly name: string;
  /** The file's free notes, such as `format: "pt"`. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Whether to read in another order than the file's costs [no]. */
  readonly sequential?: boolean;
  /** The tensors' names, in the order that is the cheapest to read them in. */
  names(): string[];
  /** Whether there is a tensor of that name. */
  has(name: string): boolean;
  /**
   * What the file says of a tensor.
   *
   * @param name Its name.
   * @returns Its element type, shape and place.
   * @throws {WhetError} `format`, if there is none of that name; so do all that take a name.
   */
  info(name: string): TensorInfo;
  /**
   * Reads a tensor's elements.
   *
   * @param name Its name.
   * @returns Their bytes, row-major, each element little-endian.
   */
  readBytes(name: string): Promise<Uint8Array<ArrayBuffer>>;
  /**
   * Reads a tensor as 32-bit floats.
   *
   * @param name Its name; of type F32, F16 or BF16.
   * @returns Its values, row-major.
   * @throws {WhetError} `format`, if it holds something else.
   */
  readF32(name: string): Promise<Float32Array<ArrayBuffer>>;
  /**
   * Reads some rows (stretches along the first axis) of a tensor as 32-bit floats.
   *
   * @param name Its name; of type F32, F16 or BF16, with at least one axis.
   * @param firstRow The first row.
   * @param rows How many.
   * @returns Their values, row-major.
   * @throws {WhetError} `format`, if there are no such rows or they hold something else.
   */
  readRowsF32(name: string, firstRow: number, rows: number): Promise<Float32Array<ArrayBuffer>>;
  /** Lets go of a connection that will not be needed soon. */
  rest(): void;
}

/** Narrow floats are widened in pieces of so many bytes, so that they never lie in memory twice. */
const PIECE = 4 * 2 ** 20;

/**
 * Throws unless a tensor's elements can be read as 32-bit floats without loss.
 *
 * @param where The tensor's file.
 * @param name Its name.
 * @param dtype Its element type.
 * @throws {WhetError} `format`.
 */
export function checkFloat(where: string, name: string, dtype: StoredDType): asserts dtype is FloatDType {
  if (isFloat(dtype)) return;
  throw new WhetError(
    "format",
    `${where}: tensor ${name} is of type ${dtype}; expected F32, F16 or BF16, convert it`,
  );
}

/**
 * Throws unless a tensor has such rows.
 *
 * @param where The tensor's file.
 * @param name Its name.
 * @param R How many rows it has.
 * @param firstRow The first of those asked for.
 * @param rows How many are asked for.
 * @throws {WhetError} `format`.
 */
export function checkRows(where: string, name: string, R: number, firstRow: number, rows: number): void {
  const whole = Number.isInteger(firstRow) && Number.isInteger(rows);
  if (whole && firstRow >= 0 && rows >= 0 && firstRow + rows <= R) return;
  throw new WhetError(
    "format",
    `${where}: tensor ${name} has ${R} rows, not ${firstRow} to ${firstRow + rows}`,
  );
}

/**
 * Reads elements that lie in one stretch as 32-bit floats.
 *
 * @param where The tensor's file.
 * @param name Its name.
 * @param dtype What an element is.
 * @param length The stretch's bytes.
 * @param read Reads a part of the stretch, given where it begins and its length.
 * @returns The values.
 * @throws {WhetError} `resource`, if there is no memory for them; and what `read` throws.
 */
export async function readWidened(
  where: string,
  name: string,
  dtype: FloatDType,
  length: number,
  read: (begin: number, length: number) => Promise<Uint8Array<ArrayBuffer>>,
): Promise<Float32Array<ArrayBuffer>> {
  if (dtype === "F32") return new Float32Array((await read(0, length)).buffer);
  let values;
  try {
    values = new Float32Array(length / 2);
  } catch (error) {
    throw new WhetError("resource", `${where}: no memory for tensor ${name}`, { cause: error });
  }
  for (let at = 0; at < length; at += PIECE) {
    const bytes = await read(at, Math.min(PIECE, length - at));
    widen(dtype, bytes, values.subarray(at / 2, (at + bytes.length) / 2));
  }
  return values;
}
