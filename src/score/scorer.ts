/**
 * What rates answers: a reward model, or whatever stands in for one.
 *
 * @module
 */

/** A prompt and an answer to it. */
export interface ScoredPair {
  /** What was asked: the transcript up to the answer. */
  prompt: string;
  /** The answer. */
  response: string;
}

/** How pairs are scored. */
export interface ScoreOptions {
  /** Called after each batch with how many pairs are scored. */
  onProgress?: (done: number, total: number) => void;
  /** Ends the work when aborted. */
  signal?: AbortSignal;
}

/** Rates answers; higher is better. */
export interface Scorer {
  /** Its name, for reports. */
  readonly name: string;
  /**
   * Scores pairs.
   *
   * @param pairs Prompts and answers.
   * @param options Who is told, what ends it.
   * @returns A score of each pair, in their order.
   */
  score(pairs: readonly ScoredPair[], options?: ScoreOptions): Promise<Float32Array>;
}
