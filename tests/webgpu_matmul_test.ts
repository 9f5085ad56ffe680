/** Products by every kernel that makes them, whichever of them a device's shapes would choose. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import type { GpuOptions } from "../src/backend/webgpu/backend.ts";
import { Gpu } from "../src/backend/webgpu/gpu.ts";
import { WGSL } from "../src/backend/webgpu/kernels.gen.ts";
import {
  chooseProducts,
  type MatmulShapes,
  plan,
  type Product,
  SOFTWARE,
  type TileName,
  TILES,
  UNMEASURED,
} from "../src/backend/webgpu/matmul_shapes.ts";
import { TRIALS, tryShapes } from "../src/backend/webgpu/matmul_trial.ts";
import { WhetError } from "../src/errors.ts";
import type { Backend, MatmulArgs } from "../src/tensor/backend.ts";
import type { GroupAxis, WeightFormat } from "../src/tensor/tensor.ts";
import { ReferenceBackend } from "./support/reference.ts";
import { adapterTest, deviceTest, findAdapter, gpuTest, numbers } from "./support/webgpu.ts";

/** What of a product a case varies. */
interface Variant {
  size: readonly [M: number, N: number, K: number];
  transposeA?: boolean;
  transposeB?: boolean;
  format?: WeightFormat;
  axis?: GroupAxis;
  epilogue?: "all" | "accumulate";
}

/** Computes a product into poison and compares it with the same in float64. */
async function prove(backend: Backend, variant: Variant, tolerance = 2e-6): Promise<void> {
  const { size: [M, N, K], transposeA, transposeB, format, axis, epilogue } = variant;
  const shape = transposeB ? [N, K] : [K, N];
  const data = numbers(N * K, 2);
  const b = format ? backend.pack(data, shape[0], shape[1], format, axis) : backend.upload(data, shape);
  const kept = "format" in b ? await backend.unpack(b) : data;
  const before = epilogue === "accumulate" ? numbers(M * N, 3) : new Float32Array(M * N).fill(NaN);
  const make = (on: Backend, b: MatmulArgs["b"]) => {
    const all = epilogue === "all";
    const out = on.upload(before, [M, N]);
    on.matmul({
      a: on.upload(numbers(M * K), transposeA ? [K, M] : [M, K]),
      b,
      out,
      transposeA,
      transposeB,
      alpha: 0.75,
      accumulate: epilogue === "accumulate",
      bias: all ? on.upload(numbers(N, 4)) : undefined,
      activation: all ? "gelu" : undefined,
      residual: all ? on.upload(numbers(M * N, 5), [M, N]) : undefined,
    });
    return out;
  };
  const reference = new ReferenceBackend();
  const expected = reference.read64(make(reference, reference.upload(kept, shape)));
  const actual = await backend.read(make(backend, b));
  assertEquals(actual.length, expected.length);
  expected.forEach((x, i) => {
    const allowed = tolerance * (8 + K);
    if (Math.abs(actual[i] - x) <= allowed) return;
    throw new Error(`${JSON.stringify(variant)} [${Math.floor(i / N)}, ${i % N}]: ${actual[i]}, not ${x}`);
  });
  backend.free(b);
}

/** Operands as they lie and transposed; one-wide, odd and prime sizes. */
const OF_TILES: readonly Variant[] = [
  { size: [131, 137, 37] },
  { size: [1, 1, 1] },
  { size: [3, 67, 1] },
  { size: [132, 140, 36], transposeB: true },
  { size: [131, 73, 35], transposeA: true },
];
/** What differs from tile to tile no more. */
const OF_ONE_TILE: readonly Variant[] = [
  { size: [132, 136, 68], epilogue: "accumulate" },
  { size: [73, 1, 19], epilogue: "all" },
  { size: [37, 71, 33], transposeB: true, epilogue: "all" },
  { size: [9, 11, 13], transposeA: true, transposeB: true },
];

for (const tile of Object.keys(TILES) as TileName[]) {
  gpuTest(`tiles of ${tile} make whole products at any size`, async (backend) => {
    for (const variant of OF_TILES) await prove(backend, variant);
  }, { tile });
}

gpuTest("tiles read whole vectors, both operands transposed, and end in any epilogue", async (backend) => {
  for (const variant of OF_ONE_TILE) await prove(backend, variant);
}, { tile: "32x64" });

/** Storage formats, the ways that groups run and b lies; each once, for the conformance suite has them all. */
const STORED = [
  { format: "f32", transposeB: true },
  { format: "f16" },
  { format: "q8" },
  { format: "q8", axis: 1, transposeB: true },
  { format: "q4", transposeB: true },
  { format: "q4", axis: 1 },
] as const;

