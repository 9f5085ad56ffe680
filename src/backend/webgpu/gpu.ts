/**
 * The device, and the one submission that is being recorded for it: kernels, writes and copies take
 * effect in the order of their calls, however they reach the queue.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import { SLICE_ALIGNMENT, type Tensor } from "../../tensor/tensor.ts";
import { type Allocation, BufferPool, sizeClass } from "./buffers.ts";
import { type Binding, type Kernel, PARAMS_BYTES, PipelineCache } from "./pipelines.ts";
import type { Constants } from "./template.ts";

/** A stretch of an allocation, in bytes. */
export interface Slice {
  /** What it is a part of. */
  readonly allocation: Allocation;
  /** Where it begins; a multiple of 256. */
  readonly offset: number;
  /** How long it is. */
  readonly bytes: number;
}

/** What a call binds, by the names in the WGSL; read-only bindings may be absent. */
export type Bindings = Readonly<Record<string, Slice | undefined>>;

/** Limits lower than the adapter's, so that tests reach them with little data. */
export interface GpuOptions {
  /** The largest stretch of memory that a kernel sees at once. */
  maxBindingBytes?: number;
  /** The most workgroups along one axis. */
  maxWorkgroups?: number;
}

/** Bytes of parameters that one submission holds; what comes after goes into the next. */
const UNIFORM_BYTES = 1 << 20;
/** Bytes of writes that wait for kernels before them; longer ones go into the next submission. */
const STAGING_BYTES = 1 << 20;
/** Bytes of writes after which the queue is pushed on, so that it need not hold copies of all of them. */
const UPLOAD_BYTES = 64 << 20;
/** Bind groups kept at most; beyond, all are made afresh. */
const MAX_GROUPS = 1 << 14;
/** How often buffers that nobody reuses are looked for, in submissions. */
const TRIM_EVERY = 64;

const NO_CONSTANTS: Constants = {};

/**
 * The stretch of memory under a tensor or part of it.
 *
 * @param tensor Whose memory.
 * @param first Index of the first element wanted.
 * @param length How many elements.
 * @throws {WhetError} `backend` if the memory was freed, is another backend's, or ends before.
 */
export function slice(tensor: Tensor, first = 0, length: number = tensor.length - first): Slice {
  const allocation = tensor.memory as Allocation;
  const offset = (tensor.offset + first) * 4;
  const what = `a tensor [${tensor.shape}] at ${tensor.offset}`;
  if (!allocation?.live) throw new WhetError("backend", `${what} is used, but not in this device's memory`);
  if ((tensor.offset + first) % SLICE_ALIGNMENT) {
    throw new WhetError("backend", `${what} is bound at ${tensor.offset + first}, no multiple of 64`);
  }
  if (offset + length * 4 > allocation.bytes) throw new WhetError("backend", `${what} exceeds its memory`);
  return { allocation, offset, bytes: length * 4 };
}

/** A WebGPU device at work. */
export class Gpu implements Disposable {
  /** Bytes of one binding at most. */
  readonly maxBindingBytes: number;
  /** Tensors and packed weights now allocated. */
  allocations = 0;
  /** Counters; see `BackendStats`. */
  readonly counts = { dispatches: 0, submissions: 0, creations: 0, readbacks: 0 };

  readonly #pool: BufferPool;
  readonly #pipelines: PipelineCache;
  readonly #maxWorkgroups: number;
  readonly #uniforms: GPUBuffer;
  readonly #uniformWords = new Uint32Array(UNIFORM_BYTES / 4);
  readonly #uniformFloats = new Float32Array(this.#uniformWords.buffer);
  readonly #uniformAlignment: number;
  #uniformBytes = 0;
  #staging?: GPUBuffer;
  readonly #stagingData = new Uint8Array(STAGING_BYTES);
  #stagingBytes = 0;
  #uploadedBytes = 0;
  readonly #readers = new Map<number, GPUBuffer[]>();
  /** Stand in for what a call does not bind: one for reading, one for writing. */
  readonly #nothing: Allocation;
  readonly #sink: Allocation;

