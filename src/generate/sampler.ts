/**
 * From logits to a token: the order is that of transformers: repetition penalty, temperature, top-k, top-p.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { uniform } from "../tensor/random.ts";

/** How a token is chosen; what is not given has the value in brackets. */
export interface SamplingOptions {
  /** Logits are divided by it; 0 takes the likeliest token [1]. */
  temperature?: number;
  /** Only the k likeliest tokens; 0 for all [0]. */
  topK?: number;
  /** Only the likeliest tokens that together have this probability (Holtzman et al. 2020) [1]. */
  topP?: number;
  /** Divides positive logits of tokens that were there already, multiplies negative ones (Keskar et al. 2019) [1]. */
  repetitionPenalty?: number;
  /**
   * Seed, of which the lower 32 bits count; the same seed gives the same tokens, to the same prompt at the
   * same place in its batch [a random one].
   */
  seed?: number;
}

/** A chosen token. */
export interface Sampled {
  /** Its id. */
  token: number;
  /** Natural log of its probability by the model, before temperature, penalty and cuts; NaN if a logit is broken. */
  logProb: number;
}

/** Chooses tokens for one sequence; its i-th choice depends on seed, sequence and i alone. */
export class Sampler {
  readonly #options: Required<SamplingOptions>;
  readonly #sequence: number;
  #choices = 0;

  /**
   * @param options Temperature and the others; checked here.
   * @param sequence The sequence's number within its batch.
   */
  constructor(options: Required<SamplingOptions>, sequence = 0) {
    this.#options = options;
    this.#sequence = sequence;
  }

  /**
   * Chooses the next token.
   *
   * @param logits (V), not changed.
   * @param seen The tokens so far, for the repetition penalty.
   */
  sample(logits: Float32Array, seen: Iterable<number>): Sampled {
    const { temperature, topK, topP, repetitionPenalty, seed } = this.#options;
    const draw = uniform(this.#choices++, [seed >>> 0, this.#sequence]);
    const scores = repetitionPenalty === 1 ? logits : penalised(logits, seen, repetitionPenalty);
    const token = temperature === 0
      ? argmax(scores)
      : choose(candidates(scores, temperature, topK, topP), draw);
    return { token, logProb: logits[token] - logSumExp(logits) };
  }
}

/**
 * Checks sampling options and fills in what is not given.
 *
 * @throws {WhetError} "option" naming the one that makes no sense.
 */
export function checkSampling(options: SamplingOptions): Required<SamplingOptions> {
  const { temperature = 1, topK = 0, topP = 1, repetitionPenalty = 1, seed = randomSeed() } = options;
  const expect = (ok: boolean, name: string, expected: string, value: number) => {
    if (!ok) throw new WhetError("option", `${name}: expected ${expected}, got ${value}`);
  };
  expect(
    temperature >= 0 && temperature <= 100,
    "temperature",
    "a number from 0 (greedy) to 100",
    temperature,
  );
  expect(Number.isInteger(topK) && topK >= 0, "topK", "a whole number, 0 for all tokens", topK);
  expect(topP > 0 && topP <= 1, "topP", "a number above 0 and at most 1", topP);
  expect(
    repetitionPenalty > 0 && repetitionPenalty <= 100,
    "repetitionPenalty",
    "a number above 0",
    repetitionPenalty,
  );
  expect(Number.isSafeInteger(seed), "seed", "a whole number", seed);
  return { temperature, topK, topP, repetitionPenalty, seed };
}

function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

function penalised(logits: Float32Array, seen: Iterable<number>, penalty: number): Float32Array {
  const scores = logits.slice();
  for (const token of new Set(seen)) {
    scores[token] = scores[token] > 0 ? scores[token] / penalty : scores[token] * penalty;
  }
  return scores;
}

function argmax(scores: Float32Array): number {
  let best = 0;
  for (let i = 1; i < scores.length; i++) if (scores[i] > scores[best]) best = i;
  return best;
}

/** Not a number where one of the logits is none, or infinite. */
function logSumExp(logits: Float32Array): number {
  const top = logits[argmax(logits)];
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i] - top);
  return top + Math.log(sum);
}

