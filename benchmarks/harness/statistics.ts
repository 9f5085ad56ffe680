/**
 * What several runs of the same work come to.
 *
 * @module
 */

/** One run: an amount of work and the time it took; or, with `seconds` 1, a figure as it is. */
export interface Sample {
  /** GFLOP, tokens, bytes, … */
  amount: number;
  /** Seconds. */
  seconds: number;
}

/** Runs in one figure. */
export interface Summary {
  /** The median of the runs' figures, or the whole's. */
  value: number;
  /** The least of the runs' figures. */
  low: number;
  /** The greatest. */
  high: number;
}

/**
 * The middle one, or the mean of the middle two.
 *
 * @param values At least one.
 * @returns Their median.
 * @throws {RangeError} If there is none.
 */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError("a median of nothing");
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * Sums runs up.
 *
 * @param samples The runs, at least one.
 * @param statistic The median of the runs, or, where each run is a part of one work, the whole: all amounts over
 * all seconds.
 * @returns The figure, and the least and greatest of the runs'.
 */
export function summarise(samples: readonly Sample[], statistic: "median" | "whole"): Summary {
  const figures = samples.map(({ amount, seconds }) => amount / seconds);
  const sum = (name: keyof Sample) => samples.reduce((total, sample) => total + sample[name], 0);
  return {
    value: statistic === "median" ? median(figures) : sum("amount") / sum("seconds"),
    low: Math.min(...figures),
    high: Math.max(...figures),
  };
}
