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

/** Tokens still in the running, in the order of their ids, and their weights (not normalised). */
interface Candidates {
  tokens: Uint32Array;
  weights: Float64Array;
}

function candidates(scores: Float32Array, temperature: number, topK: number, topP: number): Candidates {
  const tokens = topK > 0 && topK < scores.length ? likeliest(scores, topK) : everyToken(scores.length);
  const weights = new Float64Array(tokens.length);
  const top = scores[argmax(scores)];
  for (let i = 0; i < tokens.length; i++) weights[i] = Math.exp((scores[tokens[i]] - top) / temperature);
  return topP < 1 ? nucleus({ tokens, weights }, topP) : { tokens, weights };
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

/** The fewest tokens that together have topP of all weight, the likeliest ones, ties to the lower id. */
function nucleus({ tokens, weights }: Candidates, topP: number): Candidates {
  const total = sum(weights);
  // Weights below this come to less than 1 − topP even together, so none of them is needed; without
  // them a few are sorted, not the whole vocabulary. Numbers sort natively, tokens by weight would not.
  const negligible = (1 - topP) * total / weights.length;
  const sorted = weights.filter((weight) => weight >= negligible).sort();
  let first = sorted.length;
  for (let reached = 0; first > 0 && reached < topP * total;) reached += sorted[--first];
  const least = sorted[first];
  let ties = sorted.lastIndexOf(least) - first + 1;
  const kept: Candidates = {
    tokens: new Uint32Array(sorted.length - first),
    weights: new Float64Array(sorted.length - first),
  };
  for (let i = 0, count = 0; i < tokens.length; i++) {
    if (!(weights[i] > least || (weights[i] === least && ties-- > 0))) continue;
    kept.tokens[count] = tokens[i];
    kept.weights[count++] = weights[i];
  }
  return kept;
}

function choose({ tokens, weights }: Candidates, draw: number): number {
  let left = draw * sum(weights);
  for (let i = 0; i < tokens.length; i++) {
    left -= weights[i];
    if (left < 0) return tokens[i];
  }
  return tokens[tokens.length - 1];
}
