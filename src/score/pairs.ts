/**
 * Which answers of a file are scored, and how often a scorer prefers the ones that people preferred.
 *
 * @module
 */
import { type Example, lastExchange } from "../data/example.ts";
import { WhetError } from "../errors.ts";
import { MARKERS } from "../text/templates.ts";
import type { ScoredPair, ScoreOptions, Scorer } from "./scorer.ts";
import { mean, standardError, wilson } from "./statistics.ts";

/** Which of an HH-RLHF pair's two answers. */
export type Side = "chosen" | "rejected";

/** Examples that were left out for one reason. */
export interface LeftOut {
  /** Why, as the end of "2 left out: …". */
  reason: string;
  /** How many. */
  count: number;
  /** The place of the first one among the examples, from 0. */
  first: number;
}

/** Answers to be scored. */
export interface PairSelection {
  /** Prompts and answers. */
  pairs: ScoredPair[];
  /** The place of each among the examples, from 0. */
  at: number[];
  /** What has no answer to score, by reason. */
  leftOut: LeftOut[];
}

/** Answers to be compared, in the same order on both sides. */
export interface Comparisons {
  /** The prompts with the answers that people chose. */
  chosen: ScoredPair[];
  /** The same prompts with the answers that they did not choose. */
  rejected: ScoredPair[];
  /** The place of each among the examples, from 0. */
  at: number[];
  /** What has no two answers to compare, by reason. */
  leftOut: LeftOut[];
}

const NOTHING_REJECTED = 'there is no "rejected" answer';

/**
 * Takes the answers out of examples: of a transcript the last one, with all before it as the prompt
 * (see {@linkcode lastExchange}) and without the spaces around it; a prompt and response as they stand.
 *
 * @param examples The data.
 * @param side Which answer of an HH-RLHF pair; examples of other shapes have but a chosen one.
 * @returns The answers; what has none is left out and counted: a text that is no dialogue, a transcript
 * that ends with a question, token ids.
 *
 * @example
 * ```ts
 * import { selectPairs } from "./pairs.ts";
 *
 * const { pairs } = selectPairs([{ chosen: "\n\nHuman: Hi\n\nAssistant: Hello" }]);
 * console.log(pairs); // [ { prompt: "\n\nHuman: Hi\n\nAssistant:", response: "Hello" } ]
 * ```
 */
export function selectPairs(examples: Iterable<Example>, side: Side = "chosen"): PairSelection {
  const pairs: ScoredPair[] = [], at: number[] = [], reasons = new Reasons();
  for (const [index, example] of numbered(examples)) {
    const pair = side === "chosen" ? answerOf(example) : rejectedOf(example);
    if (typeof pair === "string") {
      reasons.add(pair, index);
    } else {
      pairs.push(pair);
      at.push(index);
    }
  }
  return { pairs, at, leftOut: reasons.list };
}

/**
 * Takes both answers out of HH-RLHF pairs.
 *
 * @param examples The data.
 * @returns The answers, side by side; a pair whose transcripts differ before their last answers is left
 * out and counted, like what {@linkcode selectPairs} leaves out: its two answers answer different things.
 */
export function selectComparisons(examples: Iterable<Example>): Comparisons {
  const chosen: ScoredPair[] = [], rejected: ScoredPair[] = [], at: number[] = [], reasons = new Reasons();
  for (const [index, example] of numbered(examples)) {
    const better = answerOf(example), worse = rejectedOf(example);
    if (typeof worse === "string") {
      reasons.add(worse, index);
    } else if (typeof better === "string") {
      reasons.add(better, index);
    } else if (better.prompt !== worse.prompt) {
      reasons.add("the two answers do not follow the same prompt", index);
    } else {
      chosen.push(better);
      rejected.push(worse);
      at.push(index);
    }
  }
  return { chosen, rejected, at, leftOut: reasons.list };
}

function* numbered(examples: Iterable<Example>): Generator<[number, Example]> {
  let index = 0;
  for (const example of examples) yield [index++, example];
}

/** The answer of an example, or why there is none. */
function answerOf(example: Example): ScoredPair | string {
  if ("prompt" in example) return { prompt: example.prompt, response: example.response };
  if ("chosen" in example) return lastAnswer(example.chosen);
  return "text" in example ? lastAnswer(example.text) : "token ids are no text";
}

