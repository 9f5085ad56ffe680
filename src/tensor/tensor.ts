/**
 * What a kernel works on: a shape over memory that a backend owns.
 *
 * @module
 */

/**
 * What a plain tensor's elements are: 32-bit floats, or unsigned integers (token ids, row numbers); or halves, a
 * key-value cache's alone: only `cachedAttention` takes such a tensor, it is neither written, read nor sliced.
 */
export type DType = "f32" | "u32" | "f16";

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
    let length = 1; // Asked for at every call of a kernel: a third of the time that reduce takes.
    for (const extent of this.shape) length *= extent;
    return length;
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

/**
 * Which way the groups of 32 of a frozen weight run, which is the way that it is summed over most: 0 down its rows,
 * for x W (W's rows are summed over); 1 along its columns, for x Wᵀ (the output layer's wte).
 */
export type GroupAxis = 0 | 1;

/** A frozen weight matrix, laid out once, at load, as its backend's kernels like it best. */
export class PackedMatrix {
  /** A frozen weight never has a gradient. */
  readonly requiresGradient = false;

  /**
   * @param rows The plain matrix's rows.
   * @param columns The plain matrix's columns.
   * @param format How its numbers are stored.
   * @param memory Where it lives, as its backend says it.
   * @param axis Which way its groups run; see {@linkcode GroupAxis}.
   */
  constructor(
    readonly rows: number,
    readonly columns: number,
    readonly format: WeightFormat,
    readonly memory: Memory,
    readonly axis: GroupAxis = 0,
  ) {}

  /** `[rows, columns]`. */
  get shape(): readonly number[] {
    return [this.rows, this.columns];
  }
}

/**
 * A frozen weight's numbers as they are stored, in no backend's layout: what files hold. A number is scale · code
 * (+ minimum); groups of 32 numbers along `axis` share a scale and a minimum, the last group may be shorter.
 */
export interface StoredMatrix {
  /** Rows of the matrix. */
  readonly rows: number;
  /** Columns of the matrix. */
  readonly columns: number;
  /** How `codes` are to be read. */
  readonly format: "f16" | "q8" | "q4";
  /** Which way groups run. */
  readonly axis: GroupAxis;
  /**
   * Row-major, little-endian. f16: a half each; q8: a signed byte each, −127 … 127; q4: four bits each, 0 … 15, the
   * number with the even index in the low half of a byte.
   */
  readonly codes: Uint8Array<ArrayBuffer>;
  /** q8 and q4: row-major (⌈rows / 32⌉, columns) for axis 0, (rows, ⌈columns / 32⌉) for axis 1. */
  readonly scales?: Float32Array<ArrayBuffer>;
  /** q4: the scales' shape. */
  readonly minima?: Float32Array<ArrayBuffer>;
}

/** A weight matrix: trained (a plain tensor) or frozen (packed). */
export type Matrix = Tensor | PackedMatrix;
