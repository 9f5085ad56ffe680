/**
 * Which stretches of which examples make each batch.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { bits } from "../tensor/random.ts";
import type { EncodedExamples } from "./examples.ts";

/** What decides how batches are filled. */
export interface PlanOptions {
  /** How many rows of `sequenceLength` tokens a batch has room for, or, without packing, sequences. */
  batchSize: number;
  /** The most tokens of a sequence, at least 2; longer examples are split. */
  sequenceLength: number;
  /** Whether a batch takes as many sequences as fit into `batchSize · sequenceLength` tokens (default). */
  packing: boolean;
  /** Whether every epoch has an order of its own (default), or that of the data. */
  shuffle: boolean;
  /** Which orders; 0 by default. */
  seed: number;
  /** After how many epochs the batches end; Infinity by default. */
  epochs: number;
}

/** What was given so far. */
export interface BatchStats {
  /** Epochs that ended; also the number, from 0, of the one under way. */
  epochs: number;
  /** Batches. */
  batches: number;
  /** Sequences in them: examples, or pieces of long ones. */
  sequences: number;
  /** Tokens in them. */
  tokens: number;
  /** Tokens in them that count. */
  targets: number;
  /** Examples longer than `sequenceLength`, which were split. */
  split: number;
  /** Sequences left out because no token of theirs counts. */
  dropped: number;
}

/** Where a run of batches stands, as small JSON: what a checkpoint keeps of it. */
export interface BatchState {
  /** How many examples there are; null if the source has not come to its end yet. */
  length: number | null;
  /** Place, in the epoch's order, of the example that is cut next. */
  position: number;
  /** Its first token that is not cut yet. */
  offset: number;
  /** Pieces that are cut and wait for a batch with room. */
  waiting: Piece[];
  /** What was given so far. */
  stats: BatchStats;
}

/** A stretch of an example, one sequence of a batch: the example's number, the first token, how many. */
export type Piece = [example: number, offset: number, length: number];

/** How many pieces wait to be fitted in when batches are packed. */
const LOOKAHEAD = 64;
/** So many examples of an endless source without anything to learn, one after the other, are an error. */
const BARREN = 100_000;
/** Keeps these random numbers apart from those that other parts draw with the same seed. */
const PURPOSE = 0x6f726472;

/**
 * Gives, batch after batch, the pieces that make it.
 *
 * An epoch has every example once, in an order shuffled by seed and epoch. Each example is one sequence, or
 * is cut into several of at most `sequenceLength` tokens; those without a token to learn are dropped. A
 * packed batch takes them in turn as long as they fit, and fills up with the longest of the next 64
 * that still fit (best fit, so the order hardly suffers). Rows are not padded and no kernel knows
 * them, so it is the batch that is filled, not each row of `sequenceLength` tokens. A batch never
 * holds examples of two epochs; the last of an epoch may be short.
 *
 * A source that gives its examples one by one keeps its own order in the first epoch.
 */
export class Plan {
  #position = 0;
  #offset = 0;
  #waiting: Piece[] = [];
  #stats: BatchStats = nothing();
  #order: { epoch: number; examples: Uint32Array } | null = null;

  /**
   * Begins before the first batch.
   *
   * @param examples The examples.
   * @param options How batches are filled; taken as checked.
   */
  constructor(private readonly examples: EncodedExamples, private readonly options: PlanOptions) {}