  #encoder?: GPUCommandEncoder;
  #pass?: GPUComputePassEncoder;
  #current?: Kernel;
  #recorded: { name: string; params: Readonly<Record<string, number>> }[] = [];
  #groups = 0;
  readonly #checks = new Set<Promise<void>>();
  #failure?: WhetError;
  #disposed = false;

  /**
   * @param device Where the work is done; it belongs to this object from now on.
   * @param sources The files of `kernels/` by name.
   * @param options Limits for tests.
   */
  constructor(
    readonly device: GPUDevice,
    sources: Readonly<Record<string, string>>,
    options: GpuOptions = {},
  ) {
    const { limits } = device;
    const bindable = Math.min(limits.maxStorageBufferBindingSize, options.maxBindingBytes ?? Infinity);
    this.maxBindingBytes = Math.floor(bindable / 256) * 256;
    this.#maxWorkgroups = Math.min(
      limits.maxComputeWorkgroupsPerDimension,
      options.maxWorkgroups ?? Infinity,
    );
    this.#uniformAlignment = limits.minUniformBufferOffsetAlignment;
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      this.#caught((event as GPUUncapturedErrorEvent).error, "WebGPU reports an error");
    });
    device.lost.then(({ message }) => {
      this.#fail(
        new WhetError("backend", `the GPU was lost (${oneLine(message)}); start again, a checkpoint resumes`),
      );
    });
    this.#pipelines = new PipelineCache(device, sources, (what, create) => {
      this.counts.creations++;
      return this.#guarded(["internal", "validation"], what, create);
    });
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    this.#pool = new BufferPool((bytes) => this.#createBuffer(bytes, usage), limits.maxBufferSize);
    this.#uniforms = this.#createBuffer(
      UNIFORM_BYTES + PARAMS_BYTES,
      GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    );
    this.#nothing = this.#pool.take(256);
    this.#sink = this.#pool.take(256);
  }

  // Memory

  /** Bytes taken from the device for what is now allocated. */
  get allocatedBytes(): number {
    return this.#disposed ? 0 : this.#pool.liveBytes - this.#nothing.bytes - this.#sink.bytes;
  }

  /**
   * Takes memory, from the pool if it can.
   *
   * @throws {WhetError} `resource` if the device makes no buffer that large.
   */
  allocate(bytes: number, what: string): Allocation {
    this.check();
    const limit = this.device.limits.maxBufferSize;
    if (bytes > limit - limit % 256) {
      throw new WhetError(
        "resource",
        `${what} takes ${mebibytes(bytes)}, but this GPU's largest buffer is ${mebibytes(limit)}`,
      );
    }
    return this.#pool.take(bytes);
  }

  /** Gives memory back; it may be reused at once, for everything takes effect in order. */
  release(allocation: Allocation): void {
    if (this.#disposed) return;
    if (!allocation?.live) throw new WhetError("backend", "a tensor or packed weight was freed twice");
    this.#pool.release(allocation);
  }

  /** Overwrites memory, after everything that was recorded before. */
  write({ allocation, offset }: Slice, data: Float32Array | Uint32Array): void {
    this.check();
    if (!data.length) return;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    if (allocation.used === this.#pool.serial) {
      // `writeBuffer` would overtake the recorded commands that still need the old content.
      if (bytes.length <= STAGING_BYTES) return this.#writeStaged(allocation, offset, bytes);
      this.flush();
    }
    this.device.queue.writeBuffer(allocation.buffer, offset, data as Uint32Array<ArrayBuffer>);
    this.#uploadedBytes += bytes.length;
    if (this.#uploadedBytes > UPLOAD_BYTES) {
      this.device.queue.submit([]);
      this.counts.submissions++;
      this.#uploadedBytes = 0;
    }
  }

  #writeStaged(allocation: Allocation, offset: number, bytes: Uint8Array): void {
    if (this.#stagingBytes + bytes.length > STAGING_BYTES) {
      this.flush();
      return this.device.queue.writeBuffer(allocation.buffer, offset, bytes as Uint8Array<ArrayBuffer>);
    }
    this.#staging ??= this.#createBuffer(STAGING_BYTES, GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST);
    this.#stagingData.set(bytes, this.#stagingBytes);
    this.#copies().copyBufferToBuffer(
      this.#staging,
      this.#stagingBytes,
      allocation.buffer,
      offset,
      bytes.length,
    );
    this.#stagingBytes += bytes.length;
  }

  /** The content of memory once all that was recorded before is done. */
  async read({ allocation, offset, bytes }: Slice): Promise<Float32Array> {
    this.check();
    this.counts.readbacks++;
    if (!bytes) return new Float32Array();
    const size = sizeClass(bytes);
    const reader = this.#readers.get(size)?.pop() ??
      this.#createBuffer(size, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
    this.#copies().copyBufferToBuffer(allocation.buffer, offset, reader, 0, bytes);
    allocation.used = this.#pool.serial;
    this.flush();
    try {
      await reader.mapAsync(GPUMapMode.READ, 0, bytes);
    } catch (error) {
      await this.#settled();
      this.check();
      throw new WhetError("backend", `reading ${bytes} bytes back from the GPU failed: ${oneLine(error)}`);
    }
    await this.#settled();
    this.check();
    const content = new Float32Array(reader.getMappedRange(0, bytes).slice(0));
    reader.unmap();
    const free = this.#readers.get(size);
    if (free) free.push(reader);
    else this.#readers.set(size, [reader]);
    return content;
  }

  // Work

  /**
   * Records a kernel.
   *
   * @param name Its file in `kernels/`.
   * @param bindings What it works on, by the names in the WGSL.
   * @param params The fields of its `Params`.
   * @param grid Workgroups along x and y. A kernel with none along y reads its number with `linear`, for
   * they are folded where one axis does not hold them.
   * @param constants Which variant.
   * @throws {WhetError} `resource` if a binding or the grid exceeds what the device allows; `backend` if
   * an output overlaps an input, or the device has failed.
   */
  run(
    name: string,
    bindings: Bindings,
    params: Readonly<Record<string, number>>,
    grid: readonly [x: number, y?: number],
    constants: Constants = NO_CONSTANTS,
  ): void {
    this.check();
    const [x, y] = this.#fold(name, params, grid);
    if (x === 0 || y === 0) return;
    let kernel = this.#pipelines.get(name, constants);
    const slices = kernel.bindings.map((binding) => this.#resolve(binding, bindings, name, params));
    const twice = slices.map(({ allocation }, i) =>
      slices.some((other, j) =>
        i !== j && other.allocation === allocation &&
        (kernel.bindings[i].writes || kernel.bindings[j].writes)
      )
    );
    if (twice.includes(true)) {
      this.#refuseOverlaps(kernel, slices, params);
      const shared = kernel.bindings.filter(({ writes }, i) => twice[i] && !writes);
      if (shared.length) kernel = this.#pipelines.get(name, constants, shared.map((binding) => binding.name));
    }
    const at = this.#writeParams(kernel, params);
    const group = this.#bindGroup(kernel, slices, twice);
    for (const { allocation } of slices) allocation.used = this.#pool.serial;
    const pass = this.#commands();
    if (this.#current !== kernel) pass.setPipeline((this.#current = kernel).pipeline);
    pass.setBindGroup(0, group, [at]);
    pass.dispatchWorkgroups(x, y);
    this.counts.dispatches++;
    this.#recorded.push({ name, params });
  }

  /** Submits what is recorded. @throws {WhetError} if the device has failed meanwhile. */
  flush(): void {
    this.check();
    if (!this.#encoder) return;
    this.#endPass();
    const { queue } = this.device;
    const encoder = this.#encoder;
    const recorded = this.#recorded;
    const what = () => `WebGPU refused ${describe(recorded)}`;
    this.#guarded(["out-of-memory", "validation"], what, () => {
      if (this.#uniformBytes) {
        queue.writeBuffer(this.#uniforms, 0, this.#uniformWords, 0, this.#uniformBytes / 4);
      }
      if (this.#stagingBytes) queue.writeBuffer(this.#staging!, 0, this.#stagingData, 0, this.#stagingBytes);
      queue.submit([encoder.finish()]);
    });
    this.#encoder = undefined;
    this.#recorded = [];
    this.#uniformBytes = this.#stagingBytes = this.#uploadedBytes = 0;
    this.#pool.serial++;
    this.counts.submissions++;
    if (this.#pool.serial % TRIM_EVERY === 0) this.#pool.trim();
  }

  /** Throws what has gone wrong on the device so far, and after disposal. */
  check(): void {
    if (this.#disposed) throw new WhetError("disposed", "this WebGPU backend was disposed");
    if (this.#failure) throw this.#failure;
  }

  /** Frees the device and all of its memory. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#pass = this.#encoder = undefined;
    this.allocations = 0;
    this.#pool.destroy();
    for (const reader of [...this.#readers.values()].flat()) reader.destroy();
    this.#uniforms.destroy();
    this.#staging?.destroy();
    this.device.destroy();
  }

  #fold(name: string, params: Readonly<Record<string, number>>, [x, y]: readonly [number, number?]) {
    const limit = this.#maxWorkgroups;
    const folds = y === undefined ? Math.ceil(x / limit) : y;
    const across = y === undefined && folds ? Math.ceil(x / folds) : x;
    if (across > limit || folds > limit) {
      throw new WhetError(
        "resource",
        `${describe([{ name, params }])} takes ${x} × ${y ?? 1} workgroups, more than this GPU's ${limit}`,
      );
    }
    return [across, folds];
  }

  #resolve(
    binding: Binding,
    bindings: Bindings,
    name: string,
    params: Readonly<Record<string, number>>,
  ): Slice {
    const given = bindings[binding.name];
    if (!given) return { allocation: binding.writes ? this.#sink : this.#nothing, offset: 0, bytes: 256 };
    if (given.bytes > this.maxBindingBytes) {
      throw new WhetError(
        "resource",
        `${describe([{ name, params }])}: ${binding.name} has ${
          mebibytes(given.bytes)
        }, but this GPU lets a ` +
          `kernel see ${mebibytes(this.maxBindingBytes)} at once; take a smaller batch or sequence length`,
      );
    }
    return given;
  }

  #refuseOverlaps(kernel: Kernel, slices: readonly Slice[], params: Readonly<Record<string, number>>): void {
    slices.forEach((a, i) => {
      slices.forEach((b, j) => {
        if (i === j || a.allocation !== b.allocation || a.allocation === this.#sink) return;
        const apart = a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
        if (apart || !kernel.bindings[i].writes) return;
        const names = `${kernel.bindings[i].name} and ${kernel.bindings[j].name}`;
        const what = describe([{ name: kernel.name, params }]);
        throw new WhetError("backend", `${what}: ${names} overlap in memory, and one is written to`);
      });
    });
  }

  #bindGroup(kernel: Kernel, slices: readonly Slice[], twice: readonly boolean[]): GPUBindGroup {
    // Bound to the end of the buffer, a group serves every length; only a buffer that is also bound for
    // writing is bound exactly, for writable ranges must not overlap.
    const sizes = slices.map(({ allocation, offset, bytes }, i) =>
      twice[i] ? Math.max(bytes, 4) : Math.min(allocation.bytes - offset, this.maxBindingBytes)
    );
    let key = "";
    slices.forEach(({ allocation, offset }, i) => {
      key += twice[i] ? `${allocation.id}+${offset}:${sizes[i]} ` : `${allocation.id}+${offset} `;
    });
    let group = kernel.groups.get(key);
    if (group) return group;
    if (this.#groups >= MAX_GROUPS) this.#forgetGroups();
    group = this.#guarded(
      ["validation"],
      `binding memory to kernel ${kernel.name}`,
      () =>
        this.device.createBindGroup({
          label: kernel.name,
          layout: kernel.layout,
          entries: [
            { binding: 0, resource: { buffer: this.#uniforms, offset: 0, size: PARAMS_BYTES } },
            ...slices.map(({ allocation, offset }, i) => ({
              binding: kernel.bindings[i].index,
              resource: { buffer: allocation.buffer, offset, size: sizes[i] },
            })),
          ],
        }),
    );
    kernel.groups.set(key, group);
    this.#groups++;
    this.counts.creations++;
    for (const { allocation } of slices) {
      if (allocation === this.#sink || allocation === this.#nothing) continue;
      allocation.forget.push(() => {
        if (kernel.groups.delete(key)) this.#groups--;
      });
    }
    return group;
  }

  #forgetGroups(): void {
    for (const kernel of this.#pipelines.all()) kernel.groups.clear();
    this.#groups = 0;
  }

  /** Puts parameters where the kernel will find them; returns at which offset. */
  #writeParams(kernel: Kernel, params: Readonly<Record<string, number>>): number {
    const bytes = Math.max(4, kernel.fields.length * 4);
    if (this.#uniformBytes + bytes > UNIFORM_BYTES) this.flush();
    const at = this.#uniformBytes;
    kernel.fields.forEach(({ name, float }, i) => {
      const value = params[name];
      if (value === undefined) throw new WhetError("backend", `kernel ${kernel.name}: no value for ${name}`);
      (float ? this.#uniformFloats : this.#uniformWords)[at / 4 + i] = value;
    });
    this.#uniformBytes = Math.ceil((at + bytes) / this.#uniformAlignment) * this.#uniformAlignment;
    return at;
  }

  #commands(): GPUComputePassEncoder {
    this.#encoder ??= this.device.createCommandEncoder();
    return this.#pass ??= this.#encoder.beginComputePass();
  }

  #copies(): GPUCommandEncoder {
    this.#endPass();
    return this.#encoder ??= this.device.createCommandEncoder();
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = this.#current = undefined;
  }

  #createBuffer(size: number, usage: number): GPUBuffer {
    this.counts.creations++;
    const beside = () => `no room on the GPU for ${mebibytes(size)} beside ${mebibytes(this.allocatedBytes)}`;
    return this.#guarded(
      ["out-of-memory", "validation"],
      beside,
      () => this.device.createBuffer({ size, usage }),
    );
  }

  // Errors

  /** Runs something under error scopes, so that what goes wrong is thrown at the next read or flush. */
  #guarded<T>(filters: readonly GPUErrorFilter[], what: string | (() => string), work: () => T): T {
    for (const filter of filters) this.device.pushErrorScope(filter);
    try {
      return work();
    } finally {
      for (const _ of filters) {
        const check = this.device.popErrorScope().then((error) => {
          if (error) this.#caught(error, typeof what === "string" ? what : what());
        }, () => {}) // a lost device says so itself
          .finally(() => this.#checks.delete(check));
        this.#checks.add(check);
      }
    }
  }

  async #settled(): Promise<void> {
    await Promise.all(this.#checks);
  }

  #caught(error: GPUError, what: string): void {
    const message = oneLine(error.message);
    this.#fail(
      error instanceof GPUOutOfMemoryError
        ? new WhetError(
          "resource",
          `${what}: the GPU is out of memory; take a smaller batch, or weights in f16, q8 or q4 (${message})`,
        )
        : new WhetError("backend", `${what}: ${message}`),
    );
  }

  #fail(error: WhetError): void {
    if (!this.#disposed) this.#failure ??= error;
  }
}

/** Kernels and their sizes in words; of many, the first few kinds. */
function describe(recorded: readonly { name: string; params: Readonly<Record<string, number>> }[]): string {
  const kinds = new Map<string, string>();
  for (const { name, params } of recorded) {
    if (kinds.has(name)) continue;
    const sizes = Object.entries(params).map(([key, value]) => `${key}=${value}`);
    kinds.set(name, `${name} (${sizes.join(", ")})`);
  }
  const shown = [...kinds.values()].slice(0, 3).join(", ");
  if (recorded.length <= 1) return shown || "a copy";
  return `${recorded.length} kernels, among them ${shown}`;
}

function oneLine(message: unknown): string {
  const text = message instanceof Error ? message.message : String(message);
  return text.replace(/\s+/g, " ").trim() || "no reason given";
}

function mebibytes(bytes: number): string {
  return bytes < 1 << 20 ? `${bytes} bytes` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
