/**
 * Activations in bytes, for products with weights that are stored in codes.
 *
 * @module
 */
import { GROUP } from "../../tensor/stored.ts";
import type { Gpu } from "./gpu.ts";
import { temporary } from "./memory.ts";
import { type Bindings, type Slice, slice } from "./slices.ts";
import type { Parts } from "./weights.ts";

/** Threads of a workgroup that encodes; each takes four numbers. */
const THREADS = 256;

/** Whether a product can be made of codes: groups of b run along K, and a's codes fit into one binding. */
export function codesFit(gpu: Gpu, { variant }: Parts, transposeB: boolean, M: number, K: number): boolean {
  const { FORMAT, AXIS } = variant;
  if (FORMAT !== "q8" && FORMAT !== "q4") return false;
  return Boolean(AXIS) === transposeB && M * Math.ceil(K / GROUP) * GROUP <= gpu.maxBindingBytes;
}

/**
 * Encodes (M, K) numbers for a kernel that follows.
 *
 * @param a Where they lie.
 * @param params How: `M`, `K`, `aStride`, `aColumn`.
 * @param A_VECTORS Whether rows are whole vectors.
 * @param work What is done with them, by their bindings; when it returns, their memory is free again.
 */
export function encode(
  gpu: Gpu,
  a: Slice | undefined,
  params: { readonly M: number; readonly K: number } & Readonly<Record<string, number>>,
  A_VECTORS: boolean,
  work: (encoded: Bindings) => void,
): void {
  const groups = params.M * Math.ceil(params.K / GROUP);
  temporary(gpu, [groups, GROUP / 4], (codes) => {
    temporary(gpu, [groups, 2], (scales) => {
      const encoded = { codes: slice(codes), groups: slice(scales) };
      const grid = [Math.ceil(groups * GROUP / (4 * THREADS))] as const;
      gpu.run("matmul_codes_a", { a, ...encoded }, params, grid, { A_VECTORS });
      work(encoded);
    });
  });
}
