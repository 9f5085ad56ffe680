/**
 * The kernels' rows, at the sizes that GPT-2 has.
 *
 * @module
 */
import type { SampleRow } from "../../src/tensor/backend.ts";
import type { WeightFormat } from "../../src/tensor/tensor.ts";
import type { Bench } from "./bench.ts";

/** How weights are stored. */
export const FORMATS: readonly WeightFormat[] = ["f32", "f16", "q8", "q4"];

/** Bytes of a stored number, the scales and minima of groups of 32 among them. */
const BYTES: Record<WeightFormat, number> = { f32: 4, f16: 2, q8: 1.125, q4: 0.625 };

/** All kernels. */
export async function kernels(bench: Bench): Promise<void> {
  await products(bench);
  await adapters(bench);
  await vectors(bench);
  await attention(bench);
  await rows(bench);
  await losses(bench);
  await sampling(bench);
  await elements(bench);
}

/** Each of the large tiles, whatever a trial finds, and products in other numbers than f32. */
export async function variants(bench: Bench): Promise<void> {
  const shapes = bench.quick ? [[64, 64, 64]] : [[4096, 4096, 4096], [1024, 768, 3072], [4096, 768, 768]];
  const tiles = bench.quick
    ? ["64x64", "32x64"] as const
    : ["128x128", "128x64", "64x64", "64x64x8", "32x64"] as const;
  const product = (bench: Bench, how: string, [M, K, N]: number[], format: WeightFormat) => {
    const row = { group: "variants", name: `${M} × ${K} × ${N}, ${format}, ${how}`, unit: "GFLOP/s" };
    return bench.kernel({ ...row, of: "fp32" }, 2 * M * K * N / 1e9, ({ backend, tensor, packed, empty }) => {
      const [a, b, out] = [tensor(M, K), packed(K, N, format), empty([M, N])];
      return () => backend.matmul({ a, b, out });
    });
  };
  for (const tile of tiles) {
    await bench.variant({ tile }, async (bench) => {
      for (const shape of shapes) await product(bench, `tile ${tile}`, shape, "f32");
    });
  }
  const numbers = [["f16", ["f32", "f16"]], ["i8", ["q8", "q4"]]] as const;
  for (const [arithmetic, formats] of numbers) {
    await bench.variant({ arithmetic }, async (bench) => {
      for (const shape of shapes) {
        for (const format of formats) await product(bench, `in ${arithmetic}`, shape, format);
      }
    });
  }
}

/** Products with frozen weights, and with their transposes, as backward passes and the output layer have them. */
async function products(bench: Bench): Promise<void> {
  const shapes = bench.quick ? [[64, 64, 64]] : [
    [4096, 4096, 4096],
    [1024, 768, 3072],
    [4096, 768, 2304],
    [4096, 768, 768],
    [4096, 768, 3072],
    [4096, 3072, 768],
  ];
  for (const [M, K, N] of shapes) {
    for (const format of FORMATS) {
      for (const transposeB of [false, true]) {
        const name = `${M} × ${K} × ${N}, ${format}${transposeB ? ", transposed" : ""}`;
        const row = { group: "matmul", name, unit: "GFLOP/s", of: "fp32" } as const;
        await bench.kernel(row, 2 * M * K * N / 1e9, ({ backend, tensor, packed, empty }) => {
          const b = transposeB ? packed(N, K, format) : packed(K, N, format);
          const [a, out] = [tensor(M, K), empty([M, N])];
          return () => backend.matmul({ a, b, transposeB, out });
        });
      }
    }
  }
  // The output layer, as many rows at once as training takes.
  const [M, K, N] = bench.quick ? [4, 32, 100] : [64, 768, 50257];
  for (const format of FORMATS) {
    const row = { group: "matmul", name: `vocabulary, ${M} × ${K} × ${N}, ${format}`, unit: "GFLOP/s" };
    await bench.kernel({ ...row, of: "fp32" }, 2 * M * K * N / 1e9, ({ backend, tensor, packed, empty }) => {
      const [a, b, out] = [tensor(M, K), packed(N, K, format, 1), empty([M, N])];
      return () => backend.matmul({ a, b, transposeB: true, out });
    });
  }
}

