/**
 * Self-attention, forward, backward and over a cache.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import type * as K from "../../tensor/backend.ts";
import { elementwise, SCALARS } from "./elementwise.ts";
import type { Gpu } from "./gpu.ts";
import { temporary } from "./memory.ts";
import { slice } from "./slices.ts";

/** Queries or keys of one workgroup, and elements of a head in one chunk. */
const TILE = 32;
/** The widest head. */
const MAX_WIDTH = 128;

/** D, and the variant of the tiled kernels for it. */
export function tiledVariant(C: number, heads: number) {
  const D = C / heads;
  if (!Number.isInteger(D) || D > MAX_WIDTH) {
    throw new WhetError(
      "unsupported",
      `attention of ${heads} heads over ${C} channels: a head must have a whole number of them, at most 128`,
    );
  }
  const DEPTH = Math.min(TILE, Math.ceil(D / 4) * 4);
  const VECTORS = D % 4 === 0;
  const ELEMENT = VECTORS ? "vec4f" : "f32";
  return { D, constants: { D, CHUNKS: Math.ceil(D / TILE), DEPTH, VECTORS, ELEMENT } };
}

/** Causal self-attention within sequences. */
export function attention(gpu: Gpu, args: K.AttentionArgs): void {
  const { heads: H, scale, out } = args;
  const [T, C] = out.shape;
  const { constants } = tiledVariant(C, H);
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
    { ...constants, OUT: "out" },
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
    elementwise(gpu, "attention_delta", T * H, { delta }, { D }, SCALARS, others);
    const bindings = {
      qkv: slice(args.qkv),
      dOut: slice(dOut),
      logSumExp: slice(args.logSumExp),
      delta: slice(delta),
      dQkv: slice(args.dQkv),
    };
    const grid = [Math.ceil(T / TILE), H] as const;
    const backward = { ...constants, BACKWARD: true, OUT: "dQkv" };
    const params = { T, H, scale };
    gpu.run("attention_backward_query", { ...bindings, starts: slice(args.starts) }, params, grid, backward);
    gpu.run("attention_backward_key", { ...bindings, ends: slice(args.ends) }, params, grid, backward);
  });
}

/** Attention of new tokens over the cache, into which their keys and values go first. */
export function cachedAttention(gpu: Gpu, args: K.CachedAttentionArgs): void {
  const { heads: H, scale, out, keys, values } = args;
  const [T, C] = out.shape;
  const { D } = tiledVariant(C, H);
  if (keys.dtype === "u32" || values.dtype !== keys.dtype) {
    throw new WhetError(
      "backend",
      `a cache of ${keys.dtype} keys and ${values.dtype} values: both are f32 or f16`,
    );
  }
  const HALF = keys.dtype === "f16";
  const constants = { HALF, WORD: HALF ? "u32" : "f32" };
  const W = HALF ? Math.ceil(C / 2) : C;
  const bindings = {
    qkv: slice(args.qkv),
    keys: slice(keys),
    values: slice(values),
    slots: slice(args.slots),
    positions: slice(args.positions),
  };
  const positionsPerSlot = keys.shape[1];
  const groups = [Math.ceil(T * W / 256)] as const;
  gpu.run("cache_store", bindings, { length: T * W, C, W, positionsPerSlot }, groups, constants);
  gpu.run("cached_attention", { ...bindings, out: slice(out) }, { H, positionsPerSlot, scale }, [T, H], {
    ...constants,
    D,
    EVEN: D % 2 === 0,
  });
}
