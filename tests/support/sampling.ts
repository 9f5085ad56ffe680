/**
 * The choice of a token in plain steps over 64-bit floats: what the kernels are held to.
 *
 * @module
 */
import type { SampleRow } from "../../src/tensor/backend.ts";

/** What may be chosen. */
export interface Candidates {
  /** Token ids, ascending. */
  tokens: number[];
  /** How likely each is; not normalised, but to the likeliest, which has 1. */
  weights: number[];
}

/** How a row is chosen, but for where it belongs. */
export type Choice = Omit<SampleRow, "slot" | "draw">;

/** A choice that changes nothing; what it draws is the model's own distribution. */
export const PLAIN: Choice = { temperature: 1, topK: 0, topP: 1, repetitionPenalty: 1 };

/** Whether a row's logits are numbers, −∞ for some of them. */
function isSound(logits: ArrayLike<number>): boolean {
  let some = false;
  for (let v = 0; v < logits.length; v++) {
    if (Number.isNaN(logits[v]) || logits[v] === Infinity) return false;
    some ||= logits[v] > -Infinity;
  }
  return some;
}

/** The tokens that penalty, top-k and top-p leave, at a temperature. */
export function candidates(
  logits: ArrayLike<number>,
  { temperature, topK, topP, repetitionPenalty }: Choice,
  isSeen: (token: number) => boolean = () => false,
): Candidates {
  const largest = 3.4028234663852886e38;
  const scores = Array.from(logits, (x, token) => {
    if (repetitionPenalty === 1 || !isSeen(token)) return x;
    const score = x > 0 ? x / repetitionPenalty : x * repetitionPenalty;
    return Math.fround(Math.max(-largest, Math.min(largest, score)));
  });
  const peak = scores.reduce((a, b) => Math.max(a, b));
  const weightOf = (token: number) =>
    scores[token] === peak ? 1 : Math.exp((scores[token] - peak) / temperature);
  let order = Uint32Array.from(scores.keys());
  if (temperature === 0) order = Uint32Array.of(scores.indexOf(peak));
  if (topK === 0 && topP === 1) {
    const tokens = [...order];
    return { tokens, weights: tokens.map(weightOf) };
  }
  // From the highest score down, ties by ids.
  order.sort((a, b) => scores[a] > scores[b] ? -1 : scores[a] < scores[b] ? 1 : a - b);
  if (topK > 0) order = order.slice(0, topK);
  if (topP < 1) {
    let wanted = 0;
    for (const token of order) wanted += topP * weightOf(token);
    let count = 0;
    for (let sum = 0; count < order.length && sum < wanted; count++) sum += weightOf(order[count]);
    order = order.slice(0, count);
  }
  const tokens = [...order.sort()];
  return { tokens, weights: tokens.map(weightOf) };
}

/** The candidate in whose part of the sum of weights a draw falls. */
export function choose({ tokens, weights }: Candidates, draw: number): number {
  let left = draw * weights.reduce((a, b) => a + b, 0);
  for (let i = 0; i < tokens.length; i++) {
    left -= weights[i];
    if (left < 0) return tokens[i];
  }
  return tokens[weights.findLastIndex((weight) => weight > 0)];
}

/** The token and its log-probability by the model. */
export function sampleRow(
  logits: ArrayLike<number>,
  row: Choice & { draw: number },
  isSeen?: (token: number) => boolean,
): { token: number; logProb: number } {
  if (!isSound(logits)) return { token: 0, logProb: NaN };
  const token = choose(candidates(logits, row, isSeen), row.draw);
  const { tokens, weights } = candidates(logits, PLAIN);
  const sum = weights.reduce((a, b) => a + b, 0);
  const likeliest = tokens[weights.indexOf(1)];
  return { token, logProb: logits[token] - logits[likeliest] - Math.log(sum) };
}

/**
 * The same choice where rounding decides nothing: the draw falls in the middle of its token's part, and the share of
 * `topP` ends in the middle of its last token's.
 */
export function midway<C extends Choice & { draw: number }>(
  logits: ArrayLike<number>,
  row: C,
  isSeen?: (token: number) => boolean,
): C {
  if (!isSound(logits)) return row;
  let { topP } = row;
  if (topP < 1) {
    const all = candidates(logits, { ...row, topP: 1 }, isSeen);
    const total = all.weights.reduce((a, b) => a + b, 0);
    const kept = candidates(logits, row, isSeen).weights;
    topP = (kept.reduce((a, b) => a + b, 0) - Math.min(...kept) / 2) / total;
  }
  const { tokens, weights } = candidates(logits, { ...row, topP }, isSeen);
  const total = weights.reduce((a, b) => a + b, 0);
  const at = tokens.indexOf(choose({ tokens, weights }, row.draw));
  const before = weights.slice(0, at).reduce((a, b) => a + b, 0);
  return { ...row, topP, draw: (before + weights[at] / 2) / total };
}
