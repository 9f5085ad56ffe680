/** The one submission that is being recorded: order, hazards, reuse, counters. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { createWebGpuBackend } from "../src/backend/webgpu/backend.ts";
import { WhetError } from "../src/errors.ts";
import type { Backend } from "../src/tensor/backend.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { adapterTest, findAdapter, gpuTest, numbers } from "./support/webgpu.ts";

gpuTest("a write never overtakes the kernels that still need the old content", async (backend) => {
  for (const length of [1, 5, 1000, 70_000, 300_000]) { // beyond what waits among the commands, too
    const x = backend.upload(new Float32Array(length).fill(1));
    const outs = Array.from({ length: 20 }, () => backend.allocate([length]));
    outs.forEach((out, i) => {
      backend.copy({ x, out });
      backend.write(x, new Float32Array(length).fill(i + 2));
    });
    const contents = await Promise.all(outs.map((out) => backend.read(out)));
    contents.forEach((content, i) => assert(content.every((y) => y === i + 1), `${length}: write ${i}`));
    assertEquals((await backend.read(x))[length - 1], 21);
    [x, ...outs].forEach((tensor) => backend.free(tensor));
  }
});

gpuTest(
  "memory that is freed and taken again among recorded kernels keeps its old content for them",
  async (backend) => {
    const sums: Tensor[] = [];
    for (let i = 0; i < 50; i++) {
      const x = backend.upload(new Float32Array(100).fill(i)); // the buffer of the one before
      const sum = backend.allocate([100]);
      backend.add({ a: x, b: x, out: sum });
      backend.free(x);
      sums.push(sum);
    }
    const contents = await Promise.all(sums.map((sum) => backend.read(sum)));
    contents.forEach((content, i) => assertEquals([content[0], content[99]], [2 * i, 2 * i]));
  },
);

gpuTest("reads that overlap in time see each its own moment", async (backend) => {
  const x = backend.allocate([1000]);
  const reads: Promise<Float32Array>[] = [];
  for (let i = 0; i < 10; i++) {
    backend.fill({ out: x, value: i });
    reads.push(backend.read(x));
  }
  (await Promise.all(reads)).forEach((content, i) => assertEquals([content[0], content[999]], [i, i]));
});

gpuTest("reads that are asked for together share one submission", async (backend) => {
  const x = backend.upload(numbers(100));
  const before = backend.stats();
  const [a, b] = await Promise.all([backend.read(x), backend.read(x.slice(64, [3]))]);
  assertEquals([a, b], [numbers(100), numbers(100).slice(64, 67)]);
  const after = backend.stats();
  assertEquals([after.submissions, after.readbacks], [before.submissions + 1, before.readbacks + 2]);
});

gpuTest("more parameters than one submission holds go into the next", async (backend) => {
  const x = backend.upload(new Float32Array(3));
  const ones = backend.upload(new Float32Array(3).fill(1));
  await backend.read(x);
  const before = backend.stats().submissions;
  const n = 33_000; // more than a MiB of parameters, at 32 bytes each or more
  for (let i = 0; i < n; i++) backend.add({ a: x, b: ones, out: x });
  assertEquals([...await backend.read(x)], [n, n, n]);
  assert(backend.stats().submissions > before + 1);
});

/** Something like a step: uploads, products, a temporary or two, sizes that vary or not. */
function step(backend: Backend, weight: Tensor, T: number): Tensor {
  const C = 20;
  const tokens = backend.upload(Uint32Array.from({ length: T }, (_, t) => t % 4));
  const x = backend.allocate([T, C]);
  const y = backend.allocate([T, C]);
  const sum = backend.allocate([1]);
  backend.embedding({ wte: weight, wpe: weight, tokens, positions: tokens, out: x });
  backend.matmul({ a: x, b: weight, out: y, activation: "gelu" });
  backend.free(x);
  const z = backend.allocate([T, C]);
  backend.matmul({ a: y, b: weight, out: z, transposeB: true, residual: y });
  backend.sumOfSquares({ x: z, out: sum });
  for (const tensor of [y, tokens, z]) backend.free(tensor);
  return sum;
}

