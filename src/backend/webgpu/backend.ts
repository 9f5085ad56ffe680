/**
 * The kernels' home on a GPU, by WebGPU.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import type * as K from "../../tensor/backend.ts";
import type {
  DType,
  GroupAxis,
  Matrix,
  PackedMatrix,
  StoredMatrix,
  Tensor,
  WeightFormat,
} from "../../tensor/tensor.ts";
import { admit } from "./admit.ts";
import * as attention from "./attention.ts";
import { cachedAttention } from "./cached_attention.ts";
import { disentangledAttention } from "./disentangled.ts";
import * as elementwise from "./elementwise.ts";
import * as embedding from "./embedding.ts";
import { findFeatures, requestDevice } from "./features.ts";
import { Gpu, type GpuOptions } from "./gpu.ts";
import { WGSL } from "./kernels.gen.ts";
import * as loss from "./loss.ts";
import { lowRank, lowRankRows } from "./low_rank.ts";
import { matmul } from "./matmul.ts";
import { settleProducts } from "./matmul_trial.ts";
import { allocate } from "./memory.ts";
import * as normalization from "./normalization.ts";
import { pack, unpack } from "./packing.ts";
import { sample } from "./sample.ts";
import { slice, writable } from "./slices.ts";
import { packStored, unpackStored } from "./stored.ts";
import { free } from "./weights.ts";

export type { GpuOptions } from "./gpu.ts";

/**
 * Makes a backend on an adapter's device, with all that the adapter allows.
 *
 * @param adapter From `navigator.gpu.requestAdapter()`; it gives one device, to one backend.
 * @param options Limits lower than the adapter's and kernels' paths to choose, for tests.
 * @returns The backend; disposing it frees the device.
 * @throws {WhetError} `backend` if the adapter gives no device, or not what `options` demand of it.
 *
 * @example
 * ```ts
 * import { createWebGpuBackend } from "./backend.ts";
 *
 * const adapter = await navigator.gpu?.requestAdapter();
 * if (adapter) {
 *   using backend = await createWebGpuBackend(adapter);
 *   const x = backend.upload(Float32Array.of(1, 2, 3));
 *   backend.add({ a: x, b: x, out: x });
 *   console.log(await backend.read(x));
 * }
 * ```
 */
export async function createWebGpuBackend(adapter: GPUAdapter, options: GpuOptions = {}): Promise<K.Backend> {
  const description = adapterName(adapter);
  let device: GPUDevice;
  try {
    device = await requestDevice(adapter);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new WhetError("backend", `the WebGPU adapter ${description} gives no device: ${reason}`, {
      cause: error,
    });
  }
  try {
    const features = await findFeatures(device, options.subgroups);
    const gpu = new Gpu(device, WGSL, options, features);
    await settleProducts(gpu, options);
    return new WebGpuBackend(gpu, description);
  } catch (error) {
    device.destroy();
    throw error;
  }
}

/** What an adapter calls itself. */
export function adapterName({ info }: GPUAdapter): string {
  return info.description || [info.vendor, info.architecture, info.device].filter(Boolean).join(" ") ||
    "unnamed";
}

/** Steps of decoding under way at once, at most: at 1,500 tokens a second as many as take two maps of a buffer in Deno. */
const READ_AHEAD = 64;

/** Names the kernels; what they do lies in the files beside. */
class WebGpuBackend implements K.Backend {
  readonly name = "webgpu";
  readonly readAhead = READ_AHEAD;

  constructor(readonly gpu: Gpu, readonly description: string) {}

  async admit(need: K.MemoryNeed): Promise<void> {
    await admit(this.gpu, this.description, need);
  }

  allocate(shape: readonly number[], dtype?: DType): Tensor {
    return allocate(this.gpu, shape, dtype);
  }

  upload(data: Float32Array | Uint32Array, shape: readonly number[] = [data.length]): Tensor {
    const tensor = allocate(this.gpu, shape, data instanceof Uint32Array ? "u32" : "f32");
    this.write(tensor, data);
    return tensor;
  }

