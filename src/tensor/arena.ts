/**
 * Who still needs a temporary tensor: scopes, the tape, gradients. A temporary's memory goes back to
 * the backend the moment the last of them lets go, never when a garbage collector feels like it, so a
 * step that repeats meets the same memory again.
 *
 * @module
 */
import type { Backend } from "./backend.ts";
import type { DType, Tensor } from "./tensor.ts";

/** Temporaries of one backend, freed by scope. */
export class Arena implements Disposable {
  readonly #holdings = new Map<Tensor, { holders: number; serial: number }>();
  readonly #scopes: Set<Tensor>[] = [];
  #serial = 0;

  /** @param backend Whose memory the temporaries take. */
  constructor(readonly backend: Backend) {}

  /** Allocates a temporary that the innermost scope holds; its content is undefined. */
  temporary(shape: readonly number[], dtype: DType = "f32"): Tensor {
    return this.#adopt(this.backend.allocate(shape, dtype));
  }

  /** Uploads data as a temporary that the innermost scope holds. */
  upload(data: Float32Array | Uint32Array, shape?: readonly number[]): Tensor {
    return this.#adopt(this.backend.upload(data, shape));
  }

  /**
   * Runs work and then lets go of the temporaries made in it; what it returns (a tensor, or an array
   * of them) passes to the scope around it. If work throws, all that was made in it is freed, whoever
   * holds it: a tape that recorded in it is not to be used again.
   *
   * @param work What to run; it only enqueues, so it is synchronous.
   * @returns What `work` returned; a promise of a read too, for a read is enqueued when it is called.
   */
  scope<Result>(work: () => Result): Result {
    const made = new Set<Tensor>();
    const first = this.#serial;
    this.#scopes.push(made);
    let result: Result;
    try {
      result = work();
    } catch (error) {
      this.#scopes.pop();
      for (const [tensor, { serial }] of this.#holdings) if (serial >= first) this.#free(tensor);
      throw error;
    }
    this.#scopes.pop();
    const parent = this.#scopes.at(-1);
    const kept: readonly unknown[] = Array.isArray(result) ? result : [result];
    for (const tensor of made) {
      if (kept.includes(tensor)) parent?.add(tensor);
      else this.release(tensor);
    }
    return result;
  }

  /** Lets go of a temporary before its scope ends. */
  discard(tensor: Tensor): void {
    for (const scope of this.#scopes) {
      if (scope.delete(tensor)) return this.release(tensor);
    }
  }

  /** One more needs this temporary; no effect on a parameter or a view. */
  retain(tensor: Tensor): void {
    const holding = this.#holdings.get(tensor);
    if (holding) holding.holders++;
  }

  /** One fewer needs this temporary; the last frees it. */
  release(tensor: Tensor): void {
    const holding = this.#holdings.get(tensor);
    if (holding && --holding.holders === 0) this.#free(tensor);
  }

  /** Whether more than one holds this temporary, so that it must not be changed in place. */
  isShared(tensor: Tensor): boolean {
    return (this.#holdings.get(tensor)?.holders ?? 0) > 1;
  }

  /** Temporaries alive. */
  get size(): number {
    return this.#holdings.size;
  }

  /** Frees every temporary. */
  [Symbol.dispose](): void {
    for (const tensor of this.#holdings.keys()) this.#free(tensor);
  }

  #adopt(tensor: Tensor): Tensor {
    this.#holdings.set(tensor, { holders: 1, serial: this.#serial++ });
    this.#scopes.at(-1)?.add(tensor);
    return tensor;
  }

  #free(tensor: Tensor): void {
    this.#holdings.delete(tensor);
    this.backend.free(tensor);
  }
}
