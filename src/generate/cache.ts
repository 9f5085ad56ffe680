/**
 * Keys and values of the tokens that were already seen, so that each is computed once.
 *
 * @module
 */
import type { GPT2Config } from "../model/config.ts";
import type { Arena } from "../tensor/arena.ts";
import type { CacheView } from "../tensor/ops.ts";
import type { Tensor, WeightFormat } from "../tensor/tensor.ts";

/**
 * Room for `slots` sequences of up to `capacity` tokens; temporaries that live until it is disposed. It holds halves,
 * in half the memory and time, unless the model's weights are f32: such a model computes as PyTorch does.
 */
export class KeyValueCache implements Disposable {
  /** Keys and values of each layer in turn, (slots, capacity, C). */
  readonly #tensors: Tensor[] = [];

  /**
   * @param arena Who holds it.
   * @param config The model's shape.
   * @param weights How the model's weights are stored.
   * @param slots Sequences.
   * @param capacity Tokens of each, at most.
   */
  constructor(
    readonly arena: Arena,
    config: GPT2Config,
    weights: WeightFormat,
    readonly slots: number,
    readonly capacity: number,
  ) {
    const dtype = weights === "f32" ? "f32" : "f16";
    // Kernels read sixteen positions at a time, and a last few more slowly: those are not for use.
    const positions = Math.ceil(capacity / 16) * 16;
    try {
      for (let i = 0; i < 2 * config.n_layer; i++) {
        this.#tensors.push(arena.temporary([slots, positions, config.n_embd], dtype));
      }
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * One layer's part, as attention takes it.
   *
   * @param layer Its index.
   * @param slots u32 (T), each row's sequence.
   * @param positions u32 (T), each row's place in it.
   */
  view(layer: number, slots: Tensor, positions: Tensor): CacheView {
    const [keys, values] = this.#tensors.slice(2 * layer, 2 * layer + 2);
    return { keys, values, slots, positions };
  }

  /** Frees it. */
  [Symbol.dispose](): void {
    for (const tensor of this.#tensors.splice(0)) this.arena.release(tensor);
  }
}
