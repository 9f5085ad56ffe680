/**
 * The kernels' home in SIMD WebAssembly: everywhere, with the same results on every run.
 *
 * A call computes at once, so nothing is ever enqueued. The kernels themselves are in `wasm/`; here they get
 * checked shapes, addresses and scratch memory. Heavy ones take a range of rows or panels, and their results
 * do not depend on how such ranges are cut.
 *
 * @module
 */
import type * as tensor from "../../tensor/backend.ts";
import { PackedMatrix, type Tensor } from "../../tensor/tensor.ts";
import { expect, expectBelow, extents, matrixExtents, sequences } from "./checks.ts";
import { compile, type InstructionSet } from "./instance.ts";
import type { Kernels } from "./kernels.gen.ts";
import { KINDS, PANEL, Store } from "./store.ts";

/** Rows that one call of the attention kernel takes. */
const QUERIES = 64;
/** Elements of a partial sum of squares. */
const PART = 4096;

/**
 * Opens the WebAssembly backend.
 *
 * @param options `instructionSet`: `"relaxed"` (fused multiply-add, faster) or `"strict"` (the same bits on every
 * machine); by default relaxed where the engine has it.
 * @returns The backend; dispose it to free its memory.
 * @throws {WhetError} `backend` if the engine cannot run the instruction set.
 *
 * @example
 * ```ts
 * import { createWasmBackend } from "./backend.ts";
 *
 * using backend = await createWasmBackend({ instructionSet: "strict" });
 * const a = backend.upload(new Float32Array([1, 2, 3, 4]), [2, 2]);
 * const out = backend.allocate([2, 2]);
 * backend.matmul({ a, b: a, out });
 * console.log(await backend.read(out)); // [7, 10, 15, 22]
 * ```
 */
export async function createWasmBackend(
  options: { instructionSet?: InstructionSet } = {},
): Promise<tensor.Backend> {
  const { set, module } = await compile(options.instructionSet);
  return new WasmBackend(module, set);
}

/** {@linkcode tensor.Backend} over one linear memory. */
export class WasmBackend extends Store implements tensor.Backend {
  readonly name = "wasm";
  readonly description: string;

  /**
   * @param module A compiled build of the kernels.
   * @param set Which build it is.
   */
  constructor(module: WebAssembly.Module, set: InstructionSet) {
    super(module);
    this.description = `SIMD WebAssembly, ${set}`;
  }

  matmul(args: tensor.MatmulArgs): void {
    const { b, transposeA = false, transposeB = false, alpha = 1, accumulate = false } = args;
    const [M, N] = matrixExtents(args.out, "matmul: out");
    const [aRows, aColumns] = matrixExtents(args.a, "matmul: a");
    const [bRows, bColumns] = matrixExtents(b, "matmul: b");
    const K = transposeA ? aRows : aColumns;
    const packed = b instanceof PackedMatrix;
    expect(
      (transposeA ? aColumns : aRows) === M && (transposeB ? bColumns : bRows) === K &&
        (transposeB ? bRows : bColumns) === N,
      `matmul: a [${args.a.shape}]${transposeA ? "ᵀ" : ""} · b [${b.shape}]${
        transposeB ? "ᵀ" : ""
      } does not give ` +
        `out [${args.out.shape}]`,
    );
    expect(K > 0, "matmul: K is 0");
    expect(!(transposeA && packed), "matmul: transposeA takes a plain b");
    expect(!(accumulate && args.activation), "matmul: accumulate excludes activation");
    const kernels = this.call;
    if (M === 0 || N === 0) return;
    const scratch = this.memory.scratch(kernels.matmulScratch(M, N, K, packed && transposeB) >>> 0);
    kernels.matmul(
      ...[this.at(args.a, "matmul: a"), transposeA] as const,
      packed ? this.alive(b.memory, "matmul: b").pointer : this.at(b, "matmul: b"),
      packed ? KINDS[b.format] : KINDS.plain,
      transposeB,
      this.at(args.out, "matmul: out"),
      ...[M, N, K, alpha] as const,
      (accumulate ? 1 : 0) | (args.activation ? 2 : 0),
      this.at(args.bias, "matmul: bias", N),
      this.at(args.residual, "matmul: residual", M * N),
      scratch,
      ...[0, M, 0, Math.ceil(N / PANEL)] as const,
    );
  }

