/**
 * Which rows of DeBERTa's relative embeddings relative positions have.
 *
 * @module
 */
import type { DebertaConfig } from "./deberta_config.ts";

/** The rows of the relative embeddings that sequences up to a length reach, and which of them each position has. */
export interface RelativeRows {
  /** The first row that is reached. */
  readonly first: number;
  /** How many are, P. */
  readonly count: number;
  /** (2L − 1): the row, counted from the first, of relative position i − j at place i − j + L − 1. */
  readonly buckets: Uint32Array;
}

/** Rows of the relative embeddings: each way, one for each bucket or position. */
export function relativeEmbeddingRows(config: DebertaConfig): number {
  return 2 * span(config);
}

/** Buckets, or positions, each way. */
function span({ position_buckets, max_relative_positions }: DebertaConfig): number {
  return position_buckets > 0 ? position_buckets : max_relative_positions;
}

/**
 * The rows that sequences reach.
 *
 * @param config The model's shape.
 * @param longest The longest sequence, L.
 */
export function relativeRows(config: DebertaConfig, longest: number): RelativeRows {
  const { position_buckets, max_relative_positions } = config;
  const middle = span(config);
  const row = (position: number) => {
    const bucket = position_buckets > 0
      ? logBucket(position, position_buckets, max_relative_positions)
      : position;
    return Math.max(0, Math.min(2 * middle - 1, bucket + middle));
  };
  const rows = Uint32Array.from({ length: 2 * longest - 1 }, (_, i) => row(i - longest + 1));
  const first = rows[0];
  return { first, count: rows.at(-1)! - first + 1, buckets: rows.map((row) => row - first) };
}

/**
 * The bucket of a relative position (He et al. 2021, as `make_log_bucket_position` has it): near ones are their own,
 * beyond half of the buckets they go by the logarithm. In f32, step by step: the ends of buckets depend on it.
 */
function logBucket(position: number, buckets: number, maxPosition: number): number {
  const middle = Math.floor(buckets / 2);
  const distance = Math.abs(position);
  if (distance <= middle) return position;
  const { fround, log, ceil } = Math;
  const share = fround(
    fround(log(fround(distance / middle))) / fround(log(fround((maxPosition - 1) / middle))),
  );
  return Math.sign(position) * (ceil(fround(share * (middle - 1))) + middle);
}