gpuTest("tiles read every format", async (backend) => {
  for (const stored of STORED) await prove(backend, { size: [17, 75, 101], ...stored });
}, { tile: "32x64" });

for (const tile of ["64x64", "128x8"] as const) {
  gpuTest(
    `inner sums of tiles of ${tile} may be shared out, odd ones too, whatever comes after`,
    async (backend) => {
      await prove(backend, { size: [65, 5, 1009], epilogue: "all" });
      await prove(backend, { size: [3, 7, 331], transposeB: true, epilogue: "accumulate" });
      await prove(backend, { size: [64, 8, 130], transposeA: true });
      await prove(backend, { size: [5, 4, 2] });
      const before = backend.stats();
      await prove(backend, { size: [65, 5, 1009], epilogue: "all" });
      assertEquals(backend.stats().dispatches - before.dispatches, 2); // the shares, and their sums
    },
    { tile, shapes: { splits: 7 } },
  );
}

gpuTest("shares of inner sums that one binding does not hold are fewer", async (backend) => {
  await prove(backend, { size: [16, 64, 400] }); // 4 KiB of outputs: room for two shares of 64
}, { tile: "64x64", shapes: { splits: 64 }, maxBindingBytes: 26_112 });

/** All rows that `matmul_vector` makes, one of a kind each, on a device that compiles all variants. */
const ON_A_CARD: GpuOptions = { shapes: { plain: false } };

gpuTest("few rows have a kernel of their own, whatever their number", async (backend) => {
  for (const M of [1, 2, 3, 5, 8]) {
    await prove(backend, { size: [M, 131, 521], epilogue: "all" });
    await prove(backend, { size: [M, 136, 260], transposeB: true, epilogue: "accumulate" });
  }
  for (const [N, K] of [[1, 1], [1, 70], [67, 1], [8, 77], [77, 8]]) {
    for (const transposeB of [false, true]) await prove(backend, { size: [1, N, K], transposeB });
  }
}, ON_A_CARD);

gpuTest("few rows meet every format", async (backend) => {
  for (const stored of STORED) await prove(backend, { size: [1, 131, 293], ...stored });
}, ON_A_CARD);

for (const vectorBytes of [32, 128]) {
  gpuTest(`few rows are read ${vectorBytes} bytes side by side`, async (backend) => {
    for (const format of ["f32", "q4"] as const) {
      await prove(backend, { size: [1, 75, 603], format, epilogue: "all" });
    }
  }, { shapes: { vectorBytes } });
}

adapterTest(
  "products of halves are as near as halves are, and asked for in vain where there are none",
  async () => {
    const error = assertThrows(
      () => chooseProducts({ arithmetic: "f16" }, false, UNMEASURED),
      WhetError,
      "shader-f16",
    );
    assertEquals((error as WhetError).code, "backend");
    const adapter = await findAdapter();
    if (!adapter.features.has("shader-f16")) return;
    const { createWebGpuBackend } = await import("../src/backend/webgpu/backend.ts");
    using backend = await createWebGpuBackend(adapter, { arithmetic: "f16", tile: "32x64" });
    await prove(backend, { size: [37, 71, 133], epilogue: "all" }, 2 ** -11);
    await prove(backend, { size: [36, 72, 132], transposeB: true, format: "q8", axis: 1 }, 2 ** -11);
    // Sums beyond the largest half, 65504, are those of slices, in f32.
    const K = 512;
    const a = backend.upload(new Float32Array(20 * K).fill(32), [20, K]);
    const out = backend.allocate([20, 20]);
    backend.matmul({ a, b: backend.upload(new Float32Array(20 * K).fill(32), [K, 20]), out });
    assertEquals([...await backend.read(out)], Array(400).fill(1024 * K));
  },
);

for (const format of ["q8", "q4"] as const) {
  gpuTest(`products of ${format} codes err by the rounding to 8 bits alone`, async (backend) => {
    const K = 101;
    // Steps are 1/127 of the largest, which is below 1; errors mostly cancel.
    const tolerance = 0.5 / 127 * 4 * Math.sqrt(K) / (8 + K);
    for (const transposeB of [false, true]) {
      const axis = transposeB ? 1 : 0;
      const size = [67, 71, K] as const;
      await prove(backend, { size, transposeB, format, axis, epilogue: "all" }, tolerance);
      // Groups that run the other way are multiplied as numbers.
      await prove(backend, { size, transposeB, format, axis: transposeB ? 0 : 1 });
    }
  }, { arithmetic: "i8", tile: "32x64" });
}

