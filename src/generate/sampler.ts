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
  /** Seed; the same seed gives the same tokens [a random one]. */
  seed?: number;
}

/** A chosen token. */
export interface Sampled {
  /** Its id. */
  token: number;
  /** Natural log of its probability by the model, before temperature, penalty and cuts. */
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
  for (const token of new Set(seen)) scores[token] *= scores[token] > 0 ? 1 / penalty : penalty;
  return scores;
}

function argmax(scores: Float32Array): number {
  let best = 0;
  for (let i = 1; i < scores.length; i++) if (scores[i] > scores[best]) best = i;
  return best;
}

function logSumExp(logits: Float32Array): number {
  const top = logits[argmax(logits)];
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i] - top);
  return top + Math.log(sum);
}

/** Tokens still in the running, likeliest first, and their weights (not normalised). */
interface Candidates {
  tokens: Uint32Array;
  weights: Float64Array;
  total: number;
}

function candidates(scores: Float32Array, temperature: number, topK: number, topP: number): Candidates {
  const top = scores[argmax(scores)];
  const weight = (token: number) => Math.exp((scores[token] - top) / temperature);
  let tokens = Uint32Array.from(scores.keys());
  if (topK > 0 && topK < tokens.length) tokens = likeliest(tokens, scores, topK);
  let weights = Float64Array.from(tokens, weight);
  let total = weights.reduce((a, b) => a + b, 0);
  if (topP < 1) {
    // Tokens below this weight sum to less than 1 − topP even together, so none of them is needed;
    // leaving them out first means that a few are sorted, not the whole vocabulary.
    const least = (1 - topP) * total / tokens.length;
    tokens = tokens.filter((_, i) => weights[i] >= least).sort((a, b) => scores[b] - scores[a] || a - b);
    weights = Float64Array.from(tokens, weight);
    let count = 0;
    for (let sum = 0; count < tokens.length && sum < topP * total; count++) sum += weights[count];
    tokens = tokens.subarray(0, Math.max(1, count));
    weights = weights.subarray(0, tokens.length);
    total = weights.reduce((a, b) => a + b, 0);
  }
  return { tokens, weights, total };
}

/** The k tokens of the highest scores, ties to the lower id; a heap of k keeps the best so far, its worst on top. */
function likeliest(tokens: Uint32Array, scores: Float32Array, k: number): Uint32Array<ArrayBuffer> {
  const heap = tokens.slice(0, k);
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
  for (let i = k; i < tokens.length; i++) {
    if (!worse(heap[0], tokens[i])) continue;
    heap[0] = tokens[i];
    sink(0);
  }
  return heap.sort((a, b) => scores[b] - scores[a] || a - b);
}

function choose({ tokens, weights, total }: Candidates, draw: number): number {
  let left = draw * total;
  for (let i = 0; i < tokens.length; i++) {
    left -= weights[i];
    if (left < 0) return tokens[i];
  }
  return tokens[tokens.length - 1];
}
