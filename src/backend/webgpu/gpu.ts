/**
 * The device, and the one submission that is being recorded for it: kernels, writes and copies take
 * effect in the order of their calls, however they reach the queue.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import type { BackendStats } from "../../tensor/backend.ts";
import { type Allocation, type Block, BufferPool } from "./buffers.ts";
import { describe, describeAll, Faults, mebibytes, oneLine, type Params } from "./faults.ts";
import { type GpuFeatures, NO_FEATURES } from "./features.ts";
import { chooseProducts, type ProductOptions, type Products, untriedShapes } from "./matmul_shapes.ts";
import { type Kernel, PARAMS_BYTES, PipelineCache } from "./pipelines.ts";
import { BindGroups, type Bindings, type Slice } from "./slices.ts";
import type { Constants } from "./template.ts";

/** Limits lower than the adapter's, so that tests reach them with little data, and the choice of kernels' paths. */
export interface GpuOptions extends ProductOptions {
  /** The largest stretch of memory that a kernel sees at once. */
  maxBindingBytes?: number;
  /** The most workgroups along one axis. */
  maxWorkgroups?: number;
  /** Whether kernels reduce within subgroups; by default where the device has them and they add up. */
  subgroups?: boolean;
}

/** Bytes of parameters that one submission holds; what comes after goes into the next. */
const UNIFORM_BYTES = 1 << 20;
/** Bytes of writes that wait for kernels before them; longer ones go into the next submission. */
const STAGING_BYTES = 1 << 20;
/** Bytes of writes after which the queue is pushed on, so that it need not hold copies of all of them. */
const UPLOAD_BYTES = 64 << 20;
/** How often memory that nobody reuses is looked for, in submissions. */
const TRIM_EVERY = 64;

const NO_CONSTANTS: Constants = {};

/** A WebGPU device at work. */
export class Gpu implements Disposable {
  /** Bytes of one binding at most. */
  readonly maxBindingBytes: number;
  /** Tensors and packed weights now allocated; theirs to count who allocate them. */
  allocations = 0;
  /** How products are made. */
  products: Products;
  readonly #maxWorkgroups: number;
  readonly #maxBufferBytes: number;
  readonly #faults: Faults;
  readonly #pool: BufferPool;
  readonly #readers: BufferPool;
  readonly #pipelines: PipelineCache;
  readonly #groups: BindGroups;
  #disposed = false;

  // What is recorded
  /** Number of the submission that is being recorded. */
  #serial = 1;
  #encoder?: GPUCommandEncoder;
  #pass?: GPUComputePassEncoder;
  #kernel?: Kernel;
  #recorded: { kernel: string; params: Params }[] = [];
  readonly #uniforms: GPUBuffer;
  readonly #uniformAlignment: number;
  readonly #uniformWords = new Uint32Array(UNIFORM_BYTES / 4);
  readonly #uniformFloats = new Float32Array(this.#uniformWords.buffer);
  #uniformBytes = 0;
  #staging?: GPUBuffer;
  readonly #stagingData = new Uint8Array(STAGING_BYTES);
  #stagingBytes = 0;
  #uploadedBytes = 0;
  /** Bytes of buffers that belong to no pool. */
  #ownBytes = 0;
  #flushing?: Promise<void>;

  // Counters
  #dispatches = 0;
  #submissions = 0;
  #buffers = 0;
  #readbacks = 0;

  /**
   * @param device Where the work is done; it belongs to this object from now on.
   * @param sources The files of `kernels/` by name.
   * @param options Limits for tests.
   * @param features What kernels may use beyond what every device has.
   */
  constructor(
    readonly device: GPUDevice,
    sources: Readonly<Record<string, string>>,
    options: GpuOptions = {},
    readonly features: GpuFeatures = NO_FEATURES,
  ) {
    const { limits } = device;
    const bindable = Math.min(limits.maxStorageBufferBindingSize, options.maxBindingBytes ?? Infinity);
    this.maxBindingBytes = Math.floor(bindable / 256) * 256;
    this.#maxWorkgroups = Math.min(
      limits.maxComputeWorkgroupsPerDimension,
      options.maxWorkgroups ?? Infinity,
    );
    this.#maxBufferBytes = Math.floor(limits.maxBufferSize / 256) * 256;
    this.#uniformAlignment = limits.minUniformBufferOffsetAlignment;
    this.products = chooseProducts(options, features.f16, untriedShapes(device));
    this.#faults = new Faults(device);
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const reading = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    this.#pool = new BufferPool((bytes) => this.#createBuffer(bytes, usage), limits.maxBufferSize);
    this.#readers = new BufferPool((bytes) => this.#createBuffer(bytes, reading), limits.maxBufferSize);
    this.#pipelines = new PipelineCache(device, this.#faults, sources, features);
    // A binding of PARAMS_BYTES may begin at the last of the parameters.
    const parameters = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
    this.#uniforms = this.#createOwn(UNIFORM_BYTES + PARAMS_BYTES, parameters);
    const [nothing, sink] = [this.#pool.pin(256), this.#pool.pin(256)];
    const { maxBindingBytes } = this;
    this.#groups = new BindGroups(device, this.#faults, this.#uniforms, maxBindingBytes, nothing, sink);
  }

