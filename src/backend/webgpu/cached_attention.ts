/**
 * Self-attention over a cache of keys and values.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import type * as K from "../../tensor/backend.ts";
import { held, TILE, tiledVariant } from "./attention.ts";
import type { Gpu } from "./gpu.ts";
import { temporary } from "./memory.ts";
import { slice } from "./slices.ts";

/** Tokens at most that each have workgroups of their own; more go through the cache in tiles. */
const MAX_ALONE = 64;
/** Keys of a workgroup at least, and workgroups of one token and head at most. */
const STRETCH = 64;
const MAX_PARTS = 32;
/** Numbers of partial results at most. */
const MAX_SUMS = 1 << 24;

/** Attention of new tokens over the cache, into which their keys and values go too: two kernels in every case. */
export function cachedAttention(gpu: Gpu, args: K.CachedAttentionArgs): void {
  const { heads: H, scale, out, keys, values } = args;
  const [T, C] = out.shape;
  const { D, constants: tiles } = tiledVariant(C, H);
  if (keys.dtype === "u32" || values.dtype !== keys.dtype) {
    throw new WhetError(
      "backend",
      `a cache of ${keys.dtype} keys and ${values.dtype} values: both are f32 or f16`,
    );
  }
  const HALF = keys.dtype === "f16";
  const VECTORS = D % 4 === 0;
  const CACHED = VECTORS ? (HALF ? "vec2u" : "vec4f") : HALF ? "u32" : "f32";
  const constants = { D, VECTORS, ELEMENT: VECTORS ? "vec4f" : "f32", HALF, CACHED };
  const W = VECTORS ? C / 4 : HALF ? Math.ceil(C / 2) : C;
  const bindings = {
    qkv: slice(args.qkv),
    keys: slice(keys),
    values: slice(values),
    slots: slice(args.slots),
    positions: slice(args.positions),
  };
  const positionsPerSlot = keys.shape[1];

  const stretch = Math.ceil(positionsPerSlot / STRETCH / MAX_PARTS) * STRETCH;
  const parts = Math.ceil(positionsPerSlot / stretch);
  const QUADS = Math.ceil(D / 4);
  const length = T * H * parts * (QUADS + 1) * 4;
  if (T <= MAX_ALONE && length <= Math.min(MAX_SUMS, gpu.maxBindingBytes / 4)) {
    const params = { H, positionsPerSlot, stretch, parts };
    const LANES = 2 ** Math.ceil(Math.log2(QUADS));
    temporary(gpu, [length], (tensor) => {
      const sums = slice(tensor);
      const alone = { ...constants, QUADS, LANES };
      gpu.run("cached_attention", { ...bindings, sums }, { ...params, scale }, [parts, T * H], alone);
      const all = { ...bindings, sums, out: slice(out) };
      gpu.run("cached_attention_merge", all, { ...params, W }, [T, H], { ...constants, QUADS });
    });
    return;
  }
  const store = { length: T * W, H, W, positionsPerSlot };
  gpu.run("cache_store", bindings, store, [Math.ceil(T * W / 256)], constants);
  gpu.run(
    "attention",
    { ...bindings, out: slice(out) },
    { T, H, scale, positionsPerSlot },
    [Math.ceil(T / TILE), H],
    { ...tiles, ...constants, OUT: "out", HELD: held(gpu, D, 1) },
  );
}
