/** Data larger than what one binding holds or one dispatch covers, on a device whose limits are lowered. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import type { MatmulArgs } from "../src/tensor/backend.ts";
import { type GroupAxis, type Matrix, PackedMatrix, type WeightFormat } from "../src/tensor/tensor.ts";
import { ReferenceBackend } from "./support/reference.ts";
import { gpuTest, numbers } from "./support/webgpu.ts";

/** At this limit a matrix of 600 × 70 lies in at least three parts in every format. */
const maxBindingBytes = 9216;
/** Storage formats and the ways that groups run; undefined for a plain matrix. */
const FORMATS: [WeightFormat | undefined, GroupAxis][] = [
  ...[undefined, "f32" as const, "f16" as const].map((format): [WeightFormat | undefined, 0] => [format, 0]),
  ...(["q8", "q4"] as const).flatMap((format): [WeightFormat, GroupAxis][] => [[format, 0], [format, 1]]),
];

function close(actual: ArrayLike<number>, expected: ArrayLike<number>, what: string, tolerance = 1e-4): void {
  assertEquals(actual.length, expected.length, what);
  for (let i = 0; i < expected.length; i++) {
    const off = Math.abs(actual[i] - expected[i]);
    assert(
      off <= tolerance * Math.max(1, Math.abs(expected[i])),
      `${what} [${i}]: ${actual[i]}, not ${expected[i]}`,
    );
  }
}

for (const [format, axis] of FORMATS) {
  gpuTest(
    `products with a ${format ?? "plain"} matrix (axis ${axis}) in parts are whole, whatever comes after`,
    async (backend) => {
      const reference = new ReferenceBackend();
      const [M, rows, columns] = [2, 600, 70];
      const epilogues: Partial<Record<"bias" | "residual" | "inPlace" | "accumulate" | "gelu", true>>[] = [
        {},
        { bias: true, gelu: true },
        { bias: true, residual: true },
        { accumulate: true },
        { inPlace: true },
        { bias: true, gelu: true, residual: true },
        { gelu: true, inPlace: true },
        { accumulate: true, inPlace: true, bias: true },
      ];
      const data = numbers(rows * columns);
      let b: Matrix, unpacked = data;
      if (format) {
        b = backend.pack(data, rows, columns, format, axis);
        unpacked = await backend.unpack(b);
        close(unpacked, data, `unpacked ${format}`, format === "q4" ? 0.1 : format === "q8" ? 0.01 : 1e-3);
      } else {
        b = backend.upload(data, [rows, columns]);
      }
      for (const transposeB of [false, true]) {
        const [K, N] = transposeB ? [columns, rows] : [rows, columns];
        for (const epilogue of epilogues) {
          const build = (on: typeof backend | ReferenceBackend, b: Matrix) => {
            const out = on.upload(numbers(M * N, 3), [M, N]);
            const args: MatmulArgs = {
              a: on.upload(numbers(M * K, 2), [M, K]),
              b,
              out,
              transposeB,
              alpha: 0.5,
              accumulate: epilogue.accumulate,
              activation: epilogue.gelu && "gelu",
              bias: epilogue.bias && on.upload(numbers(N, 4)),
              residual: epilogue.inPlace ? out : epilogue.residual && on.upload(numbers(M * N, 5), [M, N]),
            };
            on.matmul(args);
            return out;
          };
          const out = build(backend, b);
          const expected = build(reference, reference.upload(unpacked, [rows, columns]));
          const what = `${format} ${transposeB} ${JSON.stringify(epilogue)}`;
          close(await backend.read(out), reference.read64(expected), what);
        }
      }
    },
    { maxBindingBytes },
  );
}