gpuTest("codes meet weights that lie in parts", async (backend) => {
  // Numbers of one magnitude are whole steps.
  const [M, N, K] = [10, 150, 300];
  const x = Float32Array.from({ length: M * K }, (_, i) => Math.floor(i / 7) % 3 ? 0.5 : -0.5);
  const w = numbers(K * N);
  for (const transposeB of [false, true]) {
    const b = transposeB ? backend.pack(w, N, K, "q8", 1) : backend.pack(w, K, N, "q8");
    const kept = await backend.unpack(b);
    const out = backend.allocate([M, N]);
    const before = backend.stats().dispatches;
    backend.matmul({ a: backend.upload(x, [M, K]), b, out, transposeB });
    assert(backend.stats().dispatches - before >= 4, "parts of codes");
    (await backend.read(out)).forEach((y, i) => {
      const [m, n] = [Math.floor(i / N), i % N];
      let sum = 0;
      for (let k = 0; k < K; k++) sum += x[m * K + k] * kept[transposeB ? n * K + k : k * N + n];
      assert(Math.abs(y - sum) < 1e-4, `${transposeB} [${m}, ${n}]: ${y}, not ${sum}`);
    });
  }
}, { arithmetic: "i8", tile: "32x64", maxBindingBytes: 38_400 });

gpuTest(
  "whole numbers are multiplied as codes without error, in shares too, and what is none is passed on",
  async (backend) => {
    const [M, N, K] = [66, 9, 77];
    const whole = (length: number, seed: number) => numbers(length, seed).map((x) => Math.round(127 * x));
    const [x, w] = [whole(M * K, 1), whole(K * N, 2)];
    for (let k = 0; k < K; k += 32) { // each group's largest is 127: its scale is 1
      for (let m = 0; m < M; m++) x[m * K + k] = 127;
      for (let n = 0; n < N; n++) w[k * N + n] = 127;
    }
    const out = backend.upload(new Float32Array(M * N).fill(NaN), [M, N]);
    const b = backend.pack(w, K, N, "q8");
    const multiply = (x: Float32Array) => {
      backend.matmul({ a: backend.upload(x, [M, K]), b, out });
      return backend.read(out);
    };
    const expected = Float32Array.from({ length: M * N }, (_, i) => {
      const [m, n] = [Math.floor(i / N), i % N];
      let sum = 0;
      for (let k = 0; k < K; k++) sum += x[m * K + k] * w[k * N + n];
      return sum;
    });
    assertEquals(await multiply(x), expected);
    for (const bad of [NaN, Infinity, -Infinity]) {
      const broken = x.slice();
      broken[5 * K + 40] = bad;
      const found = await multiply(broken);
      found.forEach((y, i) =>
        assert(Math.floor(i / N) === 5 ? !Number.isFinite(y) : y === expected[i], `${bad} ${i}`)
      );
    }
  },
  { arithmetic: "i8", tile: "128x8", shapes: { splits: 2 } },
);

const product = (M: number, N: number, K: number, rest: Partial<Product> = {}): Product => ({
  ...{ M, N, K, transposeA: false, transposeB: false, format: "f32", mostSplits: 1 << 20 },
  ...rest,
});

Deno.test("a product's shape decides its kernel, and few tiles share out long inner sums", () => {
  const tile = (p: Product, shapes: MatmulShapes = UNMEASURED) => {
    const { kernel, height, width, splits, depth } = plan(shapes, p);
    assert(
      splits * depth >= p.K && (splits - 1) * depth < p.K,
      "shares are none of them empty, and all of K",
    );
    return `${kernel} ${height}x${width} ${splits}`;
  };
  assertEquals(tile(product(4096, 4096, 4096)), "matmul 128x128 1");
  assertEquals(tile(product(4096, 768, 3072)), "matmul 64x64 1");
  assertEquals(tile(product(64, 768, 50257, { transposeB: false })), "matmul 32x64 10");
  assertEquals(tile(product(4096, 8, 768, { transposeB: true })), "matmul 128x8 6");
  assertEquals(tile(product(8, 768, 4096, { transposeA: true })), "matmul 8x128 32");
  assertEquals(tile(product(16, 768, 768)), "matmul 16x64 6");
  assertEquals(tile(product(20, 50257, 768)), "matmul 32x64 1");
  assertEquals(tile(product(64, 50257, 768)), "matmul 64x64 1"); // half of 128 × 128 would be beyond the edge
  assertEquals(tile(product(1000, 50257, 768)), "matmul 128x128 1");
  assertEquals(tile(product(40, 768, 100), { ...UNMEASURED, small: "64x64" }), "matmul 32x64 1");
  assertEquals(tile(product(64, 64, 100)), "matmul 32x64 1");
  assertEquals(tile(product(64, 768, 50257, { mostSplits: 3 })), "matmul 32x64 3");
  assertEquals(tile(product(64, 768, 50257, { mostSplits: 0 })), "matmul 32x64 1");
  assertEquals(tile(product(1, 50257, 768, { transposeB: true, format: "q8" })), "matmul_vector 1x32 1");
  assertEquals(tile(product(3, 768, 768)), "matmul_vector 4x16 1");
  assertEquals(tile(product(1, 768, 768, { format: "q4" })), "matmul_vector 1x128 1");
  assertEquals(tile(product(64, 768, 50257), SOFTWARE), "matmul 64x64 1");
});

