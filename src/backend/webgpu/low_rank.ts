/**
 * Low-rank updates: one for all rows, or of which every row has its own.
 *
 * @module
 */
import type { LowRankArgs, LowRankRowsArgs } from "../../tensor/backend.ts";
import type { Gpu } from "./gpu.ts";
import { matmul } from "./matmul.ts";
import { VECTOR_ROWS } from "./matmul_shapes.ts";
import { slice } from "./slices.ts";

/** The kernel for few rows: a workgroup's threads, each of which has a column. */
const FEW_ROWS = { THREADS: 256 };

/** h = x · Aᵀ, out += scaling · h · Bᵀ: in one kernel where a token's or a few tokens' rows are all there is. */
export function lowRank(gpu: Gpu, { x, A, B, scaling, h, out }: LowRankArgs): void {
  const [T, K] = x.shape;
  const [N, R] = B.shape;
  if (T > VECTOR_ROWS) {
    matmul(gpu, { a: x, b: A, transposeB: true, out: h });
    matmul(gpu, { a: h, b: B, transposeB: true, alpha: scaling, accumulate: true, out });
    return;
  }
  const bindings = { x: slice(x), A: slice(A), B: slice(B), h: slice(h), out: slice(out) };
  gpu.run("low_rank", bindings, { K, N, R, scaling }, [Math.ceil(N / FEW_ROWS.THREADS), T], FEW_ROWS);
}

/** out[t] += scaling[a] · (x[t] · A[a]ᵀ) · B[a], a = adapters[t]. */
export function lowRankRows(gpu: Gpu, { x, A, B, scaling, adapters, out }: LowRankRowsArgs): void {
  const [T, K] = x.shape;
  const bindings = {
    x: slice(x),
    A: slice(A),
    B: slice(B),
    scaling: slice(scaling),
    adapters: slice(adapters),
    out: slice(out),
  };
  gpu.run("low_rank_rows", bindings, { T, K, N: out.shape[1], R: A.shape[1] }, [T]);
}