gpuTest(
  "products whose plain operands or outputs exceed a binding are worked through by rows",
  async (backend) => {
    const reference = new ReferenceBackend();
    const sizes = [[300, 4, 70], [300, 70, 3], [4, 200, 70], [5, 70, 200], [200, 70, 130], [200, 128, 65], [
      129,
      70,
      200,
    ]];
    for (const [M, N, K] of sizes) {
      for (const [transposeA, transposeB] of [[false, false], [true, false], [false, true]]) {
        for (const accumulate of [false, true]) {
          const build = (on: typeof backend | ReferenceBackend) => {
            const out = on.upload(accumulate ? numbers(M * N, 3) : new Float32Array(M * N).fill(NaN), [M, N]);
            on.matmul({
              a: on.upload(numbers(M * K, 1), transposeA ? [K, M] : [M, K]),
              b: on.upload(numbers(K * N, 2), transposeB ? [N, K] : [K, N]),
              out,
              transposeA,
              transposeB,
              accumulate,
            });
            return out;
          };
          const [out, expected] = [build(backend), build(reference)];
          const what = `${M} × ${N} × ${K} ${transposeA} ${transposeB} ${accumulate}`;
          close(await backend.read(out), reference.read64(expected), what);
        }
      }
    }
  },
  { maxBindingBytes: 34_816 },
);

for (const [format, axis] of FORMATS) {
  gpuTest(`embeddings reach every part of a ${format ?? "plain"} table (axis ${axis})`, async (backend) => {
    const [V, C, T] = [600, 70, 8];
    const table = numbers(V * C);
    const ids = Uint32Array.of(0, 599, 31, 32, 256, 255, 599, 333);
    const [tokens, positions] = [backend.upload(ids), backend.upload(ids.map((id) => id % 7))];
    const wpe = backend.upload(numbers(7 * C, 2), [7, C]);
    const wte = format ? backend.pack(table, V, C, format, axis) : backend.upload(table, [V, C]);
    const kept = wte instanceof PackedMatrix ? await backend.unpack(wte) : table;
    const out = backend.upload(new Float32Array(T * C).fill(NaN), [T, C]);
    backend.embedding({ wte, wpe, tokens, positions, out });
    const expected = Float32Array.from({ length: T * C }, (_, i) => {
      const [t, c] = [Math.floor(i / C), i % C];
      return kept[ids[t] * C + c] + numbers(7 * C, 2)[(ids[t] % 7) * C + c];
    });
    close(await backend.read(out), expected, "out", 1e-6);
    if (wte instanceof PackedMatrix) return;
    const dOut = numbers(T * C, 3);
    backend.embeddingBackward({ tokens, positions, dOut: backend.upload(dOut, [T, C]), dWte: wte });
    const sums = Float64Array.from(table);
    dOut.forEach((x, i) => sums[ids[Math.floor(i / C)] * C + i % C] += x);
    close(await backend.read(wte), sums, "dWte", 1e-6);
  }, { maxBindingBytes });
}

gpuTest("elementwise kernels and sums of squares work through long tensors in stretches", async (backend) => {
  const n = 1000; // of 64 at once
  const data = numbers(n);
  const x = backend.upload(data);
  const [out, y] = [backend.allocate([n]), backend.upload(numbers(n, 2))];
  backend.add({ a: x, b: y, out });
  close(await backend.read(out), data.map((a, i) => a + numbers(n, 2)[i]), "add", 1e-6);
  backend.fill({ out, value: 3 });
  backend.add({ a: out, b: x, out });
  close(await backend.read(out), data.map((a) => a + 3), "fill, add in place", 1e-6);
  const reference = new ReferenceBackend();
  const [rx, ry, rout] = [reference.upload(data), reference.upload(numbers(n, 2)), reference.allocate([n])];
  for (const on of [backend, reference]) {
    const [a, b, c] = on === backend ? [x, y, out] : [rx, ry, rout];
    on.geluBackward({ x: a, dOut: b, dX: c });
    on.dropout({ x: b, out: c, probability: 0.3, key: [1, 2], accumulate: true });
    on.gelu({ x: c, out: b });
    on.copy({ x: b, out: a });
  }
  close(await backend.read(x), reference.read64(rx), "gelu, dropout, copy", 1e-5);
  const sum = backend.upload(Float32Array.of(5));
  backend.sumOfSquares({ x: y, out: sum, accumulate: true });
  const squares = reference.read64(ry).reduce((s, v) => s + v * v, 5);
  close(await backend.read(sum), [squares], "sum of squares", 1e-5);

  const clip = [7, 0.5];
  const [p, m, v] = [numbers(n, 4), numbers(n, 5), numbers(n, 6).map(Math.abs)];
  const results = await Promise.all([backend, reference].map((on) => {
    const parameters = on.upload(p);
    on.adamw({
      parameters,
      gradients: on.upload(data),
      m: on.upload(m),
      v: on.upload(v),
      clip: on.upload(Float32Array.from(clip)),
      learningRate: 0.1,
      beta1: 0.9,
      beta2: 0.99,
      epsilon: 1e-8,
      weightDecay: 0.1,
      step: 3,
    });
    return on.read(parameters);
  }));
  close(results[0], results[1], "adamw", 1e-5);
}, { maxBindingBytes: 256 });

