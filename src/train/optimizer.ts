/**
 * AdamW (Loshchilov & Hutter 2019) with clipping of the gradients' norm.
 *
 * @module
 */
import type { Parameters } from "../tensor/parameters.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** AdamW's settings. */
export interface AdamWSettings {
  /** Decay of the first and second moment. */
  betas: readonly [number, number];
  /** Added to the root of the second moment. */
  epsilon: number;
  /** Decoupled decay of matrices, per unit of learning rate. */
  weightDecay: number;
  /** Largest norm of all gradients together; 0 for any. */
  maxGradNorm: number;
}

/** Gradients and moments of trained parameters, and the step that uses them. */
export class AdamW implements Disposable {
  /** The gradients; contributions are added to them. */
  readonly gradients: Parameters;
  /** First moment. */
  readonly m: Parameters;
  /** Second moment. */
  readonly v: Parameters;
  readonly #sumOfSquares: Tensor;
  readonly #clip: Tensor;

  /**
   * @param parameters What is trained.
   * @param settings Decays, clipping.
   */
  constructor(readonly parameters: Parameters, readonly settings: AdamWSettings) {
    const { backend, layout } = parameters;
    this.gradients = layout.allocate(backend);
    this.m = layout.allocate(backend);
    this.v = layout.allocate(backend);
    this.#sumOfSquares = backend.allocate([1]);
    this.#clip = backend.allocate([2]);
  }

  /**
   * Changes the parameters along their gradients.
   *
   * @param step The step, from 1.
   * @param learningRate The step's learning rate.
   * @returns (2): the gradients' norm before clipping, and the factor that clips it.
   */
  step(step: number, learningRate: number): Tensor {
    const { backend, layout } = this.parameters;
    const { betas: [beta1, beta2], epsilon, weightDecay, maxGradNorm } = this.settings;
    for (const [slab, x] of this.gradients.slabs.entries()) {
      backend.sumOfSquares({ x, out: this.#sumOfSquares, accumulate: slab > 0 });
    }
    backend.clipFactor({ sumOfSquares: this.#sumOfSquares, maxNorm: maxGradNorm, out: this.#clip });
    for (const [slab, { decays }] of layout.slabs.entries()) {
      backend.adamw({
        parameters: this.parameters.slabs[slab],
        gradients: this.gradients.slabs[slab],
        m: this.m.slabs[slab],
        v: this.v.slabs[slab],
        clip: this.#clip,
        learningRate,
        beta1,
        beta2,
        epsilon,
        weightDecay: decays ? weightDecay : 0,
        step,
      });
    }
    return this.#clip;
  }

  /** Frees gradients and moments; the parameters stay. */
  [Symbol.dispose](): void {
    const { backend } = this.parameters;
    for (const parameters of [this.gradients, this.m, this.v]) parameters[Symbol.dispose]();
    backend.free(this.#sumOfSquares);
    backend.free(this.#clip);
  }
}