gpuTest("after the first, a step is one submission and creates nothing", async (backend) => {
  const weight = backend.upload(numbers(400), [20, 20]);
  const run = async (T: number) => {
    const sum = step(backend, weight, T);
    const [result] = await backend.read(sum);
    backend.free(sum);
    return result;
  };
  const first = await run(8);
  const before = backend.stats();
  for (let i = 0; i < 10; i++) {
    assertEquals(await run(8), first);
    await run(7); // lengths of one size class share all
  }
  const after = backend.stats();
  assertEquals(after.creations, before.creations);
  assertEquals(after.submissions, before.submissions + 20);
  assertEquals([after.allocatedBytes, after.allocations], [before.allocatedBytes, before.allocations]);
});

gpuTest("buffers and bind groups of sizes gone by are given back, and made again", async (backend) => {
  const weight = backend.upload(numbers(400), [20, 20]);
  const once = async () => {
    const sum = step(backend, weight, 1000);
    const [result] = await backend.read(sum);
    backend.free(sum);
    return result;
  };
  const expected = await once();
  const settled = backend.stats().creations;
  assertEquals([await once(), backend.stats().creations], [expected, settled]);
  for (let i = 0; i < 400; i++) {
    backend.free(step(backend, weight, 3));
    backend.flush();
  }
  const before = backend.stats().creations;
  assertEquals(await once(), expected);
  assert(backend.stats().creations > before);
});

gpuTest("nothing recorded, nothing submitted", (backend) => {
  const before = backend.stats();
  backend.flush();
  backend.flush();
  assertEquals(backend.stats(), before);
});

gpuTest("empty tensors are written, worked on and read like others", async (backend) => {
  const [a, b] = [backend.upload(new Float32Array()), backend.allocate([0, 5])];
  backend.copy({ x: a, out: b });
  backend.matmul({ a: b, b: backend.upload(numbers(10), [5, 2]), out: backend.allocate([0, 2]) });
  assertEquals(await backend.read(b), new Float32Array());
  const out = backend.upload(Float32Array.of(1, 2), [1, 2]);
  backend.matmul({ a: backend.allocate([1, 0]), b: backend.allocate([0, 2]), out, alpha: 3 });
  assertEquals([...await backend.read(out)], [0, 0]);
});

gpuTest("an output that overlaps an input is refused, unless the kernel allows it", (backend) => {
  const x = backend.upload(numbers(200), [200]);
  const [a, b] = [x.slice(0, [100]), x.slice(64, [100])];
  for (const run of [() => backend.gelu({ x: a, out: b }), () => backend.copy({ x: b, out: a })]) {
    assertEquals(assertThrows(run, WhetError, "overlap").code, "backend");
  }
  backend.add({ a, b: a, out: a });
  backend.dropout({ x: a, out: a, probability: 0.5, key: [1, 2] });
});

gpuTest("memory that was freed or is another's is refused", async (backend) => {
  const x = backend.upload(numbers(3));
  backend.free(x);
  assertThrows(() => backend.free(x), WhetError, "twice");
  assertThrows(
    () => backend.copy({ x, out: backend.allocate([3]) }),
    WhetError,
    "not in this device's memory",
  );
  assertThrows(() => backend.write(backend.allocate([3]), numbers(4)), WhetError, "4 numbers");
  await assertRejects(() => (async () => await backend.read(x))(), WhetError);
  const packed = backend.pack(numbers(6), 2, 3, "q8");
  backend.free(packed);
  await assertRejects(() => (async () => await backend.unpack(packed))(), WhetError);
});

adapterTest("after disposal everything says so, and nothing is held", async () => {
  const backend = await createWebGpuBackend(await findAdapter());
  const x = backend.upload(numbers(3));
  const late = backend.read(x);
  backend[Symbol.dispose]();
  backend[Symbol.dispose]();
  assertEquals((await assertRejects(() => late, WhetError)).code, "disposed");
  for (
    const use of [
      () => backend.allocate([1]),
      () => backend.add({ a: x, b: x, out: x }),
      () => backend.flush(),
    ]
  ) {
    assertEquals(assertThrows(use, WhetError).code, "disposed");
  }
  backend.free(x);
  const { allocatedBytes, allocations } = backend.stats();
  assertEquals([allocatedBytes, allocations], [0, 0]);
});
