/**
 * What the kernels rely on and cannot see for themselves: shapes that fit and indices in range. WebAssembly
 * would read another tensor's memory without a word.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import type { Matrix, Tensor } from "../../tensor/tensor.ts";

/** Throws unless a condition holds. */
export function expect(condition: boolean, message: string): asserts condition {
  if (!condition) throw new WhetError("option", message);
}

/** Rows and columns of an array whose last extent is the columns. */
export function extents(tensor: Tensor): [rows: number, columns: number] {
  const columns = tensor.shape.at(-1) ?? 1;
  return [columns === 0 ? 0 : tensor.length / columns, columns];
}

/** Rows and columns of a matrix of exactly two extents. */
export function matrixExtents(matrix: Matrix, name: string): [rows: number, columns: number] {
  expect(matrix.shape.length === 2, `${name}: expected a matrix, got shape [${matrix.shape}]`);
  return [matrix.shape[0], matrix.shape[1]];
}

/** Throws unless every index is below a bound. */
export function expectBelow(indices: Uint32Array, bound: number, name: string): void {
  for (let i = 0; i < indices.length; i++) {
    if (indices[i] >= bound) {
      throw new WhetError("option", `${name}[${i}] is ${indices[i]}; expected a number below ${bound}`);
    }
  }
}

/** A sequence's rows, begin … end − 1. */
export interface Run {
  begin: number;
  end: number;
}

/** The sequences that `starts` describes: rows of one start lie together, and the first is that start. */
export function sequences(starts: Uint32Array): Run[] {
  const runs: Run[] = [];
  for (let t = 0; t < starts.length; t++) {
    const run = runs.at(-1);
    if (run && starts[t] === run.begin) run.end = t + 1;
    else if (starts[t] === t) runs.push({ begin: t, end: t + 1 });
    else throw new WhetError("option", `starts[${t}] is ${starts[t]}; expected ${run?.begin ?? 0} or ${t}`);
  }
  return runs;
}
