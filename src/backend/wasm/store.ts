/**
 * Tensors and frozen weights in one linear memory: the half of the WebAssembly backend that computes nothing.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import type { BackendStats } from "../../tensor/backend.ts";
import { type DType, type Matrix, PackedMatrix, Tensor, type WeightFormat } from "../../tensor/tensor.ts";
import { expect } from "./checks.ts";
import { type Call, call, Dispatcher, type Shared } from "./dispatch.ts";
import { Heap } from "./heap.ts";
import { instantiate } from "./instance.ts";
import type { Kernels } from "./kernels.gen.ts";
import { Pool } from "./pool.ts";

/** What a matrix is to the kernels: a storage format's number, or a plain tensor. */
export const KINDS: Record<WeightFormat | "plain", number> = { f32: 0, f16: 1, q8: 2, q4: 3, plain: 4 };
/** Columns of a panel of packed weights. */
export const PANEL = 16;
/** Rows of a quantised group: rows are packed by multiples of it. */
const GROUP = 32;
/** Floats that pass through scratch memory at once when a weight is packed: 1 MiB, which caches hold. */
const STAGE = 1 << 18;

/** About how many nanoseconds it takes one thread to pack a number. */
const PACKING: Record<WeightFormat, number> = { f32: 0.3, f16: 1.4, q8: 1.5, q4: 4 };
const UNPACKING = 0.7;

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
  /** Milliseconds of idleness after which a worker ends [500]. */
  patience?: number;
}

/** A tensor's or packed weight's memory. */
class Block {
  freed = false;
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
    const { threads, price = 20e6, least = LEAST_WORK, patience = 500 } = options;
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

  /** The kernels, for one call of the interface, which is counted. */
  protected get call(): Kernels {
    this.memory;
    this.#dispatches++;
    return this.#kernels!;
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

  /** Scratch memory for the next call alone: so many bytes for each thread, a stride apart. */
  protected scratch(bytes: number): { scratch: number; stride: number } {
    const stride = Math.ceil(bytes / 64) * 64;
    return { scratch: this.memory.scratch(stride * (this.pool?.threads ?? 1)), stride };
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
    expect((tensor.offset + own) * 4 <= block.bytes, `${name}: [${tensor.shape}] reaches beyond its memory`);
    return block.pointer + tensor.offset * 4;
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
    return new Tensor([...shape], dtype, this.#block(length * 4));
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

  pack(data: Float32Array, rows: number, columns: number, format: WeightFormat): PackedMatrix {
    expect(rows > 0 && columns > 0, `pack: a matrix of ${rows} × ${columns} holds nothing`);
    expect(
      data.length === rows * columns,
      `pack: ${rows} × ${columns} needs ${rows * columns} numbers, got ${data.length}`,
    );
    const kind = KINDS[format];
    expect(kind !== undefined, `pack: unknown format ${format}; expected f32, f16, q8 or q4`);
    const block = this.#block(Math.ceil(columns / PANEL) * (this.call.panelBytes(kind, rows) >>> 0));
    const { many, stage, scratch, stride } = this.#stage(rows, columns);
    const cost = PACKING[format] * columns;
    for (let row = 0; row < rows; row += many) {
      const end = Math.min(rows, row + many);
      this.memory.f32.set(data.subarray(row * columns, end * columns), stage / 4);
      this.#dispatcher!.run([call(
        { kernel: "packRows", cost, stride },
        ...[kind, stage, row, block.pointer, rows, columns, row, end, scratch] as const,
      )]);
    }
    return new PackedMatrix(rows, columns, format, block);
  }

  // deno-lint-ignore require-await -- errors reject, as on a backend that waits
  async unpack(matrix: PackedMatrix): Promise<Float32Array> {
    const { rows, columns } = matrix;
    const { pointer } = this.alive(matrix.memory, "unpack");
    this.call;
    this.#readbacks++;
    const data = new Float32Array(rows * columns);
    const { many, stage, scratch, stride } = this.#stage(rows, columns);
    for (let row = 0; row < rows; row += many) {
      const end = Math.min(rows, row + many);
      this.#dispatcher!.run([call(
        { kernel: "unpackRows", cost: UNPACKING * columns, stride },
        ...[KINDS[matrix.format], pointer, stage, row, rows, columns, row, end, scratch] as const,
      )]);
      data.set(this.memory.f32.subarray(stage / 4, stage / 4 + (end - row) * columns), row * columns);
    }
    return data;
  }

  /** Scratch memory through which a matrix passes `many` rows at a time, and that of each thread. */
  #stage(rows: number, columns: number) {
    const many = Math.min(Math.ceil(rows / GROUP), Math.max(1, Math.floor(STAGE / columns / GROUP))) * GROUP;
    const bytes = Math.ceil(many * columns / 16) * 64;
    const stride = GROUP * PANEL * 4;
    const stage = this.memory.scratch(bytes + stride * (this.pool?.threads ?? 1));
    return { many, stage, scratch: stage + bytes, stride };
  }

  free(memory: Matrix): void {
    if (!this.#heap) return; // All is gone already, whoever is disposed after the backend.
    expect(!(memory instanceof Tensor) || memory.offset === 0, "free: a view is never freed by itself");
    const block = this.alive(memory.memory, "free");
    this.memory.free(block.pointer);
    block.freed = true;
    this.#allocatedBytes -= block.bytes;
    this.#allocations--;
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
