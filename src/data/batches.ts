/**
 * Batches: sequences end to end, without padding, in an order that a seed decides.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { type EndToEnd, endToEnd } from "../tensor/sequences.ts";
import type { EncodedExample, Encoder, LossOn } from "./encode.ts";
import { EncodedExamples, type ExampleSource } from "./examples.ts";
import { type BatchState, type BatchStats, Plan, type PlanOptions } from "./plan.ts";

export type { BatchState, BatchStats };
export type { ExampleSource };

/** T rows (tokens) of one or more sequences, and the N rows of them that have something to learn. */
export interface Batch extends EndToEnd {
  /** (N): the rows whose next token counts, ascending. */
  rows: Uint32Array;
  /** (N): that next token. */
  targets: Uint32Array;
  /** How many sequences there are: examples, or pieces of long ones. */
  examples: number;
}

/**
 * Lays sequences end to end. Nothing is padded; each row sees its own sequence only.
 *
 * @param sequences The sequences; none is empty.
 * @returns The batch; the last token of a sequence has no target, so N < T.
 *
 * @example
 * ```ts
 * import { makeBatch } from "./batches.ts";
 *
 * const sequence = { tokens: Uint32Array.of(5, 6, 7), counts: Uint8Array.of(0, 0, 1) };
 * const { rows, targets } = makeBatch([sequence, sequence]);
 * console.log(rows, targets); // rows 1 and 4, each with target 7
 * ```
 */
export function makeBatch(sequences: readonly EncodedExample[]): Batch {
  if (sequences.some(({ tokens }) => tokens.length === 0)) {
    throw new WhetError("option", "a batch: expected sequences of at least one token, got an empty one");
  }
  const layout = endToEnd(sequences.map(({ tokens }) => tokens));
  const rows: number[] = [];
  let start = 0;
  for (const { counts } of sequences) {
    for (let i = 1; i < counts.length; i++) if (counts[i]) rows.push(start + i - 1);
    start += counts.length;
  }
  return {
    ...layout,
    rows: Uint32Array.from(rows),
    targets: Uint32Array.from(rows, (row) => layout.tokens[row + 1]),
    examples: sequences.length,
  };
}

/** How {@linkcode BatchStream} fills its batches. */
export interface BatchOptions extends Partial<PlanOptions> {
  /** How many rows of `sequenceLength` tokens a batch has room for, or, without packing, sequences. */
  batchSize: number;
  /** The most tokens of a sequence, at least 2; longer examples are split. */
  sequenceLength: number;
  /** What counts; `"all"` by default. */
  lossOn?: LossOn;
}

/**
 * The batches of a run: each a function of the data, the options and the number of batches before it,
 * so that a run taken up again from {@linkcode BatchStream.state} goes on as if it had never stopped.
 * {@linkcode Plan} says how they are filled.
 *
 * @example
 * ```ts
 * import { BatchStream } from "./batches.ts";
 *
 * const letters = { encode: (text: string) => [...text].map((c) => c.charCodeAt(0)), endOfText: 0, vocabSize: 128 };
 * const options = { batchSize: 2, sequenceLength: 8, epochs: 1 };
 * const stream = new BatchStream([{ text: "one" }, { text: "two" }, { text: "three" }], letters, options);
 * for await (const batch of stream) console.log(batch.tokens.length); // 14
 * ```
 */
export class BatchStream implements AsyncIterable<Batch>, AsyncDisposable {
  readonly #examples: EncodedExamples;
  readonly #options: PlanOptions;
  #plan: Plan;

  /**
   * Begins before the first batch.
   *
   * @param source The examples. Arrays and Dialogues are checked here, others when they are pulled.
   * @param tokenizer The model's tokenizer.
   * @param options How batches are filled.
   * @throws {WhetError} `option`, if an option makes no sense or the data are empty; `format`, if an
   * example is bad.
   */
  constructor(source: ExampleSource, tokenizer: Encoder, options: BatchOptions) {
    const { lossOn = "all", packing = true, shuffle = true, seed = 0, epochs = Infinity } = options;
    if (lossOn !== "all" && lossOn !== "responses") {
      throw new WhetError("option", `lossOn: expected "all" or "responses", got ${JSON.stringify(lossOn)}`);
    }
    const { batchSize, sequenceLength } = options;
    this.#options = { batchSize, sequenceLength, packing, shuffle, seed, epochs };
    checkWhole("batchSize", batchSize, 1);
    checkWhole("sequenceLength", sequenceLength, 2);
    checkWhole("seed", seed, 0);
    if (epochs !== Infinity) checkWhole("epochs", epochs, 1);
    this.#examples = new EncodedExamples(source, tokenizer, lossOn);
    this.#plan = new Plan(this.#examples, this.#options);
  }

  /**
   * The next batch; one call at a time.
   *
   * @returns The batch, or undefined behind the last epoch.
   * @throws {WhetError} `format`, if an example is bad, or none of an epoch has anything to learn;
   * `option`, if the source gives no example.
   */
  async next(): Promise<Batch | undefined> {
    const pieces = await this.#plan.take();
    return pieces && makeBatch(pieces.map(([example, offset, length]) => {
      const { tokens, counts } = this.#examples.get(example);
      return {
        tokens: tokens.subarray(offset, offset + length),
        counts: counts.subarray(offset, offset + length),
      };
    }));
  }

  /** The batches that are left; leaving the loop leaves the stream as it is. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, undefined> {
    for (let batch = await this.next(); batch; batch = await this.next()) yield batch;
  }

  /** What was given so far. */
  get stats(): BatchStats {
    return this.#plan.state.stats;
  }

  /** Where the stream stands; JSON of a few kilobytes at most. */
  get state(): BatchState {
    return this.#plan.state;
  }

  /**
   * Goes to where a stream of the same data and options stood. A source that gives its examples one by
   * one is pulled up to there.
   *
   * @param state What {@linkcode BatchStream.state} was.
   * @throws {WhetError} `format`, if it is no such state; `mismatch`, if the data are not the same.
   */
  async restore(state: BatchState): Promise<void> {
    const plan = new Plan(this.#examples, this.#options);
    await plan.restore(state);
    this.#plan = plan;
  }

  /** Goes back to the first batch, as for another evaluation; nothing is tokenised again. */
  rewind(): void {
    this.#plan = new Plan(this.#examples, this.#options);
  }

  /**
   * How many batches there are in all, those given already included. Tokenises all examples, and so
   * pulls a source that gives them one by one to its end.
   *
   * @returns Their number; Infinity without `epochs`.
   * @throws {WhetError} As {@linkcode BatchStream.next}.
   */
  async total(): Promise<number> {
    if (this.#options.epochs === Infinity) return Infinity;
    const plan = new Plan(this.#examples, this.#options);
    await plan.restore(this.state);
    while (await plan.take());
    return plan.state.stats.batches;
  }

  /** Ends the stream; a source that gives examples one by one, and has more, may tidy up. */
  async close(): Promise<void> {
    await this.#examples.close();
  }

  /** As {@linkcode BatchStream.close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function checkWhole(option: string, value: number, least: number): void {
  if (Number.isSafeInteger(value) && value >= least) return;
  throw new WhetError("option", `${option}: expected a whole number of at least ${least}, got ${value}`);
}
