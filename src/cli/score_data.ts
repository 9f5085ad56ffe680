/**
 * What `whet score` is given, reads, and leaves out.
 *
 * @module
 */
import { Dialogues } from "../data/dialogues.ts";
import { WhetError } from "../errors.ts";
import type { LeftOut } from "../score/pairs.ts";
import type { SCORE } from "./command_flags.ts";
import type { Values } from "./flags.ts";
import { showLoading } from "./model.ts";
import { note } from "./output.ts";

/** The values of the flags of `score`. */
export type ScoreValues = Values<typeof SCORE>;

/** The file of `--data`. */
export async function loadData(
  { data, quiet }: { data: string; quiet: boolean },
  signal?: AbortSignal,
): Promise<Dialogues> {
  const loading = showLoading(quiet);
  try {
    return await Dialogues.load(data, { ...loading, signal });
  } finally {
    loading.finish();
  }
}

/**
 * Says what was left out.
 *
 * @param leftOut What has no answer, by reason.
 * @param data What it comes from.
 * @param quiet Whether to keep it to oneself.
 * @returns How many examples that are.
 * @throws {WhetError} `format`, if that is all of them.
 */
export function countLeftOut(leftOut: readonly LeftOut[], data: Dialogues, quiet: boolean): number {
  const count = leftOut.reduce((sum, one) => sum + one.count, 0);
  const words = leftOut.map(({ reason, count, first }) =>
    `${count}: ${reason} (first: ${data.where(first)})`
  );
  if (count === data.length) {
    throw new WhetError("format", `none of the ${count} examples can be scored: ${words.join("; ")}`);
  }
  if (count > 0 && !quiet) note(`${count} of ${data.length} examples are left out: ${words.join("; ")}`);
  return count;
}

/** `0.1234 ± 0.0567`: a mean and its standard error, where there is one. */
export function withError(mean: number, standardError: number): string {
  return mean.toFixed(4) + (Number.isNaN(standardError) ? "" : ` ± ${standardError.toFixed(4)}`);
}

/** Whether a bar would run into the results: both in the same terminal. */
export function resultsAreProgress(json: boolean): boolean {
  return !json && Deno.stdout.isTerminal() && Deno.stderr.isTerminal();
}