Deno.test("a trial's products are made by what it is to try, each candidate's in its own way", () => {
  for (const { size: [M, N, K], candidates, force } of TRIALS) {
    const plans = candidates.map((candidate) => {
      const shapes = { ...UNMEASURED, ...candidate, ...force?.(candidate) };
      const { kernel, height, width, splits } = plan(shapes, product(M, N, K));
      const tile = candidate.large ?? candidate.medium ?? candidate.small;
      if (tile) assertEquals(`${height}x${width}`, tile.split("x").slice(0, 2).join("x"));
      assertEquals(kernel, tile ? "matmul" : "matmul_vector");
      return JSON.stringify([tile, width, splits]);
    });
    assertEquals(new Set(plans).size, candidates.length, `${plans}`);
  }
});

Deno.test("no tile takes more than every device has", () => {
  for (const [name, { down, across, blocks, vectors, quads, padding }] of Object.entries(TILES)) {
    const a = Math.max(down * (blocks * 4 * quads + padding), down * blocks * 4 * quads);
    assert(16 * (a + across * vectors * 4 * quads) <= 16384, `${name}: workgroup memory`);
    assert(down * across <= 256, `${name}: threads`);
  }
});

deviceTest(
  "a trial takes the fastest of what it tried, by the device's clock or without",
  WGSL,
  async (bare, device) => {
    const trials = [{
      size: [64, 64, 512] as const,
      matrices: 2,
      // Shares of 16 need an addition of 32 beside.
      candidates: [{ small: "32x64" as const, splits: 32 }, { small: "64x64" as const, splits: 1 }],
      force: ({ small }: Partial<MatmulShapes>) => ({ tile: small }),
    }];
    const before = bare.products;
    const waited = await tryShapes(bare, trials, 500);
    assert(["32x64", "64x64"].includes(waited.shapes.small));
    assertEquals(bare.products, before);
    assertEquals(await tryShapes(bare, trials, -1), { shapes: UNMEASURED, whole: false });
    assertEquals(bare.stats().allocations, 0);
    assert(device !== undefined);
    const adapter = await findAdapter();
    if (!adapter.features.has("timestamp-query")) return;
    const timed = await adapter.requestDevice({ requiredFeatures: ["timestamp-query"] });
    using gpu = new Gpu(timed, WGSL, {}, { ...bare.features, timestamps: true });
    const { shapes, whole } = await tryShapes(gpu, trials, 10_000);
    assertEquals({ ...shapes, small: "", splits: 0 }, { ...UNMEASURED, small: "", splits: 0 });
    assert(shapes.splits === 1 || shapes.splits === 32);
    assert(whole, "all had their time");
  },
);

gpuTest("a shape's kernels are made once", async (backend) => {
  const run = async () => {
    for (const size of [[1, 40, 40], [40, 40, 40]] as const) {
      const [M, N, K] = size;
      backend.matmul({ a: tensors[M].a, b: tensors[M].b, out: tensors[M].out });
      await backend.read(tensors[M].out);
      assert(N === K);
    }
  };
  const tensors = Object.fromEntries([1, 40].map((M) => [M, {
    a: backend.upload(numbers(M * 40), [M, 40]),
    b: backend.upload(numbers(1600), [40, 40]),
    out: backend.allocate([M, 40]),
  }]));
  await run();
  const before = backend.stats().creations;
  for (let i = 0; i < 3; i++) await run();
  assertEquals(backend.stats().creations, before);
}, { shapes: { workgroups: 64, splits: 3 } });
