/**
 * The loss, and the gradients' norm.
 *
 * @module
 */
import type * as K from "../../tensor/backend.ts";
import { QUADS, SCALARS } from "./elementwise.ts";
import { runsLargeGroups } from "./features.ts";
import type { Gpu } from "./gpu.ts";
import { temporary } from "./memory.ts";
import { slice } from "./slices.ts";

/** Elements of one workgroup's first block, and workgroups at most, of a sum of squares. */
const THREADS = 256;
const MAX_GROUPS = 1024;

/** Rows of so many logits are worth workgroups of 1024 threads, which share 4 bytes each. */
const LONG_ROW = 4096;

/** Softmax cross-entropy; with `gradientScale` the logits become their gradient. */
export function crossEntropy(gpu: Gpu, { logits, targets, loss, gradientScale }: K.CrossEntropyArgs): void {
  const [N, V] = logits.shape;
  gpu.run(
    "cross_entropy",
    { logits: slice(logits), targets: slice(targets), loss: slice(loss) },
    { N, V, wantsGradient: Number(gradientScale !== undefined), scale: gradientScale ?? 0 },
    [N],
    { THREADS: V > LONG_ROW && runsLargeGroups(gpu.device, 4096) ? 1024 : 256 },
  );
}

/** out[0] = Σ x², or that added to it: partial sums, then their sum, in an order that never changes. */
export function sumOfSquares(gpu: Gpu, { x, out, accumulate }: K.SumOfSquaresArgs): void {
  const step = gpu.maxBindingBytes / 4;
  const width = (length: number) => length % 4 ? length : length / 4;
  const groups = (length: number) => Math.min(MAX_GROUPS, Math.ceil(width(length) / (THREADS * 4)));
  const count = Math.floor(x.length / step) * groups(step) + groups(x.length % step);
  temporary(gpu, [count], (partials) => {
    let first = 0;
    for (let at = 0; at < x.length; at += step) {
      const length = Math.min(step, x.length - at);
      const bindings = { x: slice(x, at, length), partials: slice(partials) };
      const params = { length: width(length), first };
      gpu.run("sum_of_squares", bindings, params, [groups(length), 1], length % 4 ? SCALARS : QUADS);
      first += groups(length);
    }
    const bindings = { partials: slice(partials), out: slice(out) };
    gpu.run("sum_partials", bindings, { length: first, accumulate: Number(accumulate ?? false) }, [1, 1]);
  });
}

/** The gradients' norm, and the factor that brings it under `maxNorm`. */
export function clipFactor(gpu: Gpu, { sumOfSquares, maxNorm, out }: K.ClipFactorArgs): void {
  gpu.run("clip_factor", { sumOfSquares: slice(sumOfSquares), out: slice(out) }, { maxNorm }, [1, 1]);
}