/** The thin products of an adapter and its gradients, and the gradient of a whole weight. */
async function adapters(bench: Bench): Promise<void> {
  const [T, C, R, N] = bench.quick ? [32, 16, 8, 48] : [4096, 768, 8, 2304];
  const kinds: [what: string, M: number, K: number, N: number, flags: Record<string, boolean>][] = [
    ["x Aᵀ", T, C, R, { transposeB: true }],
    ["h Bᵀ", T, R, N, { transposeB: true, accumulate: true }],
    ["gradient of A", R, T, C, { transposeA: true }],
    ["gradient of B", N, T, R, { transposeA: true }],
    ["gradient of a weight", C, T, N, { transposeA: true }],
  ];
  for (const [what, M, K, N, flags] of kinds) {
    const row = { group: "matmul", name: `${what}, ${M} × ${K} × ${N}, plain`, unit: "GFLOP/s" };
    await bench.kernel({ ...row, of: "fp32" }, 2 * M * K * N / 1e9, ({ backend, tensor }) => {
      const a = flags.transposeA ? tensor(K, M) : tensor(M, K);
      const b = flags.transposeB ? tensor(N, K) : tensor(K, N);
      const out = tensor(M, N);
      return () => backend.matmul({ a, b, out, ...flags });
    });
  }
}

/** One row times every weight of a 124M, in turn, as a decoded token needs them: more than caches hold. */
async function vectors(bench: Bench): Promise<void> {
  const [C, V, layers] = bench.quick ? [32, 100, 1] : [768, 50257, 12];
  const shapes = [[C, 3 * C], [C, C], [C, 4 * C], [4 * C, C]];
  for (const format of FORMATS) {
    const numbers = layers * 12 * C * C + V * C;
    const name = `1 × every weight of ${layers} layers ${C} wide and the vocabulary, ${format}`;
    const row = { group: "matvec", name, unit: "GB/s", of: "bandwidth" } as const;
    await bench.kernel(row, numbers * BYTES[format] / 1e9, ({ backend, tensor, packed, empty }) => {
      const weights = Array.from({ length: layers }, () => shapes.map(([K, N]) => packed(K, N, format)))
        .flat();
      const wte = packed(V, C, format, 1);
      const [x, wide, out, logits] = [tensor(1, C), tensor(1, 4 * C), empty([4 * C]), empty([1, V])];
      return () => {
        for (const b of weights) {
          const [K, N] = b.shape;
          backend.matmul({ a: K === C ? x : wide, b, out: out.slice(0, [1, N]) });
        }
        backend.matmul({ a: x, b: wte, transposeB: true, out: logits });
      };
    });
  }
}

