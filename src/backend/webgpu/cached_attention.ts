/**
 * Self-attention over a cache of keys and values.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import { CACHE_BLOCK, type CachedAttentionArgs } from "../../tensor/backend.ts";
import { held, TILE, tiledVariant } from "./attention.ts";
import { runsLargeGroups } from "./features.ts";
import type { Gpu } from "./gpu.ts";
import { temporary } from "./memory.ts";
import { slice } from "./slices.ts";
import type { Constants } from "./template.ts";

/** Tokens at most that each have workgroups of their own; more go through the cache in tiles. */
const MAX_ALONE = 64;
/** Positions that one workgroup goes through; of longer contexts, it takes one of so many stretches, or more of them. */
const MAX_STRETCH = 2080;
const STRETCH = 64;
const MAX_PARTS = 64;
/** Where tokens and heads make so many workgroups, contexts are not split. */
const ENOUGH_GROUPS = 128;

/**
 * Attention of new tokens over the cache, into which their keys and values go too: few tokens in one kernel, or two where
 * a long context is split and merged; many in one that stores and one that goes through the cache in tiles.
 */
export function cachedAttention(gpu: Gpu, args: CachedAttentionArgs): void {
  const { heads: H, scale, keys, values, blocks } = args;
  const [T, C] = args.out.shape;
  const { D, constants: tiles } = tiledVariant(C, H);
  if (keys.dtype === "u32" || values.dtype !== keys.dtype) {
    throw new WhetError(
      "backend",
      `a cache of ${keys.dtype} keys and ${values.dtype} values: both are f32 or f16`,
    );
  }
  if (blocks && keys.shape[1] !== CACHE_BLOCK) {
    throw new WhetError(
      "backend",
      `a cache in blocks of ${keys.shape[1]} positions: they have ${CACHE_BLOCK}`,
    );
  }
  const HALF = keys.dtype === "f16";
  const BLOCKS = Boolean(blocks);
  const W = D % 4 === 0 ? C / 4 : HALF ? Math.ceil(C / 2) : C;
  const perSlot = blocks ? blocks.shape[1] : keys.shape[1];
  const bindings = {
    qkv: slice(args.qkv),
    keys: slice(keys),
    values: slice(values),
    blocks: blocks && slice(blocks),
    slots: slice(args.slots),
    positions: slice(args.positions),
  };
  const out = slice(args.out);

  if (T > MAX_ALONE) {
    const store = { length: T * W, H, W, perSlot };
    const constants = variant(D, HALF, BLOCKS);
    gpu.run("cache_store", bindings, store, [Math.ceil(T * W / 256)], constants);
    const tiled = { ...tiles, ...constants, OUT: "out", HELD: held(gpu, D, 1) };
    const grid = [Math.ceil(T / TILE), H] as const;
    gpu.run("attention", { ...bindings, out }, { T, H, scale, perSlot }, grid, tiled);
    return;
  }

  const QUADS = Math.ceil(D / 4);
  // Whether the cache lies in blocks or not, results have the same bits.
  const most = Math.ceil((blocks ? perSlot * CACHE_BLOCK : perSlot) / CACHE_BLOCK) * CACHE_BLOCK;
  const stretch = Math.ceil(most / STRETCH / MAX_PARTS) * STRETCH;
  const parts = Math.ceil(most / stretch);
  const length = T * H * parts * (QUADS + 1) * 4;
  if (most <= MAX_STRETCH || T * H >= ENOUGH_GROUPS || length * 4 > gpu.maxBindingBytes) {
    const params = { H, perSlot, W, stretch: most, parts: 1, scale };
    const whole = variant(D, HALF, BLOCKS, threads(gpu, most));
    gpu.run("cached_attention", { ...bindings, out }, params, [1, T * H], whole);
    return;
  }
  temporary(gpu, [length], (tensor) => {
    const sums = slice(tensor);
    const params = { H, perSlot, W, stretch, parts, scale };
    const split = variant(D, HALF, BLOCKS, STRETCH, true);
    gpu.run("cached_attention", { ...bindings, sums }, params, [parts, T * H], split);
    const { positions } = bindings;
    gpu.run("cached_attention_merge", { positions, sums, out }, params, [1, T * H], split);
  });
}

const variants = new Map<string, Constants>();

/** The variant of the kernels for heads of a width over a cache of a kind, the same object every time. */
function variant(D: number, HALF: boolean, BLOCKS: boolean, THREADS = 0, SPLIT = false): Constants {
  const key = `${D} ${HALF} ${BLOCKS} ${THREADS} ${SPLIT}`;
  let found = variants.get(key);
  if (!found) {
    const VECTORS = D % 4 === 0;
    const CACHED = VECTORS ? (HALF ? "vec2u" : "vec4f") : HALF ? "u32" : "f32";
    const cache = { HALF, CACHED, BLOCKS, BLOCK: CACHE_BLOCK };
    const QUADS = Math.ceil(D / 4);
    const LANES = 2 ** Math.ceil(Math.log2(QUADS));
    const ELEMENT = VECTORS ? "vec4f" : "f32";
    variants.set(key, found = { D, VECTORS, ELEMENT, ...cache, QUADS, LANES, THREADS, SPLIT });
  }
  return found;
}

/** Threads of a workgroup that goes through a whole context: 28 bytes of workgroup memory for each, and 1 KiB. */
function threads({ device }: Gpu, positions: number): number {
  return Math.min(runsLargeGroups(device, 29 << 10) ? 1024 : 256, 2 ** Math.floor(Math.log2(positions)));
}
