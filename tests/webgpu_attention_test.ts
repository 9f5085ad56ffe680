/** Attention on WebGPU: every width of heads, every path, sequences of unequal lengths, caches beyond which lies poison. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { createWebGpuBackend } from "../src/backend/webgpu/backend.ts";
import { WhetError } from "../src/errors.ts";
import { type Backend, CACHE_BLOCK } from "../src/tensor/backend.ts";
import { type Case, compare, type Lab, sumOf } from "./support/lab.ts";
import { adapterTest, findAdapter, gpuTest, numbers } from "./support/webgpu.ts";

/** Cases by name. */
type Cases = Record<string, Case>;

/** Attention within sequences, forward and backward. */
function within(lengths: readonly number[], H: number, D: number): Case {
  return (lab: Lab) => {
    const T = lengths.reduce((sum, length) => sum + length, 0);
    const C = H * D;
    const firsts = lengths.map((_, i) => lengths.slice(0, i).reduce((sum, length) => sum + length, 0));
    const starts = lab.indices(lengths.flatMap((length, i) => Array(length).fill(firsts[i])));
    const ends = lab.indices(lengths.flatMap((length, i) => Array(length).fill(firsts[i] + length)));
    const head = { heads: H, scale: 1 / Math.sqrt(D) };
    const error = Math.sqrt(D) + Math.sqrt(T);
    const qkv = lab.input([T, 3 * C]);
    const out = lab.output([T, C], sumOf(error));
    const logSumExp = lab.output([T, H], sumOf(error));
    lab.backend.attention({ qkv, starts, out, logSumExp, ...head });
    const dOut = lab.input([T, C]);
    const dQkv = lab.output([T, 3 * C], sumOf(error, 2));
    lab.backend.attentionBackward({ qkv, starts, ends, out, logSumExp, dOut, dQkv, ...head });
  };
}

/** Rows of attention over a cache, as [slot, position]. */
type Rows = readonly (readonly [number, number])[];

/** Steps over one cache of three slots, each continuing what those before it stored. */
function over(steps: readonly Rows[], positions: number, H: number, D: number, dtype: "f32" | "f16"): Case {
  return (lab: Lab) => {
    const C = H * D;
    const shape = [3, positions, C];
    const cache = { keys: lab.cache(shape, dtype), values: lab.cache(shape, dtype) };
    for (const rows of steps) {
      const T = rows.length;
      lab.backend.cachedAttention({
        ...cache,
        qkv: lab.input([T, 3 * C]),
        slots: lab.indices(rows.map(([slot]) => slot)),
        positions: lab.indices(rows.map(([, position]) => position)),
        out: lab.output([T, C], sumOf(Math.sqrt(D) + Math.sqrt(positions))),
        heads: H,
        scale: 1 / Math.sqrt(D),
      });
    }
  };
}

/** So many rows of a slot from a position on. */
const run = (slot: number, position: number, count: number): Rows =>
  Array.from({ length: count }, (_, i) => [slot, position + i] as const);

/** Prompts whose rows lie among each other, more than have workgroups of their own; then a few tokens, then many again. */
const STEPS = [
  [...run(2, 0, 40), ...run(0, 0, 1), ...run(1, 0, 30), ...run(2, 40, 3), ...run(0, 1, 34)],
  [[1, 30], [0, 35], [2, 43], [1, 31]],
  [[2, 44]],
  [...run(0, 36, 3), ...run(1, 32, 70), ...run(0, 39, 1)],
] as const;

/** A backend on a device with the limits that every device has: 16 KiB of workgroup memory. */
async function least(): Promise<Backend> {
  const adapter = await findAdapter();
  const plain = { info: adapter.info, limits: {}, requestDevice: () => adapter.requestDevice() };
  return await createWebGpuBackend(plain as unknown as GPUAdapter);
}

