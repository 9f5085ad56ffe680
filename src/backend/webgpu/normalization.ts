/**
 * Layer normalisation, and sums over rows.
 *
 * @module
 */
import type * as K from "../../tensor/backend.ts";
import { runsLargeGroups } from "./features.ts";
import type { Gpu } from "./gpu.ts";
import { slice } from "./slices.ts";
import type { Constants } from "./template.ts";

/** Columns of one workgroup of a sum over rows. */
const COLUMNS = 32;

/** The variant of a sum over so many rows: where they are many and the device has them, 1024 threads to a workgroup. */
function columnSums({ device }: Gpu, rows: number): Constants {
  return { DEPTH: rows >= 512 && runsLargeGroups(device, 8192) ? 32 : 8 };
}

/** The variants of the kernels that hold a row of C elements in registers, and W, how many they take them for. */
interface Rows {
  W: number;
  forward: Constants;
  backward: Constants;
}

const known = new Map<number, Rows>();

function rows(C: number): Rows {
  let found = known.get(C);
  if (!found) {
    const VECTORS = C % 4 === 0;
    const W = VECTORS ? C / 4 : C;
    const THREADS = W > 512 ? 256 : 64;
    const ELEMENT = VECTORS ? "vec4f" : "f32";
    const forward = { THREADS, PER: Math.ceil(W / THREADS), VECTORS, ELEMENT };
    known.set(C, found = { W, forward, backward: { ...forward, PAIRS: true } });
  }
  return found;
}

/** out = (x − mean) · rstd · weight + bias. */
export function layerNorm(gpu: Gpu, args: K.LayerNormArgs): void {
  const [T, C] = args.x.shape;
  const { W, forward } = rows(C);
  gpu.run(
    "layer_norm",
    {
      x: slice(args.x),
      weight: slice(args.weight),
      bias: slice(args.bias),
      out: slice(args.out),
      mean: slice(args.mean),
      rstd: slice(args.rstd),
    },
    { T, C, W, epsilon: args.epsilon },
    [T],
    forward,
  );
}

/** Its gradients. */
export function layerNormBackward(gpu: Gpu, args: K.LayerNormBackwardArgs): void {
  const [T, C] = args.x.shape;
  const { dX, dWeight, dBias } = args;
  const given = {
    x: slice(args.x),
    mean: slice(args.mean),
    rstd: slice(args.rstd),
    dOut: slice(args.dOut),
  };
  if (dX) {
    const { W, backward } = rows(C);
    gpu.run(
      "layer_norm_backward",
      { ...given, weight: slice(args.weight), dX: slice(dX) },
      { T, C, W, accumulate: Number(args.accumulate ?? false) },
      [T],
      backward,
    );
  }
  if (dWeight || dBias) {
    gpu.run(
      "layer_norm_weights",
      { ...given, dWeight: dWeight && slice(dWeight), dBias: dBias && slice(dBias) },
      { rows: T, columns: C, wantsWeight: Number(!!dWeight), wantsBias: Number(!!dBias) },
      [Math.ceil(C / COLUMNS), 1],
      columnSums(gpu, T),
    );
  }
}

/** out[n] += Σ over m of x[m, n]. */
export function sumRows(gpu: Gpu, { x, out }: K.SumRowsArgs): void {
  const [rows, columns] = x.shape;
  const bindings = { x: slice(x), out: slice(out) };
  gpu.run("sum_rows", bindings, { rows, columns }, [Math.ceil(columns / COLUMNS), 1], columnSums(gpu, rows));
}
