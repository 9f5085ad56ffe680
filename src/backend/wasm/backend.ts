/**
 * The kernels' home in SIMD WebAssembly: everywhere, with the same results on every run.
 *
 * A call computes at once, so nothing is ever enqueued. The kernels themselves are in `wasm/`; here they get
 * checked shapes, addresses and scratch memory. Heavy ones take a range of rows or panels, which is shared out
 * among threads; their results do not depend on how such ranges are cut. The numbers beside their names are
 * about how many nanoseconds one of that range takes: measured on one machine, good enough on others.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import { CACHE_BLOCK, NO_ADAPTER } from "../../tensor/backend.ts";
import type * as tensor from "../../tensor/backend.ts";
import { PackedMatrix, type Tensor } from "../../tensor/tensor.ts";
import { expect, expectBelow, extents, matrixExtents, sequences } from "./checks.ts";
import { type Call, call } from "./dispatch.ts";
import { DOTS, type Dots, dotsOf, WORDS } from "./dots.ts";
import { compile, type InstructionSet } from "./instance.ts";
import { canShare, cores, MOST_THREADS } from "./pool.ts";
import { aligned, KINDS, PANEL, Store, type Threads } from "./store.ts";
import { measure, trialBytes, Turbo, turboOf, WIDE } from "./turbo.ts";

/** Rows that one call of an attention kernel takes at most. */
const QUERIES = 128;
/** So few neighbouring rows over a cache are computed one by one: a block of them computes eight at once. */
const FEW = 3;
/** Elements of a partial sum of squares. */
const PART = 4096;
/** Nanoseconds of a multiplication and addition in tiles of 5 rows, 8 or 16 columns at once. */
const PRODUCT = 0.04;
const PRODUCT_WIDE = 0.02;
/** The same of a single row, where all time goes into reading weights, by their storage format. */
const PRODUCT_OF_ONE = [0.1, 0.1, 0, 0, 0.3];
/** The same with 8- and 4-bit weights, of many rows and of one. */
const ROUNDED = 0.028;
const ROUNDED_WIDE = 0.016;
const ROUNDED_OF_ONE: Record<string, number> = { q8: 0.04, q4: 0.04 };
/** The same with 4-bit weights by products of bytes. */
const NIBBLES = 0.02;
/** The same by products of bytes with 8-bit weights; less where the processor has dot products of them. */
const DOTTED: Record<Dots, number> = { none: 0, unsigned: 0.015, signed: 0.015, pairs: 0.023 };
/** So few rows go one by one with 8- and 4-bit weights, for tiles compute four whether they are there or not. */
const ROUNDED_FEW: Record<string, number> = { q8: 3, q4: 2 };
/** Nanoseconds to bring a number of b to where it is multiplied, by storage format; every block of rows does. */
const BRING = [0.05, 0.15, 0, 0, 0.25];
/** The same of bᵀ. */
const GATHER = [0.2, 0.35, 0, 0, 0.4];
/** The same of one row with keys or values of a cache, of floats or of halves. */
const PRODUCT_OF_CACHE = { f32: 0.08, f16: 0.1 };
/** Nanoseconds of an exponential in a softmax. */
const EXP = 1.2;
/** Nanoseconds to bring a table's rows to their products with relative positions, and those to the scores. */
const LAY = 0.9;

/**
 * Opens the WebAssembly backend.
 *
 * @param options `instructionSet`: `"relaxed"` (fused multiply-add, faster) or `"strict"` (the same bits on every
 * machine); by default relaxed where the engine has it. `threads`: how many compute, by default as many as there
 * are cores; one where this runtime cannot share memory with workers. The results do not depend on it.
 * @returns The backend; dispose it to free its memory.
 * @throws {WhetError} `backend` if the engine cannot run the instruction set, `option` for a number of threads
 * that makes no sense.
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
  options: { instructionSet?: InstructionSet; threads?: number } = {},
): Promise<tensor.Backend> {
  return await openWasmBackend(options);
}

/** {@linkcode createWasmBackend} with the pool's settings and the tiles in reach, for tests and measurements. */
export async function openWasmBackend(
  { instructionSet, threads: wanted, wide, dots, ...settings }:
    & { instructionSet?: InstructionSet; wide?: boolean; dots?: Dots }
    & Partial<Threads> = {},
): Promise<WasmBackend> {
  if (wanted !== undefined && !(Number.isInteger(wanted) && wanted >= 1 && wanted <= MOST_THREADS)) {
    throw new WhetError(
      "option",
      `threads: expected a whole number from 1 to ${MOST_THREADS}, got ${wanted}`,
    );
  }
  const threads = wanted === undefined ? cores() : canShare() ? wanted : 1;
  const { set, module } = await compile(instructionSet, threads > 1);
  const turbo = wide === undefined ? turboOf(module) : new Turbo(wide);
  return new WasmBackend(module, set, { threads, ...settings }, turbo, dots);
}

