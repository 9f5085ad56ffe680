/**
 * What all rows share: the backend, the care, the budget, and where rows go.
 *
 * @module
 */
import type { Gpu, GpuOptions } from "../../src/backend/webgpu/gpu.ts";
import type { Backend, BackendStats } from "../../src/tensor/backend.ts";
import type {
  DType,
  GroupAxis,
  Matrix,
  PackedMatrix,
  Tensor,
  WeightFormat,
} from "../../src/tensor/tensor.ts";
import { type Care, idleSeconds, secondsOf } from "./clock.ts";
import { type Counters, type GpuRecord, measured, type Row } from "./record.ts";

/** How a run is made. */
export interface BenchOptions {
  /** Opens a backend, with kernels chosen as these options say; another one if the first failed. */
  open: (options: GpuOptions) => Promise<Backend>;
  /** Those options [none]. */
  gpu?: GpuOptions;
  /** Tiny sizes. */
  quick: boolean;
  /** Seconds in all. */
  seconds: number;
  /** Samples of a row. */
  runs: number;
  /** Words, one of which a row's name has; none for all. */
  only: readonly string[];
  /** Where rows go. */
  record: GpuRecord;
  /** Called after each row. */
  onRow: (row: Row) => void;
}

/** One run. */
export class Bench implements Disposable {
  readonly #options: BenchOptions;
  readonly #end: number;
  #backend?: Backend;
  #one?: Tensor;
  #idle = 0;
  #data?: Float32Array;

  /** @param options How. */
  constructor(options: BenchOptions) {
    this.#options = options;
    this.#end = performance.now() + options.seconds * 1000;
  }

  /** Whether sizes are tiny. */
  get quick(): boolean {
    return this.#options.quick;
  }

  /** The record so far. */
  get record(): GpuRecord {
    return this.#options.record;
  }

  /** Samples of a row. */
  get runs(): number {
    return this.#options.runs;
  }