  embedding({ wte, wpe, tokens, positions, out }: tensor.EmbeddingArgs): void {
    const [V, C] = matrixExtents(wte, "embedding: wte");
    const [T, width] = extents(out);
    expect(width === C && extents(wpe)[1] === C, `embedding: wte, wpe and out differ in their ${C} channels`);
    expectBelow(this.indices(tokens, "embedding: tokens", T), V, "embedding: tokens");
    expectBelow(this.indices(positions, "embedding: positions", T), extents(wpe)[0], "embedding: positions");
    const packed = wte instanceof PackedMatrix;
    const scratch = this.memory.scratch(PANEL * 4);
    this.call.embedding(
      packed ? this.alive(wte.memory, "embedding: wte").pointer : this.at(wte, "embedding: wte"),
      packed ? KINDS[wte.format] : KINDS.plain,
      V,
      this.at(wpe, "embedding: wpe"),
      this.at(tokens, "embedding: tokens", T, "u32"),
      this.at(positions, "embedding: positions", T, "u32"),
      this.at(out, "embedding: out"),
      ...[C, 0, T, scratch] as const,
    );
  }

  embeddingBackward({ tokens, positions, dOut, dWte, dWpe }: tensor.EmbeddingBackwardArgs): void {
    const kernels = this.call;
    for (
      const [rows, gradient, name] of [[tokens, dWte, "tokens"], [positions, dWpe, "positions"]] as const
    ) {
      if (gradient) this.#addToRows(kernels, dOut, rows, gradient, `embeddingBackward: ${name}`);
    }
  }