function sum(weights: Float64Array): number {
  let total = 0;
  for (let i = 0; i < weights.length; i++) total += weights[i];
  return total;
}

/** Tokens still in the running, and how likely each is. */
export interface Candidates {
  /** Their ids, ascending. */
  tokens: Uint32Array;
  /** Their weights, not normalised. */
  weights: Float64Array;
}

/** The tokens that top-k and top-p leave, at a temperature. */
export function candidates(
  scores: Float32Array,
  temperature: number,
  topK: number,
  topP: number,
): Candidates {
  const tokens = topK > 0 && topK < scores.length ? likeliest(scores, topK) : everyToken(scores.length);
  const behind = new Float64Array(tokens.length); // The likeliest, by so many nats.
  const weights = new Float64Array(tokens.length);
  const top = scores[argmax(scores)];
  for (let i = 0; i < tokens.length; i++) {
    behind[i] = (top - scores[tokens[i]]) / temperature;
    weights[i] = Math.exp(-behind[i]);
  }
  return topP < 1 ? nucleus({ tokens, weights }, behind, topP) : { tokens, weights };
}

function everyToken(count: number): Uint32Array {
  const tokens = new Uint32Array(count);
  for (let i = 0; i < count; i++) tokens[i] = i;
  return tokens;
}

/** The k tokens of the highest scores, ties to the lower id; a heap of k keeps the best so far, its worst on top. */
function likeliest(scores: Float32Array, k: number): Uint32Array {
  const heap = everyToken(k);
  const worse = (a: number, b: number) => scores[a] < scores[b] || (scores[a] === scores[b] && a > b);
  const sink = (at: number) => {
    for (let child = 2 * at + 1; child < k; child = 2 * at + 1) {
      if (child + 1 < k && worse(heap[child + 1], heap[child])) child++;
      if (!worse(heap[child], heap[at])) return;
      [heap[at], heap[child]] = [heap[child], heap[at]];
      at = child;
    }
  };
  for (let at = (k >> 1) - 1; at >= 0; at--) sink(at);
  for (let i = k; i < scores.length; i++) {
    if (!worse(heap[0], i)) continue;
    heap[0] = i;
    sink(0);
  }
  return heap.sort();
}

/** How far behind the likeliest a token is, in steps of 1/32 nat; the last step is open. */
const BUCKETS = 1024;

function bucket(behind: number): number {
  return Math.floor(Math.min(behind * 32, BUCKETS - 1));
}

/**
 * The fewest tokens that together have topP of all weight, the likeliest ones, ties to the lower id.
 * Whole buckets are taken while they are needed; only the one where the sum is reached is sorted.
 */
function nucleus({ tokens, weights }: Candidates, behind: Float64Array, topP: number): Candidates {
  const wanted = topP * sum(weights);
  const sums = new Float64Array(BUCKETS);
  for (let i = 0; i < weights.length; i++) sums[bucket(behind[i])] += weights[i];
  let edge = 0, reached = 0;
  while (edge < BUCKETS - 1 && reached + sums[edge] < wanted) reached += sums[edge++];
  const sorted = behind.filter((nats) => bucket(nats) === edge).sort(); // by numbers, natively
  let count = 0;
  while (count < sorted.length && reached < wanted) reached += Math.exp(-sorted[count++]);
  const farthest = sorted[count - 1] ?? Infinity;
  let ties = count - sorted.indexOf(farthest);
  let kept = 0;
  for (let i = 0; i < tokens.length; i++) {
    if (!(behind[i] < farthest || (behind[i] === farthest && ties-- > 0))) continue;
    tokens[kept] = tokens[i];
    weights[kept++] = weights[i];
  }
  return { tokens: tokens.subarray(0, kept), weights: weights.subarray(0, kept) };
}

function choose({ tokens, weights }: Candidates, draw: number): number {
  let left = draw * sum(weights);
  for (let i = 0; i < tokens.length; i++) {
    left -= weights[i];
    if (left < 0) return tokens[i];
  }
  return tokens[tokens.length - 1];
}