gpuTest("attention within sequences of unequal lengths, whatever the heads' width", async (backend) => {
  const cases: Cases = {};
  for (const [H, D] of [[3, 3], [1, 128], [1, 256]]) {
    for (const lengths of [[1], [5, 1, 34, 3]]) cases[`H=${H} D=${D} ${lengths}`] = within(lengths, H, D);
  }
  await compare(backend, cases);
});

gpuTest("attention over a cache: many rows of several slots, few rows, one", async (backend) => {
  const cases: Cases = {};
  for (
    const [H, D, dtype] of [
      [3, 3, "f16"],
      [2, 128, "f16"],
      [1, 160, "f16"],
      [1, 256, "f32"],
    ] as const
  ) cases[`H=${H} D=${D} ${dtype}`] = over(STEPS, 102, H, D, dtype);
  await compare(backend, cases);
});

gpuTest("a long context is split and merged, whatever the stretches are", async (backend) => {
  const [D, dtype] = [4, "f32"] as const;
  const steps = [run(1, 0, 2100), [[1, 2100], [0, 0]], [[1, 2101]], [[0, 1], [0, 2]]] as const;
  await compare(backend, { "of 128": over(steps, 2110, 1, D, dtype) });
  await compare(backend, { "of 64": over([run(0, 0, 191), [[0, 191]], [[0, 192]]], 193, 2, D, dtype) });
});

adapterTest("attention within the workgroup memory that every device has", async () => {
  using backend = await least();
  await compare(backend, {
    "within": within([5, 1, 34], 2, 64),
    "over": over(STEPS, 102, 1, 64, "f16"),
  });
});

gpuTest("one kernel attends, or two where a long context is split or tokens are many", async (backend) => {
  for (const [T, positions, kernels] of [[1, 2048, 1], [64, 100, 1], [65, 100, 2], [1, 2112, 2]]) {
    const before = backend.stats().dispatches;
    // Every case runs twice.
    await compare(backend, { "over": over([run(1, 0, T)], positions, 1, 4, "f32") });
    assertEquals((backend.stats().dispatches - before) / 2, kernels, `${T} tokens, ${positions} positions`);
  }
});

gpuTest("a cache in blocks, wherever they lie, gives the same bits as one slot by slot", async (backend) => {
  const [H, D, positions] = [2, 5, 160];
  const C = H * D;
  const table = [7, 2, 0, 5, 3, 6];
  for (const dtype of ["f32", "f16"] as const) {
    const whole = [0, 1].map(() => backend.allocate([3, positions, C], dtype));
    const parts = [0, 1].map(() => backend.allocate([8, CACHE_BLOCK, C], dtype));
    const blocks = backend.upload(Uint32Array.from(table), [3, 2]);
    for (const rows of [...STEPS, run(1, 102, 58)]) {
      const T = rows.length;
      const outs = [0, 1].map(() => backend.upload(new Float32Array(T * C).fill(NaN), [T, C]));
      const qkv = backend.upload(numbers(T * 3 * C), [T, 3 * C]);
      const slots = backend.upload(Uint32Array.from(rows, ([slot]) => slot));
      const at = backend.upload(Uint32Array.from(rows, ([, position]) => position));
      const args = { qkv, slots, positions: at, heads: H, scale: 0.3 };
      backend.cachedAttention({ ...args, keys: whole[0], values: whole[1], out: outs[0] });
      backend.cachedAttention({ ...args, keys: parts[0], values: parts[1], blocks, out: outs[1] });
      const [expected, actual] = await Promise.all(outs.map((out) => backend.read(out)));
      assert(expected.every(Number.isFinite));
      assertEquals(actual, expected);
    }
  }
});

gpuTest("a head wider than 256 is refused in words", (backend) => {
  const [qkv, starts] = [backend.allocate([1, 3 * 300]), backend.allocate([1], "u32")];
  const [out, logSumExp] = [backend.allocate([1, 300]), backend.allocate([1, 1])];
  const error = assertThrows(
    () => backend.attention({ qkv, starts, out, logSumExp, heads: 1, scale: 1 }),
    WhetError,
    "at most 256",
  );
  assertEquals(error.code, "unsupported");
});
