/**
 * Tensors and frozen weights in one linear memory: the half of the WebAssembly backend that computes nothing.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import type { BackendStats, MemoryNeed } from "../../tensor/backend.ts";
import {
  type DType,
  type GroupAxis,
  type Matrix,
  PackedMatrix,
  type StoredMatrix,
  Tensor,
  type WeightFormat,
} from "../../tensor/tensor.ts";
import { checkStored, CODE_BITS, codeBytes, GROUP, refuseBeyondHalves } from "../../tensor/stored.ts";
import { expect } from "./checks.ts";
import { type Call, call, Dispatcher, type Shared } from "./dispatch.ts";
import { Heap, mebibytes } from "./heap.ts";
import { instantiate } from "./instance.ts";
import type { Kernels } from "./kernels.gen.ts";
import { Pool } from "./pool.ts";

/** What a matrix is to the kernels: a storage format's number, or a plain tensor. */
export const KINDS: Record<WeightFormat | "plain", number> = { f32: 0, f16: 1, q8: 2, q4: 3, plain: 4 };
/** Bytes of an element. */
const SIZES: Record<DType, number> = { f32: 4, u32: 4, f16: 2 };
/** Columns of a panel of packed weights. */
export const PANEL = 16;
/** Floats that pass through scratch memory at once when a weight is packed: 1 MiB, which caches hold. */
const STAGE = 1 << 18;

/** About how many nanoseconds it takes one thread to pack a number. */
const PACKING: Record<WeightFormat, number> = { f32: 0.3, f16: 1.4, q8: 1.5, q4: 4 };
const UNPACKING = 0.7;
/** The same to pack a stored number. */
const STORING = { f16: 1, q8: 0.3, q4: 4 };

/** Nanoseconds: a round of sharing costs about 2 µs, waking who sleeps 6 µs more. */
const LEAST_WORK = 15e3;

/** How threads work together. */
export interface Threads {
  /** How many compute, the calling one among them. */
  threads: number;
  /** Nanoseconds of work for which a worker is called [20 ms: what it costs to start one]. */
  price?: number;
  /** Nanoseconds of work that are not worth sharing out [15 µs]. */
  least?: number;
  /** Milliseconds of idleness after which a worker ends [30 s; 0.5 s where workers keep their process alive]. */
  patience?: number;
}

/** A tensor's or packed weight's memory. */
class Block {
  freed = false;
  /** Whether a packed weight's rows were measured, which products with its transpose want. */
  measured = false;
  constructor(readonly heap: Heap, readonly pointer: number, readonly bytes: number) {}
}

/** The memory of a backend, its kernels over it, and what was done with them. */
export class Store implements Disposable {
  #heap?: Heap;
  #kernels?: Kernels;
  #dispatcher?: Dispatcher;
  /** The other threads, if there are any. */
  readonly pool?: Pool;
  #allocatedBytes = 0;
  #allocations = 0;
  #dispatches = 0;
  #readbacks = 0;

  /**
   * @param module A compiled build of the kernels, for shared memory if there is more than one thread.
   * @param options How many threads.
   */
  constructor(module: WebAssembly.Module, options: Threads) {
    const { threads, price = 20e6, least = LEAST_WORK, patience } = options;
    this.#heap = new Heap(undefined, threads > 1);
    const { memory } = this.#heap;
    const kernels = this.#kernels = instantiate(module, memory);
    if (threads > 1) {
      const exports = kernels as unknown as WebAssembly.Exports;
      this.pool = new Pool({ module, memory, exports, threads, price, patience, wake: 3 * least });
    }
    this.#dispatcher = new Dispatcher(kernels, least, this.pool);
  }

  /** Drops the memory; every later call throws, but `free`, which has nothing left to do. */
  [Symbol.dispose](): void {
    this.pool?.[Symbol.dispose]();
    this.#heap = undefined;
    this.#kernels = undefined;
    this.#dispatcher = undefined;
    this.#allocatedBytes = 0;
    this.#allocations = 0;
  }