/** Attention of whole sequences, forward and back, and of one new token over what was cached. */
async function attention(bench: Bench): Promise<void> {
  const sizes = bench.quick ? [[2, 16, 2, 64]] : [[8, 512, 12, 768], [4, 1024, 12, 768]];
  for (const [B, T, heads, C] of sizes) {
    const scale = 1 / Math.sqrt(C / heads);
    // Two products forward and five back, of half of each T × T.
    const flops = B * T * (T + 1) / 2 * 4 * C;
    const row = (what: string) => ({
      ...{ group: "attention", name: `${what}, ${B} × ${T}, ${heads} heads of ${C / heads}` },
      ...{ unit: "GFLOP/s", of: "fp32" } as const,
    });
    await bench.kernel(row("forward"), flops / 1e9, ({ backend, tensor, indices, empty }) => {
      const [qkv, starts] = [tensor(B * T, 3 * C), indices(B * T, (i) => i - i % T)];
      const [out, logSumExp] = [empty([B * T, C]), empty([B * T, heads])];
      return () => backend.attention({ qkv, starts, out, logSumExp, heads, scale });
    });
    await bench.kernel(row("backward"), 2.5 * flops / 1e9, ({ backend, tensor, indices, empty }) => {
      const [qkv, starts] = [tensor(B * T, 3 * C), indices(B * T, (i) => i - i % T)];
      const ends = indices(B * T, (i) => i - i % T + T);
      const [out, logSumExp] = [empty([B * T, C]), empty([B * T, heads])];
      backend.attention({ qkv, starts, out, logSumExp, heads, scale });
      const [dOut, dQkv] = [tensor(B * T, C), empty([B * T, 3 * C])];
      return () => backend.attentionBackward({ qkv, starts, ends, out, logSumExp, dOut, dQkv, heads, scale });
    });
  }
  const [positions, heads, C, layers] = bench.quick ? [32, 2, 64, 1] : [1024, 12, 768, 12];
  for (const dtype of ["f32", "f16"] as const) {
    const bytes = layers * 2 * positions * C * (dtype === "f16" ? 2 : 4);
    const name = `one token after ${positions - 1}, ${layers} layers, ${dtype} cache`;
    const row = { group: "attention", name, unit: "GB/s", of: "bandwidth" } as const;
    await bench.kernel(row, bytes / 1e9, ({ backend, tensor, indices, empty }) => {
      const caches = Array.from({ length: layers }, () => ({
        keys: empty([1, positions, C], dtype),
        values: empty([1, positions, C], dtype),
      }));
      const [qkv, slots, at] = [tensor(1, 3 * C), indices(1, () => 0), indices(1, () => positions - 1)];
      const [out, scale] = [empty([1, C]), 1 / Math.sqrt(C / heads)];
      return () => {
        for (const cache of caches) {
          backend.cachedAttention({ qkv, ...cache, slots, positions: at, out, heads, scale });
        }
      };
    });
  }
}

/** What works row by row: layer normalisation, embedding, a bias's gradient. */
async function rows(bench: Bench): Promise<void> {
  const [T, C, V] = bench.quick ? [32, 64, 100] : [4096, 768, 50257];
  const row = (name: string) => ({ group: "rows", name, unit: "GB/s", of: "bandwidth" }) as const;
  const gigabytes = T * C * 4 / 1e9;
  await bench.kernel(row(`layer norm, ${T} × ${C}`), 2 * gigabytes, ({ backend, tensor, empty }) => {
    const [x, weight, bias] = [tensor(T, C), tensor(C), tensor(C)];
    const [out, mean, rstd] = [empty([T, C]), empty([T]), empty([T])];
    return () => backend.layerNorm({ x, weight, bias, out, mean, rstd, epsilon: 1e-5 });
  });
  await bench.kernel(row(`layer norm backward, ${T} × ${C}`), 3 * gigabytes, ({ backend, tensor, empty }) => {
    const [x, weight, dOut, dX] = [tensor(T, C), tensor(C), tensor(T, C), empty([T, C])];
    const [mean, rstd] = [tensor(T), tensor(T)];
    return () => backend.layerNormBackward({ x, weight, mean, rstd, dOut, dX });
  });
  for (const format of FORMATS) {
    const bytes = T * C * (BYTES[format] + 8);
    await bench.kernel(row(`embedding, ${T} × ${C}, ${format}`), bytes / 1e9, (lab) => {
      const [wte, wpe, out] = [lab.packed(V, C, format, 1), lab.tensor(T, C), lab.empty([T, C])];
      const [tokens, positions] = [lab.indices(T, (i) => i * 7919 % V), lab.indices(T, (i) => i)];
      return () => lab.backend.embedding({ wte, wpe, tokens, positions, out });
    });
  }
  await bench.kernel(row(`sum of rows, ${T} × ${4 * C}`), 4 * gigabytes, ({ backend, tensor }) => {
    const [x, out] = [tensor(T, 4 * C), tensor(4 * C)];
    return () => backend.sumRows({ x, out });
  });
}

