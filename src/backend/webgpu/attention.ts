/**
 * Self-attention within sequences, forward and backward.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import type * as K from "../../tensor/backend.ts";
import { elementwise, SCALARS } from "./elementwise.ts";
import { groupLimits } from "./features.ts";
import type { Gpu } from "./gpu.ts";
import { temporary } from "./memory.ts";
import { slice } from "./slices.ts";
import type { Constants } from "./template.ts";

/** Queries or keys of one workgroup, and elements of a head in one chunk. */
export const TILE = 32;
/** The widest head. */
const MAX_WIDTH = 256;
/** Bytes of workgroup memory beside tiles that are held: two tiles of 32 × 36 numbers, and a row of each thread's. */
const TILES_BYTES = 2 * TILE * 36 * 4 + 64 * 16;

/** D, and the variant of the kernels for it. */
export function tiledVariant(C: number, heads: number): { D: number; constants: Constants } {
  const D = C / heads;
  if (!Number.isInteger(D) || D > MAX_WIDTH) {
    throw new WhetError(
      "unsupported",
      `attention of ${heads} heads over ${C} channels: a head must have a whole number of them, at most ${MAX_WIDTH}`,
    );
  }
  const DEPTH = Math.min(TILE, Math.ceil(D / 4) * 4);
  const VECTORS = D % 4 === 0;
  const ELEMENT = VECTORS ? "vec4f" : "f32";
  return { D, constants: { D, CHUNKS: Math.ceil(D / TILE), DEPTH, VECTORS, ELEMENT } };
}

/**
 * How many of the tiles of all of D that a workgroup needs again and again it holds: all that it wants, or none where they
 * would take more than two thirds of the memory that it may have, for others are to run beside it.
 */
export function held(gpu: Gpu, D: number, wanted: number): number {
  const bytes = wanted * TILE * (Math.ceil(D / 4) | 1) * 16 + TILES_BYTES;
  return bytes * 1.5 <= groupLimits(gpu.device).bytes ? wanted : 0;
}

/** Causal self-attention within sequences. */
export function attention(gpu: Gpu, args: K.AttentionArgs): void {
  const { heads: H, scale, out } = args;
  const [T, C] = out.shape;
  const { D, constants } = tiledVariant(C, H);
  gpu.run(
    "attention",
    {
      qkv: slice(args.qkv),
      starts: slice(args.starts),
      out: slice(out),
      logSumExp: slice(args.logSumExp),
    },
    { T, H, scale },
    [Math.ceil(T / TILE), H],
    { ...constants, OUT: "out", HELD: held(gpu, D, 1) },
  );
}

/** Its gradient, from probabilities that are recomputed from `logSumExp`, once by queries, once by keys. */
export function attentionBackward(gpu: Gpu, args: K.AttentionBackwardArgs): void {
  const { heads: H, scale } = args;
  const [T, C] = args.out.shape;
  const { D, constants } = tiledVariant(C, H);
  temporary(gpu, [T, H], (delta) => {
    const { out, dOut } = args;
    const others = { out: slice(out), dOut: slice(dOut) };
    const [width, quads] = D % 4 ? [D, SCALARS] : [D / 4, { ...SCALARS, ELEMENT: "vec4f", QUADS: true }];
    elementwise(gpu, "attention_delta", T * H, { delta }, { D: width }, quads, others);
    const bindings = {
      qkv: slice(args.qkv),
      dOut: slice(dOut),
      logSumExp: slice(args.logSumExp),
      delta: slice(delta),
      dQkv: slice(args.dQkv),
    };
    const grid = [Math.ceil(T / TILE), H] as const;
    const backward = { ...constants, BACKWARD: true, OUT: "dQkv", HELD: held(gpu, D, 2) };
    const params = { T, H, scale };
    gpu.run("attention_backward_query", { ...bindings, starts: slice(args.starts) }, params, grid, backward);
    gpu.run("attention_backward_key", { ...bindings, ends: slice(args.ends) }, params, grid, backward);
  });
}