  /** What is allocated, in bytes as taken from the device, and what was done. */
  stats(): BackendStats {
    const [bindGroups, buffers, pipelines] = [this.#groups.created, this.#buffers, this.#pipelines.created];
    return {
      allocatedBytes: this.#pool.liveBytes,
      allocations: this.allocations,
      dispatches: this.#dispatches,
      submissions: this.#submissions,
      creations: bindGroups + buffers + pipelines,
      ...{ bindGroups, buffers, pipelines },
      heldBytes: this.#pool.heldBytes + this.#readers.heldBytes + this.#ownBytes,
      readbacks: this.#readbacks,
    };
  }

  /** Whether the device is gone. */
  get disposed(): boolean {
    return this.#disposed;
  }

  // Memory

  /**
   * Takes memory, from the pool if it can.
   *
   * @param bytes How much.
   * @param what For what, if there is not that much.
   * @param loosely Whether somewhat more will do, if it is at hand.
   * @throws {WhetError} `resource` if the device makes no buffer that large.
   */
  allocate(bytes: number, what: string, loosely = false): Allocation {
    this.#faults.check();
    const limit = this.#maxBufferBytes;
    if (bytes <= limit) return this.#pool.take(bytes, this.#serial, loosely);
    throw new WhetError(
      "resource",
      `${what} takes ${mebibytes(bytes)}, but this GPU's largest buffer is ${mebibytes(limit)}`,
    );
  }

  /** Gives memory back; it may be reused at once, for everything takes effect in order. */
  release(allocation: Allocation): void {
    if (this.#disposed) return;
    if (!allocation?.live) throw new WhetError("backend", "a tensor or packed weight was freed twice");
    this.#pool.release(allocation);
  }

  /** Overwrites memory, after everything that was recorded before. */
  write({ block, offset }: Slice, data: Float32Array | Uint32Array): void {
    this.#faults.check();
    if (!data.length) return;
    if (block.used === this.#serial) {
      // `writeBuffer` would overtake the recorded commands that still need the old content.
      if (data.byteLength <= STAGING_BYTES - this.#stagingBytes) return this.#stage(block, offset, data);
      this.flush();
    }
    this.device.queue.writeBuffer(block.buffer, offset, data as Uint32Array<ArrayBuffer>);
    this.#uploadedBytes += data.byteLength;
    if (this.#uploadedBytes < UPLOAD_BYTES) return;
    this.device.queue.submit([]);
    this.#submissions++;
    this.#uploadedBytes = 0;
  }

  /** Writes by a copy among the recorded commands. */
  #stage({ buffer }: Block, offset: number, data: Float32Array | Uint32Array): void {
    this.#staging ??= this.#createOwn(STAGING_BYTES, GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST);
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    this.#stagingData.set(bytes, this.#stagingBytes);
    this.#copies().copyBufferToBuffer(this.#staging, this.#stagingBytes, buffer, offset, bytes.length);
    this.#stagingBytes += bytes.length;
  }

  /** The content of memory once all that was recorded before is done. */
  async read({ block, offset, bytes }: Slice): Promise<Float32Array> {
    this.#faults.check();
    this.#readbacks++;
    if (!bytes) return new Float32Array();
    const reader = this.#readers.take(bytes, this.#serial);
    const { buffer } = reader.block;
    this.#copies().copyBufferToBuffer(block.buffer, offset, buffer, 0, bytes);
    block.used = reader.block.used = this.#serial;
    await this.#flushSoon();
    try {
      await buffer.mapAsync(GPUMapMode.READ, 0, bytes);
    } catch (error) {
      await this.#faults.explained();
      this.#faults.check();
      throw new WhetError("backend", `reading ${bytes} bytes back from the GPU failed: ${oneLine(error)}`);
    }
    await this.#faults.settled();
    this.#faults.check();
    const content = new Float32Array(buffer.getMappedRange(0, bytes).slice(0));
    buffer.unmap();
    this.#readers.release(reader);
    return content;
  }

  /** A buffer for as long as the device lives. */
  #createOwn(size: number, usage: number): GPUBuffer {
    this.#ownBytes += size;
    return this.#createBuffer(size, usage);
  }

  #createBuffer(size: number, usage: number): GPUBuffer {
    this.#buffers++;
    const inUse = this.#pool?.liveBytes ?? 0;
    const what = () => `allocating ${mebibytes(size)} on the GPU, ${mebibytes(inUse)} being in use`;
    const create = () => this.device.createBuffer({ size, usage });
    return this.#faults.guard(["out-of-memory", "validation"], what, create);
  }

  // Work

  /**
   * Records a kernel.
   *
   * @param name Its file in `kernels/`.
   * @param bindings What it works on, by the names in the WGSL.
   * @param params The fields of its `Params`; others are for error messages.
   * @param grid Workgroups along x and y. A kernel with none along y reads its number with `linear`, for
   * they are folded where one axis does not hold them.
   * @param constants Which variant.
   * @throws {WhetError} `resource` if a binding or the grid exceeds what the device allows; `backend` if
   * an output overlaps something else, or the device has failed.
   */
  run(
    name: string,
    bindings: Bindings,
    params: Params,
    grid: readonly [x: number, y?: number],
    constants: Constants = NO_CONSTANTS,
  ): void {
    this.#faults.check();
    const [x, y] = this.#fold(name, params, grid);
    if (x === 0 || y === 0) return;
    let kernel = this.#pipelines.get(name, constants);
    const resolved = this.#groups.resolve(kernel, bindings, params);
    if (resolved.shared) {
      const shared = kernel.bindings.filter(({ writes }, i) => resolved.shared![i] && !writes);
      if (shared.length) kernel = this.#pipelines.get(name, constants, shared.map(({ name }) => name));
    }
    const at = this.#writeParams(kernel, params); // may flush, so comes first
    const group = this.#groups.get(kernel, resolved);
    for (const { block } of resolved.slices) block.used = this.#serial;
    this.#encoder ??= this.device.createCommandEncoder();
    this.#pass ??= this.#encoder.beginComputePass();
    if (this.#kernel !== kernel) this.#pass.setPipeline((this.#kernel = kernel).pipeline);
    this.#pass.setBindGroup(0, group, [at]);
    this.#pass.dispatchWorkgroups(x, y);
    this.#dispatches++;
    this.#recorded.push({ kernel: name, params });
  }

  /**
   * Submits what is recorded.
   *
   * @throws {WhetError} If the device has failed.
   */
  flush(): void {
    this.#faults.check();
    if (!this.#encoder) return;
    const encoder = this.#copies();
    const recorded = this.#recorded;
    const what = () => `WebGPU refused ${describeAll(recorded)}`;
    this.#faults.guard(["out-of-memory", "validation"], what, () => this.#submit(encoder.finish()));
    this.#encoder = undefined;
    this.#recorded = [];
    this.#uniformBytes = this.#stagingBytes = this.#uploadedBytes = 0;
    this.#serial++;
    this.#submissions++;
    if (this.#serial % TRIM_EVERY) return;
    this.#pool.trim(this.#serial);
    this.#readers.trim(this.#serial);
  }

  /** Hands commands to the queue, behind the parameters and contents that they need. */
  #submit(commands: GPUCommandBuffer): void {
    const { queue } = this.device;
    if (this.#uniformBytes) {
      queue.writeBuffer(this.#uniforms, 0, this.#uniformWords, 0, this.#uniformBytes / 4);
    }
    if (this.#stagingBytes) queue.writeBuffer(this.#staging!, 0, this.#stagingData, 0, this.#stagingBytes);
    queue.submit([commands]);
  }

  /** Submits at the end of this turn, so that reads that are asked for together share a submission. */
  #flushSoon(): Promise<void> {
    return this.#flushing ??= Promise.resolve().then(() => {
      this.#flushing = undefined;
      this.flush();
    });
  }

  /** Frees the device and all of its memory. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#faults.close();
    this.#pass = this.#encoder = undefined;
    this.allocations = this.#ownBytes = 0;
    this.#pool.destroy();
    this.#readers.destroy();
    this.device.destroy();
  }

  #fold(name: string, params: Params, [x, y]: readonly [number, number?]): readonly [number, number] {
    const limit = this.#maxWorkgroups;
    const folds = y ?? Math.ceil(x / limit);
    const across = y === undefined && folds > 1 ? Math.ceil(x / folds) : x;
    if (across <= limit && folds <= limit) return [across, folds];
    const size = `${x} × ${y ?? 1} workgroups`;
    const message = `${describe(name, params)} takes ${size}, but this GPU runs ${limit} along one axis`;
    throw new WhetError("resource", message);
  }

  /** Puts parameters where the kernel will find them; returns at which offset. */
  #writeParams(kernel: Kernel, params: Params): number {
    const bytes = Math.max(4, kernel.fields.length * 4);
    if (this.#uniformBytes + bytes > UNIFORM_BYTES) this.flush();
    const at = this.#uniformBytes;
    for (let i = 0; i < kernel.fields.length; i++) {
      const { name, float } = kernel.fields[i];
      const value = params[name];
      if (value === undefined) throw new WhetError("backend", `kernel ${kernel.name}: no value for ${name}`);
      (float ? this.#uniformFloats : this.#uniformWords)[at / 4 + i] = value;
    }
    this.#uniformBytes = Math.ceil((at + bytes) / this.#uniformAlignment) * this.#uniformAlignment;
    return at;
  }

  /** The encoder outside of any pass. */
  #copies(): GPUCommandEncoder {
    this.#pass?.end();
    this.#pass = this.#kernel = undefined;
    return this.#encoder ??= this.device.createCommandEncoder();
  }
}
