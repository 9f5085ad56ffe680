/**
 * A WebGPU backend that lives in a worker, so that nobody's event loop waits for the GPU: Deno's polling keeps a
 * thread to itself for as long as a kernel takes (a timer came 305 ms late; with a worker 11 ms, measured in 2.9.6 on a
 * software adapter). To be deleted when Deno waits for devices elsewhere.
 *
 * Calls are recorded here and go over in batches: at `flush`, at the end of a turn, or when they carry much data.
 * What a call refuses is therefore found out later, at the next call or read; from then on nothing is computed, and
 * every call throws the same. A worker does not keep its process alive but while a read waits for it.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import type * as K from "../../tensor/backend.ts";
import { checkStored, CODE_BITS, isGrouped, scalesShape } from "../../tensor/stored.ts";
import {
  type DType,
  type GroupAxis,
  type Matrix,
  PackedMatrix,
  type StoredMatrix,
  Tensor,
  type WeightFormat,
} from "../../tensor/tensor.ts";
import { mebibytes } from "./faults.ts";
import type { GpuOptions } from "./gpu.ts";
import { type Link, openLink } from "./link.ts";
import type { Method, Opened, Reference } from "./messages.ts";
import { byteLength } from "./slices.ts";

/**
 * Opens a backend in a worker of its own, on the adapter that is found there.
 *
 * @param options Limits lower than the adapter's, for tests.
 * @returns The backend; disposing it ends the worker.
 * @throws {WhetError} `backend` if this runtime has no such workers, or WebGPU no adapter or device.
 */
export async function openRemoteBackend(options: GpuOptions = {}): Promise<K.Backend> {
  const [link, opened] = await openLink(options);
  return new RemoteBackend(link, opened);
}

/** A tensor's or packed weight's memory in the worker. */
class Remote {
  live = true;
  constructor(readonly owner: RemoteBackend, readonly number: number, readonly bytes: number) {}
}

/** Records calls and hands them over. */
class RemoteBackend implements K.Backend {
  readonly name = "webgpu";
  readonly description: string;
  readonly readAhead?: number;
  readonly #link: Link;
  readonly #largestBuffer: number;
  #lastMemory = 0;
  #allocations = 0;
  #allocatedBytes = 0;

  constructor(link: Link, { description, readAhead, largestBuffer }: Opened) {
    this.description = description;
    this.readAhead = readAhead;
    this.#link = link;
    this.#largestBuffer = Math.floor(largestBuffer / 256) * 256;
  }

  [Symbol.dispose](): void {
    this.#link[Symbol.dispose]();
    this.#allocations = this.#allocatedBytes = 0;
  }

  // Memory

  /** Makes something in the worker; returns where it will be. */
  #make(bytes: number, name: Method, ...args: unknown[]): Remote {
    const memory = new Remote(this, ++this.#lastMemory, bytes);
    this.#allocations++;
    this.#allocatedBytes += bytes;
    this.#link.call({ name, args, makes: memory.number });
    return memory;
  }

