/**
 * How the tokens of a batch are chosen, and what is kept for it beside the backend's kernel: what each sequence
 * has seen, and how many choices it has had.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import type { Arena } from "../tensor/arena.ts";
import { uniform } from "../tensor/random.ts";
import { SLICE_ALIGNMENT, type Tensor } from "../tensor/tensor.ts";

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

/** Sequences that are chosen for at once, at most. */
export const MOST_CHOICES: number = SLICE_ALIGNMENT;

/** What was chosen, in the backend's memory for as many steps as the sampler remembers. */
export interface Chosen {
  /** u32 (N): a token for each sequence. */
  tokens: Tensor;
  /** (N): its log-probability by the model. */
  logProbs: Tensor;
  /** Which choice of the sampler it was, from 0. */
  step: number;
}

/** The same, on the host. */
export interface Choice {
  /** (N). */
  tokens: Uint32Array;
  /** (N). */
  logProbs: Float32Array;
}

/**
 * Chooses tokens for the sequences of a batch; the i-th choice of one depends on its logits, its tokens, seed, its
 * number in the batch and i alone.
 */
export class Sampler implements Disposable {
  readonly #arena: Arena;
  readonly #options: Required<SamplingOptions>;
  /** Choices that each sequence has had. */
  readonly #choices: number[];
  /** Steps remembered, S. */
  readonly #remembered: number;
  /** u32 (S, 64), and f32: a row for each step, again and again. */
  readonly #tokens: Tensor;
  readonly #logProbs: Tensor;
  /** Steps made. */
  #steps = 0;
  /** With which others each sequence was last chosen, and in which step. */
  readonly #last: { together: readonly number[]; step: number }[];
  /** u32 (sequences, W), as the kernel has it; only for a penalty. */
  readonly #seen?: Tensor;

  /**
   * @param arena Who holds what it keeps.
   * @param V The vocabulary's size.
   * @param options Checked already.
   * @param prompts The sequences' tokens so far.
   * @param remembered Steps whose choices are kept, S [as many as there are sequences].
   */
  constructor(
    arena: Arena,
    V: number,
    options: Required<SamplingOptions>,
    prompts: readonly (readonly number[])[],
    remembered: number = prompts.length,
  ) {
    const shape = [remembered, MOST_CHOICES];
    this.#remembered = remembered;
    this.#arena = arena;
    this.#options = options;
    this.#choices = prompts.map(() => 0);
    this.#last = prompts.map(() => ({ together: [], step: -Infinity }));
    this.#tokens = arena.temporary(shape, "u32");
    try {
      this.#logProbs = arena.temporary(shape);
      if (options.repetitionPenalty !== 1) this.#seen = arena.upload(...setsOf(prompts, V));
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Chooses the next tokens; only enqueues.
   *
   * @param logits (N, V), not changed.
   * @param sequences N numbers of sequences, at most {@linkcode MOST_CHOICES}.
   */
  choose(logits: Tensor, sequences: readonly number[]): Chosen {
    const { seed, ...options } = this.#options;
    const step = this.#steps++;
    const last = { together: sequences, step };
    for (const sequence of sequences) this.#last[sequence] = last;
    const rows = sequences.map((sequence) => ({
      ...options,
      draw: uniform(this.#choices[sequence]++, [seed >>> 0, sequence]),
      slot: sequence,
    }));
    const [tokens, logProbs] = [this.#tokens, this.#logProbs]
      .map((all) => all.slice(this.#row(step) * MOST_CHOICES, [sequences.length]));
    this.#arena.backend.sample({ logits, rows, seen: this.#seen, tokens, logProbs });
    return { tokens, logProbs, step };
  }

  /**
   * The tokens last chosen for some sequences, which the network can take in as they are; null where they were not
   * chosen together, or too many steps ago.
   */
  chosen(sequences: readonly number[]): Tensor | null {
    const last = this.#last[sequences[0]];
    const { together, step } = last;
    const same = this.#steps - step <= this.#remembered && together.length === sequences.length &&
      sequences.every((sequence, i) => together[i] === sequence && this.#last[sequence] === last);
    return same ? this.#tokens.slice(this.#row(step) * MOST_CHOICES, [sequences.length]) : null;
  }

  /**
   * Brings choices to the host, all by one read of each kind.
   *
   * @param steps Choices that it still remembers; enqueued when this returns, whatever is chosen later.
   */
  read(steps: readonly Chosen[]): Promise<Choice[]> {
    const { backend } = this.#arena;
    // Of several the whole: readers of one size are enough, however many steps are read.
    const alone = steps.length === 1;
    const [tokens, logProbs] = alone ? [steps[0].tokens, steps[0].logProbs] : [this.#tokens, this.#logProbs];
    return Promise.all([backend.readU32(tokens), backend.read(logProbs)]).then(([tokens, logProbs]) =>
      steps.map(({ step, tokens: { length } }) => {
        const at = alone ? 0 : this.#row(step) * MOST_CHOICES;
        return { tokens: tokens.subarray(at, at + length), logProbs: logProbs.subarray(at, at + length) };
      })
    );
  }

  /** Where a step's choices lie. */
  #row(step: number): number {
    return step % this.#remembered;
  }

  /** Frees what it keeps. */
  [Symbol.dispose](): void {
    for (const tensor of [this.#tokens, this.#logProbs, this.#seen]) if (tensor) this.#arena.release(tensor);
  }
}

/** Sets of tokens, as the kernel has them, each where a view may begin. */
function setsOf(sequences: readonly (readonly number[])[], V: number): [Uint32Array, shape: number[]] {
  const W = Math.ceil(V / 32 / SLICE_ALIGNMENT) * SLICE_ALIGNMENT;
  const sets = new Uint32Array(sequences.length * W);
  for (const [slot, tokens] of sequences.entries()) {
    for (const token of tokens) sets[slot * W + (token >> 5)] |= 1 << (token & 31);
  }
  return [sets, [sequences.length, W]];
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
