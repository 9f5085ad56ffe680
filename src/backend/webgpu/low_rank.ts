/**
 * Low-rank updates of which every row has its own.
 *
 * @module
 */
import type { LowRankRowsArgs } from "../../tensor/backend.ts";
import type { Gpu } from "./gpu.ts";
import { slice } from "./slices.ts";

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
