/**
 * The specification of the kernels: every one of {@linkcode Backend}'s in plain loops over 64-bit
 * floats, written to be read, not to be fast. The conformance suite holds the other backends to it;
 * PyTorch's float64 results hold it to the truth (`reference_test.ts`).
 *
 * @module
 */
import type * as K from "../../src/tensor/backend.ts";
import { NO_ADAPTER } from "../../src/tensor/backend.ts";
import { uniform } from "../../src/tensor/random.ts";
import {
  type DType,
  type GroupAxis,
  type Matrix,
  PackedMatrix,
  type StoredMatrix,
  Tensor,
  type WeightFormat,
} from "../../src/tensor/tensor.ts";
import { sampleRow } from "./sampling.ts";
import { numbersOf, quantize } from "./stored.ts";

/** Whatever numbers go in. */
type Numbers = Float64Array | Float32Array | Uint32Array;

/** A tensor's content (u32 too, which f64 holds exactly); null once it is freed. */
interface Block {
  data: Float64Array | Float32Array | null;
  /** What a packed matrix was made of. */
  stored?: StoredMatrix;
}

/** What {@linkcode ReferenceBackend} makes of a list of tensors: the numbers of each, absent where it is. */
type Opened<T extends readonly (Matrix | undefined)[]> = {
  [I in keyof T]: undefined extends T[I] ? Float64Array | undefined : Float64Array;
};

const GELU_SCALE = Math.sqrt(2 / Math.PI);

/** GELU, tanh form. */
function gelu(x: number): number {
  return 0.5 * x * (1 + Math.tanh(GELU_SCALE * (x + 0.044715 * x ** 3)));
}

/**
 * The error function, by 2/√π · exp(−x²) · Σ 2ⁿ x²ⁿ⁺¹ / (2n + 1)!! (Abramowitz & Stegun 1964, 7.1.6), whose terms all
 * have one sign; from 6 on it is 1 in float64.
 */
function erf(x: number): number {
  if (!(Math.abs(x) < 6)) return Math.sign(x); // NaN too
  let sum = 0, term = x;
  for (let n = 0; sum + term !== sum; n++) {
    sum += term;
    term *= 2 * x * x / (2 * n + 3);
  }
  return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x) * sum;
}

/** GELU by the error function. */
function exactGelu(x: number): number {
  return 0.5 * x * (1 + erf(x / Math.SQRT2));
}

/** Its derivative in the tanh form. */
function geluDerivative(x: number): number {
  const t = Math.tanh(GELU_SCALE * (x + 0.044715 * x ** 3));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * GELU_SCALE * (1 + 3 * 0.044715 * x * x);
}

/** The half nearest to a number, the largest one for a larger number; infinities and NaN stay. */
function saturatedHalf(x: number): number {
  return Number.isFinite(x) ? Math.f16round(Math.max(-65504, Math.min(65504, x))) : x;
}

/** Σ over i of x[at + i] · y[from + i]. */
function dot(x: Float64Array, at: number, y: Float64Array, from: number, length: number): number {
  let sum = 0;
  for (let i = 0; i < length; i++) sum += x[at + i] * y[from + i];
  return sum;
}

/** log Σ exp(x), without overflow. */
function logSumExp(x: ArrayLike<number>): number {
  let max = -Infinity;
  for (let i = 0; i < x.length; i++) max = Math.max(max, x[i]);
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += Math.exp(x[i] - max);
  return max + Math.log(sum);
}

/**
 * The kernels in float64. Fresh memory is full of NaN, and use of freed memory throws, so that a
 * program that runs on it is also proven to initialise and to keep what it reads.
 *
 * @example
 * ```ts
 * import { ReferenceBackend } from "./reference.ts";
 *
 * using backend = new ReferenceBackend();
 * const x = backend.upload(Float64Array.of(1, 2, 3));
 * const out = backend.allocate([3]);
 * backend.gelu({ x, out });
 * console.log(backend.read64(out));
 * ```
 */
