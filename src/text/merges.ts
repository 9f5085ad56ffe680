/**
 * The merges of byte pair encoding: which two adjacent symbols become which one, the earliest
 * learned first (Sennrich et al., 2016, Neural Machine Translation of Rare Words with Subword Units).
 *
 * @module
 */

/** Ranks and positions share one float64 in the queue: rank · 2³¹ + position stays below 2⁵³. */
const POSITIONS = 2 ** 31;

/** The most merges a table may hold, and the bound on ids. */
export const MAX_RANKS: number = 2 ** 22;

/** The rank of a pair that does not merge: above all others. */
const NONE = MAX_RANKS;

/**
 * Rows up to this long are scanned for their next merge, longer ones queue theirs: on GPT-2's tokens,
 * 6 bytes on average, scanning takes half the time; on 100,000 letters, minutes against 30 ms.
 */
const SCANNED = 32;

/**
 * A table of merges in order of rank, and their application to a row of symbols, in n log n time
 * however long the row is.
 *
 * @example
 * ```ts
 * import { Merges } from "./merges.ts";
 *
 * const merges = new Merges(2);
 * merges.add(0, 1, 2); // 0 1 → 2
 * merges.add(2, 0, 3); // 2 0 → 3
 * const row = Int32Array.of(0, 1, 0, 1);
 * console.log(row.subarray(0, merges.apply(row, 4))); // Int32Array [2, 2]
 * ```
 */
export class Merges {
  /** (capacity, 3): left, right and result of each rank. */
  readonly #triples: Int32Array;
  /** (2^bits): an open-addressing table from a pair to its rank, NONE where empty. */
  readonly #slots: Int32Array;
  readonly #shift: number;
  /** (SCANNED): the rank of the pair that begins at each symbol of a short row. */
  readonly #scanned = new Int32Array(SCANNED);
  #count = 0;

  /**
   * An empty table.
   *
   * @param capacity The most merges that will be added.
   * @throws {RangeError} above {@linkcode MAX_RANKS}.
   */
  constructor(capacity: number) {
    if (!(capacity <= MAX_RANKS)) throw new RangeError(`at most ${MAX_RANKS} merges, got ${capacity}`);
    const bits = Math.max(4, Math.ceil(Math.log2(capacity + 1)) + 1); // at most half full
    this.#triples = new Int32Array(3 * capacity);
    this.#slots = new Int32Array(2 ** bits).fill(NONE);
    this.#shift = 32 - bits;
  }

  /** How many merges there are. */
  get count(): number {
    return this.#count;
  }

  /**
   * Adds the merge of the next rank. A pair that has one already takes the new rank, as in Hugging
   * Face's tokenizers.
   *
   * @param left The pair's first symbol.
   * @param right The pair's second symbol.
   * @param result What they become.
   */
  add(left: number, right: number, result: number): void {
    const rank = this.#count++;
    this.#triples[3 * rank] = left;
    this.#triples[3 * rank + 1] = right;
    this.#triples[3 * rank + 2] = result;
    this.#slots[this.#slot(left, right)] = rank;
  }

  /**
   * The merge of a rank.
   *
   * @param rank From 0 to `count` − 1.
   * @returns Left, right and result.
   */
  at(rank: number): [left: number, right: number, result: number] {
    const [left, right, result] = this.#triples.subarray(3 * rank, 3 * rank + 3);
    return [left, right, result];
  }

  /** The slot that holds a pair, or the empty one where it belongs. */
  #slot(left: number, right: number): number {
    const slots = this.#slots;
    const triples = this.#triples;
    let slot = (Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b)) >>> this.#shift;
    for (;;) {
      const rank = slots[slot];
      if (rank === NONE || (triples[3 * rank] === left && triples[3 * rank + 1] === right)) return slot;
      slot = (slot + 1) & (slots.length - 1);
    }
  }

  #rank(left: number, right: number): number {
    return this.#slots[this.#slot(left, right)];
  }

  /**
   * Merges a row of symbols in place: always the pair of lowest rank, of equal ones the leftmost.
   *
   * @param symbols The row.
   * @param length How many symbols it has.
   * @returns How many are left, at the row's beginning.
   */
  apply(symbols: Int32Array, length: number): number {
    return length <= SCANNED ? this.#scan(symbols, length) : this.#queue(symbols, length);
  }

  #scan(symbols: Int32Array, length: number): number {
    const ranks = this.#scanned;
    for (let i = 0; i + 1 < length; i++) ranks[i] = this.#rank(symbols[i], symbols[i + 1]);
    while (length > 1) {
      let best = 0;
      for (let i = 1; i + 1 < length; i++) if (ranks[i] < ranks[best]) best = i;
      if (ranks[best] === NONE) break;
      symbols[best] = this.#triples[3 * ranks[best] + 2];
      length--;
      for (let i = best + 1; i < length; i++) {
        symbols[i] = symbols[i + 1];
        ranks[i] = ranks[i + 1];
      }
      if (best > 0) ranks[best - 1] = this.#rank(symbols[best - 1], symbols[best]);
      if (best + 1 < length) ranks[best] = this.#rank(symbols[best], symbols[best + 1]);
    }
    return length;
  }

  #queue(symbols: Int32Array, length: number): number {
    const next = Int32Array.from({ length }, (_, i) => i + 1); // a linked list over what is left
    const previous = Int32Array.from({ length }, (_, i) => i - 1);
    const ranks = new Int32Array(length); // of the pair that begins at i
    const queue = new MinQueue(3 * length); // a pair for each symbol, and two more for each merge
    const consider = (i: number) => {
      ranks[i] = next[i] < length ? this.#rank(symbols[i], symbols[next[i]]) : NONE;
      if (ranks[i] !== NONE) queue.push(ranks[i] * POSITIONS + i);
    };
    for (let i = 0; i < length; i++) consider(i);
    while (queue.size > 0) {
      const entry = queue.pop();
      const rank = Math.floor(entry / POSITIONS);
      const i = entry - rank * POSITIONS;
      if (ranks[i] !== rank) continue; // the pair at i has changed or gone since it was queued
      const j = next[i];
      symbols[i] = this.#triples[3 * rank + 2];
      ranks[j] = NONE;
      next[i] = next[j];
      if (next[i] < length) previous[next[i]] = i;
      consider(i);
      if (previous[i] >= 0) consider(previous[i]);
    }
    let left = 0;
    for (let i = 0; i < length; i = next[i]) symbols[left++] = symbols[i];
    return left;
  }
}

/** A binary heap of numbers, the smallest on top. */
class MinQueue {
  readonly #heap: Float64Array;
  #size = 0;

  constructor(capacity: number) {
    this.#heap = new Float64Array(capacity);
  }

  get size(): number {
    return this.#size;
  }

  push(value: number): void {
    const heap = this.#heap;
    let i = this.#size++;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (heap[parent] <= value) break;
      heap[i] = heap[parent];
      i = parent;
    }
    heap[i] = value;
  }

  pop(): number {
    const heap = this.#heap;
    const top = heap[0];
    const size = --this.#size;
    const value = heap[size];
    let i = 0;
    for (let child = 1; child < size; child = 2 * i + 1) {
      if (child + 1 < size && heap[child + 1] < heap[child]) child++;
      if (heap[child] >= value) break;
      heap[i] = heap[child];
      i = child;
    }
    heap[i] = value;
    return top;
  }
}
