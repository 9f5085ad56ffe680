/**
 * `whet score --reward-model`: answers, or pairs of them, scored by a reward model.
 *
 * @module
 */
import type { Dialogues } from "../data/dialogues.ts";
import { Progress } from "../report/progress.ts";
import { preference, scoreStretches, selectComparisons, selectPairs, type Side } from "../score/pairs.ts";
import type { ScoredPair, Scorer } from "../score/scorer.ts";
import { mean, standardError } from "../score/statistics.ts";
import { interruptible } from "./interrupt.ts";
import { openRewardModel } from "./model.ts";
import { note, printLine } from "./output.ts";
import { countLeftOut, loadData, resultsAreProgress, type ScoreValues, withError } from "./score_data.ts";

/** What `--json` prints for `--reward-model`. */
export interface RewardResult {
  /** Mean of the scores. */
  mean: number;
  /** Standard error of that mean; null with one answer. */
  standard_error: number | null;
  /** Answers scored. */
  n: number;
  /** Their scores, in the data's order. */
  scores: number[];
  /** Examples that hold no answer to score. */
  left_out: number;
}

/** What `--json` prints for `--reward-model` with `--pairs`; `mean` and `scores` are the chosen answers'. */
export interface ComparisonResult {
  /** Share of the pairs whose chosen answer scores higher. */
  accuracy: number;
  /** Wilson's interval of the accuracy, 95 %. */
  interval: [low: number, high: number];
  /** Pairs compared. */
  n: number;
  /** Pairs whose chosen answer scores higher. */
  wins: number;
  /** Pairs whose answers score the same: no win. */
  ties: number;
  /** Pairs whose rejected answer scores higher. */
  losses: number;
  /** Mean of how much higher the chosen answer scores. */
  mean_margin: number;
  /** Standard error of the mean margin; null with one pair. */
  standard_error: number | null;
  /** Mean of the chosen answers' scores. */
  mean: number;
  /** The chosen answers' scores, in the data's order. */
  scores: number[];
  /** Mean of the rejected answers' scores. */
  mean_rejected: number;
  /** The rejected answers' scores. */
  scores_rejected: number[];
  /** Examples without two answers to the same prompt. */
  left_out: number;
}

/** The flags that matter here. */
export type RewardValues = Pick<ScoreValues, "pairs" | "side" | "json" | "quiet">;

/** Scores a file by a reward model; Ctrl-C ends it after the batch under way. */
export async function scoreByReward(values: ScoreValues): Promise<RewardResult | ComparisonResult> {
  let far = "";
  return await interruptible(async (signal) => {
    const data = await loadData(values, signal);
    const open = () => openRewardModel(values["reward-model"]!, values, signal);
    return await reportRewards(open, data, values, { signal, onProgress: (words) => far = words });
  }, () => `stopped${far}; nothing is written`);
}

/** Who is told in words how far things are, and what ends them. */
interface Report {
  signal?: AbortSignal;
  onProgress?: (words: string) => void;
}

/**
 * Scores data and prints the results as they come, or leaves them to `--json`.
 *
 * @param open Loads what scores; called when there is something to score.
 * @param data The data.
 * @param values The flags.
 * @param report Who is told, what ends it.
 */
export async function reportRewards(
  open: () => Promise<Scorer & Disposable>,
  data: Dialogues,
  values: RewardValues,
  report: Report = {},
): Promise<RewardResult | ComparisonResult> {
  return values.pairs
    ? await compare(open, data, values, report)
    : await scoreAnswers(open, data, values, report);
}

async function scoreAnswers(
  open: () => Promise<Scorer & Disposable>,
  data: Dialogues,
  values: RewardValues,
  report: Report,
): Promise<RewardResult> {
  const { pairs, at, leftOut } = selectPairs(data, values.side as Side | undefined);
  const left_out = countLeftOut(leftOut, data, values.quiet);
  using scorer = await open();
  const scores = await scoreAll(scorer, pairs, values, report, (i, score) => {
    printLine(`${data.where(at[i])}: ${score.toFixed(4)}`);
  });
  const result = { mean: mean(scores), standard_error: orNull(standardError(scores)), n: scores.length };
  if (!values.json) {
    printLine(`mean reward ${withError(result.mean, standardError(scores))}, ${result.n} answers`);
  }
  return { ...result, scores, left_out };
}

async function compare(
  open: () => Promise<Scorer & Disposable>,
  data: Dialogues,
  values: RewardValues,
  report: Report,
): Promise<ComparisonResult> {
  const { chosen, rejected, at, leftOut } = selectComparisons(data);
  const left_out = countLeftOut(leftOut, data, values.quiet);
  using scorer = await open();
  // Side by side, so that each comparison is complete when its stretch is.
  const pairs = chosen.flatMap((pair, i) => [pair, rejected[i]]);
  let better = NaN;
  const all = await scoreAll(scorer, pairs, values, report, (i, score) => {
    if (i % 2 === 0) return void (better = score);
    const [a, b, margin] = [better, score, better - score].map((value) => value.toFixed(4));
    printLine(`${data.where(at[i >> 1])}: chosen ${a}, rejected ${b}, margin ${margin}`);
  });
  const scores = all.filter((_, i) => i % 2 === 0), scores_rejected = all.filter((_, i) => i % 2 === 1);
  const { meanMargin, standardError, ...counts } = preference(scores, scores_rejected);
  if (!values.json) {
    const { accuracy, interval, n, wins, ties, losses } = counts;
    const [share, low, high] = [accuracy, ...interval].map((part) => (100 * part).toFixed(1));
    printLine(
      `preference accuracy ${share} % (95 % interval ${low} to ${high}), ${n} pairs: ${wins} won, ${ties} tied, ` +
        `${losses} lost; mean margin ${withError(meanMargin, standardError)}`,
    );
  }
  return {
    ...counts,
    ...{ mean_margin: meanMargin, standard_error: orNull(standardError) },
    ...{ mean: mean(scores), scores, mean_rejected: mean(scores_rejected), scores_rejected, left_out },
  };
}

/** Scores pairs, showing how far that is, and hands each score on. */
async function scoreAll(
  scorer: Scorer,
  pairs: readonly ScoredPair[],
  { json, quiet }: RewardValues,
  { signal, onProgress }: Report,
  print: (index: number, score: number) => void,
): Promise<number[]> {
  if (!quiet) note(`${scorer.name}: ${pairs.length} answers to score`);
  const bar = new Progress({
    ...{ total: pairs.length, label: "score" },
    quiet: quiet || resultsAreProgress(json),
  });
  const all: number[] = [];
  try {
    const told = (done: number) => {
      onProgress?.(` after ${done} of ${pairs.length} answers`);
      bar.update({ done, fields: all.length > 0 ? { "mean reward": mean(all) } : {} });
    };
    // An even number: both answers of a comparison come together.
    for await (const { scores } of scoreStretches(scorer, pairs, { stretch: 32, onProgress: told, signal })) {
      for (const score of scores) {
        if (!json) print(all.length, score);
        all.push(score);
      }
    }
  } finally {
    bar.finish();
  }
  return all;
}

function orNull(value: number): number | null {
  return Number.isNaN(value) ? null : value;
}
