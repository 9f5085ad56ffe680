/**
 * Every kernel of every backend against the float64 reference: at odd sizes, with every flag, into
 * poisoned outputs, between guarded neighbours, on tensors and on views, twice with the same bits.
 */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import type { Backend } from "../src/tensor/backend.ts";
import { checkStored } from "../src/tensor/stored.ts";
import { SLICE_ALIGNMENT, type StoredMatrix } from "../src/tensor/tensor.ts";
import { candidates } from "./support/backends.ts";
import { suite } from "./support/cases.ts";
import { compare, EPSILON } from "./support/lab.ts";
import { numbersOf, quantize } from "./support/stored.ts";

/** Fails where a number is off by more than a share of the largest in the matrix. */
function near(actual: Float32Array, expected: Float64Array, share: number, what: string): void {
  const largest = expected.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  assertEquals(actual.length, expected.length, what);
  actual.forEach((x, i) => {
    if (!(Math.abs(x - expected[i]) <= share * largest)) {
      throw new Error(`${what} at ${i}: ${x}, not ${expected[i]}`);
    }
  });
}

/** The same bytes where no word begins. */
function askew(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const room = new Uint8Array(bytes.length + 1);
  room.set(bytes, 1);
  return room.subarray(1);
}

for (const candidate of await candidates()) {
  const test = (claim: string, prove: (backend: Backend) => Promise<void>) =>
    Deno.test(`${candidate.name}: ${claim}`, { ignore: candidate.ignore }, async () => {
      using backend = await candidate.create();
      await prove(backend);
    });

  for (const [kernel, cases] of Object.entries(suite(candidate))) {
    test(`${kernel} agrees with the float64 reference`, (backend) => compare(backend, cases));
  }

  test("memory gives back what was put there", async (backend) => {
    for (const length of [1, 3, 64, 65, 4099]) {
      const numbers = Float32Array.from({ length }, (_, i) => i - 1.25);
      const uploaded = backend.upload(numbers);
      const written = backend.allocate([length, 1]);
      backend.write(written, numbers);
      assertEquals(uploaded.shape, [length]);
      assertEquals(await backend.read(uploaded), numbers);
      assertEquals(await backend.read(written), numbers);
      backend.free(uploaded);
      backend.free(written);
    }
    const whole = backend.upload(Float32Array.from({ length: 200 }, (_, i) => i), [2, 100]);
    const part = whole.slice(SLICE_ALIGNMENT, [5]);
    backend.write(part, Float32Array.of(-1, -2, -3, -4, -5));
    assertEquals(await backend.read(part), Float32Array.of(-1, -2, -3, -4, -5));
    const all = await backend.read(whole);
    assertEquals([...all.slice(62, 71)], [62, 63, -1, -2, -3, -4, -5, 69, 70]);
  });

  test("calls take effect in their order, whatever is written, freed and allocated meanwhile", async (backend) => {
    const length = 1000;
    const full = (value: number) => new Float32Array(length).fill(value);
    const x = backend.upload(full(1));
    const outs = Array.from({ length: 4 }, () => backend.allocate([length]));
    backend.copy({ x, out: outs[0] });
    backend.write(x, full(2));
    backend.copy({ x, out: outs[1] });
    backend.add({ a: x, b: x, out: x });
    backend.copy({ x, out: outs[2] });
    const early = backend.read(x); // its content now, whatever follows
    backend.write(x, full(8));
    backend.copy({ x, out: outs[3] });
    backend.free(x);
    const y = backend.upload(full(16)); // may well lie where x lay
    backend.flush();
    backend.add({ a: y, b: y, out: y });
    const contents = await Promise.all([...outs, y].map((out) => backend.read(out)));
    assertEquals(contents, [1, 2, 4, 8, 32].map(full));
    assertEquals(await early, full(4));
  });

  test("an input and an output may be separate views of one tensor", async (backend) => {
    const whole = backend.upload(Float32Array.from({ length: 192 }, (_, i) => i));
    const [a, b, out] = [0, 64, 128].map((offset) => whole.slice(offset, [64]));
    backend.add({ a, b, out });
    backend.copy({ x: out.slice(0, [2]), out: a.slice(0, [2]) });
    const after = await backend.read(whole);
    assertEquals([...after.slice(126, 131)], [126, 127, 64, 66, 68]);
    assertEquals([...after.slice(0, 3)], [64, 66, 2]);
  });

  const shapes = [[1, 1], [1, 70], [70, 1], [33, 31], [96, 128], [7, 257]];
  const formats = ["f32", "f16", "q8", "q4"] as const;

  test("packed weights are within their format's step of the original", async (backend) => {
    for (const axis of [0, 1] as const) {
      // Groups of 32 down the rows, or along the columns; a group's magnitude differs from its neighbours'.
      const magnitude = (row: number, column: number) =>
        [1, 1e-3, 30, 0][(axis === 0 ? (row >> 5) + 3 * column : row + 3 * (column >> 5)) & 3];
      for (const [rows, columns] of shapes) {
        const original = Float32Array.from({ length: rows * columns }, (_, i) => {
          const [row, column] = [Math.floor(i / columns), i % columns];
          return Math.sin(i * i + 1) * magnitude(row, column);
        });
        for (const format of formats) {
          const matrix = backend.pack(original, rows, columns, format, axis);
          assertEquals(matrix.axis, axis);
          const unpacked = await backend.unpack(matrix);
          backend.free(matrix);
          assertEquals(unpacked.length, original.length);
          unpacked.forEach((x, i) => {
            const largest = magnitude(Math.floor(i / columns), i % columns);
            // On WASM a group's step is a multiple of 1/32 (q4: 1/128) of the coarsest that is summed with it.
            const other = backend.name === "wasm" ? 30 : 0;
            // f16 has 11 bits, and 2⁻²⁴ is its smallest number; q8's steps are rounded to the nearest,
            // q4's largest may be cut off by one.
            const allowed = {
              f32: 0,
              f16: Math.abs(original[i]) * 2 ** -11 + 2 ** -25,
              q8: (largest + other / 32) / 127 * 0.6,
              q4: largest / 7 + other / 128,
            }[format];
            const off = Math.abs(x - original[i]);
            if (!(off <= allowed)) {
              throw new Error(
                `${format}, axis ${axis}, ${rows} x ${columns} at ${i}: ${original[i]} became ${x}`,
              );
            }
          });
        }
      }
    }
  });

  test("frozen weights become what files hold and again what they were, to the bit", async (backend) => {
    for (const [rows, columns] of shapes) {
      const original = Float32Array.from(
        { length: rows * columns },
        (_, i) => Math.sin(i * i + 1) / (1 + i % 7),
      );
      for (const format of ["f16", "q8", "q4"] as const) {
        for (const axis of [0, 1] as const) {
          const what = `${format} of ${rows} x ${columns}, axis ${axis}`;
          const matrix = backend.pack(original, rows, columns, format, axis);
          const [stored, numbers] = await Promise.all([backend.unpackStored(matrix), backend.unpack(matrix)]);
          const { codes, scales, minima, ...shape } = stored;
          assertEquals(shape, { rows, columns, format, axis }, what);
          checkStored(stored);
          assert(format !== "q8" || Math.min(...new Int8Array(codes.buffer)) >= -127, what);
          near(numbers, numbersOf(stored), 4 * EPSILON, what);
          const again = backend.packStored({ ...stored, codes: askew(codes) });
          assertEquals([again.rows, again.columns, again.format, again.axis], [rows, columns, format, axis]);
          assertEquals(await backend.unpack(again), numbers, what);
          const twice = await backend.unpackStored(again);
          assertEquals([twice.codes, twice.scales, twice.minima], [codes, scales, minima], what);
          for (const packed of [matrix, again]) backend.free(packed);
        }
      }
    }
  });

  test("frozen weights that other programs stored are read to within the rounding of their scales", async (backend) => {
    for (const [rows, columns] of shapes) {
      const original = Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i * i + 1) * 3);
      for (const format of ["f16", "q8", "q4"] as const) {
        for (const axis of [0, 1] as const) {
          const stored = quantize(original, rows, columns, format, axis);
          const matrix = backend.packStored(stored);
          const numbers = await backend.unpack(matrix);
          // Scales become halves (a number of q4 is at most twice the largest above its minimum, which may be off by
          // a half too), or on WASM multiples of the column's step, by which numbers are rounded anew.
          const step = backend.name === "wasm" ? { f16: 0, q8: 3 / 127, q4: 3 / 7 }[format] : 2 ** -9;
          near(numbers, numbersOf(stored), step, `${format} of ${rows} x ${columns}, axis ${axis}`);
          backend.free(matrix);
        }
      }
    }
  });

  test("stored matrices that do not have what their shape asks for are refused", async (backend) => {
    const right = quantize(new Float32Array(33 * 5).fill(0.5), 33, 5, "q4", 0);
    const before = backend.stats().allocations;
    const wrong: Partial<StoredMatrix>[] = [
      { codes: right.codes.slice(1) },
      { scales: undefined },
      { minima: undefined },
      { minima: right.minima!.slice(1) },
      { axis: 1 },
      { format: "q8" },
      { columns: 6 },
    ];
    for (const change of wrong) {
      const error = assertThrows(() => backend.packStored({ ...right, ...change }), WhetError);
      assertEquals(error.code, "backend");
    }
    assertEquals(backend.stats().allocations, before);
    const plain = backend.pack(new Float32Array(4), 2, 2, "f32");
    await assertRejects(() => backend.unpackStored(plain), WhetError, "f32");
  });

  test("embedding gradients of one token are added in the order of its rows", async (backend) => {
    const [dWte, dWpe] = [3, 4].map((rows) => backend.upload(new Float32Array(rows * 2), [rows, 2]));
    backend.embeddingBackward({
      tokens: backend.upload(Uint32Array.of(1, 1, 2, 1)),
      positions: backend.upload(Uint32Array.of(0, 1, 2, 3)),
      dOut: backend.upload(Float32Array.of(1e8, 1, 1, 1e8, 5, 6, -1e8, -1e8), [4, 2]),
      dWte,
      dWpe,
    });
    // In f32, 1e8 + 1 − 1e8 = 0, but 1e8 − 1e8 + 1 = 1.
    assertEquals([...await backend.read(dWte)], [0, 0, 0, 0, 5, 6]);
    assertEquals([...await backend.read(dWpe)], [1e8, 1, 1, 1e8, 5, 6, -1e8, -1e8]);
  });

  test("a cache of halves keeps the nearest one, of what is too large for one the largest", async (backend) => {
    const given = [
      65504,
      65519,
      65520,
      3e38,
      -65521,
      -1e9,
      1 + 2 ** -11,
      1 + 3 * 2 ** -11,
      -0.1,
      2 ** -14 - 2 ** -26,
    ];
    const kept = [65504, 65504, 65504, 65504, -65504, -65504, 1, 1 + 2 ** -9, -0.0999755859375, 2 ** -14];
    const C = given.length + 1; // odd: the last half has a word to itself
    const qkv = new Float32Array(3 * C).fill(7);
    qkv.set(given, 2 * C);
    const out = backend.allocate([1, C]);
    backend.cachedAttention({
      qkv: backend.upload(qkv, [1, 3 * C]),
      keys: backend.allocate([2, 3, C], "f16"),
      values: backend.allocate([2, 3, C], "f16"),
      slots: backend.upload(Uint32Array.of(1)),
      positions: backend.upload(Uint32Array.of(0)),
      out,
      heads: 1,
      scale: 1,
    });
    assertEquals([...await backend.read(out)], [...kept, 7].map(Math.fround));
  });

  test("what is not a number is passed on, not hidden", async (backend) => {
    const logits = backend.upload(Float32Array.of(1, NaN, 3, 1, 2, 3), [2, 3]);
    const targets = backend.upload(Uint32Array.of(0, 2));
    const loss = backend.allocate([2]);
    backend.crossEntropy({ logits, targets, loss });
    const losses = await backend.read(loss);
    assert(Number.isNaN(losses[0]) && losses[1] < 1, `losses ${losses}`);
    for (const bits of [0x7fc00001, 0xffffffff]) {
      const row = new Float32Array(33).fill(0.5);
      new Uint32Array(row.buffer)[20] = bits;
      const logits = backend.upload(row, [1, 33]);
      const loss = backend.allocate([1]);
      backend.crossEntropy({ logits, targets: backend.upload(Uint32Array.of(3)), loss, gradientScale: 1 });
      assert(Number.isNaN((await backend.read(loss))[0]), `the loss beside ${bits.toString(16)}`);
      assert((await backend.read(logits)).some(Number.isNaN), `the gradient beside ${bits.toString(16)}`);
    }

    const square = backend.allocate([1]);
    const clip = backend.allocate([2]);
    for (const bad of [NaN, Infinity]) {
      backend.sumOfSquares({ x: backend.upload(Float32Array.of(1, bad, 2)), out: square });
      backend.clipFactor({ sumOfSquares: square, maxNorm: 1, out: clip });
      assertEquals((await backend.read(clip))[0], bad);
    }

    const out = backend.allocate([2, 2]);
    const identity = backend.upload(Float32Array.of(1, 0, 0, 1), [2, 2]);
    backend.matmul({ a: backend.upload(Float32Array.of(NaN, 0, 1, 2), [2, 2]), b: identity, out });
    assertEquals([...await backend.read(out)], [NaN, NaN, 1, 2]);

    for (const format of ["f16", "q8", "q4"] as const) {
      const b = backend.pack(Float32Array.of(1, 0, 0, 1), 2, 2, format);
      for (const bad of [NaN, Infinity]) {
        backend.matmul({ a: backend.upload(Float32Array.of(1, 2, bad, 1), [2, 2]), b, out });
        const [x, y, ...broken] = await backend.read(out);
        // Half a step beside 2 where activations have 7 bits.
        const most = format === "q8" && backend.description.includes("7-bit") ? 0.016 : 0.01;
        assert(Math.abs(x - 1) < most && Math.abs(y - 2) < 0.01, `${format}: ${x}, ${y} beside ${bad}`);
        assert(!Number.isFinite(broken[0]), `${format}: ${broken} of ${bad}`);
      }
    }
  });

  test("memory and work are counted", async (backend) => {
    const before = backend.stats();
    const x = backend.upload(new Float32Array(1000));
    const packed = backend.pack(new Float32Array(64 * 64), 64, 64, "q8");
    const during = backend.stats();
    assertEquals(during.allocations, before.allocations + 2);
    assert(during.allocatedBytes >= before.allocatedBytes + 4000 + 64 * 64, "bytes");
    backend.add({ a: x, b: x, out: x });
    await backend.read(x);
    backend.free(x);
    backend.free(packed);
    const after = backend.stats();
    assert(after.dispatches > during.dispatches, "dispatches");
    assert(after.readbacks > during.readbacks, "readbacks");
    assertEquals([after.allocations, after.allocatedBytes], [before.allocations, before.allocatedBytes]);
  });

  test("tensors longer than one grid of workgroups are worked through to their end", async (backend) => {
    const length = 2 ** 24 + 3; // more than 65,535 workgroups of 256
    const [p, gradients, m, v] = [1, 0.5, 0, 0].map((value) => {
      const tensor = backend.allocate([length]);
      backend.fill({ out: tensor, value });
      return tensor;
    });
    const sum = backend.allocate([1]);
    backend.sumOfSquares({ x: gradients, out: sum });
    backend.adamw({
      parameters: p,
      gradients,
      m,
      v,
      clip: backend.upload(Float32Array.of(1, 1)),
      learningRate: 0.25,
      beta1: 0.5,
      beta2: 0.75,
      epsilon: 0,
      weightDecay: 0.5,
      step: 1,
    });
    backend.add({ a: p, b: m, out: gradients });
    backend.copy({ x: gradients, out: v });
    const [square, result] = await Promise.all([backend.read(sum), backend.read(v)]);
    assert(Math.abs(square[0] / (length / 4) - 1) < 1e-5, `sum of squares ${square[0]}`);
    // p = 1 − 0.125 − 0.25, m = 0.25
    const wrong = result.findIndex((x) => Math.abs(x - 0.875) > 1e-6);
    assertEquals(wrong, -1, `[${wrong}] is ${result[wrong]}`);
  });
}
