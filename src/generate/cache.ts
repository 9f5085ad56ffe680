/**
 * Keys and values of the tokens that were already seen, so that each is computed once.
 *
 * @module
 */
import type { GPT2Config } from "../model/config.ts";
import type { Backend } from "../tensor/backend.ts";
import type { CacheView } from "../tensor/ops.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Room for `slots` sequences of up to `capacity` tokens. */
export class KeyValueCache implements Disposable {
  readonly #layers: { keys: Tensor; values: Tensor }[];

  /**
   * @param backend Who holds it.
   * @param config The model's shape.
   * @param slots Sequences.
   * @param capacity Tokens of each, at most.
   */
  constructor(
    readonly backend: Backend,
    config: GPT2Config,
    readonly slots: number,
    readonly capacity: number,
  ) {
    const shape = [slots, capacity, config.n_embd];
    this.#layers = Array.from({ length: config.n_layer }, () => ({
      keys: backend.allocate(shape),
      values: backend.allocate(shape),
    }));
  }

  /**
   * One layer's part, as attention takes it.
   *
   * @param layer Its index.
   * @param slots u32 (T), each row's sequence.
   * @param positions u32 (T), each row's place in it.
   */
  view(layer: number, slots: Tensor, positions: Tensor): CacheView {
    return { ...this.#layers[layer], slots, positions };
  }

  /** Frees it. */
  [Symbol.dispose](): void {
    for (const { keys, values } of this.#layers.splice(0)) {
      this.backend.free(keys);
      this.backend.free(values);
    }
  }
}
