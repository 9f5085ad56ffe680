/**
 * DeBERTa's kernels on WebAssembly beyond the suite's sizes: long sequences around the edges of blocks and tiles,
 * which bits, GELU's accuracy, errors.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { openWasmBackend } from "../src/backend/wasm/backend.ts";
import { WhetError } from "../src/errors.ts";
import type { Backend, DisentangledAttentionArgs } from "../src/tensor/backend.ts";
import { uniform } from "../src/tensor/random.ts";
import { ReferenceBackend } from "./support/reference.ts";

const SETS = ["strict", "relaxed"] as const;
/** However little there is to do, it is shared out. */
const EAGER = { price: 0, least: 0 };

/** Pseudorandom numbers in [-magnitude, magnitude), the same everywhere. */
function numbers(length: number, seed: number, magnitude = 1): Float32Array {
  return Float32Array.from({ length }, (_, i) => magnitude * (2 * uniform(i, [0xdeb, seed]) - 1));
}

/** A model's widths and relative positions. */
interface Shape {
  H: number;
  D: number;
  /** L. */
  longest: number;
  /** Rows of the tables. */
  P: number;
  /** (2L − 1), in [0, P). */
  buckets: Uint32Array;
  positionKeys: boolean;
  positionQueries: boolean;
}

/** DeBERTa's buckets: each distance its own up to a quarter of P, then by its logarithm. */
function logarithmic(longest: number, P: number, most: number): Uint32Array {
  const middle = P / 4;
  return Uint32Array.from({ length: 2 * longest - 1 }, (_, i) => {
    const relative = i - longest + 1;
    const distance = Math.abs(relative);
    const share = Math.log(distance / middle) / Math.log((most - 1) / middle);
    const bucket = distance <= middle ? distance : Math.ceil(share * (middle - 1)) + middle;
    return P / 2 + Math.sign(relative) * Math.min(bucket, P / 2 - 1);
  });
}

/** Attention of sequences of these lengths, whose content is `seeds`'. */
async function attend(
  backend: Backend,
  shape: Shape,
  lengths: number[],
  seeds = lengths.map((_, i) => i + 10),
  firstAlone = false,
): Promise<Float32Array> {
  const { H, D, P } = shape;
  const C = H * D;
  const T = lengths.reduce((a, b) => a + b);
  const qkv = new Float32Array(T * 3 * C);
  const [starts, ends] = [new Uint32Array(T), new Uint32Array(T)];
  lengths.reduce((at, length, i) => {
    qkv.set(numbers(length * 3 * C, seeds[i], 2), at * 3 * C);
    starts.fill(at, at, at + length);
    ends.fill(at + length, at, at + length);
    return at + length;
  }, 0);
  const out = backend.upload(new Float32Array(T * C).fill(NaN), [T, C]);
  const inputs = {
    qkv: backend.upload(qkv, [T, 3 * C]),
    positionKeys: shape.positionKeys ? backend.upload(numbers(P * C, 1, 2), [P, C]) : undefined,
    positionQueries: shape.positionQueries ? backend.upload(numbers(P * C, 2, 2), [P, C]) : undefined,
    buckets: backend.upload(shape.buckets),
    starts: backend.upload(starts),
    ends: backend.upload(ends),
  };
  backend.disentangledAttention({ ...inputs, out, heads: H, scale: 1 / Math.sqrt(3 * D), firstAlone });
  const result = await backend.read(out);
  for (const tensor of [out, ...Object.values(inputs)]) if (tensor) backend.free(tensor);
  return result;
}

function shape(H: number, D: number, longest: number, P: number, which = 3): Shape {
  const buckets = logarithmic(longest, P, 2 * longest);
  return { H, D, longest, P, buckets, positionKeys: which % 2 === 1, positionQueries: which > 1 };
}

Deno.test("first rows have the same bits where they alone are wanted, and less is computed", async () => {
  using backend = await openWasmBackend({ instructionSet: "relaxed", threads: 1 });
  const [lengths, some] = [[3, 130, 1, 80], shape(2, 7, 130, 32)] as const;
  const C = some.H * some.D;
  const outcomes: Float32Array[] = [];
  for (const alone of [false, true]) {
    outcomes.push(await attend(backend, some, [...lengths], undefined, alone));
  }
  lengths.reduce((row, length) => {
    const [all, first] = outcomes.map((rows) => rows.subarray(row * C, (row + 1) * C));
    assertEquals(first, all);
    return row + length;
  }, 0);
  assertEquals(outcomes.map((rows) => rows.filter(Number.isNaN).length), [0, (214 - 4) * C]);
});

