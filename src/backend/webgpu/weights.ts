/**
 * Matrices as kernels bind them, plain or packed, in parts where one binding does not hold them.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import { type Matrix, PackedMatrix, Tensor } from "../../tensor/tensor.ts";
import type { Allocation } from "./buffers.ts";
import type { Gpu } from "./gpu.ts";
import { type Bindings, type Slice, slice } from "./slices.ts";
import type { Constants } from "./template.ts";

/** Some rows of a matrix, small enough for one binding. */
export interface Part extends Range {
  /** `weight`, and `scales` where the format has them. */
  readonly bindings: Bindings;
  /** `weightRows`, `weightColumns`, `weightStride`. */
  readonly params: Readonly<Record<string, number>>;
}

/** A matrix for a kernel that imports `weight_$FORMAT`. */
export interface Parts {
  /** The constants FORMAT, and AXIS where its groups run along columns. */
  readonly variant: Constants;
  /** Its parts, from the first row on. */
  readonly parts: readonly Part[];
}

/** What a {@linkcode PackedMatrix}'s memory is. */
export interface PackedMemory extends Parts {
  /** Where its parts lie. */
  readonly allocations: readonly Allocation[];
}

/**
 * How many rows one binding may hold.
 *
 * @param limit Bytes of a binding.
 * @param rowBytes Bytes of a row.
 * @param multiple What the number must be a multiple of, so that the next part begins at a whole group.
 * @throws {WhetError} `resource` if not even that many fit.
 */
export function rowsPerPart(limit: number, rowBytes: number, multiple: number): number {
  const rows = Math.floor(limit / rowBytes / multiple) * multiple;
  if (rows) return rows;
  throw new WhetError(
    "resource",
    `${multiple} rows of ${rowBytes} bytes exceed the ${limit} bytes that this GPU lets a kernel see at once`,
  );
}

/** A stretch of rows. */
export interface Range {
  /** The first. */
  readonly first: number;
  /** How many. */
  readonly rows: number;
}

/**
 * Cuts rows into ranges that one binding holds of each of some plain matrices, which have as many.
 *
 * @param rows How many rows.
 * @param widths The matrices' columns.
 */
export function rowRanges(gpu: Gpu, rows: number, ...widths: number[]): Range[] {
  const width = Math.max(...widths);
  if (rows * width * 4 <= gpu.maxBindingBytes) return [{ first: 0, rows }];
  const size = rowsPerPart(gpu.maxBindingBytes, width * 4, Math.max(...widths.map(rowAlignment)));
  const ranges: Range[] = [];
  for (let first = 0; first < rows; first += size) ranges.push({ first, rows: Math.min(size, rows - first) });
  return ranges;
}

/** Some rows of a plain (rows, columns) tensor. */
export function rowSlice(tensor: Tensor, { first, rows }: Range): Slice {
  const columns = tensor.shape.at(-1)!;
  return slice(tensor, first * columns, rows * columns);
}

/** How many rows lie between two that begin at a multiple of 64 elements, where a binding may begin. */
function rowAlignment(columns: number): number {
  if (columns === 0) return 1;
  let power = 64;
  while (power > 1 && columns % 2 === 0) {
    power /= 2;
    columns /= 2;
  }
  return power;
}

/**
 * A matrix as a kernel that imports `weight_$FORMAT` binds it.
 *
 * @param beside Columns of a plain matrix of as many rows that is cut into the same parts; only with a
 * plain `matrix`.
 */
export function weightParts(gpu: Gpu, matrix: Matrix, beside = 0): Parts {
  if (matrix instanceof PackedMatrix) return memoryOf(matrix);
  const [rows, columns] = matrix.shape;
  return {
    variant: { FORMAT: columns % 4 ? "plain" : "f32", AXIS: 0 },
    parts: rowRanges(gpu, rows, columns, beside).map((range) => ({
      ...range,
      bindings: { weight: rowSlice(matrix, range) },
      params: { weightRows: range.rows, weightColumns: columns, weightStride: columns },
    })),
  };
}

/** A frozen weight's memory, if it still has any. */
export function memoryOf(matrix: PackedMatrix): PackedMemory {
  const memory = matrix.memory as PackedMemory;
  if (memory?.allocations?.every(({ live }) => live)) return memory;
  const what = `a ${matrix.format} weight of ${matrix.rows} × ${matrix.columns}`;
  throw new WhetError("backend", `${what} is used, but not in this device's memory`);
}

/** Gives a tensor's or packed weight's memory back. */
export function free(gpu: Gpu, matrix: Matrix): void {
  if (gpu.disposed) return;
  const allocations = matrix instanceof Tensor
    ? [matrix.memory as Allocation]
    : (matrix.memory as PackedMemory).allocations;
  for (const allocation of allocations) gpu.release(allocation);
  gpu.allocations--;
}