  /** out[rows[i]] += x[i], in the order of i. */
  #addToRows(kernels: Kernels, x: Tensor, rows: Tensor, out: Tensor, name: string): void {
    const [N, C] = extents(x);
    expect(extents(out)[1] === C, `${name}: [${x.shape}] and [${out.shape}] differ in their channels`);
    expectBelow(this.indices(rows, name, N), extents(out)[0], name);
    const at = this.at(rows, name, N, "u32");
    kernels.addToRows(this.at(x, name), at, this.at(out, name), N, C, 0, C);
  }

  layerNorm({ x, weight, bias, out, mean, rstd, epsilon }: tensor.LayerNormArgs): void {
    const [T, C] = extents(x);
    this.call.layerNorm(
      this.at(x, "layerNorm: x"),
      this.at(weight, "layerNorm: weight", C),
      this.at(bias, "layerNorm: bias", C),
      this.at(out, "layerNorm: out", T * C),
      this.at(mean, "layerNorm: mean", T),
      this.at(rstd, "layerNorm: rstd", T),
      ...[C, epsilon, 0, T] as const,
    );
  }

  layerNormBackward(args: tensor.LayerNormBackwardArgs): void {
    const [T, C] = extents(args.x);
    const kernels = this.call;
    const x = this.at(args.x, "layerNormBackward: x");
    const weight = this.at(args.weight, "layerNormBackward: weight", C);
    const mean = this.at(args.mean, "layerNormBackward: mean", T);
    const rstd = this.at(args.rstd, "layerNormBackward: rstd", T);
    const dOut = this.at(args.dOut, "layerNormBackward: dOut", T * C);
    const dX = this.at(args.dX, "layerNormBackward: dX", T * C);
    const dWeight = this.at(args.dWeight, "layerNormBackward: dWeight", C);
    const dBias = this.at(args.dBias, "layerNormBackward: dBias", C);
    if (dX) kernels.layerNormBackward(x, weight, mean, rstd, dOut, dX, args.accumulate ?? false, C, 0, T);
    if (dWeight) kernels.layerNormWeightGradient(x, mean, rstd, dOut, dWeight, T, C, 0, C);
    if (dBias) kernels.sumRows(dOut, dBias, T, C, 0, C);
  }

  gelu({ x, out }: tensor.GeluArgs): void {
    const n = x.length;
    this.call.gelu(this.at(x, "gelu: x"), this.at(out, "gelu: out", n), 0, n);
  }

  geluBackward({ x, dOut, dX, accumulate = false }: tensor.GeluBackwardArgs): void {
    const n = x.length;
    this.call.geluBackward(
      this.at(x, "geluBackward: x"),
      this.at(dOut, "geluBackward: dOut", n),
      this.at(dX, "geluBackward: dX", n),
      ...[accumulate, 0, n] as const,
    );
  }

  attention({ qkv, starts, out, logSumExp, heads, scale }: tensor.AttentionArgs): void {
    const [T, C] = extents(out);
    expect(C % heads === 0, `attention: ${C} channels do not divide into ${heads} heads`);
    const from = this.at(qkv, "attention: qkv", T * 3 * C);
    const to = this.at(out, "attention: out");
    const sums = this.at(logSumExp, "attention: logSumExp", T * heads);
    const runs = sequences(this.indices(starts, "attention: starts", T));
    const kernels = this.call;
    const scratch = this.memory.scratch(kernels.attentionScratch(C / heads) >>> 0);
    const [step, outStep] = [12 * C, 4 * C];
    for (const { begin, end } of runs) {
      const keys = from + begin * step + 4 * C;
      for (let t = begin; t < end; t += QUERIES) {
        kernels.attention(
          ...[from + t * step, step, keys, step, keys + 4 * C, step, to + t * outStep, outStep] as const,
          ...[sums + t * heads * 4, heads, C / heads, scale] as const,
          ...[Math.min(QUERIES, end - t), t - begin, 0, heads, scratch] as const,
        );
      }
    }
  }

  attentionBackward(args: tensor.AttentionBackwardArgs): void {
    const { heads, scale } = args;
    const [T, C] = extents(args.out);
    expect(C % heads === 0, `attentionBackward: ${C} channels do not divide into ${heads} heads`);
    const qkv = this.at(args.qkv, "attentionBackward: qkv", T * 3 * C);
    const out = this.at(args.out, "attentionBackward: out");
    const sums = this.at(args.logSumExp, "attentionBackward: logSumExp", T * heads);
    const dOut = this.at(args.dOut, "attentionBackward: dOut", T * C);
    const dQkv = this.at(args.dQkv, "attentionBackward: dQkv", T * 3 * C);
    const runs = sequences(this.indices(args.starts, "attentionBackward: starts", T));
    const ends = this.indices(args.ends, "attentionBackward: ends", T);
    expect(
      runs.every(({ begin, end }) => ends[begin] === end),
      "attentionBackward: starts and ends describe different sequences",
    );
    const kernels = this.call;
    const longest = runs.reduce((length, { begin, end }) => Math.max(length, end - begin), 0);
    const scratch = this.memory.scratch(kernels.attentionBackwardScratch(longest, C / heads) >>> 0);
    for (const { begin, end } of runs) {
      const [wide, narrow] = [begin * 12 * C, begin * 4 * C];
      kernels.attentionBackward(
        ...[qkv + wide, out + narrow, sums + begin * heads * 4, dOut + narrow, dQkv + wide] as const,
        ...[end - begin, heads, C / heads, scale, 0, heads, scratch] as const,
      );
    }
  }

  cachedAttention(args: tensor.CachedAttentionArgs): void {
    const { heads, scale } = args;
    const [T, C] = extents(args.out);
    expect(C % heads === 0, `cachedAttention: ${C} channels do not divide into ${heads} heads`);
    expect(args.keys.shape.length === 3, "cachedAttention: keys are (slots, n_positions, C)");
    const [count, capacity] = args.keys.shape;
    const qkv = this.at(args.qkv, "cachedAttention: qkv", T * 3 * C);
    const keys = this.at(args.keys, "cachedAttention: keys", count * capacity * C);
    const values = this.at(args.values, "cachedAttention: values", count * capacity * C);
    const out = this.at(args.out, "cachedAttention: out");
    const slots = this.indices(args.slots, "cachedAttention: slots", T);
    const positions = this.indices(args.positions, "cachedAttention: positions", T);
    expectBelow(slots, count, "cachedAttention: slots");
    expectBelow(positions, capacity, "cachedAttention: positions");
    const kernels = this.call;
    kernels.storeKeysValues(
      ...[qkv, keys, values, slots.byteOffset, positions.byteOffset, capacity, C, 0, T] as const,
    );
    const rows = runsOfPositions(slots, positions);
    const scratch = this.memory.scratch(kernels.attentionScratch(C / heads) >>> 0);
    for (const { begin, end, slot, position } of rows) {
      const cache = slot * capacity * C * 4;
      kernels.attention(
        ...[qkv + begin * 12 * C, 12 * C, keys + cache, 4 * C, values + cache, 4 * C] as const,
        ...[out + begin * 4 * C, 4 * C, 0, heads, C / heads, scale] as const,
        ...[end - begin, position, 0, heads, scratch] as const,
      );
    }
  }

  crossEntropy({ logits, targets, loss, gradientScale }: tensor.CrossEntropyArgs): void {
    const [N, V] = extents(logits);
    expectBelow(this.indices(targets, "crossEntropy: targets", N), V, "crossEntropy: targets");
    this.call.crossEntropy(
      this.at(logits, "crossEntropy: logits"),
      this.at(targets, "crossEntropy: targets", N, "u32"),
      this.at(loss, "crossEntropy: loss", N),
      ...[V, gradientScale !== undefined, gradientScale ?? 0, 0, N] as const,
    );
  }

  gather({ x, rows, out }: tensor.GatherArgs): void {
    const [T, C] = extents(x);
    const N = rows.length;
    expectBelow(this.indices(rows, "gather: rows"), T, "gather: rows");
    const at = this.at(rows, "gather: rows", N, "u32");
    this.call.gather(this.at(x, "gather: x"), at, this.at(out, "gather: out", N * C), C, 0, N);
  }

  scatterAdd({ dOut, rows, dX }: tensor.ScatterAddArgs): void {
    this.#addToRows(this.call, dOut, rows, dX, "scatterAdd");
  }

  add({ a, b, out }: tensor.AddArgs): void {
    const n = a.length;
    this.call.add(this.at(a, "add: a"), this.at(b, "add: b", n), this.at(out, "add: out", n), 0, n);
  }

  copy({ x, out }: { x: Tensor; out: Tensor }): void {
    this.call;
    const from = this.at(x, "copy: x", undefined, x.dtype) / 4;
    const to = this.at(out, "copy: out", x.length, x.dtype) / 4;
    this.memory.u32.copyWithin(to, from, from + x.length);
  }

  fill({ out, value }: { out: Tensor; value: number }): void {
    this.call;
    const at = this.at(out, "fill: out", undefined, out.dtype) / 4;
    const view = out.dtype === "f32" ? this.memory.f32 : this.memory.u32;
    view.fill(value, at, at + out.length);
  }

  dropout({ x, out, probability, key, accumulate = false }: tensor.DropoutArgs): void {
    expect(
      probability >= 0 && probability < 1,
      `dropout: probability ${probability}; expected at least 0 and below 1`,
    );
    const n = x.length;
    this.call.dropout(
      this.at(x, "dropout: x"),
      this.at(out, "dropout: out", n),
      // `uniform(i) >= probability` of 24-bit numbers, decided in whole numbers.
      Math.ceil(probability * 2 ** 24),
      1 / (1 - probability),
      ...[key[0], key[1], accumulate, 0, n] as const,
    );
  }

  sumRows({ x, out }: tensor.SumRowsArgs): void {
    const [M, N] = extents(x);
    this.call.sumRows(this.at(x, "sumRows: x"), this.at(out, "sumRows: out", N), M, N, 0, N);
  }

  sumOfSquares({ x, out, accumulate = false }: tensor.SumOfSquaresArgs): void {
    const n = x.length;
    const parts = Math.ceil(n / PART);
    const scratch = this.memory.scratch(parts * 8);
    const kernels = this.call;
    kernels.squareParts(this.at(x, "sumOfSquares: x"), n, scratch, 0, parts);
    kernels.sumParts(scratch, parts, this.at(out, "sumOfSquares: out", 1), accumulate);
  }

  clipFactor({ sumOfSquares, maxNorm, out }: tensor.ClipFactorArgs): void {
    const from = this.at(sumOfSquares, "clipFactor: sumOfSquares", 1);
    this.call.clipFactor(from, maxNorm, this.at(out, "clipFactor: out", 2));
  }

  adamw(args: tensor.AdamWArgs): void {
    const { learningRate, beta1, beta2, epsilon, weightDecay, step } = args;
    const n = args.parameters.length;
    this.call.adamw(
      this.at(args.parameters, "adamw: parameters"),
      this.at(args.gradients, "adamw: gradients", n),
      this.at(args.m, "adamw: m", n),
      this.at(args.v, "adamw: v", n),
      this.at(args.clip, "adamw: clip", 2),
      ...[beta1, 1 - beta1, beta2, 1 - beta2, epsilon] as const,
      1 - learningRate * weightDecay,
      learningRate / (1 - power(beta1, step)),
      1 / (1 - power(beta2, step)),
      ...[0, n] as const,
    );
  }
}

/** xⁿ for a whole n by products alone: `Math.pow` may differ from engine to engine in its last bit. */
function power(x: number, n: number): number {
  let result = 1;
  for (; n > 0; n = Math.floor(n / 2), x *= x) if (n % 2 === 1) result *= x;
  return result;
}

/** Neighbouring rows of one slot at rising positions, up to 64 at a time. */
function runsOfPositions(slots: Uint32Array, positions: Uint32Array) {
  const runs: { begin: number; end: number; slot: number; position: number }[] = [];
  for (let t = 0; t < slots.length; t++) {
    const run = runs.at(-1);
    const next = run && run.position + t - run.begin;
    if (run && slots[t] === run.slot && positions[t] === next && t - run.begin < QUERIES) run.end = t + 1;
    else runs.push({ begin: t, end: t + 1, slot: slots[t], position: positions[t] });
  }
  return runs;
}