for (const instructionSet of SETS) {
  for (const wide of [false, true]) {
    Deno.test(`${instructionSet}, ${wide ? "wide" : "narrow"} tiles: sequences around the edges of blocks are right`, async () => {
      using backend = await openWasmBackend({ instructionSet, threads: 1, wide });
      using reference = new ReferenceBackend();
      const lengths = [1, 2, 5, 16, 79, 80, 81, 127, 128, 129, 136, 161, 257];
      for (const [i, length] of lengths.entries()) {
        const D = [1, 3, 4, 7, 16, 18][i % 6];
        for (const which of length < 100 ? [1, 2, 3] : [3]) {
          const some = shape(1, D, length + i % 3, 32, which);
          const [actual, expected] = [
            await attend(backend, some, [length]),
            await attend(reference, some, [length]),
          ];
          // Outputs are means of numbers below 2; logits are sums of up to 54 products of them.
          actual.forEach((x, at) => {
            if (Math.abs(x - expected[at]) < 4e-6) return;
            throw new Error(`T = ${length}, D = ${D}, ${which} at ${at}: ${x}, not ${expected[at]}`);
          });
        }
      }
    });
  }

  Deno.test(`${instructionSet}: buckets in any order, and one for all, are looked up as they stand`, async () => {
    using backend = await openWasmBackend({ instructionSet, threads: 1 });
    using reference = new ReferenceBackend();
    const some = shape(2, 5, 100, 64);
    const orders = [
      some.buckets.map((bucket) => bucket * 37 % 64),
      some.buckets.map(() => 63),
      some.buckets.map((_, i) => Math.floor(i / 4)), // fives that begin alike and do not go on alike
    ];
    for (const [i, buckets] of orders.entries()) {
      const args = [{ ...some, buckets }, [100, 3]] as const;
      const [actual, expected] = [
        await attend(backend, args[0], [...args[1]]),
        await attend(reference, args[0], [...args[1]]),
      ];
      actual.forEach((x, at) =>
        assert(Math.abs(x - expected[at]) < 4e-6, `order ${i} at ${at}: ${x}, not ${expected[at]}`)
      );
    }
  });

  Deno.test(`${instructionSet}: a sequence has the same bits alone, among others, on 1, 2 and 3 threads, in any tiles`, async () => {
    for (const some of [shape(1, 64, 300, 128), shape(3, 20, 300, 256)]) {
      const C = some.H * some.D;
      const lengths = [7, 300, 1, 130];
      let expected: Float32Array | undefined;
      for (const [threads, wide] of [[1, false], [1, true], [2, false], [3, true]] as const) {
        using backend = await openWasmBackend({ instructionSet, threads, wide, ...EAGER });
        await backend.pool?.assemble();
        const all = await attend(backend, some, lengths);
        expected ??= all;
        assertEquals(all, expected, `${threads} threads, ${wide ? "wide" : "narrow"}`);
        for (let i = 0, at = 0; i < lengths.length; at += lengths[i++] * C) {
          const alone = await attend(backend, some, [lengths[i]], [i + 10]);
          assertEquals(alone, expected.slice(at, at + lengths[i] * C), `sequence ${i}`);
        }
        // As many buckets as are needed, or more: the same positions.
        const longer = { ...some, buckets: new Uint32Array(2 * 310 - 1) };
        longer.buckets.set(some.buckets, 10);
        assertEquals(await attend(backend, longer, lengths), expected, "a longer table");
        assertEquals(backend.stats().allocations, 0);
      }
    }
  });

  Deno.test(`${instructionSet}: exact GELU is within 3 · 10⁻⁷ everywhere, and of ±∞ and NaN what it should be`, async () => {
    using backend = await openWasmBackend({ instructionSet, threads: 1 });
    using reference = new ReferenceBackend();
    const gelu = (backend: Backend, x: Float32Array) => {
      const out = backend.allocate([x.length]);
      backend.gelu({ x: backend.upload(x), out, exact: true });
      return out;
    };
    const x = Float32Array.from({ length: 14_001 }, (_, i) => (i - 7000) / 1000);
    const actual = await backend.read(gelu(backend, x));
    const expected = reference.read64(gelu(reference, x));
    actual.forEach((y, i) => {
      // Half a unit of the last place near 7 is 2.4e-7; where nothing cancels the error is relative.
      const allowed = x[i] > -2 ? 5e-7 * Math.abs(expected[i]) : 2e-8;
      assert(
        Math.abs(y - expected[i]) <= Math.min(3e-7, allowed),
        `GELU(${x[i]}) is ${y}, not ${expected[i]}`,
      );
    });
    const odd = Float32Array.of(NaN, Infinity, -Infinity, 0, -0, 3e38, -3e38, -14, 1e-40);
    const [nan, ...others] = await backend.read(gelu(backend, odd));
    assert(Number.isNaN(nan));
    const rest = [Infinity, 0, 0, -0, 3e38, 0, 0, 5e-41].map(Math.fround);
    others.forEach((y, i) =>
      assert(Math.abs(y - rest[i]) < 1e-42 || y === rest[i], `GELU(${odd[i + 1]}) is ${y}`)
    );
  });
}