  write(tensor: Tensor, data: Float32Array | Uint32Array): void {
    if (data.length !== tensor.length) {
      throw new WhetError("backend", `${data.length} numbers were written to a tensor [${tensor.shape}]`);
    }
    this.gpu.write(writable(tensor), data);
  }

  read(tensor: Tensor): Promise<Float32Array> {
    return this.gpu.read(slice(tensor));
  }

  async readU32(tensor: Tensor): Promise<Uint32Array> {
    return new Uint32Array((await this.gpu.read(slice(tensor))).buffer);
  }

  pack(
    data: Float32Array,
    rows: number,
    columns: number,
    format: WeightFormat,
    axis?: GroupAxis,
  ): PackedMatrix {
    return pack(this.gpu, data, rows, columns, format, axis);
  }

  packStored(stored: StoredMatrix): PackedMatrix {
    return packStored(this.gpu, stored);
  }

  unpackStored(matrix: PackedMatrix): Promise<StoredMatrix> {
    return unpackStored(this.gpu, matrix);
  }

  unpack(matrix: PackedMatrix): Promise<Float32Array> {
    return unpack(this.gpu, matrix);
  }

  free(memory: Matrix): void {
    free(this.gpu, memory);
  }

  flush(): void {
    this.gpu.flush();
  }

  stats(): K.BackendStats {
    return this.gpu.stats();
  }

  [Symbol.dispose](): void {
    this.gpu[Symbol.dispose]();
  }

  matmul(args: K.MatmulArgs): void {
    matmul(this.gpu, args);
  }

  embedding(args: K.EmbeddingArgs): void {
    embedding.embedding(this.gpu, args);
  }

  embeddingBackward(args: K.EmbeddingBackwardArgs): void {
    embedding.embeddingBackward(this.gpu, args);
  }

  layerNorm(args: K.LayerNormArgs): void {
    normalization.layerNorm(this.gpu, args);
  }

  layerNormBackward(args: K.LayerNormBackwardArgs): void {
    normalization.layerNormBackward(this.gpu, args);
  }

  gelu(args: K.GeluArgs): void {
    elementwise.gelu(this.gpu, args);
  }

  geluBackward(args: K.GeluBackwardArgs): void {
    elementwise.geluBackward(this.gpu, args);
  }

  attention(args: K.AttentionArgs): void {
    attention.attention(this.gpu, args);
  }

  attentionBackward(args: K.AttentionBackwardArgs): void {
    attention.attentionBackward(this.gpu, args);
  }

  cachedAttention(args: K.CachedAttentionArgs): void {
    cachedAttention(this.gpu, args);
  }

  disentangledAttention(args: K.DisentangledAttentionArgs): void {
    disentangledAttention(this.gpu, args);
  }

  lowRank(args: K.LowRankArgs): void {
    lowRank(this.gpu, args);
  }

  lowRankRows(args: K.LowRankRowsArgs): void {
    lowRankRows(this.gpu, args);
  }

  crossEntropy(args: K.CrossEntropyArgs): void {
    loss.crossEntropy(this.gpu, args);
  }

  sample(args: K.SampleArgs): void {
    sample(this.gpu, args);
  }

  gather(args: K.GatherArgs): void {
    elementwise.gather(this.gpu, args);
  }

  scatterAdd(args: K.ScatterAddArgs): void {
    elementwise.scatterAdd(this.gpu, args);
  }

  add(args: K.AddArgs): void {
    elementwise.add(this.gpu, args);
  }

  copy(args: { x: Tensor; out: Tensor }): void {
    elementwise.copy(this.gpu, args);
  }

  fill(args: { out: Tensor; value: number }): void {
    elementwise.fill(this.gpu, args);
  }

  dropout(args: K.DropoutArgs): void {
    elementwise.dropout(this.gpu, args);
  }

  sumRows(args: K.SumRowsArgs): void {
    normalization.sumRows(this.gpu, args);
  }

  sumOfSquares(args: K.SumOfSquaresArgs): void {
    loss.sumOfSquares(this.gpu, args);
  }

  clipFactor(args: K.ClipFactorArgs): void {
    loss.clipFactor(this.gpu, args);
  }

  adamw(args: K.AdamWArgs): void {
    elementwise.adamw(this.gpu, args);
  }
}