/** A build, a number of threads, what 8-bit products are made of and whether 256 bits are in use, in words. */
export function describe(set: InstructionSet, threads: number, dots: Dots, turbo: boolean): string {
  return [
    `SIMD WebAssembly, ${set}`,
    ...dots === "none" ? [] : [WORDS[dots]],
    `${threads} thread${threads > 1 ? "s" : ""}`,
    ...turbo ? ["256-bit (turbo)"] : [],
  ].join(", ");
}

/** {@linkcode tensor.Backend} over one linear memory. */
export class WasmBackend extends Store implements tensor.Backend {
  readonly name = "wasm";
  readonly #set: InstructionSet;
  readonly #turbo: Turbo;
  readonly #dots: Dots;

  /**
   * @param module A compiled build of the kernels.
   * @param set Which build it is.
   * @param threads How many threads.
   * @param turbo Whether to compute products 16 columns at once.
   * @param dots How to multiply by 8-bit weights; by default as the processor can.
   */
  constructor(
    module: WebAssembly.Module,
    set: InstructionSet,
    threads: Threads,
    turbo = turboOf(module),
    dots?: Dots,
  ) {
    super(module, threads);
    this.#set = set;
    this.#turbo = turbo;
    this.#dots = dots ?? dotsOf(this.kernels);
  }

  get description(): string {
    return describe(this.#set, this.pool?.strength ?? 1, this.#dots, this.#turbo.active);
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
    if (M === 0 || N === 0) return;
    // Packed along its columns, a matrix is its own transpose to the kernels.
    const transposed = packed ? transposeB !== (b.axis === 1) : transposeB;
    const wide = M > 1 && this.#turbo.takes(M * N * K, () => this.#measure());
    if (packed && (b.format === "q8" || b.format === "q4")) {
      return this.#quantized(args, b, transposed, M, N, K, wide);
    }
    const kind = packed ? KINDS[b.format] : KINDS.plain;
    const gathered = packed && transposed;
    const { scratch, stride } = this.scratch(this.call.matmulScratch(M, N, K, gathered) >>> 0);
    const product = {
      ...{ M, N, K, multiple: 5, height: this.call.matmulRows(M, K, gathered) >>> 0 },
      ...{ pack: M === 1 ? 0 : 0.4, bring: M === 1 ? 0 : (transposed ? GATHER : BRING)[kind] },
    };
    const each = wide ? PRODUCT_WIDE : PRODUCT;
    const cost = M === 1 ? PRODUCT_OF_ONE[kind] : each * Math.max(1, 5 / M);
    this.share(
      { kernel: "matmul", cost, stride, product },
      ...[this.at(args.a, "matmul: a"), transposeA] as const,
      packed ? this.alive(b.memory, "matmul: b").pointer : this.at(b, "matmul: b"),
      ...[kind, transposed] as const,
      this.at(args.out, "matmul: out"),
      ...[M, N, K, alpha, ...this.#epilogue(args, M, N, wide)] as const,
      ...[scratch, 0, M, 0, Math.ceil(N / PANEL)] as const,
    );
  }

  /** A trial's measurement. */
  #measure() {
    return measure(this.kernels, this.memory.memory, this.memory.scratch(trialBytes(this.kernels)));
  }

  /** What follows the sums: the kernels' flags, the bias's and the residual's address. */
  #epilogue(args: tensor.MatmulArgs, M: number, N: number, wide: boolean): [number, number, number] {
    return [
      (args.accumulate ? 1 : 0) | (args.activation ? 2 : 0) | (wide ? WIDE : 0),
      this.at(args.bias, "matmul: bias", N),
      this.at(args.residual, "matmul: residual", M * N),
    ];
  }

