/**
 * Trained tensors side by side in a few large ones, so that an optimizer step, a gradient norm or a
 * zeroing is one kernel over all of them.
 *
 * @module
 */
import type { Backend } from "./backend.ts";
import { SLICE_ALIGNMENT, type Tensor } from "./tensor.ts";

/** One trained tensor's name, shape and treatment. */
export interface ParameterSpec {
  /** Its name. */
  name: string;
  /** Its extents. */
  shape: readonly number[];
  /** Whether weight decay applies: to matrices, not to biases and norms. */
  decays: boolean;
}

/** A slab holds so many elements (64 MiB), unless a single tensor is larger: adapters bind at most 128 MiB. */
const SLAB_ELEMENTS = 1 << 24;

interface Slab {
  decays: boolean;
  length: number;
}

/** Where each parameter lies; values, gradients and moments are laid out alike. */
export class ParameterLayout {
  /** The slabs' lengths in elements, and whether they decay. */
  readonly slabs: readonly Readonly<Slab>[];
  readonly #places = new Map<string, { slab: number; offset: number; shape: readonly number[] }>();

  /** @param specs The parameters, in order. */
  constructor(readonly specs: readonly ParameterSpec[]) {
    const slabs: Slab[] = [];
    for (const decays of [true, false]) {
      let slab: Slab | undefined;
      for (const spec of specs) {
        if (spec.decays !== decays) continue;
        const length = spec.shape.reduce((a, b) => a * b, 1);
        if (!slab || slab.length + length > SLAB_ELEMENTS) slabs.push(slab = { decays, length: 0 });
        this.#places.set(spec.name, { slab: slabs.indexOf(slab), offset: slab.length, shape: spec.shape });
        slab.length += Math.ceil(length / SLICE_ALIGNMENT) * SLICE_ALIGNMENT;
      }
    }
    this.slabs = slabs;
  }

  /** Parameters in all, without the gaps between them. */
  get count(): number {
    return this.specs.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  }

  /** Allocates zeroed slabs for one kind of value: all, or none where memory is short. */
  allocate(backend: Backend): Parameters {
    const slabs: Tensor[] = [];
    try {
      for (const { length } of this.slabs) {
        slabs.push(backend.allocate([length]));
        backend.fill({ out: slabs.at(-1)!, value: 0 });
      }
    } catch (error) {
      for (const slab of slabs) backend.free(slab);
      throw error;
    }
    const tensors = new Map(this.specs.map(({ name }) => {
      const { slab, offset, shape } = this.#places.get(name)!;
      return [name, slabs[slab].slice(offset, shape)];
    }));
    return new Parameters(backend, this, slabs, tensors);
  }
}

/** One kind of value (weights, gradients or a moment) of all parameters of a layout. */
export class Parameters implements Disposable {
  /**
   * @param backend Who holds them.
   * @param layout Where each lies.
   * @param slabs The large tensors.
   * @param tensors Views into them by name.
   */
  constructor(
    readonly backend: Backend,
    readonly layout: ParameterLayout,
    readonly slabs: readonly Tensor[],
    readonly tensors: ReadonlyMap<string, Tensor>,
  ) {}

  /** Sets all to zero. */
  zero(): void {
    for (const out of this.slabs) this.backend.fill({ out, value: 0 });
  }

  /** Overwrites one. */
  write(name: string, data: Float32Array): void {
    this.backend.write(this.tensors.get(name)!, data);
  }

  /** Reads one back. */
  read(name: string): Promise<Float32Array> {
    return this.backend.read(this.tensors.get(name)!);
  }

  /** Frees the slabs. */
  [Symbol.dispose](): void {
    for (const slab of this.slabs) this.backend.free(slab);
  }
}
