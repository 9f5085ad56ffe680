/**
 * What a kernel works on: a shape over memory that a backend owns.
 *
 * @module
 */

/** What a plain tensor's elements are: 32-bit floats, or unsigned integers (token ids, row numbers). */
export type DType = "f32" | "u32";

/** How a frozen weight is stored: floats of 32 or 16 bits, or 8- or 4-bit integers in groups of 32. */
export type WeightFormat = "f32" | "f16" | "q8" | "q4";

/** A stretch of a backend's memory; only that backend knows what is inside. */
export type Memory = unknown;

/** A dense, row-major array in a backend's memory. */
export class Tensor {
  /** Whether {@linkcode Tape} computes a gradient for it. */
  requiresGradient = false;

  /**
   * @param shape Its extents, outermost first.
   * @param dtype What an element is.
   * @param memory Where it lives, as its backend says it.
   * @param offset Index of its first element within `memory`.
   */
  constructor(
    readonly shape: readonly number[],
    readonly dtype: DType,
    readonly memory: Memory,
    readonly offset = 0,
  ) {}

  /** The number of elements. */
  get length(): number {
    return this.shape.reduce((product, extent) => product * extent, 1);
  }

  /**
   * A view of part of the same memory; never freed by itself.
   *
   * @param offset Index of the view's first element within this tensor; on WebGPU a multiple of
   * {@linkcode SLICE_ALIGNMENT}.
   * @param shape The view's extents.
   * @returns The view.
   */
  slice(offset: number, shape: readonly number[]): Tensor {
    return new Tensor(shape, this.dtype, this.memory, this.offset + offset);
  }
}

/** Where a view may begin: a multiple of so many elements (WebGPU binds at multiples of 256 bytes). */
export const SLICE_ALIGNMENT = 64;

/** A frozen weight matrix, laid out once, at load, as its backend's kernels like it best. */
export class PackedMatrix {
  /** A frozen weight never has a gradient. */
  readonly requiresGradient = false;

  /**
   * @param rows The plain matrix's rows.
   * @param columns The plain matrix's columns.
   * @param format How its numbers are stored.
   * @param memory Where it lives, as its backend says it.
   */
  constructor(
    readonly rows: number,
    readonly columns: number,
    readonly format: WeightFormat,
    readonly memory: Memory,
  ) {}

  /** `[rows, columns]`. */
  get shape(): readonly number[] {
    return [this.rows, this.columns];
  }
}

/** A weight matrix: trained (a plain tensor) or frozen (packed). */
export type Matrix = Tensor | PackedMatrix;