export class ReferenceBackend implements K.Backend {
  readonly name = "reference";
  readonly description: string;
  readonly #stats = {
    allocatedBytes: 0,
    allocations: 0,
    dispatches: 0,
    submissions: 0,
    creations: 0,
    readbacks: 0,
  };

  /** @param store What results are stored in; Float32Array rounds every one of them once. */
  constructor(readonly store: typeof Float64Array | typeof Float32Array = Float64Array) {
    this.description = store === Float64Array ? "float64" : "float64, stored in float32";
  }

  // Memory

  allocate(shape: readonly number[], dtype: DType = "f32"): Tensor {
    const length = shape.reduce((product, extent) => product * extent, 1);
    const store = dtype === "u32" ? Float64Array : this.store; // f32 would not hold them all
    return new Tensor(shape, dtype, this.#block(new store(length).fill(NaN)));
  }

  /** Also takes float64. */
  upload(data: Numbers, shape: readonly number[] = [data.length]): Tensor {
    const tensor = this.allocate(shape, data instanceof Uint32Array ? "u32" : "f32");
    this.write(tensor, data);
    return tensor;
  }

  /** Also takes float64. */
  write(tensor: Tensor, data: Numbers): void {
    if (data.length !== tensor.length) throw new RangeError(`${data.length} numbers for [${tensor.shape}]`);
    this.#numbers(tensor).set(data);
  }

  read(tensor: Tensor): Promise<Float32Array> {
    this.#stats.readbacks++;
    return Promise.resolve(Float32Array.from(this.#numbers(tensor)));
  }

  readU32(tensor: Tensor): Promise<Uint32Array> {
    this.#stats.readbacks++;
    return Promise.resolve(Uint32Array.from(this.#numbers(tensor)));
  }

  /** The content in full precision, at once. */
  read64(tensor: Tensor): Float64Array {
    return Float64Array.from(this.#numbers(tensor));
  }

  /** Keeps the numbers as they are, whatever the format. */
  pack(
    data: Float32Array,
    rows: number,
    columns: number,
    format: WeightFormat,
    axis: GroupAxis = 0,
  ): PackedMatrix {
    if (data.length !== rows * columns) {
      throw new RangeError(`${data.length} numbers for ${rows} x ${columns}`);
    }
    return new PackedMatrix(rows, columns, format, this.#block(this.store.from(data)), axis);
  }

  packStored(stored: StoredMatrix): PackedMatrix {
    const { rows, columns, format, axis } = stored;
    const block = this.#block(this.store.from(numbersOf(stored)));
    block.stored = structuredClone(stored);
    return new PackedMatrix(rows, columns, format, block, axis);
  }

  /** What it was made of, else the numbers rounded to the format. */
  unpackStored(matrix: PackedMatrix): Promise<StoredMatrix> {
    const { rows, columns, format, axis, memory } = matrix;
    if (format === "f32") throw new RangeError("f32 has no stored form");
    const numbers = this.#numbers(matrix);
    return Promise.resolve((memory as Block).stored ?? quantize(numbers, rows, columns, format, axis));
  }

  unpack(matrix: PackedMatrix): Promise<Float32Array> {
    return Promise.resolve(Float32Array.from(this.#numbers(matrix)));
  }

  free(memory: Matrix): void {
    const block = memory.memory as Block;
    if (block.data === null) throw new Error("freed twice");
    this.#stats.allocatedBytes -= block.data.byteLength;
    this.#stats.allocations--;
    block.data = null;
  }

  flush(): void {}

  stats(): K.BackendStats {
    return { ...this.#stats };
  }

  [Symbol.dispose](): void {}

  #block(data: Float64Array | Float32Array): Block {
    this.#stats.allocatedBytes += data.byteLength;
    this.#stats.allocations++;
    return { data };
  }

  /** A tensor's own stretch of memory. */
  #numbers(matrix: Matrix): Float64Array {
    const { data } = matrix.memory as Block;
    if (data === null) throw new Error(`[${matrix.shape}] was freed`);
    // Reads and writes mean the same in both arrays: only the rounding of what is stored differs.
    const all = data as Float64Array;
    if (matrix instanceof PackedMatrix) return all;
    if (matrix.offset + matrix.length > all.length) {
      throw new RangeError(`[${matrix.shape}] exceeds its memory`);
    }
    return all.subarray(matrix.offset, matrix.offset + matrix.length);
  }

  /** The numbers of a kernel's tensors, in the order given. */
  #open<const T extends readonly (Matrix | undefined)[]>(...tensors: T): Opened<T> {
    this.#stats.dispatches++;
    return tensors.map((tensor) => tensor && this.#numbers(tensor)) as Opened<T>;
  }

  // Kernels

  matmul(args: K.MatmulArgs): void {
    const { transposeA, transposeB, alpha = 1, accumulate, activation } = args;
    const [a, b, out, bias, residual] = this.#open(args.a, args.b, args.out, args.bias, args.residual);
    const [M, N] = args.out.shape;
    const K = args.a.shape[transposeA ? 0 : 1];
    for (let m = 0; m < M; m++) {
      for (let n = 0; n < N; n++) {
        let sum = 0;
        for (let k = 0; k < K; k++) {
          sum += a[transposeA ? k * M + m : m * K + k] * b[transposeB ? n * K + k : k * N + n];
        }
        let y = alpha * sum;
        if (bias) y += bias[n];
        if (activation === "gelu") y = gelu(y);
        if (residual) y += residual[m * N + n];
        out[m * N + n] = accumulate ? out[m * N + n] + y : y;
      }
    }
  }

  embedding(args: K.EmbeddingArgs): void {
    const [wte, wpe, tokens, positions, out] = this.#open(
      args.wte,
      args.wpe,
      args.tokens,
      args.positions,
      args.out,
    );
    const [T, C] = args.out.shape;
    for (let t = 0; t < T; t++) {
      for (let c = 0; c < C; c++) out[t * C + c] = wte[tokens[t] * C + c] + wpe[positions[t] * C + c];
    }
  }

  embeddingBackward(args: K.EmbeddingBackwardArgs): void {
    const [tokens, positions, dOut, dWte, dWpe] = this.#open(
      args.tokens,
      args.positions,
      args.dOut,
      args.dWte,
      args.dWpe,
    );
    const [T, C] = args.dOut.shape;
    for (let t = 0; t < T; t++) {
      for (let c = 0; c < C; c++) {
        if (dWte) dWte[tokens[t] * C + c] += dOut[t * C + c];
        if (dWpe) dWpe[positions[t] * C + c] += dOut[t * C + c];
      }
    }
  }

  layerNorm(args: K.LayerNormArgs): void {
    const [x, weight, bias, out, mean, rstd] = this.#open(
      args.x,
      args.weight,
      args.bias,
      args.out,
      args.mean,
      args.rstd,
    );
    const [T, C] = args.x.shape;
    for (let t = 0; t < T; t++) {
      let sum = 0, squares = 0;
      for (let c = 0; c < C; c++) sum += x[t * C + c];
      const m = sum / C;
      for (let c = 0; c < C; c++) squares += (x[t * C + c] - m) ** 2;
      const r = 1 / Math.sqrt(squares / C + args.epsilon);
      for (let c = 0; c < C; c++) out[t * C + c] = (x[t * C + c] - m) * r * weight[c] + bias[c];
      mean[t] = m;
      rstd[t] = r;
    }
  }

  layerNormBackward(args: K.LayerNormBackwardArgs): void {
    const [x, weight, mean, rstd, dOut, dX, dWeight, dBias] = this.#open(
      args.x,
      args.weight,
      args.mean,
      args.rstd,
      args.dOut,
      args.dX,
      args.dWeight,
      args.dBias,
    );
    const [T, C] = args.x.shape;
    for (let t = 0; t < T; t++) {
      const normed = (c: number) => (x[t * C + c] - mean[t]) * rstd[t];
      const dNormed = (c: number) => dOut[t * C + c] * weight[c];
      let sum = 0, product = 0; // of dNormed, and of dNormed · normed
      for (let c = 0; c < C; c++) {
        sum += dNormed(c);
        product += dNormed(c) * normed(c);
      }
      for (let c = 0; c < C; c++) {
        const d = rstd[t] * (dNormed(c) - sum / C - normed(c) * product / C);
        if (dX) dX[t * C + c] = args.accumulate ? dX[t * C + c] + d : d;
        if (dWeight) dWeight[c] += dOut[t * C + c] * normed(c);
        if (dBias) dBias[c] += dOut[t * C + c];
      }
    }
  }

  gelu(args: K.GeluArgs): void {
    const [x, out] = this.#open(args.x, args.out);
    for (let i = 0; i < x.length; i++) out[i] = args.exact ? exactGelu(x[i]) : gelu(x[i]);
  }

  geluBackward(args: K.GeluBackwardArgs): void {
    const [x, dOut, dX] = this.#open(args.x, args.dOut, args.dX);
    for (let i = 0; i < x.length; i++) {
      const d = dOut[i] * geluDerivative(x[i]);
      dX[i] = args.accumulate ? dX[i] + d : d;
    }
  }

  attention(args: K.AttentionArgs): void {
    const { heads: H, scale } = args;
    const [qkv, starts, out, lse] = this.#open(args.qkv, args.starts, args.out, args.logSumExp);
    const [T, C] = args.out.shape;
    const D = C / H;
    for (let t = 0; t < T; t++) {
      for (let h = 0; h < H; h++) {
        const q = t * 3 * C + h * D;
        const k = (s: number) => s * 3 * C + C + h * D;
        const v = (s: number) => s * 3 * C + 2 * C + h * D;
        const logits: number[] = [];
        for (let s = starts[t]; s <= t; s++) logits.push(scale * dot(qkv, q, qkv, k(s), D));
        lse[t * H + h] = logSumExp(logits);
        for (let d = 0; d < D; d++) {
          let sum = 0;
          logits.forEach((logit, i) => sum += Math.exp(logit - lse[t * H + h]) * qkv[v(starts[t] + i) + d]);
          out[t * C + h * D + d] = sum;
        }
      }
    }
  }

  attentionBackward(args: K.AttentionBackwardArgs): void {
    const { heads: H, scale } = args;
    // `ends` says nothing that `starts` does not; it spares the kernels a search.
    const [qkv, starts, out, lse, dOut, dQkv] = this.#open(
      args.qkv,
      args.starts,
      args.out,
      args.logSumExp,
      args.dOut,
      args.dQkv,
    );
    const [T, C] = args.out.shape;
    const D = C / H;
    dQkv.fill(0);
    for (let t = 0; t < T; t++) {
      for (let h = 0; h < H; h++) {
        const row = t * C + h * D;
        const q = t * 3 * C + h * D;
        const mean = dot(dOut, row, out, row, D); // Σ over s of p · dp
        for (let s = starts[t]; s <= t; s++) {
          const k = s * 3 * C + C + h * D;
          const v = s * 3 * C + 2 * C + h * D;
          const p = Math.exp(scale * dot(qkv, q, qkv, k, D) - lse[t * H + h]);
          const dLogit = p * (dot(dOut, row, qkv, v, D) - mean);
          for (let d = 0; d < D; d++) {
            dQkv[q + d] += dLogit * scale * qkv[k + d];
            dQkv[k + d] += dLogit * scale * qkv[q + d];
            dQkv[v + d] += p * dOut[row + d];
          }
        }
      }
    }
  }

  cachedAttention(args: K.CachedAttentionArgs): void {
    const { heads: H, scale } = args;
    const [qkv, keys, values, slots, positions, out] = this.#open(
      args.qkv,
      args.keys,
      args.values,
      args.slots,
      args.positions,
      args.out,
    );
    const [T, C] = args.out.shape;
    const D = C / H;
    const row = (slot: number, position: number) => (slot * args.keys.shape[1] + position) * C;
    const stored = args.keys.dtype === "f16" ? saturatedHalf : (x: number) => x;
    for (let t = 0; t < T; t++) {
      for (let c = 0; c < C; c++) {
        keys[row(slots[t], positions[t]) + c] = stored(qkv[t * 3 * C + C + c]);
        values[row(slots[t], positions[t]) + c] = stored(qkv[t * 3 * C + 2 * C + c]);
      }
    }
    for (let t = 0; t < T; t++) {
      for (let h = 0; h < H; h++) {
        const logits: number[] = [];
        for (let s = 0; s <= positions[t]; s++) {
          logits.push(scale * dot(qkv, t * 3 * C + h * D, keys, row(slots[t], s) + h * D, D));
        }
        const lse = logSumExp(logits);
        for (let d = 0; d < D; d++) {
          let sum = 0;
          logits.forEach((logit, s) => sum += Math.exp(logit - lse) * values[row(slots[t], s) + h * D + d]);
          out[t * C + h * D + d] = sum;
        }
      }
    }
  }

  disentangledAttention(args: K.DisentangledAttentionArgs): void {
    const { heads: H, scale } = args;
    const [qkv, positionKeys, positionQueries, buckets, starts, ends, out] = this.#open(
      args.qkv,
      args.positionKeys,
      args.positionQueries,
      args.buckets,
      args.starts,
      args.ends,
      args.out,
    );
    const [T, C] = args.out.shape;
    const D = C / H;
    const L = buckets ? (buckets.length + 1) / 2 : 0;
    for (let h = 0; h < H; h++) {
      const q = (i: number) => i * 3 * C + h * D;
      const k = (j: number) => j * 3 * C + C + h * D;
      const v = (j: number) => j * 3 * C + 2 * C + h * D;
      const position = (i: number, j: number) => buckets![i - j + L - 1] * C + h * D;
      for (let i = 0; i < T; i++) {
        const logits: number[] = [];
        for (let j = starts[i]; j < ends[i]; j++) {
          let sum = dot(qkv, q(i), qkv, k(j), D);
          if (positionKeys) sum += dot(qkv, q(i), positionKeys, position(i, j), D);
          if (positionQueries) sum += dot(qkv, k(j), positionQueries, position(i, j), D);
          logits.push(scale * sum);
        }
        const lse = logSumExp(logits);
        for (let d = 0; d < D; d++) {
          let sum = 0;
          logits.forEach((logit, n) => sum += Math.exp(logit - lse) * qkv[v(starts[i] + n) + d]);
          out[i * C + h * D + d] = sum;
        }
      }
    }
  }

  lowRank(args: K.LowRankArgs): void {
    const [x, A, B, h, out] = this.#open(args.x, args.A, args.B, args.h, args.out);
    const [R, K] = args.A.shape;
    const [T, N] = args.out.shape;
    for (let t = 0; t < T; t++) {
      for (let r = 0; r < R; r++) h[t * R + r] = dot(x, t * K, A, r * K, K);
      for (let n = 0; n < N; n++) out[t * N + n] += args.scaling * dot(h, t * R, B, n * R, R);
    }
  }

  lowRankRows(args: K.LowRankRowsArgs): void {
    const [x, A, B, scaling, adapters, out] = this.#open(
      ...[args.x, args.A, args.B, args.scaling, args.adapters, args.out] as const,
    );
    const [, R, inner] = args.A.shape;
    const [T, outer] = args.out.shape;
    for (let t = 0; t < T; t++) {
      const adapter = adapters[t];
      if (adapter === NO_ADAPTER) continue;
      for (let r = adapter * R; r < (adapter + 1) * R; r++) {
        const h = scaling[adapter] * dot(x, t * inner, A, r * inner, inner);
        for (let n = 0; n < outer; n++) out[t * outer + n] += h * B[r * outer + n];
      }
    }
  }

  crossEntropy(args: K.CrossEntropyArgs): void {
    const { gradientScale } = args;
    const [logits, targets, loss] = this.#open(args.logits, args.targets, args.loss);
    const [N, V] = args.logits.shape;
    for (let n = 0; n < N; n++) {
      const row = logits.subarray(n * V, (n + 1) * V);
      const lse = logSumExp(row);
      loss[n] = lse - row[targets[n]];
      if (gradientScale === undefined) continue;
      for (let v = 0; v < V; v++) {
        row[v] = (Math.exp(row[v] - lse) - (v === targets[n] ? 1 : 0)) * gradientScale;
      }
    }
  }

  sample(args: K.SampleArgs): void {
    const [logits, seen, tokens, logProbs] = this.#open(args.logits, args.seen, args.tokens, args.logProbs);
    const [N, V] = args.logits.shape;
    for (let n = 0; n < N; n++) {
      const row = args.rows[n];
      const word = (token: number) => row.slot * args.seen!.shape[1] + (token >> 5);
      const bit = (token: number) => 2 ** (token & 31);
      const isSeen = (token: number) => Math.floor(seen![word(token)] / bit(token)) % 2 === 1;
      const { token, logProb } = sampleRow(logits.subarray(n * V, (n + 1) * V), row, isSeen);
      tokens[n] = token;
      logProbs[n] = logProb;
      if (seen && !isSeen(token)) seen[word(token)] += bit(token);
    }
  }

  gather(args: K.GatherArgs): void {
    const [x, rows, out] = this.#open(args.x, args.rows, args.out);
    const [N, C] = args.out.shape;
    for (let n = 0; n < N; n++) {
      for (let c = 0; c < C; c++) out[n * C + c] = x[rows[n] * C + c];
    }
  }

  scatterAdd(args: K.ScatterAddArgs): void {
    const [dOut, rows, dX] = this.#open(args.dOut, args.rows, args.dX);
    const [N, C] = args.dOut.shape;
    for (let n = 0; n < N; n++) {
      for (let c = 0; c < C; c++) dX[rows[n] * C + c] += dOut[n * C + c];
    }
  }

  add(args: K.AddArgs): void {
    const [a, b, out] = this.#open(args.a, args.b, args.out);
    for (let i = 0; i < out.length; i++) out[i] = a[i] + b[i];
  }

  copy(args: { x: Tensor; out: Tensor }): void {
    const [x, out] = this.#open(args.x, args.out);
    out.set(x);
  }

  fill(args: { out: Tensor; value: number }): void {
    const [out] = this.#open(args.out);
    out.fill(args.value);
  }

  dropout(args: K.DropoutArgs): void {
    const [x, out] = this.#open(args.x, args.out);
    for (let i = 0; i < x.length; i++) {
      const y = uniform(i, args.key) >= args.probability ? x[i] / (1 - args.probability) : 0;
      out[i] = args.accumulate ? out[i] + y : y;
    }
  }

  sumRows(args: K.SumRowsArgs): void {
    const [x, out] = this.#open(args.x, args.out);
    const [M, N] = args.x.shape;
    for (let m = 0; m < M; m++) {
      for (let n = 0; n < N; n++) out[n] += x[m * N + n];
    }
  }

  sumOfSquares(args: K.SumOfSquaresArgs): void {
    const [x, out] = this.#open(args.x, args.out);
    const sum = dot(x, 0, x, 0, x.length);
    out[0] = args.accumulate ? out[0] + sum : sum;
  }

  clipFactor(args: K.ClipFactorArgs): void {
    const [sumOfSquares, out] = this.#open(args.sumOfSquares, args.out);
    out[0] = Math.sqrt(sumOfSquares[0]);
    out[1] = args.maxNorm === 0 ? 1 : Math.min(1, args.maxNorm / (out[0] + 1e-6));
  }

  adamw(args: K.AdamWArgs): void {
    const { learningRate, beta1, beta2, epsilon, weightDecay, step } = args;
    const [p, gradients, m, v, clip] = this.#open(args.parameters, args.gradients, args.m, args.v, args.clip);
    for (let i = 0; i < p.length; i++) {
      const g = gradients[i] * clip[1];
      m[i] = beta1 * m[i] + (1 - beta1) * g;
      v[i] = beta2 * v[i] + (1 - beta2) * g * g;
      const mHat = m[i] / (1 - beta1 ** step);
      const vHat = v[i] / (1 - beta2 ** step);
      p[i] -= learningRate * weightDecay * p[i] + learningRate * mHat / (Math.sqrt(vHat) + epsilon);
    }
  }
}
