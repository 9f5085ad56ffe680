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
  #holders = new Map<Tensor, number>();
  #scopes: Set<Tensor>[] = [];

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
   * of them) passes to the scope around it.
   *
   * @param work What to run; it only enqueues, so it is synchronous.
   * @returns What `work` returned.
   */
  scope<Result>(work: () => Result): Result {
    const scope = new Set<Tensor>();
    this.#scopes.push(scope);
    let result: Result | undefined;
    try {
      return result = work();
    } finally {
      this.#scopes.pop();
      const parent = this.#scopes.at(-1);
      const kept: readonly unknown[] = Array.isArray(result) ? result : [result];
      for (const tensor of scope) {
        if (kept.includes(tensor)) parent?.add(tensor);
        else this.release(tensor);
      }
    }
  }

  /** Lets go of a temporary before its scope ends. */
  discard(tensor: Tensor): void {
    for (const scope of this.#scopes) {
      if (scope.delete(tensor)) return this.release(tensor);
    }
  }

  /** One more needs this temporary; no effect on a parameter or a view. */
  retain(tensor: Tensor): void {
    const holders = this.#holders.get(tensor);
    if (holders !== undefined) this.#holders.set(tensor, holders + 1);
  }

  /** One fewer needs this temporary; the last frees it. */
  release(tensor: Tensor): void {
    const holders = this.#holders.get(tensor);
    if (holders === undefined) return;
    if (holders > 1) {
      this.#holders.set(tensor, holders - 1);
    } else {
      this.#holders.delete(tensor);
      this.backend.free(tensor);
    }
  }

  /** Whether more than one holds this temporary, so that it must not be changed in place. */
  isShared(tensor: Tensor): boolean {
    return (this.#holders.get(tensor) ?? 0) > 1;
  }

  /** Temporaries alive. */
  get size(): number {
    return this.#holders.size;
  }

  /** Frees every temporary. */
  [Symbol.dispose](): void {
    for (const tensor of this.#holders.keys()) this.backend.free(tensor);
    this.#holders.clear();
  }

  #adopt(tensor: Tensor): Tensor {
    this.#holders.set(tensor, 1);
    this.#scopes.at(-1)?.add(tensor);
    return tensor;
  }
}