  /** A product with an 8- or 4-bit weight, whose activations are rounded to whole numbers first. */
  #quantized(
    args: tensor.MatmulArgs,
    b: PackedMatrix,
    transposed: boolean,
    M: number,
    N: number,
    K: number,
    wide: boolean,
  ): void {
    const dots = b.format === "q8" && this.#dots !== "none" && !args.precise;
    const found = DOTS.indexOf(this.#dots);
    const kind = KINDS[b.format];
    const weight = this.alive(b.memory, "matmul: b");
    const { pointer } = weight;
    const a = this.at(args.a, "matmul: a");
    const out = this.at(args.out, "matmul: out");
    const after = [args.alpha ?? 1, ...this.#epilogue(args, M, N, wide && !dots)] as const;
    const panels = Math.ceil(N / PANEL);
    if (M <= ROUNDED_FEW[b.format] && !transposed) {
      const bytes = b.format === "q4" ? "nibbleBytes" : dots ? "dotsBytes" : "activationBytes";
      const step = this.call[bytes](1, K) >>> 0;
      const { activations, scratch, stride } = this.#activations(M * step, 64);
      for (let m = 0; m < M; m++) {
        const [row, to] = [a + m * K * 4, activations + m * step];
        if (b.format === "q4") this.call.nibbleRow(row, K, to);
        else if (dots) this.call.dotsRow(row, found, K, to);
        else this.call.roundRow(row, K, to);
      }
      const shared = { cost: ROUNDED_OF_ONE[b.format] * M * K * PANEL, stride };
      const rest = [out, M, N, K, ...after, scratch, 0, panels] as const;
      const rows = [activations, step, pointer] as const;
      if (b.format === "q4") this.share({ kernel: "rowNibbles", ...shared }, ...rows, ...rest);
      else if (dots) this.share({ kernel: "rowDots", ...shared }, ...rows, found, ...rest);
      else this.share({ kernel: "rowRounded", ...shared }, ...rows, ...rest);
      return;
    }
    const product = { M, N, K, multiple: 4, pack: 0 };
    const slower = Math.max(1, 4 / M);
    const rounding = { cost: 0.5 * K };
    const sizes = [out, M, N, K, ...after] as const;
    const whole = [0, M, 0, panels] as const;
    if (dots) {
      const { activations, scratch, stride } = this.#activations(
        this.call.dotsBytes(M, K),
        this.call.dotsScratch(M, K, transposed),
      );
      const cut = { ...product, height: this.call.dotsHeight(M) >>> 0, bring: transposed ? 0.6 : 0.03 };
      this.share({ kernel: "dotsRows", ...rounding }, ...[a, found, M, K, activations, 0, M] as const);
      this.share(
        { kernel: "matmulDots", cost: DOTTED[this.#dots] * slower, stride, product: cut },
        ...[activations, pointer, found, transposed, ...sizes, scratch, ...whole] as const,
      );
      return;
    }
    if (b.format === "q4" && !transposed && !wide) {
      const { activations, scratch, stride } = this.#activations(
        this.call.nibbleBytes(M, K),
        this.call.nibbleScratch(M),
      );
      const cut = { ...product, height: this.call.nibbleHeight(M) >>> 0, bring: 0 };
      this.share({ kernel: "nibbleRows", ...rounding }, ...[a, M, K, activations, 0, M] as const);
      this.share(
        { kernel: "matmulNibbles", cost: NIBBLES * slower, stride, product: cut },
        ...[activations, pointer, ...sizes, scratch, ...whole] as const,
      );
      return;
    }
    if (transposed && !weight.measured) {
      this.share(
        { kernel: "measureRows", cost: 0.5 * 32 * K },
        ...[kind, pointer, N, K, 0, Math.ceil(N / 32)] as const,
      );
      weight.measured = true;
    }
    const { activations, scratch, stride } = this.#activations(
      this.call.activationBytes(M, K),
      this.call.roundedScratch(M, N),
    );
    const cut = { ...product, height: this.call.roundedRows(M) >>> 0, bring: transposed ? 0.2 : 0.1 };
    this.share(
      { kernel: "roundRows", ...rounding },
      ...[a, kind, transposed, M, K, activations, 0, M] as const,
    );
    this.share(
      { kernel: "matmulRounded", cost: (wide ? ROUNDED_WIDE : ROUNDED) * slower, stride, product: cut },
      ...[activations, pointer, kind, transposed, ...sizes, scratch, ...whole] as const,
    );
  }

  /** Memory for rounded activations, and each thread's scratch memory behind it. */
  #activations(bytes: number, each: number): { activations: number; scratch: number; stride: number } {
    const common = aligned(bytes >>> 0);
    const { scratch, stride } = this.scratch(each >>> 0, common);
    return { activations: scratch - common, scratch, stride };
  }

  embedding({ wte, wpe, tokens, positions, out }: tensor.EmbeddingArgs): void {
    const [V, C] = matrixExtents(wte, "embedding: wte");
    const [T, width] = extents(out);
    expect(width === C && extents(wpe)[1] === C, `embedding: wte, wpe and out differ in their ${C} channels`);
    expectBelow(this.indices(tokens, "embedding: tokens", T), V, "embedding: tokens");
    expectBelow(this.indices(positions, "embedding: positions", T), extents(wpe)[0], "embedding: positions");
    const packed = wte instanceof PackedMatrix;
    const { scratch, stride } = this.scratch((C + PANEL) * 4);
    this.share(
      { kernel: "embedding", cost: (packed ? 1 : 0.3) * C, stride },
      packed ? this.alive(wte.memory, "embedding: wte").pointer : this.at(wte, "embedding: wte"),
      packed ? KINDS[wte.format] : KINDS.plain,
      packed && wte.axis === 1,
      V,
      this.at(wpe, "embedding: wpe"),
      this.at(tokens, "embedding: tokens", T, "u32"),
      this.at(positions, "embedding: positions", T, "u32"),
      this.at(out, "embedding: out"),
      ...[C, 0, T, scratch] as const,
    );
  }

  embeddingBackward({ tokens, positions, dOut, dWte, dWpe }: tensor.EmbeddingBackwardArgs): void {
    for (
      const [rows, gradient, name] of [[tokens, dWte, "tokens"], [positions, dWpe, "positions"]] as const
    ) {
      if (gradient) this.#addToRows(dOut, rows, gradient, `embeddingBackward: ${name}`);
    }
  }

  /** out[rows[i]] += x[i], in the order of i. */
  #addToRows(x: Tensor, rows: Tensor, out: Tensor, name: string): void {
    const [N, C] = extents(x);
    expect(extents(out)[1] === C, `${name}: [${x.shape}] and [${out.shape}] differ in their channels`);
    expectBelow(this.indices(rows, name, N), extents(out)[0], name);
    const at = this.at(rows, name, N, "u32");
    this.share(
      { kernel: "addToRows", cost: 0.5 * N },
      ...[this.at(x, name), at, this.at(out, name), N, C, 0, C] as const,
    );
  }

  layerNorm({ x, weight, bias, out, mean, rstd, epsilon }: tensor.LayerNormArgs): void {
    const [T, C] = extents(x);
    this.share(
      { kernel: "layerNorm", cost: 0.6 * C },
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
    const x = this.at(args.x, "layerNormBackward: x");
    const weight = this.at(args.weight, "layerNormBackward: weight", C);
    const mean = this.at(args.mean, "layerNormBackward: mean", T);
    const rstd = this.at(args.rstd, "layerNormBackward: rstd", T);
    const dOut = this.at(args.dOut, "layerNormBackward: dOut", T * C);
    const dX = this.at(args.dX, "layerNormBackward: dX", T * C);
    const dWeight = this.at(args.dWeight, "layerNormBackward: dWeight", C);
    const dBias = this.at(args.dBias, "layerNormBackward: dBias", C);
    const calls: Call[] = [];
    if (dX) {
      const accumulate = args.accumulate ?? false;
      calls.push(
        call({ kernel: "layerNormBackward", cost: C }, x, weight, mean, rstd, dOut, dX, accumulate, C, 0, T),
      );
    }
    if (dWeight) {
      calls.push(
        call({ kernel: "layerNormWeightGradient", cost: 0.4 * T }, x, mean, rstd, dOut, dWeight, T, C, 0, C),
      );
    }
    if (dBias) calls.push(call({ kernel: "sumRows", cost: 0.1 * T }, dOut, dBias, T, C, 0, C));
    this.shareAll(calls);
  }

  gelu({ x, out, exact = false }: tensor.GeluArgs): void {
    const n = x.length;
    this.share(
      { kernel: "gelu", cost: exact ? 1.7 : 1.3 },
      ...[this.at(x, "gelu: x"), this.at(out, "gelu: out", n), exact, 0, n] as const,
    );
  }

  geluBackward({ x, dOut, dX, accumulate = false }: tensor.GeluBackwardArgs): void {
    const n = x.length;
    this.share(
      { kernel: "geluBackward", cost: 2 },
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
    const D = C / heads;
    const { scratch, stride } = this.scratch(this.call.attentionScratch(D) >>> 0);
    const { wide } = this.#turbo;
    const calls: Call[] = [];
    for (const { begin, end } of runs) {
      for (let t = begin; t < end; t += QUERIES) {
        const [count, first] = [Math.min(QUERIES, end - t), t - begin];
        calls.push(call(
          { kernel: "attention", cost: attentionCost(count, first, D, wide), stride },
          ...[from + begin * 12 * C, to + begin * 4 * C, sums + begin * heads * 4, heads, D, scale] as const,
          ...[first, count, wide, 0, heads, scratch] as const,
        ));
      }
    }
    this.shareAll(calls);
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
    const D = C / heads;
    const longest = runs.reduce((length, { begin, end }) => Math.max(length, end - begin), 0);
    const { scratch, stride } = this.scratch(this.call.attentionBackwardScratch(longest, D) >>> 0);
    const { wide } = this.#turbo;
    this.shareAll(runs.map(({ begin, end }) => {
      const [from, to] = [begin * 12 * C, begin * 4 * C];
      return call(
        { kernel: "attentionBackward", cost: 2.5 * attentionCost(end - begin, 0, D, wide), stride },
        ...[qkv + from, out + to, sums + begin * heads * 4, dOut + to, dQkv + from] as const,
        ...[end - begin, heads, D, scale, wide, 0, heads, scratch] as const,
      );
    }));
  }

  cachedAttention(args: tensor.CachedAttentionArgs): void {
    const { heads, scale } = args;
    const [T, C] = extents(args.out);
    expect(C % heads === 0, `cachedAttention: ${C} channels do not divide into ${heads} heads`);
    expect(args.keys.shape.length === 3, "cachedAttention: keys are (slots or blocks, positions, C)");
    const [stretches, length] = args.keys.shape;
    const [count, capacity] = args.blocks
      ? matrixExtents(args.blocks, "cachedAttention: blocks").map((n, i) => i ? n * CACHE_BLOCK : n)
      : args.keys.shape;
    const { dtype } = args.keys;
    expect(dtype !== "u32", "cachedAttention: keys and values are f32 or f16");
    const qkv = this.at(args.qkv, "cachedAttention: qkv", T * 3 * C);
    const keys = this.at(args.keys, "cachedAttention: keys", stretches * length * C, dtype);
    const values = this.at(args.values, "cachedAttention: values", stretches * length * C, dtype);
    const out = this.at(args.out, "cachedAttention: out");
    const slots = this.indices(args.slots, "cachedAttention: slots", T);
    const positions = this.indices(args.positions, "cachedAttention: positions", T);
    expectBelow(slots, count, "cachedAttention: slots");
    expectBelow(positions, capacity, "cachedAttention: positions");
    let table = 0;
    if (args.blocks) {
      const blocks = this.indices(args.blocks, "cachedAttention: blocks", args.blocks.length);
      expect(
        length === CACHE_BLOCK,
        `cachedAttention: blocks of ${length} positions; they have ${CACHE_BLOCK}`,
      );
      expectBelow(blocks, stretches, "cachedAttention: blocks");
      table = blocks.byteOffset;
    }
    const D = C / heads;
    const half = dtype === "f16";
    const cache = [keys, values, half] as const;
    const places = [slots.byteOffset, positions.byteOffset, capacity, table] as const;
    this.share(
      { kernel: "storeKeysValues", cost: (half ? 2.5 : 1.2) * C },
      qkv,
      ...cache,
      ...places,
      heads,
      D,
      0,
      T,
    );
    const { wide } = this.#turbo;
    const runs = runsOfPositions(slots, positions);
    const bytes = Math.max(this.call.cachedRowsScratch(heads, D), this.call.cachedAttentionScratch(D));
    const { scratch, stride } = this.scratch(bytes); // which may move the memory that slots and positions show
    this.shareAll(runs.map(({ begin, end, slot, position, seen }) => {
      if (slot === undefined) {
        return call(
          {
            kernel: "cachedRows",
            cost: seen / (end - begin) * (2 * D * PRODUCT_OF_CACHE[dtype] + EXP),
            stride,
          },
          ...[qkv, ...cache, ...places, out, heads, D, scale, begin * heads, end * heads, scratch] as const,
        );
      }
      return call(
        { kernel: "cachedAttention", cost: attentionCost(end - begin, position, D, wide), stride },
        ...[
          qkv + begin * 12 * C,
          ...cache,
          slot,
          capacity,
          table,
          out + begin * 4 * C,
          heads,
          D,
          scale,
        ] as const,
        ...[end - begin, position, wide, 0, heads, scratch] as const,
      );
    }));
  }

  disentangledAttention(args: tensor.DisentangledAttentionArgs): void {
    const { positionKeys, positionQueries, heads, scale } = args;
    const [T, C] = extents(args.out);
    expect(C % heads === 0, `disentangledAttention: ${C} channels do not divide into ${heads} heads`);
    const qkv = this.at(args.qkv, "disentangledAttention: qkv", T * 3 * C);
    const out = this.at(args.out, "disentangledAttention: out");
    const runs = sequences(this.indices(args.starts, "disentangledAttention: starts", T));
    const ends = this.indices(args.ends, "disentangledAttention: ends", T);
    expect(
      runs.every(({ begin, end }) => ends[begin] === end),
      "disentangledAttention: starts and ends describe different sequences",
    );
    const longest = runs.reduce((length, { begin, end }) => Math.max(length, end - begin), 0);
    const tables = [positionKeys, positionQueries].filter((table) => table !== undefined);
    const nearest = tables.length > 0 ? this.#nearest(args.buckets, tables, C, longest) : 0;
    const keys = this.at(positionKeys, "disentangledAttention: positionKeys");
    const queries = this.at(positionQueries, "disentangledAttention: positionQueries");
    const D = C / heads;
    const bytes = aligned(this.call.positionsBytes(longest, heads, D) >>> 0);
    const { scratch, stride } = this.scratch(
      this.call.disentangledAttentionScratch(D) >>> 0,
      bytes * tables.length,
    );
    const packedKeys = positionKeys ? scratch - bytes * tables.length : 0;
    const packedQueries = positionQueries ? scratch - bytes : 0;
    if (tables.length > 0) {
      this.share(
        { kernel: "packPositions", cost: 0.8 * tables.length * 2 * longest * D, stride },
        ...[keys, queries, nearest, longest, heads, D, scale, packedKeys, packedQueries, 0, heads] as const,
        scratch,
      );
    }
    const { wide } = this.#turbo;
    const products = (2 + 1.25 * tables.length) * D * (wide ? PRODUCT_WIDE : PRODUCT);
    this.shareAll(runs.flatMap(({ begin, end }) => {
      const total = end - begin;
      const wanted = args.firstAlone ? 1 : total;
      return Array.from({ length: Math.ceil(wanted / QUERIES) }, (_, block) => {
        const first = block * QUERIES;
        const count = Math.min(QUERIES, wanted - first);
        const cost = Math.max(8, count) * total * (products + EXP + LAY * tables.length);
        return call(
          { kernel: "disentangledAttention", cost, stride },
          ...[qkv + begin * 12 * C, packedKeys, packedQueries, longest, out + begin * 4 * C] as const,
          ...[heads, D, scale, first, count, total, wide, 0, heads, scratch] as const,
        );
      });
    }));
  }

  /** Where `buckets` names the row of relative position 0, once all that it names is found to be there. */
  #nearest(buckets: Tensor | undefined, tables: Tensor[], C: number, longest: number): number {
    const name = "disentangledAttention: buckets";
    expect(buckets !== undefined, `${name}: missing; position keys and queries need them`);
    const rows = tables.map((table) => {
      const [P, width] = matrixExtents(table, "disentangledAttention: positionKeys, positionQueries");
      expect(width === C, `disentangledAttention: relative positions have ${width} channels, rows ${C}`);
      return P;
    });
    const n = buckets.length;
    expect(
      n % 2 === 1 && n >= 2 * longest - 1,
      `${name}: ${n} of them; a sequence of ${longest} needs an odd number from ${2 * longest - 1} on`,
    );
    expectBelow(this.indices(buckets, name), Math.min(...rows), name);
    return this.at(buckets, name, n, "u32") + (n - 1) / 2 * 4;
  }

  lowRank({ x, A, B, scaling, h, out }: tensor.LowRankArgs): void {
    this.matmul({ a: x, b: A, transposeB: true, out: h });
    this.matmul({ a: h, b: B, transposeB: true, alpha: scaling, accumulate: true, out });
  }

  lowRankRows({ x, A, B, scaling, adapters, out }: tensor.LowRankRowsArgs): void {
    const [T, K] = matrixExtents(x, "lowRankRows: x");
    const [, N] = matrixExtents(out, "lowRankRows: out");
    expect(
      A.shape.length === 3 && B.shape.length === 3,
      "lowRankRows: A and B are (adapters, R, in) and (adapters, R, out)",
    );
    const [count, R, width] = A.shape;
    expect(
      width === K && B.shape[2] === N && B.shape[0] === count && B.shape[1] === R && out.shape[0] === T,
      `lowRankRows: x [${x.shape}], A [${A.shape}] and B [${B.shape}] do not give out [${out.shape}]`,
    );
    const numbers = this.indices(adapters, "lowRankRows: adapters", T);
    for (const number of numbers) {
      expect(
        number < count || number === NO_ADAPTER,
        `lowRankRows: adapters has ${number}, but there are ${count}`,
      );
    }
    const at = numbers.byteOffset; // Room for scratch may move the memory that they show.
    const { scratch, stride } = this.scratch(this.call.lowRankRowsScratch(R) >>> 0);
    this.share(
      { kernel: "lowRankRows", cost: 0.15 * R * (K + N), stride },
      ...[this.at(x, "lowRankRows: x"), this.at(A, "lowRankRows: A"), this.at(B, "lowRankRows: B")] as const,
      this.at(scaling, "lowRankRows: scaling", count),
      at,
      this.at(out, "lowRankRows: out"),
      ...[K, N, R, 0, T, scratch] as const,
    );
  }

  crossEntropy({ logits, targets, loss, gradientScale }: tensor.CrossEntropyArgs): void {
    const [N, V] = extents(logits);
    expectBelow(this.indices(targets, "crossEntropy: targets", N), V, "crossEntropy: targets");
    this.share(
      { kernel: "crossEntropy", cost: 1.1 * V },
      this.at(logits, "crossEntropy: logits"),
      this.at(targets, "crossEntropy: targets", N, "u32"),
      this.at(loss, "crossEntropy: loss", N),
      ...[V, gradientScale !== undefined, gradientScale ?? 0, 0, N] as const,
    );
  }

  sample({ logits, rows, seen, tokens, logProbs }: tensor.SampleArgs): void {
    const [N, V] = matrixExtents(logits, "sample: logits");
    expect(V > 0, "sample: V is 0");
    expect(rows.length === N, `sample: ${N} rows of logits, but options for ${rows.length}`);
    if (N === 0) return;
    const [slots, words] = seen ? matrixExtents(seen, "sample: seen") : [0, 0];
    expect(!seen || words * 32 >= V, `sample: ${words} words of seen do not hold ${V} tokens`);
    for (const { slot, repetitionPenalty } of rows) {
      expect(seen !== undefined || repetitionPenalty === 1, "sample: a repetition penalty needs seen");
      expect(!seen || slot >= 0 && slot < slots, `sample: slot ${slot}; expected a number below ${slots}`);
    }
    // A row's options lie before the scratch memory, as f64.
    const options = rows.flatMap((
      { temperature, topK, topP, repetitionPenalty, draw, slot },
    ) => [temperature, topK, topP, repetitionPenalty, draw, slot]);
    const greedy = rows.every((row) => row.temperature === 0 && row.repetitionPenalty === 1);
    const bytes = Math.ceil(options.length / 8) * 64;
    const { scratch, stride } = this.scratch(greedy ? 0 : this.call.sampleScratch(V) >>> 0, bytes);
    new Float64Array(this.memory.memory.buffer, scratch - bytes, options.length).set(options);
    this.share(
      { kernel: "sample", cost: (greedy ? 1 : 4) * V, stride },
      ...[this.at(logits, "sample: logits"), V, scratch - bytes] as const,
      ...[this.at(seen, "sample: seen", undefined, "u32"), words] as const,
      this.at(tokens, "sample: tokens", N, "u32"),
      this.at(logProbs, "sample: logProbs", N),
      ...[0, N, greedy ? 0 : scratch] as const,
    );
  }

  gather({ x, rows, out }: tensor.GatherArgs): void {
    const [T, C] = extents(x);
    const N = rows.length;
    expectBelow(this.indices(rows, "gather: rows"), T, "gather: rows");
    const at = this.at(rows, "gather: rows", N, "u32");
    this.share(
      { kernel: "gather", cost: 0.1 * C },
      ...[this.at(x, "gather: x"), at, this.at(out, "gather: out", N * C), C, 0, N] as const,
    );
  }

  scatterAdd({ dOut, rows, dX }: tensor.ScatterAddArgs): void {
    this.#addToRows(dOut, rows, dX, "scatterAdd");
  }

  add({ a, b, out }: tensor.AddArgs): void {
    const n = a.length;
    this.share(
      { kernel: "add", cost: 0.3 },
      ...[this.at(a, "add: a"), this.at(b, "add: b", n), this.at(out, "add: out", n), 0, n] as const,
    );
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
    this.share(
      { kernel: "dropout", cost: 1.2 },
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
    this.share(
      { kernel: "sumRows", cost: 0.1 * M },
      ...[this.at(x, "sumRows: x"), this.at(out, "sumRows: out", N), M, N, 0, N] as const,
    );
  }

  sumOfSquares({ x, out, accumulate = false }: tensor.SumOfSquaresArgs): void {
    const n = x.length;
    const parts = Math.ceil(n / PART);
    const scratch = this.memory.scratch(parts * 8);
    this.share(
      { kernel: "squareParts", cost: 0.07 * PART },
      ...[this.at(x, "sumOfSquares: x"), n, scratch, 0, parts] as const,
    );
    this.call.sumParts(scratch, parts, this.at(out, "sumOfSquares: out", 1), accumulate);
  }

  clipFactor({ sumOfSquares, maxNorm, out }: tensor.ClipFactorArgs): void {
    const from = this.at(sumOfSquares, "clipFactor: sumOfSquares", 1);
    this.call.clipFactor(from, maxNorm, this.at(out, "clipFactor: out", 2));
  }

  adamw(args: tensor.AdamWArgs): void {
    const { learningRate, beta1, beta2, epsilon, weightDecay, step } = args;
    const n = args.parameters.length;
    this.share(
      { kernel: "adamw", cost: 1 },
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

/** Nanoseconds of a head's attention of `count` rows, the first of which sees first + 1 keys. */
function attentionCost(count: number, first: number, D: number, wide: boolean): number {
  return Math.max(8, count) * (first + (count + 1) / 2) * (2 * D * (wide ? PRODUCT_WIDE : PRODUCT) + EXP);
}

/** xⁿ for a whole n by products alone: `Math.pow` may differ from engine to engine in its last bit. */
function power(x: number, n: number): number {
  let result = 1;
  for (; n > 0; n = Math.floor(n / 2), x *= x) if (n % 2 === 1) result *= x;
  return result;
}

/**
 * Rows of one slot at rising positions, up to 128 at a time; and rows of any slots (`slot` is undefined), where too
 * few of one follow one another. `seen`: how many positions they see, all together.
 */
function runsOfPositions(slots: Uint32Array, positions: Uint32Array) {
  const runs: { begin: number; end: number; slot?: number; position: number; seen: number }[] = [];
  for (let t = 0; t < slots.length;) {
    let end = t;
    let seen = 0;
    do seen += positions[end++] + 1; while (
      end < slots.length && end - t < QUERIES &&
      slots[end] === slots[t] && positions[end] === positions[t] + end - t
    );
    const slot = end - t > FEW ? slots[t] : undefined;
    const last = runs.at(-1);
    if (last && slot === undefined && last.slot === undefined) {
      last.end = end;
      last.seen += seen;
    } else {
      runs.push({ begin: t, end, slot, position: positions[t], seen });
    }
    t = end;
  }
  return runs;
}
