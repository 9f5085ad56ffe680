/**
 * DeBERTa's self-attention.
 *
 * @module
 */
import type { DisentangledAttentionArgs } from "../../tensor/backend.ts";
import { tiledVariant } from "./attention.ts";
import type { Gpu } from "./gpu.ts";
import { slice } from "./slices.ts";

/** Queries of one workgroup. */
const TILE = 32;

/** Attention within sequences, both ways, by content and by relative position. */
export function disentangledAttention(gpu: Gpu, args: DisentangledAttentionArgs): void {
  const { heads: H, scale, out, positionKeys, positionQueries, buckets } = args;
  const [T, C] = out.shape;
  const { constants } = tiledVariant(C, H);
  const positions = Boolean(positionKeys ?? positionQueries);
  gpu.run(
    "disentangled_attention",
    {
      qkv: slice(args.qkv),
      starts: slice(args.starts),
      ends: slice(args.ends),
      positionKeys: positionKeys && slice(positionKeys),
      positionQueries: positionQueries && slice(positionQueries),
      buckets: positions ? slice(buckets!) : undefined,
      out: slice(out),
    },
    { T, H, L: positions ? (buckets!.length + 1) / 2 : 0, scale },
    [Math.ceil(T / TILE), H],
    {
      ...constants,
      OUT: "out",
      POSITIONS: positions,
      CONTENT_TO_POSITION: Boolean(positionKeys),
      POSITION_TO_CONTENT: Boolean(positionQueries),
    },
  );
}
