/** What the WebAssembly kernels promise beside being right: which bits, how much memory, which errors. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import type { Backend } from "../src/tensor/backend.ts";
import { uniform } from "../src/tensor/random.ts";
import type { Tensor, WeightFormat } from "../src/tensor/tensor.ts";
import { createWasmBackend } from "../src/backend/wasm/backend.ts";
import { findDots, WORDS } from "../src/backend/wasm/dots.ts";
import { Heap } from "../src/backend/wasm/heap.ts";
import { compile, instantiate } from "../src/backend/wasm/instance.ts";

const SETS = ["strict", "relaxed"] as const;
const FORMATS = ["f32", "f16", "q8", "q4"] as const;

/** Pseudorandom numbers in [-1, 1), the same everywhere. */
function numbers(length: number, seed = 0): Float32Array {
  return Float32Array.from({ length }, (_, i) => 2 * uniform(i, [0xabc, seed]) - 1);
}

for (const instructionSet of SETS) {
  const test = (claim: string, prove: (backend: Backend) => Promise<void>) =>
    Deno.test(`wasm ${instructionSet}: ${claim}`, async () => {
      using backend = await createWasmBackend({ instructionSet });
      await prove(backend);
    });

  test("a row of a product has the same bits alone and in any batch", async (backend) => {
    for (const [K, N] of [[300, 50], [2100, 19], [33, 7]]) {
      const rows = 70;
      const a = numbers(rows * K, 1);
      const weights = numbers(K * N, 2);
      for (const format of ["plain", ...FORMATS] as const) {
        for (const transposeB of [false, true]) {
          const shape: [number, number] = transposeB ? [N, K] : [K, N];
          const b = format === "plain"
            ? backend.upload(weights, shape)
            : backend.pack(weights, ...shape, format);
          const product = async (from: number, to: number) => {
            const out = backend.allocate([to - from, N]);
            const left = backend.upload(a.subarray(from * K, to * K), [to - from, K]);
            backend.matmul({ a: left, b, out, transposeB, activation: "gelu" });
            return await backend.read(out);
          };
          const all = await product(0, rows);
          for (const [from, to] of [[0, 1], [69, 70], [3, 6], [10, 63]]) {
            assertEquals(
              await product(from, to),
              all.slice(from * N, to * N),
              `${format} ${transposeB} ${from}`,
            );
          }
        }
      }
    }
  });

  test("one row and a few times halves have the bits of the same numbers in f32, however large or odd", async (backend) => {
    const [K, N] = [301, 35];
    const activations: Record<string, Float32Array> = {
      "usual": numbers(4 * K, 1),
      "tiny": numbers(4 * K, 2).map((x) => x * 2 ** -140),
      "below 2¹⁶": numbers(4 * K, 3).map((x) => x * 65535.99),
      "from 2¹⁶ on": numbers(4 * K, 4).map((x, i) => i === 3 * K + 7 ? -65536 : x * 65535.99),
      "huge": numbers(4 * K, 5).map((x) => x * 3e38),
      "not finite": numbers(4 * K, 6).map((x, i) => i === 5 ? Infinity : i === K + 9 ? NaN : x),
    };
    const weights: Record<string, Float32Array> = {
      "usual": numbers(K * N, 7),
      "subnormal": numbers(K * N, 8).map((x) => x * 2 ** -14),
      "large": numbers(K * N, 9).map((x) => x * 65504),
      "zeros": numbers(K * N, 10).map((x, i) => i % 3 ? 0 : i % 2 ? -0 : x),
      // Column 3 is in the first panel of three, 34 in the last.
      "not finite": numbers(K * N, 11).map((x, i) =>
        i === 40 * N + 3 ? -Infinity : i === 300 * N + 34 ? NaN : x
      ),
    };
    for (const [size, content] of Object.entries(weights)) {
      const halves = backend.pack(content, K, N, "f16");
      const floats = backend.pack(await backend.unpack(halves), K, N, "f32");
      for (const [name, a] of Object.entries(activations)) {
        for (const M of [1, 2, 3, 4]) {
          const left = backend.upload(a.subarray(0, M * K), [M, K]);
          const [one, other] = [halves, floats].map((b) => {
            const out = backend.allocate([M, N]);
            backend.matmul({ a: left, b, out });
            return backend.read(out);
          });
          assertEquals(await one, await other, `${name} times ${size}, ${M} rows`);
        }
      }
    }
  });

  test("attention through a cache, token by token or in pieces, has the bits of the whole sequence", async (backend) => {
    for (const [T, H, D] of [[131, 2, 64], [60, 3, 20], [50, 1, 7]]) {
      const C = H * D;
      for (const dtype of ["f32", "f16"] as const) {
        for (const odd of dtype === "f16" ? [false, true] : [false]) {
          const content = numbers(T * 3 * C, 3).map((x) => 3 * x);
          // Queries and keys that halves do not hold, sums that overflow, and what is no number.
          const at = (t: number, what: number, d: number) => (t * 3 + what) * C + d;
          if (odd) {
            content[at(40, 0, 1)] = -1e6;
            content[at(3, 1, 2)] = 1e5;
            content[at(20, 2, 3)] = -1e30;
            content[at(21, 1, 4)] = 1e-6;
            content[at(48, 2, 5)] = Infinity;
            content[at(49, 1, 6)] = NaN;
          }
          const scale = 1 / Math.sqrt(D);
          const through = async (...pieces: number[]) => {
            const shape = [2, T, C];
            const cache = { keys: backend.allocate(shape, dtype), values: backend.allocate(shape, dtype) };
            const rows: number[] = [];
            for (let t = 0, i = 0; t < T; t += pieces[i++ % pieces.length]) {
              const n = Math.min(pieces[i % pieces.length], T - t);
              const out = backend.allocate([n, C]);
              backend.cachedAttention({
                ...cache,
                qkv: backend.upload(content.subarray(t * 3 * C, (t + n) * 3 * C), [n, 3 * C]),
                slots: backend.upload(new Uint32Array(n).fill(1)),
                positions: backend.upload(Uint32Array.from({ length: n }, (_, i) => t + i)),
                out,
                heads: H,
                scale,
              });
              rows.push(...await backend.read(out));
            }
            return rows;
          };
          const whole = backend.allocate([T, C]);
          backend.attention({
            qkv: backend.upload(content, [T, 3 * C]),
            starts: backend.upload(new Uint32Array(T)),
            out: whole,
            logSumExp: backend.allocate([T, H]),
            heads: H,
            scale,
          });
          const one = await through(1);
          if (dtype === "f32") assertEquals(one, [...await backend.read(whole)], `D ${D}`);
          if (odd) {
            assert(one.slice(0, 48 * C).every(Number.isFinite) && !Number.isFinite(one[48 * C + 5]));
          }
          for (const pieces of [[3], [9, 1], [64], [T]]) {
            // An infinite value hides from no row of its block that it is beyond it: there 0 · ∞ is not 0.
            const upTo = odd && pieces[0] > 3 ? 40 * C : T * C;
            assertEquals(
              (await through(...pieces)).slice(0, upTo),
              one.slice(0, upTo),
              `${dtype}, D ${D}, ${pieces}`,
            );
          }
        }
      }
    }
  });

  test("a cache of halves takes half the memory; infinities and NaN stay in it", async (backend) => {
    const before = backend.stats().allocatedBytes;
    const cache = { keys: backend.allocate([1, 3, 64], "f16"), values: backend.allocate([1, 3, 64], "f16") };
    assertEquals(backend.stats().allocatedBytes - before, 2 * 3 * 64 * 2);
    const qkv = new Float32Array(3 * 64);
    qkv.set([Infinity, 3e38, -Infinity, NaN, 0, 2 ** -24], 128);
    const out = backend.allocate([1, 64]);
    const where = { slots: backend.upload(Uint32Array.of(0)), positions: backend.upload(Uint32Array.of(0)) };
    backend.cachedAttention({
      qkv: backend.upload(qkv, [1, 192]),
      ...cache,
      ...where,
      out,
      heads: 1,
      scale: 1,
    });
    const kept = [...(await backend.read(out)).subarray(0, 6)];
    assertEquals(kept, [Infinity, 65504, -Infinity, NaN, 0, 2 ** -24]);
  });

  test("a sequence's attention and its gradients do not depend on its neighbours in the batch", async (backend) => {
    const [T, H, D] = [70, 2, 16];
    const C = H * D;
    const content = numbers(T * 3 * C, 4);
    const gradient = numbers(T * C, 5);
    const run = async (lengths: number[], from: number, to: number) => {
      const n = to - from;
      const starts: number[] = [], ends: number[] = [];
      for (const length of lengths) {
        const start = starts.length;
        for (let i = 0; i < length; i++) starts.push(start), ends.push(start + length);
      }
      const qkv = backend.upload(content.slice(from * 3 * C, to * 3 * C), [n, 3 * C]);
      const [out, logSumExp, dQkv] = [[n, C], [n, H], [n, 3 * C]].map((shape) => backend.allocate(shape));
      const where = { starts: backend.upload(Uint32Array.from(starts)), heads: H, scale: 0.25 };
      backend.attention({ qkv, out, logSumExp, ...where });
      const dOut = backend.upload(gradient.slice(from * C, to * C), [n, C]);
      backend.attentionBackward({
        qkv,
        out,
        logSumExp,
        dOut,
        dQkv,
        ends: backend.upload(Uint32Array.from(ends)),
        ...where,
      });
      return { out: await backend.read(out), dQkv: await backend.read(dQkv) };
    };
    const both = await run([11, 59], 0, 70);
    const second = await run([59], 11, 70);
    assertEquals(both.out.slice(11 * C), second.out);
    assertEquals(both.dQkv.slice(11 * 3 * C), second.dQkv);
  });

  Deno.test(`wasm ${instructionSet}: a product does not depend on how its rows and panels are shared out`, async () => {
    const { module } = await compile(instructionSet);
    const heap = new Heap();
    const kernels = instantiate(module, heap.memory);
    assert(kernels.constantsEnd() <= heap.allocate(1), "the heap begins beyond the kernels' constants");
    for (const [M, N, K] of [[200, 70, 2100], [60, 2200, 2100], [25, 33, 64]]) {
      const a = heap.allocate(M * K * 4), b = heap.allocate(K * N * 4);
      heap.f32.set(numbers(M * K, 6), a / 4);
      heap.f32.set(numbers(K * N, 7), b / 4);
      const scratch = heap.allocate(kernels.matmulScratch(M, N, K, false));
      const product = (rows: number[], panels: number[]) => {
        const out = heap.allocate(M * N * 4);
        heap.f32.fill(NaN, out / 4, out / 4 + M * N);
        for (let i = 1; i < rows.length; i++) {
          for (let j = 1; j < panels.length; j++) {
            kernels.matmul(
              ...[a, false, b, 4, false, out, M, N, K, 0.5, 0, 0, 0, scratch] as const,
              ...[rows[i - 1], rows[i], panels[j - 1], panels[j]] as const,
            );
          }
        }
        return heap.f32.slice(out / 4, out / 4 + M * N);
      };
      const panels = Math.ceil(N / 16);
      const whole = product([0, M], [0, panels]);
      assert(whole.every((x) => !Number.isNaN(x)));
      assertEquals(product([0, 6, 18, M], [0, 1, panels]), whole);
      assertEquals(product([0, 12, M], [0, panels]), whole);
    }
  });

  test("every half is unpacked exactly, and every float packed to its nearest half, ties to even", async (backend) => {
    const halves = Float32Array.from({ length: 65536 }, (_, h) => {
      const [sign, exponent, fraction] = [h >> 15 ? -1 : 1, (h >> 10) & 31, h & 1023];
      if (exponent === 31) return fraction ? NaN : sign * Infinity;
      return sign * (exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24);
    });
    assertEquals(await backend.unpack(backend.pack(halves, 4096, 16, "f16")), halves);

    const between = halves.subarray(0, 0x7be0); // the positive ones, in order; beyond the largest all is refused
    const ties = Float32Array.from(between, (x, h) => (x + halves[h + 1]) / 2);
    const above = ties.map((x) => x * (1 + 2 ** -23));
    const below = ties.map((x) => x * (1 - 2 ** -23));
    const round = async (x: Float32Array) => await backend.unpack(backend.pack(x, x.length / 16, 16, "f16"));
    const [even, up, down] = [await round(ties), await round(above), await round(below)];
    for (let h = 0; h < between.length; h++) {
      const next = halves[h + 1];
      assertEquals([even[h], up[h], down[h]], [h % 2 ? next : between[h], next, between[h]], `half ${h}`);
    }
    const extreme = Float32Array.of(65504, -65504, Infinity, -Infinity, 1e-30, 2 ** -25, -NaN);
    const rounded = await backend.unpack(backend.pack(extreme, 1, 7, "f16"));
    assertEquals([...rounded], [65504, -65504, Infinity, -Infinity, 0, 0, NaN]);
  });

  test("packed weights take the bytes of their format, not of f32", async (backend) => {
    const [rows, columns] = [1024, 512];
    const bits = { f32: 32, f16: 16, q8: 8.25, q4: 4.75 };
    const x = backend.upload(numbers(rows), [1, rows]);
    const out = backend.allocate([1, columns]);
    for (const format of FORMATS) {
      const before = backend.stats().allocatedBytes;
      const matrix = backend.pack(numbers(rows * columns), rows, columns, format);
      backend.matmul({ a: x, b: matrix, out });
      const steps = format === "q8" || format === "q4" ? (rows + columns) * 4 : 0;
      assertEquals(
        backend.stats().allocatedBytes - before,
        rows * columns * bits[format] / 8 + steps,
        format,
      );
      backend.free(matrix);
      assertEquals(backend.stats().allocatedBytes, before);
      await backend.read(out);
    }
  });

  test("4-bit weights err less than by symmetric rounding, 8-bit ones by little more than half a step", async (backend) => {
    const [rows, columns] = [256, 48];
    // Sums of four make a bell shape, as trained weights have it.
    const parts = [1, 2, 3, 4].map((seed) => numbers(rows * columns, seed));
    const weights = parts[0].map((x, i) => (x + parts[1][i] + parts[2][i] + parts[3][i]) / 16);
    let symmetric = 0;
    const largest = new Float32Array(rows / 32 * columns);
    weights.forEach((w, i) => {
      const group = Math.floor(i / columns / 32) * columns + i % columns;
      largest[group] = Math.max(largest[group], Math.abs(w));
    });
    weights.forEach((w, i) => {
      const step = largest[Math.floor(i / columns / 32) * columns + i % columns] / 7;
      symmetric += (w - Math.round(w / step) * step) ** 2;
    });
    const four = await backend.unpack(backend.pack(weights, rows, columns, "q4"));
    const error = four.reduce((sum, x, i) => sum + (x - weights[i]) ** 2, 0);
    assert(error < 0.8 * symmetric, `squared error ${error}, symmetric rounding's ${symmetric}`);
    const eight = await backend.unpack(backend.pack(weights, rows, columns, "q8"));
    eight.forEach((x, i) => {
      const step = largest[Math.floor(i / columns / 32) * columns + i % columns] / 127;
      // A step is a multiple, of at least 16 here, of the finest in its column.
      assert(Math.abs(x - weights[i]) <= 0.5001 * step * (1 + 1 / 16));
    });
  });

  test("a sum of squares of millions of numbers keeps its digits", async (backend) => {
    const length = 5_000_001;
    const x = backend.allocate([length]);
    backend.fill({ out: x, value: 0.1 });
    const out = backend.allocate([1]);
    backend.sumOfSquares({ x, out });
    const expected = length * Math.fround(0.1) ** 2;
    assert(Math.abs((await backend.read(out))[0] / expected - 1) < 1e-6);
  });

  test("what does not fit is refused by name, before a kernel reads what is not its own", (backend) => {
    const f32 = (...shape: number[]) => backend.allocate(shape);
    const u32 = (...content: number[]) => backend.upload(Uint32Array.from(content));
    const refusals: [code: string, message: RegExp, () => void][] = [
      [
        "format",
        /a weight of 100000 in row 1 does not fit into f16/,
        () => backend.pack(Float32Array.of(1, 1e5), 2, 1, "f16"),
      ],
      [
        "option",
        /does not give out \[2,2\]/,
        () => backend.matmul({ a: f32(2, 3), b: f32(4, 2), out: f32(2, 2) }),
      ],
      [
        "option",
        /bias: expected 2 elements/,
        () => backend.matmul({ a: f32(2, 3), b: f32(3, 2), out: f32(2, 2), bias: f32(3) }),
      ],
      ["option", /transposeA takes a plain b/, () =>
        backend.matmul({
          a: f32(3, 2),
          b: backend.pack(new Float32Array(6), 3, 2, "f32"),
          out: f32(2, 2),
          transposeA: true,
        })],
      [
        "option",
        /excludes activation/,
        () =>
          backend.matmul({
            a: f32(2, 3),
            b: f32(3, 2),
            out: f32(2, 2),
            accumulate: true,
            activation: "gelu",
          }),
      ],
      [
        "option",
        /tokens\[1\] is 5; expected a number below 5/,
        () =>
          backend.embedding({
            wte: f32(5, 2),
            wpe: f32(3, 2),
            tokens: u32(0, 5),
            positions: u32(0, 1),
            out: f32(2, 2),
          }),
      ],
      [
        "option",
        /targets\[0\] is 4294967295/,
        () => backend.crossEntropy({ logits: f32(1, 3), targets: u32(2 ** 32 - 1), loss: f32(1) }),
      ],
      ["option", /rows\[0\] is 9/, () => backend.gather({ x: f32(3, 2), rows: u32(9), out: f32(1, 2) })],
      ["option", /starts\[1\] is 2/, () =>
        backend.attention({
          qkv: f32(3, 6),
          starts: u32(0, 2, 2),
          out: f32(3, 2),
          logSumExp: f32(3, 1),
          heads: 1,
          scale: 1,
        })],
      ["option", /positions\[0\] is 4/, () =>
        backend.cachedAttention({
          qkv: f32(1, 6),
          keys: f32(1, 4, 2),
          values: f32(1, 4, 2),
          slots: u32(0),
          positions: u32(4),
          out: f32(1, 2),
          heads: 1,
          scale: 1,
        })],
      ["option", /keys and values are f32 or f16/, () =>
        backend.cachedAttention({
          qkv: f32(1, 6),
          keys: backend.upload(new Uint32Array(8), [1, 4, 2]),
          values: f32(1, 4, 2),
          slots: u32(0),
          positions: u32(0),
          out: f32(1, 2),
          heads: 1,
          scale: 1,
        })],
      ["option", /values: expected f16, got f32/, () =>
        backend.cachedAttention({
          qkv: f32(1, 6),
          keys: backend.allocate([1, 4, 2], "f16"),
          values: f32(1, 4, 2),
          slots: u32(0),
          positions: u32(0),
          out: f32(1, 2),
          heads: 1,
          scale: 1,
        })],
      ["option", /expected f32, got u32/, () => backend.gelu({ x: u32(1), out: f32(1) })],
      [
        "option",
        /probability 1/,
        () => backend.dropout({ x: f32(2), out: f32(2), probability: 1, key: [0, 0] }),
      ],
      [
        "option",
        /reaches beyond its memory/,
        () => backend.gelu({ x: f32(64, 2).slice(64, [65]), out: f32(65) }),
      ],
      ["option", /unknown format q5/, () => backend.pack(new Float32Array(4), 2, 2, "q5" as WeightFormat)],
      ["option", /a view is never freed/, () => backend.free(f32(2, 64).slice(64, [64]))],
    ];
    for (const [code, message, run] of refusals) {
      const error = assertThrows(run, WhetError);
      assertEquals(error.code, code);
      assert(message.test(error.message), error.message);
    }
    return Promise.resolve();
  });

  test("memory that was freed or is another's is refused; so is everything once disposed", async (backend) => {
    const gone = backend.upload(new Float32Array(4));
    backend.free(gone);
    for (
      const run of [() => backend.free(gone), () => backend.gelu({ x: gone, out: backend.allocate([4]) })]
    ) {
      assertEquals(assertThrows(run, WhetError).code, "disposed");
    }
    using other = await createWasmBackend({ instructionSet });
    const foreign = other.upload(new Float32Array(4));
    assertThrows(
      () => backend.add({ a: foreign, b: foreign, out: foreign }),
      WhetError,
      "belongs to another backend",
    );

    const kept = backend.upload(new Float32Array(4));
    backend[Symbol.dispose]();
    backend[Symbol.dispose]();
    const calls: (() => unknown)[] = [
      () => backend.allocate([1]),
      () => backend.add({ a: kept, b: kept, out: kept }),
      () => backend.flush(),
    ];
    backend.free(kept); // Whoever held memory may be disposed after the backend.
    for (const call of calls) assertEquals(assertThrows(call, WhetError).code, "disposed");
    const reading = await backend.read(kept).then(() => "read", (error) => error.code);
    assertEquals(reading, "disposed");
  });
}

