/**
 * Where a kernel is tried: it runs twice on the backend under test, once on tensors of their own and
 * once on views into larger ones, both with guarded neighbours, and once on the float64 reference.
 *
 * A case is a function that asks the lab for tensors and calls kernels on `lab.backend`. Afterwards
 * outputs must agree with the reference within their stated tolerance, inputs and neighbours must be
 * untouched, and both runs must have given the same bits.
 *
 * @module
 */
import type { Backend } from "../../src/tensor/backend.ts";
import { uniform } from "../../src/tensor/random.ts";
import {
  type GroupAxis,
  PackedMatrix,
  SLICE_ALIGNMENT,
  Tensor,
  type WeightFormat,
} from "../../src/tensor/tensor.ts";
import { ReferenceBackend } from "./reference.ts";

/** Half the distance from 1 to the next f32: the relative error of one rounding. */
export const EPSILON = 2 ** -24;

/** How far off a result may be: `absolute + relative · |expected|`. */
export interface Tolerance {
  absolute: number;
  relative: number;
}

/** No error at all: moved numbers, integers. */
export const exact: Tolerance = { absolute: 0, relative: 0 };

/** A few f32 operations on one number, none of which cancels. */
export const rounded: Tolerance = { absolute: 0, relative: 16 * EPSILON };

/**
 * A sum of n addends of at most `magnitude` in f32, in whatever order: twice what rounding in a random
 * walk amounts to in the worst (serial) order, far below one addend left out.
 */
export function sumOf(n: number, magnitude = 1): Tolerance {
  return { absolute: (16 + 2 * n) * EPSILON * magnitude, relative: 16 * EPSILON };
}

/** One experiment. */
export type Case = (lab: Lab) => void;

/** A value that no kernel writes. */
const GUARD = 12345.5;

/** What tensors are made of. */
type Numbers = Float32Array | Uint32Array;

/** The same kind of numbers, all of one value. */
function filled(like: Numbers, length: number, value: number): Numbers {
  return like instanceof Uint32Array
    ? new Uint32Array(length).fill(value)
    : new Float32Array(length).fill(value);
}

/** A tensor of the experiment. */
interface Specimen {
  tensor: Tensor;
  /** What holds it, or it itself; freed afterwards. */
  owner: Tensor;
  /** Index of its first element within `owner`. */
  at: number;
  /** What `owner` held before. */
  before: Numbers;
  /** Whether it only stands beside another. */
  guard?: boolean;
  /** Absent where it must stay as it was. */
  tolerance?: Tolerance;
}

/** See the module's text. */
export class Lab {
  readonly #specimens: Specimen[] = [];
  readonly #others: (Tensor | PackedMatrix)[] = [];
  #draws = 0;

  /**
   * @param backend What runs the case.
   * @param views Whether tensors are views into larger ones.
   * @param unpacked What the packed weights hold, in order of packing; on the reference alone.
   */
  constructor(readonly backend: Backend, readonly views: boolean, readonly unpacked?: Float32Array[]) {}

  /** Pseudorandom numbers in [-magnitude, magnitude) about a centre, rounded to f32; the same in every lab. */
  numbers(length: number, magnitude = 1, centre = 0): Float32Array {
    const key = [0x5eed, this.#draws++] as const;
    return Float32Array.from({ length }, (_, i) => centre + magnitude * (2 * uniform(i, key) - 1));
  }

  /** A tensor that must stay as it is: random numbers of a magnitude, or those given. */
  input(shape: number[], content: number | Float32Array = 1): Tensor {
    return this.#place(shape, typeof content === "number" ? this.numbers(size(shape), content) : content);
  }

  /** A tensor full of NaN, to be overwritten. */
  output(shape: number[], tolerance: Tolerance): Tensor {
    return this.#place(shape, new Float32Array(size(shape)).fill(NaN), tolerance);
  }

  /** A tensor with known content that changes. */
  updated(shape: number[], tolerance: Tolerance, content: number | Float32Array = 1): Tensor {
    const tensor = this.input(shape, content);
    this.#specimens.at(-1)!.tolerance = tolerance;
    return tensor;
  }

  /** A u32 tensor full of what is no index, to be overwritten. */
  outputIndices(shape: number[]): Tensor {
    return this.#place(shape, new Uint32Array(size(shape)).fill(0xdeadbeef), exact);
  }

  /** A u32 tensor with known content that changes. */
  updatedIndices(shape: number[], content: Uint32Array): Tensor {
    return this.#place(shape, content, exact);
  }

  /** A u32 tensor. */
  indices(content: ArrayLike<number>): Tensor {
    const tensor = this.backend.upload(Uint32Array.from(content));
    this.#others.push(tensor);
    return tensor;
  }

  /** A key-value cache full of NaN, whose content means something to its backend alone. */
  cache(shape: number[], dtype: "f32" | "f16"): Tensor {
    const { backend } = this;
    this.#guard();
    let tensor = backend.allocate(shape, dtype);
    if (!(backend instanceof ReferenceBackend)) {
      backend.free(tensor);
      // As many words as there are numbers: more than halves take, with two to a word.
      const words = backend.upload(
        new Uint32Array(size(shape)).fill(dtype === "f32" ? 0x7fc00000 : 0x7e007e00),
      );
      tensor = new Tensor(shape, dtype, words.memory);
    }
    this.#others.push(tensor);
    this.#guard();
    return tensor;
  }

  /** A frozen weight of random numbers. */
  packed(rows: number, columns: number, format: WeightFormat, axis?: GroupAxis): PackedMatrix {
    let content = this.numbers(rows * columns);
    if (this.unpacked) content = this.unpacked[this.#others.filter((x) => x instanceof PackedMatrix).length];
    const matrix = this.backend.pack(content, rows, columns, format, axis);
    this.#others.push(matrix);
    return matrix;
  }

  #place(shape: number[], content: Numbers, tolerance?: Tolerance): Tensor {
    const length = size(shape);
    if (this.views) {
      const before = filled(content, (2 + Math.ceil(length / SLICE_ALIGNMENT)) * SLICE_ALIGNMENT, GUARD);
      before.set(content, SLICE_ALIGNMENT);
      const owner = this.backend.upload(before);
      const tensor = owner.slice(SLICE_ALIGNMENT, shape);
      this.#specimens.push({ tensor, owner, at: SLICE_ALIGNMENT, before, tolerance });
      return tensor;
    }
    this.#guard();
    const tensor = this.backend.upload(content, shape);
    this.#guard();
    this.#specimens.push({ tensor, owner: tensor, at: 0, before: content, tolerance });
    return tensor;
  }

  /** A neighbour of whatever is placed before or after. */
  #guard(): void {
    const before = new Float32Array(3).fill(GUARD);
    const tensor = this.backend.upload(before);
    this.#specimens.push({ tensor, owner: tensor, at: 0, before, guard: true });
  }