gpuTest("grids beyond the limit along one axis are folded", async (backend) => {
  const [T, C, V] = [97, 5, 3];
  const x = backend.upload(numbers(T * C), [T, C]);
  const out = backend.upload(new Float32Array(T * C).fill(NaN), [T, C]);
  const [mean, rstd] = [backend.allocate([T]), backend.allocate([T])];
  const ones = backend.upload(new Float32Array(C).fill(1));
  const zeros = backend.upload(new Float32Array(C));
  backend.layerNorm({ x, weight: ones, bias: zeros, out, mean, rstd, epsilon: 0 });
  const normed = await backend.read(out);
  for (let t = 0; t < T; t++) {
    const row = normed.subarray(t * C, (t + 1) * C);
    const [sum, squares] = [row.reduce((a, b) => a + b), row.reduce((a, b) => a + b * b, 0)];
    close([sum, squares / C], [0, 1], `row ${t}`);
  }
  const loss = backend.allocate([T]);
  const targets = backend.upload(Uint32Array.from({ length: T }, (_, t) => t % V));
  backend.crossEntropy({ logits: backend.upload(new Float32Array(T * V), [T, V]), targets, loss });
  close(await backend.read(loss), new Float32Array(T).fill(Math.log(V)), "loss");
  const dWte = backend.upload(new Float32Array(V * C), [V, C]);
  backend.embeddingBackward({ tokens: targets, positions: targets, dOut: x, dWte });
  const expected = new Float64Array(V * C);
  numbers(T * C).forEach((g, i) => expected[Math.floor(i / C) % V * C + i % C] += g);
  close(await backend.read(dWte), expected, "dWte");
  const long = backend.allocate([256 * 90 + 1]);
  backend.fill({ out: long, value: 2 });
  close(await backend.read(long), new Float32Array(256 * 90 + 1).fill(2), "fill");
}, { maxWorkgroups: 10 });

gpuTest("what can be neither bound nor split is refused by name, before anything runs", (backend) => {
  const [T, C] = [40, 64];
  const x = backend.upload(numbers(T * C), [T, C]);
  const column = backend.allocate([C]);
  const args = { x, weight: column, bias: column, out: backend.allocate([T, C]), epsilon: 1e-5 };
  const before = backend.stats().dispatches;
  const refused = (run: () => void, ...words: string[]) => {
    const error = assertThrows(run, WhetError);
    assertEquals(error.code, "resource");
    for (const word of words) assert(error.message.includes(word), `${error.message} does not say ${word}`);
  };
  refused(
    () => backend.layerNorm({ ...args, mean: backend.allocate([T]), rstd: backend.allocate([T]) }),
    "layer_norm (T=40, C=64",
    "x has 10240 bytes",
    "8192 bytes",
  );
  refused(() => backend.pack(numbers(32 * 100), 32, 100, "f32"), "32 rows of 400 bytes", "8192");
  refused(() => backend.allocate([2 ** 31, 2 ** 10]), "2147483648,1024", "largest buffer");
  assertEquals(backend.stats().dispatches, before);
}, { maxBindingBytes: 8192 });