Deno.test("the relaxed and the strict build are what they say", async () => {
  for (const instructionSet of SETS) {
    using backend = await createWasmBackend({ instructionSet, threads: 1 });
    const dots = instructionSet === "relaxed" ? await findDots("relaxed") : "none";
    assertEquals([backend.name, backend.description], [
      "wasm",
      `SIMD WebAssembly, ${instructionSet}${dots === "none" ? "" : `, ${WORDS[dots]}`}, 1 thread`,
    ]);
    // (1 + 2⁻¹²)² − (1 + 2⁻¹¹) is 2⁻²⁴ if the product is not rounded before it is added.
    const out = backend.allocate([1, 1]);
    const a = backend.upload(Float32Array.of(1 + 2 ** -11, 1 + 2 ** -12), [1, 2]);
    const b = backend.upload(Float32Array.of(-1, 1 + 2 ** -12), [2, 1]);
    backend.matmul({ a, b, out });
    const rest = (await backend.read(out))[0];
    if (instructionSet === "strict") assertEquals(rest, 0);
    else assert(rest === 0 || rest === 2 ** -24, "an engine may fuse or not, as its machine can");
  }
});

Deno.test("the strict build gives these very bits on every machine", async () => {
  using backend = await createWasmBackend({ instructionSet: "strict" });
  const [T, H, C, V] = [37, 2, 40, 101];
  const tensor = (seed: number, ...shape: number[]) =>
    backend.upload(numbers(shape.reduce((a, b) => a * b), seed), shape);
  const outputs: Tensor[] = [];
  const output = (...shape: number[]) => {
    const out = backend.allocate(shape);
    backend.fill({ out, value: 0 });
    outputs.push(out);
    return out;
  };
  const starts = backend.upload(Uint32Array.from({ length: T }, (_, t) => t < 20 ? 0 : 20));
  const ends = backend.upload(Uint32Array.from({ length: T }, (_, t) => t < 20 ? 20 : T));
  const targets = backend.upload(Uint32Array.from({ length: T }, (_, t) => t * 5 % V));
  const [x, mean, rstd, qkv, out, logSumExp, dQkv] = [
    ...[output(T, C), output(T), output(T), output(T, 3 * C), output(T, C), output(T, H), output(T, 3 * C)],
  ];
  backend.layerNorm({
    x: tensor(1, T, C),
    weight: tensor(2, C),
    bias: tensor(3, C),
    out: x,
    mean,
    rstd,
    epsilon: 1e-5,
  });
  backend.matmul({
    a: x,
    b: backend.pack(numbers(C * 3 * C, 4), C, 3 * C, "q8"),
    out: qkv,
    bias: tensor(5, 3 * C),
  });
  backend.attention({ qkv, starts, out, logSumExp, heads: H, scale: 0.3 });
  const [hidden, logits, loss, dHidden] = [output(T, C), output(T, V), output(T), output(T, C)];
  const wte = backend.pack(numbers(V * C, 6), V, C, "q4");
  backend.matmul({ a: out, b: tensor(7, C, C), out: hidden, activation: "gelu", residual: x });
  backend.matmul({ a: hidden, b: wte, out: logits, transposeB: true });
  backend.crossEntropy({ logits, targets, loss, gradientScale: 1 / T });
  backend.matmul({ a: logits, b: wte, out: dHidden });
  backend.attentionBackward({ qkv, starts, ends, out, logSumExp, dOut: dHidden, dQkv, heads: H, scale: 0.3 });
  const [dW, square, clip, m, v, w] = [
    output(C, C),
    output(1),
    output(2),
    output(C, C),
    output(C, C),
    output(C, C),
  ];
  backend.matmul({ a: out, b: dHidden, out: dW, transposeA: true });
  backend.sumOfSquares({ x: dW, out: square });
  backend.clipFactor({ sumOfSquares: square, maxNorm: 0.1, out: clip });
  backend.adamw({
    ...{ parameters: w, gradients: dW, m, v, clip, learningRate: 1e-3, beta1: 0.9, beta2: 0.999 },
    ...{ epsilon: 1e-8, weightDecay: 0.1, step: 3 },
  });
  backend.dropout({ x: dW, out: dW, probability: 0.1, key: [1, 2] });

  const contents = await Promise.all(outputs.map((output) => backend.read(output)));
  const all = new Float32Array(contents.reduce((length, content) => length + content.length, 0));
  contents.reduce((at, content) => (all.set(content, at), at + content.length), 0);
  assert(all.every(Number.isFinite));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", all.buffer));
  const hex = [...digest.slice(0, 8)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  // A kernel that adds in another order changes this on purpose; a machine must not.
  assertEquals(hex, "cb1a2c184bb51e52");
});