  /** Reads the outputs, checks that nothing else changed, frees everything. */
  async finish(): Promise<{ outputs: Output[]; unpacked: Float32Array[] }> {
    const { backend } = this;
    const packed = this.#others.filter((x) => x instanceof PackedMatrix);
    const reference = backend instanceof ReferenceBackend && backend.store === Float64Array;
    const [contents, unpacked] = await Promise.all([
      Promise.all(
        this.#specimens.map(({ owner }) =>
          reference
            ? backend.read64(owner)
            : owner.dtype === "u32"
            ? backend.readU32(owner)
            : backend.read(owner)
        ),
      ),
      Promise.all(packed.map((matrix) => backend.unpack(matrix))),
    ]);
    const outputs: Output[] = [];
    this.#specimens.forEach(({ tensor, at, before, guard, tolerance }, i) => {
      const after = contents[i];
      if (after.length !== before.length) throw new Error(`read ${after.length} numbers of ${before.length}`);
      const end = at + tensor.length;
      for (let j = 0; j < before.length; j++) {
        if (tolerance && j >= at && j < end || Object.is(after[j], before[j])) continue;
        const what = guard
          ? "a neighbouring tensor"
          : `${j < at || j >= end ? "beside " : ""}[${tensor.shape}]`;
        throw new Error(
          `${what} changed at ${j - at}, where nothing writes: ${before[j]} became ${after[j]}`,
        );
      }
      if (tolerance) outputs.push({ shape: tensor.shape, content: after.subarray(at, end), tolerance });
    });
    for (const memory of [...this.#others, ...this.#specimens.map(({ owner }) => owner)]) {
      backend.free(memory);
    }
    return { outputs, unpacked };
  }
}

/** What came out. */
interface Output {
  shape: readonly number[];
  content: Numbers | Float64Array;
  tolerance: Tolerance;
}

function size(shape: readonly number[]): number {
  return shape.reduce((product, extent) => product * extent, 1);
}

/**
 * Runs cases on a backend and on the reference.
 *
 * @throws {Error} On the first disagreement, with the case's name, the output's number in the order of
 * asking for it, and the element.
 */
export async function compare(backend: Backend, cases: Record<string, Case>): Promise<void> {
  // All of a kernel's cases are enqueued before the first is waited for.
  await Promise.all(
    Object.entries(cases).map(async ([name, run]) => {
      try {
        const labs = [new Lab(backend, false), new Lab(backend, true)];
        labs.forEach(run);
        const [plain, views] = await Promise.all(labs.map((lab) => lab.finish()));
        const reference = new Lab(new ReferenceBackend(), false, plain.unpacked);
        run(reference);
        const { outputs } = await reference.finish();
        outputs.forEach((expected, i) => agree(plain.outputs[i], expected, i));
        outputs.forEach((_, i) => same(plain.outputs[i], views.outputs[i], i));
      } catch (error) {
        throw new Error(`${name}: ${error instanceof Error ? error.message : error}`, { cause: error });
      }
    }),
  );
}

/** Where an element is, and of what. */
function place(shape: readonly number[], output: number, i: number): string {
  const index = shape.map((_, d) => Math.floor(i / size(shape.slice(d + 1))) % shape[d]);
  return `output ${output} [${shape}] at [${index}]`;
}

function agree({ shape, content }: Output, expected: Output, output: number): void {
  const { absolute, relative } = expected.tolerance;
  for (let i = 0; i < content.length; i++) {
    const [x, y] = [content[i], expected.content[i]];
    const allowed = absolute + relative * Math.abs(y);
    if (Object.is(x, y) || Math.abs(x - y) <= allowed) continue;
    throw new Error(`${place(shape, output, i)} is ${x}, expected ${y} ± ${allowed}`);
  }
}

function same(plain: Output, views: Output, output: number): void {
  plain.content.forEach((x: number, i: number) => {
    if (Object.is(x, views.content[i])) return;
    throw new Error(
      `${place(plain.shape, output, i)} is ${x} in one run, ${views.content[i]} in another on views`,
    );
  });
}