function rejectedOf(example: Example): ScoredPair | string {
  return "chosen" in example && example.rejected !== undefined
    ? lastAnswer(example.rejected)
    : NOTHING_REJECTED;
}

function lastAnswer(transcript: string): ScoredPair | string {
  if (!transcript.includes(MARKERS.assistant)) return "there is no answer of the assistant";
  const { prompt, response } = lastExchange(transcript);
  // What follows is the human's: where an answer would end is anybody's guess.
  if (response.includes(MARKERS.human)) return "the dialogue ends with a question";
  return { prompt, response: response.trim() };
}

/** Counts by reason, in the order of their first appearance. */
class Reasons {
  readonly list: LeftOut[] = [];

  add(reason: string, index: number): void {
    const known = this.list.find((one) => one.reason === reason);
    if (known) known.count++;
    else this.list.push({ reason, count: 1, first: index });
  }
}

/** Scores of a stretch of pairs. */
export interface ScoredStretch {
  /** The place of the first among the pairs. */
  start: number;
  /** The scores. */
  scores: Float32Array;
}

/**
 * Scores pairs a stretch at a time, so that the first results are there long before the last.
 *
 * @param scorer What scores.
 * @param pairs The pairs.
 * @param options Who is told, what ends it, and how many pairs make a stretch [64].
 * @returns The scores, stretch after stretch.
 * @throws {WhetError} `diverged`, if a score is not a number; and as the scorer does.
 */
export async function* scoreStretches(
  scorer: Scorer,
  pairs: readonly ScoredPair[],
  { stretch = 64, onProgress, signal }: ScoreOptions & { stretch?: number } = {},
): AsyncGenerator<ScoredStretch> {
  for (let start = 0; start < pairs.length; start += stretch) {
    signal?.throwIfAborted();
    const part = pairs.slice(start, start + stretch);
    // Not every scorer tells of its last batch.
    let told = 0;
    const tell = (done: number) => {
      if (done > told) onProgress?.(start + done, pairs.length);
      told = done;
    };
    const scores = await scorer.score(part, { signal, onProgress: tell });
    if (scores.length !== part.length || !scores.every(Number.isFinite)) {
      throw new WhetError(
        "diverged",
        `${scorer.name}: the score of an answer is not a number; its weights are broken`,
      );
    }
    tell(part.length);
    yield { start, scores };
  }
}

/** How a scorer's preferences compare with people's. */
export interface Preference {
  /** Share of the pairs whose chosen answer scores higher; a tie is not higher. */
  accuracy: number;
  /** Wilson's interval of the accuracy, 95 %. */
  interval: [low: number, high: number];
  /** Pairs compared. */
  n: number;
  /** Pairs whose chosen answer scores higher. */
  wins: number;
  /** Pairs whose answers score the same. */
  ties: number;
  /** Pairs whose rejected answer scores higher. */
  losses: number;
  /** Mean of how much higher the chosen answer scores. */
  meanMargin: number;
  /** Standard error of that mean. */
  standardError: number;
}

/**
 * Sums up comparisons.
 *
 * @param chosen Scores of the chosen answers.
 * @param rejected Scores of the rejected ones, in the same order.
 * @returns Accuracy, interval, counts and margin; NaN where there are no pairs.
 *
 * @example
 * ```ts
 * import { preference } from "./pairs.ts";
 *
 * console.log(preference([1, 2, 0.5], [0, 3, 0]).accuracy); // 0.6666666666666666
 * ```
 */
export function preference(chosen: ArrayLike<number>, rejected: ArrayLike<number>): Preference {
  const margins = Array.from(chosen, (score, i) => score - rejected[i]);
  const n = margins.length;
  const wins = margins.filter((margin) => margin > 0).length;
  const losses = margins.filter((margin) => margin < 0).length;
  return {
    ...{ accuracy: wins / n, interval: wilson(wins, n), n, wins, ties: n - wins - losses, losses },
    ...{ meanMargin: mean(margins), standardError: standardError(margins) },
  };
}