  /** The memory. */
  protected get memory(): Heap {
    if (!this.#heap) throw new WhetError("disposed", "this WebAssembly backend was disposed: create another");
    return this.#heap;
  }

  /** The kernels. */
  protected get kernels(): Kernels {
    this.memory;
    return this.#kernels!;
  }

  /** The kernels, for one call of the interface, which is counted. */
  protected get call(): Kernels {
    this.#dispatches++;
    return this.kernels;
  }

  /**
   * Runs a kernel over the whole of its range, for one call of the interface, which is counted.
   *
   * @param known Which, and what is known of it.
   * @param args Its arguments.
   */
  protected share<K extends Shared>(known: Omit<Call<K>, "args">, ...args: Parameters<Kernels[K]>): void {
    this.shareAll([call(known, ...args)]);
  }

  /** Runs kernels that do not depend on one another, for one call of the interface, which is counted. */
  protected shareAll(calls: Call[]): void {
    this.call;
    this.#dispatcher!.run(calls);
  }

  /**
   * Scratch memory for the next call alone: so many bytes for each thread, a stride apart.
   *
   * @param common Bytes (a multiple of 64) that lie before them, for all threads together.
   */
  protected scratch(bytes: number, common = 0): { scratch: number; stride: number } {
    const stride = aligned(bytes);
    return { scratch: this.memory.scratch(common + stride * (this.pool?.threads ?? 1)) + common, stride };
  }

  #block(bytes: number): Block {
    const heap = this.memory;
    const block = new Block(heap, heap.allocate(bytes), bytes);
    this.#allocatedBytes += bytes;
    this.#allocations++;
    return block;
  }

  /** A block that is this backend's and still allocated. */
  protected alive(memory: unknown, name: string): Block {
    const heap = this.memory;
    expect(memory instanceof Block && memory.heap === heap, `${name}: belongs to another backend`);
    if (memory.freed) throw new WhetError("disposed", `${name}: its memory was freed before`);
    return memory;
  }

  /** The address of a tensor of a type and, if given, a length; 0 for none. */
  protected at(tensor: Tensor | undefined, name: string, length?: number, dtype: DType = "f32"): number {
    if (!tensor) return 0;
    const block = this.alive(tensor.memory, name);
    expect(tensor.dtype === dtype, `${name}: expected ${dtype}, got ${tensor.dtype}`);
    const own = tensor.length;
    expect(
      length === undefined || own === length,
      `${name}: expected ${length} elements, got [${tensor.shape}]`,
    );
    const size = SIZES[dtype];
    expect(
      (tensor.offset + own) * size <= block.bytes,
      `${name}: [${tensor.shape}] reaches beyond its memory`,
    );
    return block.pointer + tensor.offset * size;
  }

  /** The content of a u32 tensor, in place. */
  protected indices(tensor: Tensor, name: string, length?: number): Uint32Array {
    const at = this.at(tensor, name, length, "u32") / 4;
    return this.memory.u32.subarray(at, at + tensor.length);
  }