  /** Tensors and weights become references; objects and lists are copied, for the caller may change his own. */
  #encode(value: unknown): unknown {
    if (value instanceof Tensor) {
      const { shape, dtype, offset } = value;
      return { memory: this.#numberOf(value), view: { shape, dtype, offset } } satisfies Reference;
    }
    if (value instanceof PackedMatrix) return { memory: this.#numberOf(value) } satisfies Reference;
    if (Array.isArray(value)) return value.map((part) => this.#encode(part));
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, this.#encode(part)]));
  }

  #numberOf({ memory }: Matrix): number {
    this.#link.check();
    if (memory instanceof Remote && memory.owner === this && memory.live) return memory.number;
    const what = memory instanceof Remote && memory.owner === this
      ? "was used after it was freed"
      : "is of another backend";
    throw new WhetError("backend", `a tensor or packed weight ${what}`);
  }

  allocate(shape: readonly number[], dtype: DType = "f32"): Tensor {
    this.#link.check();
    const bytes = this.#checkFits(shape, dtype);
    return new Tensor(shape, dtype, this.#make(bytes, "allocate", [...shape], dtype));
  }

  upload(data: Float32Array | Uint32Array, shape: readonly number[] = [data.length]): Tensor {
    this.#link.check();
    const dtype = data instanceof Uint32Array ? "u32" : "f32";
    const bytes = this.#checkFits(shape, dtype);
    checkLength(data, shape);
    return new Tensor(shape, dtype, this.#make(bytes, "upload", this.#link.copy(data), [...shape]));
  }

  /** What no buffer holds is refused here: whoever wanted it may go on with less. */
  #checkFits(shape: readonly number[], dtype: DType): number {
    const bytes = byteLength(shape, dtype);
    if (bytes <= this.#largestBuffer) return bytes;
    throw new WhetError(
      "resource",
      `a tensor [${shape}] takes ${mebibytes(bytes)}, but this GPU's largest buffer is ${
        mebibytes(this.#largestBuffer)
      }`,
    );
  }

  write(tensor: Tensor, data: Float32Array | Uint32Array): void {
    this.#link.check();
    checkLength(data, tensor.shape);
    this.#link.call({ name: "write", args: [this.#encode(tensor), this.#link.copy(data)] });
  }

  async read(tensor: Tensor): Promise<Float32Array> {
    return await this.#link.ask("read", this.#encode(tensor));
  }

  async readU32(tensor: Tensor): Promise<Uint32Array> {
    return await this.#link.ask("readU32", this.#encode(tensor));
  }

  pack(
    data: Float32Array,
    rows: number,
    columns: number,
    format: WeightFormat,
    axis: GroupAxis = 0,
  ): PackedMatrix {
    this.#link.check();
    if (data.length !== rows * columns) {
      throw new WhetError("backend", `${data.length} numbers were packed as ${rows} × ${columns}`);
    }
    const bytes = packedBytes(rows, columns, format, axis);
    const memory = this.#make(bytes, "pack", this.#link.copy(data), rows, columns, format, axis);
    return new PackedMatrix(rows, columns, format, memory, axis);
  }

  packStored(stored: StoredMatrix): PackedMatrix {
    this.#link.check();
    checkStored(stored);
    const { rows, columns, format, axis, codes, scales, minima } = stored;
    const copy = {
      ...{ rows, columns, format, axis, codes: this.#link.copy(codes) },
      ...{ scales: scales && this.#link.copy(scales), minima: minima && this.#link.copy(minima) },
    };
    const memory = this.#make(packedBytes(rows, columns, format, axis), "packStored", copy);
    return new PackedMatrix(rows, columns, format, memory, axis);
  }

  async unpackStored(matrix: PackedMatrix): Promise<StoredMatrix> {
    return await this.#link.ask("unpackStored", this.#encode(matrix));
  }

  async unpack(matrix: PackedMatrix): Promise<Float32Array> {
    return await this.#link.ask("unpack", this.#encode(matrix));
  }

  admit(need: K.MemoryNeed): Promise<void> {
    return this.#link.ask("admit", need);
  }

  free({ memory }: Matrix): void {
    if (this.#link.disposed) return;
    if (!(memory instanceof Remote) || memory.owner !== this) {
      throw new WhetError("backend", "a tensor or packed weight of another backend was freed");
    }
    if (!memory.live) throw new WhetError("backend", "a tensor or packed weight was freed twice");
    this.#link.call({ name: "free", args: [{ memory: memory.number } satisfies Reference] });
    memory.live = false;
    this.#allocations--;
    this.#allocatedBytes -= memory.bytes;
  }

  flush(): void {
    this.#run("flush");
    this.#link.send();
  }

  /**
   * What is allocated is of this moment, though without the padding that the device has; the rest is of the worker's
   * last word, which comes with every read.
   */
  stats(): K.BackendStats {
    return { ...this.#link.stats, allocations: this.#allocations, allocatedBytes: this.#allocatedBytes };
  }

  // Kernels

  #run(name: Method, args?: object): void {
    this.#link.check();
    this.#link.call({ name, args: args ? [this.#encode(args)] : [] });
  }

  matmul(args: K.MatmulArgs): void {
    this.#run("matmul", args);
  }

  embedding(args: K.EmbeddingArgs): void {
    this.#run("embedding", args);
  }

  embeddingBackward(args: K.EmbeddingBackwardArgs): void {
    this.#run("embeddingBackward", args);
  }

  layerNorm(args: K.LayerNormArgs): void {
    this.#run("layerNorm", args);
  }

  layerNormBackward(args: K.LayerNormBackwardArgs): void {
    this.#run("layerNormBackward", args);
  }

  gelu(args: K.GeluArgs): void {
    this.#run("gelu", args);
  }

  geluBackward(args: K.GeluBackwardArgs): void {
    this.#run("geluBackward", args);
  }

  attention(args: K.AttentionArgs): void {
    this.#run("attention", args);
  }

  attentionBackward(args: K.AttentionBackwardArgs): void {
    this.#run("attentionBackward", args);
  }

  cachedAttention(args: K.CachedAttentionArgs): void {
    this.#run("cachedAttention", args);
  }

  disentangledAttention(args: K.DisentangledAttentionArgs): void {
    this.#run("disentangledAttention", args);
  }

  lowRank(args: K.LowRankArgs): void {
    this.#run("lowRank", args);
  }

  lowRankRows(args: K.LowRankRowsArgs): void {
    this.#run("lowRankRows", args);
  }

  crossEntropy(args: K.CrossEntropyArgs): void {
    this.#run("crossEntropy", args);
  }

  sample(args: K.SampleArgs): void {
    this.#run("sample", args);
  }

  gather(args: K.GatherArgs): void {
    this.#run("gather", args);
  }

  scatterAdd(args: K.ScatterAddArgs): void {
    this.#run("scatterAdd", args);
  }

  add(args: K.AddArgs): void {
    this.#run("add", args);
  }

  copy(args: { x: Tensor; out: Tensor }): void {
    this.#run("copy", args);
  }

  fill(args: { out: Tensor; value: number }): void {
    this.#run("fill", args);
  }

  dropout(args: K.DropoutArgs): void {
    this.#run("dropout", args);
  }

  sumRows(args: K.SumRowsArgs): void {
    this.#run("sumRows", args);
  }

  sumOfSquares(args: K.SumOfSquaresArgs): void {
    this.#run("sumOfSquares", args);
  }

  clipFactor(args: K.ClipFactorArgs): void {
    this.#run("clipFactor", args);
  }

  adamw(args: K.AdamWArgs): void {
    this.#run("adamw", args);
  }
}

function checkLength(data: { length: number }, shape: readonly number[]): void {
  if (data.length === shape.reduce((product, extent) => product * extent, 1)) return;
  throw new WhetError("backend", `${data.length} numbers were written to a tensor [${shape}]`);
}

/** Bytes of a weight's codes and scales. */
function packedBytes(rows: number, columns: number, format: WeightFormat, axis: GroupAxis): number {
  const codes = Math.ceil(rows * columns * (format === "f32" ? 32 : CODE_BITS[format]) / 8);
  const [groups, width] = scalesShape(rows, columns, axis);
  return codes + (isGrouped(format) ? groups * width * 4 : 0);
}
