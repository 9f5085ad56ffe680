/**
 * A study's judge: every answer of both models scored, pair by pair, and what the scores say together.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import type { Scorer } from "../score/scorer.ts";
import { bootstrapMean, mean, signTest } from "../score/statistics.ts";
import type { StudyRecord } from "./study_record.ts";
import type { StudyScores } from "./study_result.ts";

/** A judge that is in memory only while it is needed: a reward model may be larger than the model it judges. */
export interface LazyScorer {
  /** Its name, for reports. */
  readonly name: string;
  /** Loads it, until the signal is aborted; it is disposed after use if it can be. */
  load(signal?: AbortSignal): Promise<Scorer & Partial<Disposable>>;
}

/** What a study takes as a judge. */
export type StudyJudge = Scorer | LazyScorer;

/** A question with both answers. */
interface Answered {
  prompt: string;
  base: string;
  tuned: string;
}

/** The scores so far. */
export interface RecordedScores {
  /** Whose they are. */
  judge: string;
  /** Of the plain model's answers. */
  base: number[];
  /** Of the tuned model's. */
  tuned: number[];
  /** How long they took. */
  seconds: number;
}

/** Questions that are scored at once, and recorded together; always the same ones, so that no kill shows. */
const AT_ONCE = 4;
/** Resamples of the confidence interval. */
const RESAMPLES = 10_000;

/**
 * Scores both answers to each question, from where the record ends.
 *
 * @param judge Who scores.
 * @param answers All questions with their answers.
 * @param options The record, who is told, what ends it.
 * @returns A score of every answer.
 * @throws {WhetError} "mismatch" where the record holds another judge's scores; "diverged" for one that is
 * no number.
 */
export async function scoreAnswers(
  judge: StudyJudge,
  answers: readonly Answered[],
  { record, onProgress, signal }: {
    record: StudyRecord;
    onProgress?: (done: number, total: number) => void;
    signal?: AbortSignal;
  },
): Promise<RecordedScores> {
  const scores = await recordedScores(record, judge) ??
    { judge: judge.name, base: [], tuned: [], seconds: 0 };
  if (scores.base.length >= answers.length) return scores;
  const scorer = await summon(judge, signal);
  try {
    while (scores.base.length < answers.length) {
      signal?.throwIfAborted();
      const begin = performance.now();
      const from = scores.base.length;
      const part = answers.slice(from, from + AT_ONCE);
      const found = await scorer.score(
        part.flatMap(({ prompt, base, tuned }) => [{ prompt, response: base }, { prompt, response: tuned }]),
        { signal },
      );
      for (const [i, score] of found.entries()) {
        if (!Number.isFinite(score)) {
          throw notANumber(judge, `question ${from + (i >> 1) + 1}`);
        }
        scores[i % 2 === 0 ? "base" : "tuned"].push(score);
      }
      scores.seconds += (performance.now() - begin) / 1000;
      await record.write("scores", scores);
      onProgress?.(scores.base.length, answers.length);
    }
    return scores;
  } finally {
    if (scorer !== judge) scorer[Symbol.dispose]?.();
  }
}

/**
 * The scores that the record holds.
 *
 * @param record The record.
 * @param judge The judge whose they must be, if there is one.
 * @throws {WhetError} "mismatch" where they are another judge's.
 */
export async function recordedScores(
  record: StudyRecord,
  judge: StudyJudge | undefined,
): Promise<RecordedScores | null> {
  const scores = await record.read<RecordedScores>(
    "scores",
    ({ judge, base, tuned, seconds }) =>
      typeof judge === "string" && Number.isFinite(seconds) && base.length === tuned.length &&
      [...base, ...tuned].every(Number.isFinite),
  );
  if (scores && scores.judge !== judge?.name) {
    throw new WhetError(
      "mismatch",
      `${record.where("scores")} holds scores by ${scores.judge}, this study has ${
        judge ? judge.name : "no reward model"
      }; give the same reward model, or remove that file to have the same answers scored anew`,
    );
  }
  return scores;
}

/** What a judge is tried with. */
const TRIAL = { prompt: "\n\nHuman: Is water wet?\n\nAssistant:", response: "It is." };

/**
 * Loads a judge, has it score a trial answer and lets go of it again, so that one that cannot be had, or is
 * broken, is known of before hours of training.
 *
 * @param judge The judge; one that is there already is not tried.
 * @param signal Ends it.
 * @throws {WhetError} As loading and scoring do; "diverged" where the score is no number.
 */
export async function tryJudge(judge: StudyJudge, signal?: AbortSignal): Promise<void> {
  if (!("load" in judge)) return;
  const scorer = await judge.load(signal);
  try {
    const [score] = await scorer.score([TRIAL], { signal });
    if (!Number.isFinite(score)) throw notANumber(judge, "a trial answer");
  } finally {
    scorer[Symbol.dispose]?.();
  }
}

function notANumber({ name }: StudyJudge, what: string): WhetError {
  return new WhetError("diverged", `${name}: its score of ${what} is not a number; its weights are broken`);
}

async function summon(judge: StudyJudge, signal?: AbortSignal): Promise<Scorer & Partial<Disposable>> {
  return "load" in judge ? await judge.load(signal) : judge;
}

/**
 * Means, paired difference, interval, sign test.
 *
 * @param scores A score of every answer.
 * @param seed Of the bootstrap.
 * @returns What the report says of them; undefined where nothing was scored.
 */
export function summarise({ judge, base, tuned }: RecordedScores, seed: number): StudyScores | undefined {
  if (base.length === 0) return undefined;
  const differences = tuned.map((score, i) => score - base[i]);
  const wins = differences.filter((difference) => difference > 0).length;
  const losses = differences.filter((difference) => difference < 0).length;
  return {
    judge,
    pairs: base.length,
    meanBase: mean(base),
    meanTuned: mean(tuned),
    difference: mean(differences),
    interval: bootstrapMean(differences, { seed, resamples: RESAMPLES }),
    level: 0.95,
    resamples: RESAMPLES,
    ...{ wins, ties: base.length - wins - losses, losses },
    signTest: signTest(wins, losses),
  };
}