/** Cross-entropy over the vocabulary. */
async function losses(bench: Bench): Promise<void> {
  const [N, V] = bench.quick ? [4, 100] : [64, 50257];
  for (const gradientScale of [undefined, 1 / N]) {
    const name = `cross-entropy${gradientScale ? " and its gradient" : ""}, ${N} × ${V}`;
    const row = { group: "loss", name, unit: "GB/s", of: "bandwidth" } as const;
    await bench.kernel(
      row,
      (gradientScale ? 2 : 1) * N * V * 4 / 1e9,
      ({ backend, tensor, indices, empty }) => {
        const [logits, targets, loss] = [tensor(N, V), indices(N, (i) => i * 7919 % V), empty([N])];
        return () => backend.crossEntropy({ logits, targets, loss, gradientScale });
      },
    );
  }
}

/** The choice of the next token. */
async function sampling(bench: Bench): Promise<void> {
  const V = bench.quick ? 100 : 50257;
  const greedy = { temperature: 0, topK: 0, topP: 1, repetitionPenalty: 1, draw: 0 };
  const kinds: [name: string, options: Omit<SampleRow, "slot">][] = [
    ["greedy", greedy],
    ["temperature 0.8", { ...greedy, temperature: 0.8, draw: 0.5 }],
    ["top-k 40, top-p 0.95, penalty 1.1", {
      ...{ temperature: 0.8, topK: 40, topP: 0.95, repetitionPenalty: 1.1, draw: 0.5 },
    }],
  ];
  for (const [kind, options] of kinds) {
    for (const N of [1, 8]) {
      const row = { group: "sampling", name: `${kind}, ${N} × ${V}`, unit: "GB/s", of: "bandwidth" } as const;
      await bench.kernel(row, N * V * 4 / 1e9, ({ backend, tensor, indices, empty }) => {
        const [logits, tokens, logProbs] = [tensor(N, V), empty([N], "u32"), empty([N])];
        const seen = indices(N * Math.ceil(V / 32), () => 0);
        const table = seen.slice(0, [N, Math.ceil(V / 32)]);
        const rows = Array.from({ length: N }, (_, slot) => ({ ...options, slot }));
        return () => backend.sample({ logits, rows, seen: table, tokens, logProbs });
      });
    }
  }
}

/** What works number by number. */
async function elements(bench: Bench): Promise<void> {
  const n = bench.quick ? 4096 : 1 << 24;
  const row = (name: string) =>
    ({ group: "elements", name: `${name}, ${n} numbers`, unit: "GB/s", of: "bandwidth" }) as const;
  const gigabytes = n * 4 / 1e9;
  await bench.kernel(row("copy"), 2 * gigabytes, ({ backend, tensor, empty }) => {
    const [x, out] = [tensor(n), empty([n])];
    return () => backend.copy({ x, out });
  });
  await bench.kernel(row("add"), 3 * gigabytes, ({ backend, tensor, empty }) => {
    const [a, b, out] = [tensor(n), tensor(n), empty([n])];
    return () => backend.add({ a, b, out });
  });
  await bench.kernel(row("GELU"), 2 * gigabytes, ({ backend, tensor, empty }) => {
    const [x, out] = [tensor(n), empty([n])];
    return () => backend.gelu({ x, out });
  });
  await bench.kernel(row("GELU backward"), 3 * gigabytes, ({ backend, tensor, empty }) => {
    const [x, dOut, dX] = [tensor(n), tensor(n), empty([n])];
    return () => backend.geluBackward({ x, dOut, dX });
  });
  await bench.kernel(row("sum of squares"), gigabytes, ({ backend, tensor, empty }) => {
    const [x, out] = [tensor(n), empty([1])];
    return () => backend.sumOfSquares({ x, out });
  });
  await bench.kernel(row("AdamW"), 7 * gigabytes, ({ backend, tensor }) => {
    const [parameters, gradients, m, v, clip] = [tensor(n), tensor(n), tensor(n), tensor(n), tensor(2)];
    backend.fill({ out: v, value: 1 });
    const settings = { learningRate: 1e-4, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, step: 1 };
    return () => backend.adamw({ parameters, gradients, m, v, clip, ...settings });
  });
}
