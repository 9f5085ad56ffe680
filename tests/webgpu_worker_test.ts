/**
 * The GPU in a worker: the same API and the same numbers, an event loop that goes on meanwhile, errors that come
 * over, and a process that ends.
 */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { createBackend } from "../src/backend/select.ts";
import { openRemoteBackend } from "../src/backend/webgpu/remote.ts";
import { WhetError } from "../src/errors.ts";
import type { Backend } from "../src/tensor/backend.ts";
import { GPT2, Lora, train } from "../mod.ts";
import { suite } from "./support/cases.ts";
import { compare } from "./support/lab.ts";
import { failure, inTempDir, readModel, writeModel } from "./support/models.ts";
import { Sandbox } from "./support/sandbox.ts";
import { adapterTest, numbers } from "./support/webgpu.ts";

function workerTest(claim: string, prove: (backend: Backend) => Promise<void>): void {
  adapterTest(`in a worker: ${claim}`, async () => {
    using backend = await openRemoteBackend();
    await prove(backend);
  });
}

// All kernels go over by the same road; the whole suite passes there, and takes minutes on a software adapter.
const all = suite({ activationStep: () => 0 });
for (const kernel of ["layerNorm", "lowRankRows", "gather", "dropout", "adamw"]) {
  workerTest(`${kernel} agrees with the float64 reference`, (backend) => compare(backend, all[kernel]));
}

workerTest("arguments are what they were when the call was made", async (backend) => {
  const logits = backend.upload(Float32Array.of(1, 3, 2, 5, 4, 3), [2, 3]);
  const tokens = backend.allocate([2], "u32");
  const row = { temperature: 0, topK: 0, topP: 1, repetitionPenalty: 1, draw: 0 };
  const rows = [{ ...row, slot: 0 }, { ...row, slot: 1 }];
  const args = { logits, rows, tokens, logProbs: backend.allocate([2]) };
  backend.sample(args);
  Object.assign(rows[1], { temperature: 1, draw: 0.999 });
  rows.length = 1;
  args.tokens = backend.allocate([2], "u32");
  assertEquals(await backend.readU32(tokens), Uint32Array.of(1, 0));
  assertEquals([logits.shape, rows.length], [[2, 3], 1]);
});

workerTest("memory gives back what was put there, in the order of the calls", async (backend) => {
  const data = numbers(5000);
  const x = backend.upload(data, [50, 100]);
  const early = backend.read(x);
  backend.write(x.slice(64, [3]), Float32Array.of(1, 2, 3));
  data.fill(7); // what was handed over stays what it was
  const late = backend.read(x);
  const expected = numbers(5000);
  assertEquals(await early, expected);
  expected.set([1, 2, 3], 64);
  assertEquals(await late, expected);
  assertEquals(await backend.readU32(backend.upload(Uint32Array.of(5, 6))), Uint32Array.of(5, 6));
});

workerTest("weights come back as they are stored, and can be laid out again", async (backend) => {
  for (const format of ["f16", "q8", "q4"] as const) {
    const packed = backend.pack(numbers(64 * 40), 64, 40, format);
    const stored = await backend.unpackStored(packed);
    const again = backend.packStored(stored);
    stored.codes.fill(0);
    assertEquals(await backend.unpack(again), await backend.unpack(packed));
    backend.free(packed);
    backend.free(again);
  }
  const plain = backend.pack(numbers(4), 2, 2, "f32");
  await assertRejects(() => backend.unpackStored(plain), WhetError, "f32");
  assertEquals(await backend.unpack(plain), numbers(4)); // a question that makes no sense ends nothing
});

workerTest("memory and work are counted", async (backend) => {
  const before = backend.stats();
  assertEquals([before.allocations, before.allocatedBytes], [0, 0]);
  const x = backend.upload(numbers(1000));
  const packed = backend.pack(numbers(64 * 64), 64, 64, "q8");
  assertEquals(backend.stats().allocations, 2);
  assertEquals(backend.stats().allocatedBytes, 4000 + 64 * 64 + 2 * 64 * 4);
  backend.add({ a: x, b: x, out: x });
  await backend.read(x);
  backend.free(x);
  backend.free(packed);
  const { allocations, allocatedBytes, dispatches, submissions, readbacks } = backend.stats();
  assertEquals([allocations, allocatedBytes, readbacks], [0, 0, 1]);
  assert(dispatches > before.dispatches && submissions > before.submissions);
  assertThrows(() => backend.free(x), WhetError, "freed twice");
  assertThrows(() => backend.add({ a: x, b: x, out: x }), WhetError, "after it was freed");
});

workerTest("what no buffer holds is refused at once, and nothing else is", async (backend) => {
  const error = assertThrows(() => backend.allocate([2 ** 20, 2 ** 20]), WhetError);
  assertEquals(error.code, "resource");
  assertStringIncludes(error.message, "tensor [1048576,1048576] takes 4194304.0 MiB, but this GPU's largest");
  assertThrows(() => backend.upload(numbers(3), [2, 2]), WhetError, "3 numbers");
  assertThrows(() => backend.pack(numbers(3), 2, 2, "f32"), WhetError, "packed as 2 × 2");
  assertEquals(backend.stats().allocations, 0);
  assertEquals(await backend.read(backend.upload(numbers(3))), numbers(3));
});

