/**
 * Reverse-mode differentiation: the forward pass records what to do backwards, the tape runs it back.
 *
 * What needs no gradient is not recorded, so a frozen weight costs no weight gradient and nothing
 * runs below the lowest trained parameter.
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import type { Matrix, Tensor } from "./tensor.ts";

interface Node {
  output: Tensor;
  saved: readonly Tensor[];
  backward: (gradient: Tensor) => void;
}

/** One forward pass's record, and the gradients that come of it. */
export class Tape {
  #nodes: Node[] = [];
  #gradients = new Map<Matrix, Tensor>();

  /** @param arena Where gradients of temporaries live. */
  constructor(readonly arena: Arena) {}

  /**
   * Says where a parameter's gradient goes; contributions are added to what is there.
   *
   * @param parameter A tensor that requires a gradient.
   * @param gradient A tensor of the same shape, zeroed by the caller when a step begins.
   */
  bind(parameter: Tensor, gradient: Tensor): void {
    this.#gradients.set(parameter, gradient);
  }

  /**
   * Records an op.
   *
   * @param output What it made.
   * @param saved The temporaries its backward pass reads; they live until it has run.
   * @param backward Given output's gradient, contributes to its inputs' gradients.
   */
  record(output: Tensor, saved: readonly Tensor[], backward: (gradient: Tensor) => void): void {
    output.requiresGradient = true;
    for (const tensor of saved) this.arena.retain(tensor);
    this.#nodes.push({ output, saved, backward });
  }

  /**
   * Runs the record back from `root`, after which it is empty.
   *
   * @param root Its last output.
   * @param seed Root's gradient; a loss weighs its own gradient and needs none.
   */
  backward(root: Tensor, seed: Tensor = root): void {
    this.arena.retain(seed);
    this.#gradients.set(root, seed);
    for (let node = this.#nodes.pop(); node; node = this.#nodes.pop()) {
      const { output, saved, backward } = node;
      const gradient = this.#gradients.get(output);
      if (gradient) {
        this.arena.scope(() => backward(gradient));
        this.#gradients.delete(output);
        this.arena.release(gradient);
      }
      for (const tensor of saved) this.arena.release(tensor);
    }
    // Still there if nothing recorded made the root: then nothing was differentiated.
    if (this.#gradients.delete(root)) this.arena.release(seed);
  }

  /** The gradient that has come together for a tensor, if any. */
  gradient(tensor: Matrix): Tensor | undefined {
    return this.#gradients.get(tensor);
  }

  /**
   * Adds to the gradient of an op's input, if it wants one.
   *
   * @param input The op's input.
   * @param write Writes the contribution to `out`, or adds it when `accumulate` says so.
   */
  contribute(input: Matrix, write: (out: Tensor, accumulate: boolean) => void): void {
    if (!input.requiresGradient) return;
    const before = this.#gradients.get(input);
    if (before && !this.arena.isShared(before)) return write(before, true);
    const out = this.arena.temporary(input.shape);
    if (before) {
      this.arena.backend.copy({ x: before, out });
      this.arena.release(before);
    }
    write(out, before !== undefined);
    this.#hold(input, out);
    this.arena.discard(out); // The tape alone holds it, so that the next contribution is added in place.
  }

  /**
   * Adds a whole tensor to the gradient of an op's input; where it is the first, it is shared, not copied.
   *
   * @param input The op's input.
   * @param gradient A tensor of its shape that nothing will write to directly.
   */
  share(input: Matrix, gradient: Tensor): void {
    if (!input.requiresGradient) return;
    if (this.#gradients.has(input)) {
      this.contribute(input, (out) => this.arena.backend.add({ a: out, b: gradient, out }));
    } else {
      this.#hold(input, gradient);
    }
  }

  #hold(input: Matrix, gradient: Tensor): void {
    this.arena.retain(gradient);
    this.#gradients.set(input, gradient);
  }
}