  /** Where it stands; a copy. */
  get state(): BatchState {
    return {
      length: this.examples.length ?? null,
      position: this.#position,
      offset: this.#offset,
      waiting: this.#waiting.map((piece) => [...piece]),
      stats: { ...this.#stats },
    };
  }

  /**
   * The next batch.
   *
   * @returns Its sequences, or undefined behind the last epoch.
   * @throws {WhetError} `format`, if an example is bad, or a whole epoch has nothing to learn.
   */
  async take(): Promise<Piece[] | undefined> {
    const { batchSize, sequenceLength, packing, epochs } = this.options;
    const pieces: Piece[] = [];
    let room = packing ? batchSize * sequenceLength : batchSize;
    while (room > 0 && this.#stats.epochs < epochs) {
      while (this.#waiting.length < (packing ? LOOKAHEAD : 1)) {
        const piece = await this.#cut();
        if (!piece) break;
        this.#waiting.push(piece);
      }
      if (this.#waiting.length === 0) {
        if (pieces.length > 0) break;
        this.#endEpoch();
        continue;
      }
      const fitting = packing ? bestFit(this.#waiting, room) : 0;
      if (fitting < 0) break;
      const [piece] = this.#waiting.splice(fitting, 1);
      room -= packing ? piece[2] : 1;
      pieces.push(piece);
    }
    if (pieces.length === 0) return undefined;
    this.#stats.batches++;
    this.#stats.sequences += pieces.length;
    for (const piece of pieces) {
      this.#stats.tokens += piece[2];
      this.#stats.targets += this.#targets(piece);
    }
    return pieces;
  }

  /** The epoch's next sequence with something to learn, or undefined at the epoch's end. */
  async #cut(): Promise<Piece | undefined> {
    const { sequenceLength } = this.options;
    for (let barren = 0; await this.examples.has(this.#position);) {
      const example = this.#exampleAt(this.#position);
      const n = this.examples.get(example).tokens.length;
      const piece: Piece = [example, this.#offset, pieceLength(n - this.#offset, sequenceLength)];
      if (this.#offset === 0 && piece[2] < n) this.#stats.split++;
      this.#offset += piece[2];
      if (this.#offset === n) {
        this.#position++;
        this.#offset = 0;
      }
      if (this.#targets(piece) > 0) return piece;
      this.#stats.dropped++;
      if (++barren === BARREN && this.examples.length === undefined) throw nothingToLearn(BARREN);
    }
  }

  #targets([example, offset, length]: Piece): number {
    const { counts } = this.examples.get(example);
    let targets = 0;
    // The first token of a sequence has nothing before it to be learned from.
    for (let i = offset + 1; i < offset + length; i++) targets += counts[i];
    return targets;
  }

  #endEpoch(): void {
    if (this.#stats.targets === 0) throw nothingToLearn(this.#position);
    this.#stats.epochs++;
    this.#position = 0;
  }

  #exampleAt(position: number): number {
    const epoch = this.#stats.epochs;
    if (!this.options.shuffle || (epoch === 0 && !this.examples.listed)) return position;
    if (this.#order?.epoch !== epoch) {
      this.#order = { epoch, examples: permutation(this.examples.length!, this.options.seed, epoch) };
    }
    return this.#order.examples[position];
  }

  /**
   * Goes to where a plan of the same examples and options stood.
   *
   * @param state What {@linkcode Plan.state} was.
   * @throws {WhetError} `format`, if it is no such state; `mismatch`, if the examples are not the same.
   */
  async restore(state: BatchState): Promise<void> {
    checkState(state);
    const { length, position, offset, waiting } = state;
    const { examples } = this;
    const seen = length ?? position;
    if (seen > 0) await examples.has(length === null ? seen - 1 : seen);
    const same = length === null
      ? !examples.listed && await examples.has(position - 1)
      : examples.length === length && position <= length;
    if (!same) {
      throw new WhetError(
        "mismatch",
        `the checkpoint was made with ${length ?? `at least ${position}`} examples, the data have ` +
          `${examples.length ?? "others"}; resume with the data that the run began with`,
      );
    }
    this.#position = position;
    this.#offset = offset;
    this.#waiting = waiting.map((piece) => [...piece]);
    this.#stats = { ...state.stats };
    const cut = offset > 0 ? [...waiting, [this.#exampleAt(position), offset, 1]] : waiting;
    for (const [example, offset, length] of cut) {
      if (await examples.has(example) && offset + length <= examples.get(example).tokens.length) continue;
      throw new WhetError(
        "mismatch",
        `the checkpoint knows example ${
          example + 1
        } as a longer one; resume with the data that the run began with`,
      );
    }
  }
}

/** The first that waits, if there is room for it, else the longest that there is room for; -1 if none. */
function bestFit(waiting: readonly Piece[], room: number): number {
  if (waiting[0][2] <= room) return 0;
  let best = -1;
  for (const [i, [, , length]] of waiting.entries()) {
    if (length <= room && (best < 0 || length > waiting[best][2])) best = i;
  }
  return best;
}

/** How many of the tokens that are left go into the next piece; none is left alone if that can be helped. */
function pieceLength(left: number, sequenceLength: number): number {
  if (left <= sequenceLength) return left;
  return left === sequenceLength + 1 && sequenceLength > 2 ? sequenceLength - 1 : sequenceLength;
}

/** The numbers below `length` in an order that seed and epoch decide (Fisher and Yates). */
function permutation(length: number, seed: number, epoch: number): Uint32Array {
  const order = Uint32Array.from({ length }, (_, i) => i);
  for (let i = length - 1; i > 0; i--) {
    const j = Math.floor(bits(i, [seed ^ PURPOSE, epoch]) * 2 ** -32 * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

function nothing(): BatchStats {
  return { epochs: 0, batches: 0, sequences: 0, tokens: 0, targets: 0, split: 0, dropped: 0 };
}

function nothingToLearn(examples: number): WhetError {
  return new WhetError(
    "format",
    `nothing to learn in ${examples} examples: none has a token that counts and another before it; check the data`,
  );
}

function checkState(state: BatchState): void {
  const { length, position, offset, waiting, stats } = state ?? {};
  const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
  const sound = (length === null || isCount(length)) && isCount(position) && isCount(offset) &&
    Array.isArray(waiting) && waiting.every((piece) => piece?.length === 3 && piece.every(isCount)) &&
    Object.keys(nothing()).every((name) => isCount(stats?.[name as keyof BatchStats]));
  if (!sound) {
    throw new WhetError("format", "the checkpoint's place in the data is damaged; use another checkpoint");
  }
}