Deno.test("a number that is none reaches its own sequence and no other", async () => {
  using backend = await openWasmBackend({ threads: 1 });
  const [T, C] = [30, 8];
  const qkv = numbers(T * 3 * C, 3);
  qkv[5 * 3 * C + C] = NaN; // a key of the first sequence
  const [starts, ends] = [0, 20].map((_, end) =>
    backend.upload(Uint32Array.from({ length: T }, (_, t) => [[0, 20], [20, 30]][Number(t >= 20)][end]))
  );
  const out = backend.allocate([T, C]);
  backend.disentangledAttention({
    qkv: backend.upload(qkv, [T, 3 * C]),
    starts,
    ends,
    out,
    heads: 1,
    scale: 1,
  });
  const content = await backend.read(out);
  assert(content.subarray(0, 20 * C).every(Number.isNaN));
  assert(content.subarray(20 * C).every(Number.isFinite));
});

Deno.test("shapes that do not fit and buckets beyond the tables are refused by name", async () => {
  using backend = await openWasmBackend({ threads: 1 });
  const [T, H, D, P] = [6, 2, 4, 5];
  const C = H * D;
  const f32 = (...shape: number[]) => backend.upload(new Float32Array(shape.reduce((a, b) => a * b)), shape);
  const u32 = (...content: number[]) => backend.upload(Uint32Array.from(content));
  const right: DisentangledAttentionArgs = {
    qkv: f32(T, 3 * C),
    positionKeys: f32(P, C),
    positionQueries: f32(P, C),
    buckets: u32(0, 0, 1, 2, 3, 4, 4),
    starts: u32(0, 0, 0, 0, 4, 4),
    ends: u32(4, 4, 4, 4, 6, 6),
    out: f32(T, C),
    heads: H,
    scale: 1,
  };
  backend.disentangledAttention(right);
  const wrong: [RegExp, Partial<DisentangledAttentionArgs>][] = [
    [/8 channels do not divide into 3 heads/, { heads: 3 }],
    [/qkv: expected 144 elements/, { qkv: f32(T, 2 * C) }],
    [/buckets: missing/, { buckets: undefined }],
    [/buckets: 5 of them; a sequence of 4 needs an odd number from 7 on/, { buckets: u32(0, 1, 2, 3, 4) }],
    [/buckets: 8 of them/, { buckets: u32(0, 0, 1, 2, 3, 4, 4, 4) }],
    [/buckets\[6\] is 5; expected a number below 5/, { buckets: u32(0, 0, 1, 2, 3, 4, 5) }],
    [/buckets\[5\] is 4; expected a number below 4/, { positionQueries: f32(P - 1, C) }],
    [/relative positions have 4 channels, rows 8/, { positionKeys: f32(P, D) }],
    [/starts and ends describe different sequences/, { ends: u32(4, 4, 4, 4, 5, 6) }],
    [/starts\[2\] is 1/, { starts: u32(0, 0, 1, 0, 4, 4) }],
    [/buckets: expected u32, got f32/, { buckets: f32(7) }],
  ];
  for (const [message, change] of wrong) {
    const error = assertThrows(() => backend.disentangledAttention({ ...right, ...change }), WhetError);
    assert(message.test(error.message), error.message);
  }
  // Without tables nobody asks for buckets.
  backend.disentangledAttention({
    ...right,
    positionKeys: undefined,
    positionQueries: undefined,
    buckets: undefined,
  });
});