  allocate(shape: readonly number[], dtype: DType = "f32"): Tensor {
    const length = shape.reduce((product, extent) => {
      expect(
        Number.isInteger(extent) && extent >= 0,
        `shape [${shape}]: extents are whole numbers of 0 or more`,
      );
      return product * extent;
    }, 1);
    return new Tensor([...shape], dtype, this.#block(length * SIZES[dtype]));
  }

  upload(data: Float32Array | Uint32Array, shape: readonly number[] = [data.length]): Tensor {
    const length = shape.reduce((product, extent) => product * extent, 1);
    expect(
      length === data.length,
      `upload: shape [${shape}] has ${length} elements, the data ${data.length}`,
    );
    const tensor = this.allocate(shape, data instanceof Float32Array ? "f32" : "u32");
    this.write(tensor, data);
    return tensor;
  }

  write(tensor: Tensor, data: Float32Array | Uint32Array): void {
    if (data instanceof Float32Array) {
      const at = this.at(tensor, "write", data.length);
      this.memory.f32.set(data, at / 4);
    } else {
      const at = this.at(tensor, "write", data.length, "u32");
      this.memory.u32.set(data, at / 4);
    }
  }

  async read(tensor: Tensor): Promise<Float32Array> {
    const at = this.at(tensor, "read") / 4;
    this.#readbacks++;
    const content = this.memory.f32.slice(at, at + tensor.length);
    await nextTurn();
    return content;
  }

  async readU32(tensor: Tensor): Promise<Uint32Array> {
    const content = this.indices(tensor, "readU32").slice();
    this.#readbacks++;
    await nextTurn();
    return content;
  }

  pack(
    data: Float32Array,
    rows: number,
    columns: number,
    format: WeightFormat,
    axis: GroupAxis = 0,
  ): PackedMatrix {
    expect(rows > 0 && columns > 0, `pack: a matrix of ${rows} × ${columns} holds nothing`);
    expect(
      data.length === rows * columns,
      `pack: ${rows} × ${columns} needs ${rows * columns} numbers, got ${data.length}`,
    );
    const kind = KINDS[format];
    expect(kind !== undefined, `pack: unknown format ${format}; expected f32, f16, q8 or q4`);
    if (format === "f16") refuseBeyondHalves(data, columns, format);
    const { K, N, block } = this.#weight(rows, columns, format, axis);
    for (const { stage, first, last, stepK, stepN, scratch, stride } of this.#stages(K, N, axis)) {
      const heap = this.memory;
      eachRun(K, N, axis, first, last, (from, to, length) => {
        heap.f32.set(data.subarray(from, from + length), stage / 4 + to);
      });
      this.#dispatcher!.run([call(
        { kernel: "packPanels", cost: PACKING[format] * K * PANEL, stride },
        ...[kind, stage, stepK, stepN, first, block.pointer, K, N, first, last, scratch] as const,
      )]);
    }
    return new PackedMatrix(rows, columns, format, block, axis);
  }

  // deno-lint-ignore require-await -- errors reject, as on a backend that waits
  async unpack(matrix: PackedMatrix): Promise<Float32Array> {
    const { rows, columns, axis, format } = matrix;
    const { pointer } = this.alive(matrix.memory, "unpack");
    this.call;
    this.#readbacks++;
    const data = new Float32Array(rows * columns);
    const [K, N] = axis === 0 ? [rows, columns] : [columns, rows];
    for (const { stage, first, last, stepK, stepN, scratch, stride } of this.#stages(K, N, axis)) {
      this.#dispatcher!.run([call(
        { kernel: "unpackPanels", cost: UNPACKING * K * PANEL, stride },
        ...[KINDS[format], pointer, stage, stepK, stepN, first, K, N, first, last, scratch] as const,
      )]);
      const heap = this.memory;
      eachRun(K, N, axis, first, last, (to, from, length) => {
        data.set(heap.f32.subarray(stage / 4 + from, stage / 4 + from + length), to);
      });
    }
    return data;
  }

  packStored(stored: StoredMatrix): PackedMatrix {
    checkStored(stored);
    const { rows, columns, format, axis, codes, scales, minima } = stored;
    const kind = KINDS[format];
    const { K, N, block } = this.#weight(rows, columns, format, axis);
    const [stepK, stepN] = axis === 0 ? [columns, 1] : [1, columns];
    const [scaleStepK, scaleStepN] = axis === 0 ? [columns, 1] : [1, Math.ceil(columns / GROUP)];
    const panels = Math.ceil(N / PANEL);
    const panelBytes = PANEL * stepN * CODE_BITS[format] / 8;
    // Columns that lie one behind the other pass through in parts; rows only all together.
    const many = axis === 1 ? Math.max(1, Math.floor(4 * STAGE / panelBytes)) : panels;
    const bytes = axis === 1 ? Math.min(codes.length, many * panelBytes) : codes.length;
    const each = this.call.packScratch(K) >>> 0;
    const sizes = [bytes, (scales?.length ?? 0) * 4, (minima?.length ?? 0) * 4].map(aligned);
    const room = this.#block(sizes[0] + sizes[1] + sizes[2] + (this.pool?.threads ?? 1) * aligned(each));
    try {
      const [at, scalesAt] = [room.pointer, room.pointer + sizes[0]];
      const minimaAt = scalesAt + sizes[1];
      if (scales) this.memory.f32.set(scales, scalesAt / 4);
      if (minima) this.memory.f32.set(minima, minimaAt / 4);
      for (let first = 0; first < panels; first += many) {
        const last = Math.min(panels, first + many);
        this.memory.u8.set(
          codes.subarray(first * panelBytes, axis === 1 ? last * panelBytes : undefined),
          at,
        );
        this.#dispatcher!.run([call(
          { kernel: "packStored", cost: STORING[format] * K * PANEL, stride: aligned(each) },
          ...[kind, at, stepK, stepN, first, scalesAt, minimaAt, scaleStepK, scaleStepN] as const,
          ...[block.pointer, K, N, first, last, minimaAt + sizes[2]] as const,
        )]);
      }
    } finally {
      this.#release(room);
    }
    return new PackedMatrix(rows, columns, format, block, axis);
  }

  // deno-lint-ignore require-await -- errors reject, as on a backend that waits
  async unpackStored(matrix: PackedMatrix): Promise<StoredMatrix> {
    const { rows, columns, format, axis } = matrix;
    if (format === "f32") {
      throw new WhetError("option", "unpackStored: a matrix of f32 has no codes: unpack it");
    }
    const { pointer } = this.alive(matrix.memory, "unpackStored");
    this.#readbacks++;
    const [K, N] = axis === 0 ? [rows, columns] : [columns, rows];
    const [stepK, stepN] = axis === 0 ? [columns, 1] : [1, columns];
    const groups = Math.ceil(K / GROUP);
    const [scaleStepK, scaleStepN] = axis === 0 ? [columns, 1] : [1, groups];
    const bytes = codeBytes(format, rows, columns);
    const scaleBytes = format === "f16" ? 0 : groups * N * 4;
    const room = this.#block(aligned(bytes) + 2 * aligned(scaleBytes));
    try {
      const [at, scalesAt] = [room.pointer, room.pointer + aligned(bytes)];
      const minimaAt = scalesAt + aligned(scaleBytes);
      this.memory.u8.fill(0, at, at + bytes);
      this.call.unpackStored(
        ...[
          KINDS[format],
          pointer,
          at,
          stepK,
          stepN,
          scalesAt,
          minimaAt,
          scaleStepK,
          scaleStepN,
          K,
          N,
        ] as const,
      );
      const codes = this.memory.u8.slice(at, at + bytes);
      const floats = (from: number) => this.memory.f32.slice(from / 4, (from + scaleBytes) / 4);
      return {
        ...{ rows, columns, format, axis, codes },
        ...(scaleBytes ? { scales: floats(scalesAt) } : {}),
        ...(format === "q4" ? { minima: floats(minimaAt) } : {}),
      };
    } finally {
      this.#release(room);
    }
  }

  /** Memory for a packed weight, and its sizes as the kernels see them: summed over K. */
  #weight(rows: number, columns: number, format: WeightFormat, axis: GroupAxis) {
    const [K, N] = axis === 0 ? [rows, columns] : [columns, rows];
    const block = this.#block(this.call.packedBytes(KINDS[format], K, N) >>> 0);
    return { K, N, block };
  }

  /** Parts of a matrix (panels first … last − 1) with the memory through which they pass, and that of each thread. */
  *#stages(K: number, N: number, axis: GroupAxis) {
    const panels = Math.ceil(N / PANEL);
    const many = Math.min(panels, Math.max(1, Math.floor(STAGE / K / PANEL)));
    const stride = aligned(this.call.packScratch(K) >>> 0);
    const bytes = aligned(many * PANEL * K * 4);
    const stage = this.memory.scratch(bytes + stride * (this.pool?.threads ?? 1));
    for (let first = 0; first < panels; first += many) {
      const last = Math.min(panels, first + many);
      const width = Math.min(N, last * PANEL) - first * PANEL;
      const [stepK, stepN] = axis === 0 ? [width * 4, 4] : [4, K * 4];
      yield { stage, first, last, stepK, stepN, scratch: stage + bytes, stride };
    }
  }

  free(memory: Matrix): void {
    if (!this.#heap) return; // All is gone already, whoever is disposed after the backend.
    expect(!(memory instanceof Tensor) || memory.offset === 0, "free: a view is never freed by itself");
    this.#release(this.alive(memory.memory, "free"));
  }

  #release(block: Block): void {
    this.memory.free(block.pointer);
    block.freed = true;
    this.#allocatedBytes -= block.bytes;
    this.#allocations--;
  }

  // deno-lint-ignore require-await -- what does not fit rejects, as on a backend that waits
  async admit({ name, format, weights }: MemoryNeed): Promise<void> {
    const { maximumBytes } = this.memory;
    if (weights <= maximumBytes) return;
    const smaller = format === "q4"
      ? "take a smaller model"
      : "load it with smaller weights (--weights q8 or q4)";
    throw new WhetError(
      "resource",
      `${name} does not fit WebAssembly's memory of ${mebibytes(maximumBytes)}: its ${format} weights take ` +
        `${mebibytes(weights)}; ${smaller}`,
    );
  }

  flush(): void {
    this.memory; // Nothing waits here; a disposed backend says so.
  }

  stats(): BackendStats {
    return {
      allocatedBytes: this.#allocatedBytes,
      allocations: this.#allocations,
      dispatches: this.#dispatches,
      submissions: 0,
      creations: 0,
      readbacks: this.#readbacks,
    };
  }
}

/**
 * Gives the event loop a turn (5 µs). Nothing else here waits, so that without it a generation or a
 * training run is one chain of promises, during which no timer, signal, chunk or other request is served.
 */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => (globalThis.setImmediate ?? setTimeout)(resolve));
}

/** The next multiple of 64. */
export function aligned(bytes: number): number {
  return Math.ceil(bytes / 64) * 64;
}

/** The contiguous runs of a row-major matrix that make up panels first … last − 1, and where they lie in a stage. */
function eachRun(
  K: number,
  N: number,
  axis: GroupAxis,
  first: number,
  last: number,
  visit: (at: number, inStage: number, length: number) => void,
): void {
  const begin = first * PANEL;
  const width = Math.min(N, last * PANEL) - begin;
  if (axis === 1) return visit(begin * K, 0, width * K);
  if (width === N) return visit(0, 0, K * N);
  for (let k = 0; k < K; k++) visit(k * N + begin, k * width, width);
}