  /** Seconds left. */
  get left(): number {
    return (this.#end - performance.now()) / 1000;
  }

  /** How carefully rows are measured; a single one takes no more than a twelfth of what is left, or 20 s. */
  get care(): Care {
    const { quick, runs } = this.#options;
    const longest = Math.min(20_000, Math.max(0, this.#end - performance.now()) / 12);
    return { runs, least: quick ? 1e-4 : 0.1, most: quick ? 2 : 8192, deadline: performance.now() + longest };
  }

  /** Whether a row is asked for. */
  wants({ group, name }: Pick<Row, "group" | "name">): boolean {
    const { only } = this.#options;
    const text = `${group}: ${name}`.toLowerCase();
    return only.length === 0 || only.some((word) => text.includes(word.toLowerCase()));
  }

  /** The backend. */
  async backend(): Promise<Backend> {
    if (this.#backend) return this.#backend;
    this.#backend = await this.#options.open(this.#options.gpu ?? {});
    // Where the GPU is in a worker, so is what it chose.
    this.record.products ??= (this.#backend as { gpu?: Gpu }).gpu?.products;
    this.#one = this.#backend.upload(Float32Array.of(0));
    await this.settle();
    this.#idle = await idleSeconds({ settle: () => this.settle() });
    this.record.idleMilliseconds = 1000 * this.#idle;
    return this.#backend;
  }

  /** Waits for the device. */
  async settle(): Promise<void> {
    await this.#backend!.read(this.#one!);
  }

  /**
   * Measures a row, if it is asked for and there is time. Where it fails the reason stands in its place, and the
   * next one gets a new backend.
   *
   * @param row What it is.
   * @param measure Gives the amount of a call, the seconds of each sample, and counters.
   */
  async row(
    row: Row,
    measure: () => Promise<{ amount: number; seconds: number[]; counters?: Counters }>,
  ): Promise<void> {
    if (!this.wants(row)) return;
    if (this.left <= 0) return this.put({ ...row, absent: "no time was left" });
    try {
      const { amount, seconds, counters } = await measure();
      const { ceilings } = this.record;
      this.put({ ...measured(row, amount, seconds, ceilings), ...(counters ? { counters } : {}) });
    } catch (error) {
      this.put({ ...row, absent: error instanceof Error ? error.message : String(error) });
      this[Symbol.dispose]();
    }
  }

  /** Measures a kernel, or a few in turn: `prepare` gives what enqueues them once. */
  kernel(row: Row, amount: number, prepare: (lab: Lab) => () => void): Promise<void> {
    return this.row(row, async () => {
      const backend = await this.backend();
      using lab = new Lab(backend, (length) => this.#numbers(length));
      const enqueue = prepare(lab);
      const timed = { enqueue, flush: () => backend.flush(), settle: () => this.settle() };
      return { amount, seconds: await secondsOf(timed, this.care, this.#idle) };
    });
  }

  /** The same run on a backend that chooses kernels otherwise; this one's ends first, for its memory. */
  async variant(gpu: GpuOptions, work: (bench: Bench) => Promise<void>): Promise<void> {
    this[Symbol.dispose]();
    const options = { ...this.#options, gpu: { ...this.#options.gpu, ...gpu }, seconds: this.left };
    using bench = new Bench(options);
    await work(bench);
  }

  /** Puts a row into the record. */
  put(row: Row): void {
    this.record.rows.push(row);
    this.#options.onRow(row);
  }

  /** Ends the backend. */
  [Symbol.dispose](): void {
    this.#backend?.[Symbol.dispose]();
    this.#backend = undefined;
  }

  /** Small numbers without a pattern that matters, the same at each call. */
  #numbers(length: number): Float32Array {
    if (this.#data && this.#data.length >= length) return this.#data.subarray(0, length);
    this.#data = new Float32Array(length);
    for (let i = 0, x = 1; i < length; i++) {
      x = Math.imul(x, 1664525) + 1013904223 | 0;
      this.#data[i] = x * 2 ** -36;
    }
    return this.#data;
  }
}

/** The memory of one row; all of it is freed at its end. Its functions need no `this`. */
export class Lab implements Disposable {
  readonly #held: Matrix[] = [];

  /**
   * @param backend Whose memory.
   * @param numbers Gives so many numbers.
   */
  constructor(readonly backend: Backend, readonly numbers: (length: number) => Float32Array) {}

  /** A tensor of numbers. */
  readonly tensor = (...shape: number[]): Tensor =>
    this.#hold(this.backend.upload(this.numbers(shape.reduce((a, b) => a * b, 1)), shape));

  /** A tensor with nothing in it yet. */
  readonly empty = (shape: number[], dtype?: DType): Tensor =>
    this.#hold(this.backend.allocate(shape, dtype));

  /** Indices: the function of each place. */
  readonly indices = (length: number, at: (i: number) => number): Tensor =>
    this.#hold(this.backend.upload(Uint32Array.from({ length }, (_, i) => at(i))));

  /** A frozen weight. */
  readonly packed = (
    rows: number,
    columns: number,
    format: WeightFormat,
    axis: GroupAxis = 0,
  ): PackedMatrix => this.#hold(this.backend.pack(this.numbers(rows * columns), rows, columns, format, axis));

  #hold<M extends Matrix>(matrix: M): M {
    this.#held.push(matrix);
    return matrix;
  }

  /** Frees it. */
  [Symbol.dispose](): void {
    for (const matrix of this.#held) this.backend.free(matrix);
  }
}

/** What was done between two readings, for one of `count` steps or tokens. */
export function countersOf(before: BackendStats, after: BackendStats, count: number): Counters {
  const each = (name: "dispatches" | "submissions" | "creations" | "readbacks") =>
    (after[name] - before[name]) / count;
  return {
    dispatches: each("dispatches"),
    submissions: each("submissions"),
    creations: each("creations"),
    readbacks: each("readbacks"),
    megabytes: after.allocatedBytes / 1e6,
  };
}
