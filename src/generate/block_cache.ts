/**
 * A cache of keys and values that is allotted in blocks, so that sequences of any length share one budget (as in vLLM,
 * Kwon et al. 2023).
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import type { GPT2Config } from "../model/config.ts";
import type { Arena } from "../tensor/arena.ts";
import { CACHE_BLOCK } from "../tensor/backend.ts";
import type { CacheView } from "../tensor/ops.ts";
import type { Tensor, WeightFormat } from "../tensor/tensor.ts";

/** How large a cache is. */
export interface BlockCacheOptions {
  /** Sequences at most. */
  slots: number;
  /** Bytes at most; at least one sequence of the whole window has room in any case. */
  bytes: number;
}

/** Blocks of keys and values, and which sequence has which of them. */
export class BlockCache implements Disposable {
  /** Keys and values of each layer in turn, (blocks, CACHE_BLOCK, C). */
  readonly #tensors: Tensor[] = [];
  /** (slots, blocks of each). */
  readonly #table: Uint32Array;
  readonly #free: number[];
  readonly #owned: number[][];
  /** How many blocks there are. */
  readonly blocks: number;

  /**
   * @param arena Who holds it.
   * @param config The model's shape.
   * @param weights How the model's weights are stored: with f32 the cache holds floats, else halves.
   * @param options How large it is.
   * @throws {WhetError} "resource" where memory is out.
   */
  constructor(
    readonly arena: Arena,
    config: GPT2Config,
    weights: WeightFormat,
    { slots, bytes }: BlockCacheOptions,
  ) {
    const dtype = weights === "f32" ? "f32" : "f16";
    const { n_layer, n_embd: C, n_positions } = config;
    const each = Math.ceil(n_positions / CACHE_BLOCK);
    const blockBytes = 2 * n_layer * CACHE_BLOCK * C * (dtype === "f32" ? 4 : 2);
    this.blocks = Math.min(slots * each, Math.max(each, Math.floor(bytes / blockBytes)));
    this.#table = new Uint32Array(slots * each);
    this.#free = Array.from({ length: this.blocks }, (_, i) => this.blocks - 1 - i);
    this.#owned = Array.from({ length: slots }, () => []);
    try {
      for (let i = 0; i < 2 * n_layer; i++) {
        this.#tensors.push(arena.temporary([this.blocks, CACHE_BLOCK, C], dtype));
      }
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Blocks that nobody has. */
  get free(): number {
    return this.#free.length;
  }

  /**
   * Whether there is room for so many positions now.
   *
   * @param positions How many.
   */
  fits(positions: number): boolean {
    return Math.ceil(positions / CACHE_BLOCK) <= this.#free.length;
  }

  /**
   * Gives a slot room for so many positions.
   *
   * @param slot Which, with no room so far.
   * @param positions How many.
   * @throws {WhetError} "resource" where there is not so much.
   */
  reserve(slot: number, positions: number): void {
    if (!this.fits(positions)) {
      throw new WhetError(
        "resource",
        `the cache has no room for ${positions} tokens: ${this.#free.length} blocks left`,
      );
    }
    const each = this.#table.length / this.#owned.length;
    const count = Math.ceil(positions / CACHE_BLOCK);
    this.#owned[slot] = this.#free.splice(this.#free.length - count);
    this.#table.set(this.#owned[slot], slot * each);
  }

  /**
   * Takes a slot's room back.
   *
   * @param slot Which.
   */
  release(slot: number): void {
    this.#free.push(...this.#owned[slot].splice(0));
  }

  /** Where each slot's blocks lie, as a temporary of the arena's innermost scope. */
  table(): Tensor {
    return this.arena.upload(this.#table.slice(), [
      this.#owned.length,
      this.#table.length / this.#owned.length,
    ]);
  }

  /**
   * One layer's part, as attention takes it.
   *
   * @param layer Its index.
   * @param rows The rows' slots and positions, and the {@linkcode BlockCache.table}.
   */
  view(layer: number, rows: Omit<CacheView, "keys" | "values">): CacheView {
    const [keys, values] = this.#tensors.slice(2 * layer, 2 * layer + 2);
    return { keys, values, ...rows };
  }

  /** Frees it. */
  [Symbol.dispose](): void {
    for (const tensor of this.#tensors.splice(0)) this.arena.release(tensor);
  }
}