workerTest(
  "what is refused there is thrown by the next read, and by every call after it",
  async (backend) => {
    const x = backend.upload(numbers(64));
    backend.pack(Float32Array.of(1, 1e6, 1, 1), 2, 2, "f16");
    const error = await assertRejects(() => backend.read(x), WhetError);
    assertEquals(error.code, "format");
    assertStringIncludes(error.message, "1000000");
    assertEquals(assertThrows(() => backend.add({ a: x, b: x, out: x }), WhetError).message, error.message);
    assertThrows(() => backend.flush(), WhetError, error.message);
    await assertRejects(() => backend.read(x), WhetError, error.message);
    backend.free(x);
  },
);

adapterTest(
  "in a worker and without: a weight that does not fit its format is told by the load",
  () =>
    inTempDir(async (directory) => {
      const files = await readModel("d16");
      files.tensors.get("wte.weight")!.values[50] = 1e6;
      await writeModel(directory, files, { vocabulary: "d16" });
      for (const worker of [false, true]) {
        const load = () => GPT2.load(directory, { backend: "webgpu", weights: "f16", worker });
        const error = await failure("format", ["a weight of 1000000", "f16"], load);
        assert(worker || error.message.startsWith("wte.weight: "), error.message);
      }
    }),
);

workerTest("a tensor of another backend is refused", async (backend) => {
  using other = await openRemoteBackend();
  const x = other.upload(numbers(4));
  assertThrows(() => backend.gelu({ x, out: x }), WhetError, "another backend");
});

workerTest("timers fire while a long batch is under way", async (backend) => {
  const n = 512;
  const [a, b, out] = [0, 1, 2].map(() => backend.upload(numbers(n * n), [n, n]));
  backend.matmul({ a, b, out });
  await backend.read(out); // its pipeline is there
  for (let i = 0; i < 8; i++) backend.matmul({ a, b, out });
  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  const begin = performance.now();
  await backend.read(out);
  clearInterval(timer);
  const milliseconds = performance.now() - begin;
  assert(ticks >= 3, `${ticks} in ${milliseconds} ms`);
});

adapterTest("in a worker: a disposed backend answers nobody any more", async () => {
  const backend = await openRemoteBackend();
  const x = backend.upload(numbers(64));
  const late = assertRejects(() => backend.read(x), WhetError, "disposed");
  backend[Symbol.dispose]();
  backend[Symbol.dispose]();
  backend.free(x);
  await late;
  assertEquals(assertThrows(() => backend.flush(), WhetError).code, "disposed");
  await assertRejects(() => backend.read(x), WhetError, "disposed");
  assertEquals([backend.stats().allocations, backend.stats().allocatedBytes], [0, 0]);
});

adapterTest("in a worker: a model trains, generates and scores as on WASM", async () => {
  const shape = { n_layer: 1, n_embd: 32, n_head: 2, n_positions: 32, vocab_size: 64 };
  const run = async (open: Promise<Backend>) => {
    using backend = await open;
    using model = await GPT2.random(shape, { backend, seed: 3 });
    using lora = Lora.create(model, { rank: 2 });
    const options = { lora, steps: 3, batchSize: 2, sequenceLength: 8, learningRate: 1e-2, seed: 1 };
    const data = [{ tokens: [1, 2, 3, 4, 5, 6] }, { tokens: [7, 8, 9] }];
    const losses = (await Array.fromAsync(train(model, data, options))).map(({ loss }) => loss);
    const chunks = await Array.fromAsync(model.generate([1, 2], { maxTokens: 8, temperature: 0 }));
    const [logProbs] = await model.logProbs([[1, 2, 3, 4]]);
    return { tokens: chunks.map(({ token }) => token), numbers: [...losses, ...logProbs] };
  };
  const [gpu, wasm] = [
    await run(createBackend("webgpu", { worker: true })),
    await run(createBackend("wasm", { threads: 1 })),
  ];
  assertEquals(gpu.tokens, wasm.tokens);
  assertEquals(gpu.numbers.length, 6);
  gpu.numbers.forEach((x, i) => assert(Math.abs(x - wasm.numbers[i]) < 1e-3, `${x} and ${wasm.numbers[i]}`));
});

adapterTest(
  "in a worker: a process ends whether or not the backend was disposed, but not before its reads",
  async () => {
    await using sandbox = new Sandbox();
    const program = `${sandbox.directory}/select.js`;
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["bundle", "--quiet", "--frozen", "-o", program, "src/backend/select.ts"],
      cwd: new URL("../", import.meta.url),
    }).output();
    assertEquals(code, 0, new TextDecoder().decode(stderr));
    for (
      const end of ["", "backend[Symbol.dispose]();", "backend.fill({ out: x, value: 1 }); backend.flush();"]
    ) {
      const script = sandbox.write(
        "script.js",
        `import { createBackend } from "./select.js";
      const backend = await createBackend("webgpu", { worker: true });
      const x = backend.upload(Float32Array.of(1, 2));
      backend.add({ a: x, b: x, out: x });
      backend.read(x).then((content) => {
        console.log(content.join(" "));
        ${end}
      });`,
      );
      // No permission, and no file but the bundle.
      const finished = await sandbox.run("run", "--no-prompt", script);
      assertEquals([finished.code, finished.stdout], [0, "2 4\n"], finished.stderr);
    }
  },
);
