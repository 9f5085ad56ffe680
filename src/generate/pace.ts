/**
 * How far decoding runs ahead of what is known of its tokens.
 *
 * Deno (2.9.6, ext/webgpu/buffer.rs) waits in every map of a buffer until all that was submitted is done, and then
 * sleeps 10 ms: measured, 983 ms for a copy with a second of kernels behind it, and 11 ms with none. So tokens are
 * fetched several steps at once, while the device works on the next ones. To be deleted when a map waits for its own
 * submission alone: two steps under way would do then.
 *
 * @module
 */
import type { Backend } from "../tensor/backend.ts";

/** Fetches that follow each other faster, in ms, are mostly sleep: more steps go together. */
const SHORT = 8;
/** Fetches that follow each other slower, in ms, show in the stream of text: fewer steps go together. */
const LONG = 30;
/** Steps of a batch that go together; always the same, so that sequences leave it after the same steps every time. */
const BATCH = 8;

/** How many steps went together last, to begin with next time. */
const known = new WeakMap<Backend, number>();

/** Decides how many steps are under way, and how many of them are fetched together. */
export class Pace {
  readonly #backend: Backend;
  readonly #most: number;
  readonly #adapts: boolean;
  #together: number;
  #last?: number;

  /**
   * @param backend Where the steps run; its `readAhead` is the limit.
   * @param sequences How many are decoded.
   */
  constructor(backend: Backend, sequences: number) {
    this.#backend = backend;
    this.#most = Math.max(1, Math.floor((backend.readAhead ?? 1) / 2));
    this.#adapts = sequences === 1;
    this.#together = Math.min(this.#most, this.#adapts ? known.get(backend) ?? 1 : BATCH);
  }

  /** Steps that may be under way: those being fetched, and as many again; the first goes alone, to be there early. */
  get ahead(): number {
    return this.#last === undefined ? 1 : Math.min(this.#backend.readAhead ?? 1, 2 * this.#together);
  }

  /** Steps that are fetched together. */
  get together(): number {
    return this.#last === undefined ? 1 : this.#together;
  }

  /** Takes note that a fetch has come. */
  arrived(now: number = performance.now()): void {
    const period = now - (this.#last ?? now - SHORT);
    this.#last = now;
    if (!this.#adapts) return;
    if (period < SHORT) this.#together = Math.min(this.#most, 2 * this.#together);
    if (period > LONG) this.#together = Math.ceil(this.#together / 2);
    known.set(this.#backend, this.#together);
  }
}
