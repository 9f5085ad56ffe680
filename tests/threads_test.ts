/**
 * What threads promise: the same bits however many there are, no hang, nothing left behind, and one thread
 * where there can be no more.
 */
import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { createWasmBackend, openWasmBackend, type WasmBackend } from "../src/backend/wasm/backend.ts";
import { compile } from "../src/backend/wasm/instance.ts";
import { cutMatmul } from "../src/backend/wasm/split.ts";
import { WhetError } from "../src/errors.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import { uniform } from "../src/tensor/random.ts";
import { train } from "../src/train/trainer.ts";
import { suite } from "./support/cases.ts";
import { MODEL, whet } from "./support/cli.ts";
import { type Case, Lab } from "./support/lab.ts";
import { serveModule } from "./support/module_server.ts";
import { fixture, shake } from "./support/models.ts";
import { Sandbox } from "./support/sandbox.ts";

const SETS = ["strict", "relaxed"] as const;
/** However little there is to do, it is shared out, and workers stay. */
const EAGER = { price: 0, least: 0, patience: 60_000 };
const BACKEND = new URL("../src/backend/wasm/backend.ts", import.meta.url).href;

/** Backends of 1 to 4 threads, all of them there. */
async function crews(instructionSet: typeof SETS[number]): Promise<WasmBackend[]> {
  const opened = [1, 2, 3, 4].map((threads) => openWasmBackend({ instructionSet, threads, ...EAGER }));
  const backends = await Promise.all(opened);
  await Promise.all(backends.map((backend) => backend.pool?.assemble()));
  return backends;
}

/** Whether every worker has computed something. */
function shared(backend: WasmBackend): boolean {
  return backend.pool!.tiles.slice(1).every((tiles) => tiles > 0);
}

/** Works until every worker has had a share: on a busy machine some come late. */
async function workUntilShared(backend: WasmBackend, least: number, work: (round: number) => Promise<void>) {
  for (let round = 0; round < least || !shared(backend); round++) {
    assert(round < 1000, `workers got nothing to do: ${backend.pool!.tiles}`);
    await work(round);
  }
}

/** Waits for something that is to come true soon. */
async function soon(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
  assert(condition());
}

/** Pseudorandom numbers in [-1, 1), the same everywhere. */
function numbers(length: number, seed = 0): Float32Array {
  return Float32Array.from({ length }, (_, i) => 2 * uniform(i, [0x7ead, seed]) - 1);
}

/** Larger things than the suite's: many tiles, several blocks of K, long sequences. */
const LARGE: Record<string, Case> = {
  "a matrix product of several blocks": (lab) => {
    const [M, N, K] = [200, 530, 2100];
    lab.backend.matmul({
      ...{
        a: lab.input([M, K]),
        b: lab.packed(K, N, "f32"),
        out: lab.output([M, N], { absolute: 1, relative: 1 }),
      },
      ...{ bias: lab.input([N]), activation: "gelu" },
    });
  },
  "logits of one row and of some": (lab) => {
    const [V, C] = [3001, 96];
    const wte = lab.packed(V, C, "q8");
    for (const M of [1, 16]) {
      const out = lab.output([M, V], { absolute: 1, relative: 1 });
      lab.backend.matmul({ a: lab.input([M, C]), b: wte, out, transposeB: true });
    }
  },
  "a weight's gradient": (lab) => {
    const [M, N, K] = [130, 300, 150];
    const out = lab.updated([M, N], { absolute: 1, relative: 1 });
    lab.backend.matmul({
      a: lab.input([K, M]),
      b: lab.input([K, N]),
      out,
      transposeA: true,
      accumulate: true,
    });
  },
  "attention of many sequences, forward and backward": (lab) => {
    const [lengths, heads, D] = [[300, 1, 130, 64, 65], 3, 16];
    const [T, C] = [lengths.reduce((a, b) => a + b), heads * D];
    const starts = lengths.flatMap((n, i) =>
      new Array(n).fill(lengths.slice(0, i).reduce((a, b) => a + b, 0))
    );
    const ends = lengths.flatMap((n, i) =>
      new Array(n).fill(lengths.slice(0, i + 1).reduce((a, b) => a + b, 0))
    );
    const tolerance = { absolute: 1, relative: 1 };
    const where = { starts: lab.indices(starts), heads, scale: 0.25, qkv: lab.input([T, 3 * C]) };
    const [out, logSumExp] = [lab.output([T, C], tolerance), lab.output([T, heads], tolerance)];
    lab.backend.attention({ ...where, out, logSumExp });
    lab.backend.attentionBackward({
      ...{ ...where, out, logSumExp, ends: lab.indices(ends), dOut: lab.input([T, C]) },
      dQkv: lab.output([T, 3 * C], tolerance),
    });
  },
  "more calls than a batch holds": (lab) => {
    const [T, C] = [500, 8];
    lab.backend.attention({
      ...{ qkv: lab.input([T, 3 * C]), starts: lab.indices(Array.from({ length: T }, (_, t) => t)) },
      ...{ out: lab.output([T, C], { absolute: 1, relative: 1 }), heads: 2, scale: 1 },
      logSumExp: lab.output([T, 2], { absolute: 1, relative: 1 }),
    });
  },
};

for (const instructionSet of SETS) {
  Deno.test(`${instructionSet}: every kernel gives the same bits on 1, 2, 3 and 4 threads`, async () => {
    const [one, ...others] = await crews(instructionSet);
    const all = suite({ activationStep: () => 0 });
    for (const [kernel, cases] of [...Object.entries(all), ["large", LARGE] as const]) {
      const some = kernel === "large"
        ? Object.entries(cases)
        : Object.entries(cases).filter((_, i) => i % 5 === 0);
      for (const [name, run] of some) {
        const outcome = async (backend: WasmBackend) => {
          const lab = new Lab(backend, false);
          run(lab);
          const { outputs, unpacked } = await lab.finish();
          return [...outputs.map(({ content }) => content), ...unpacked];
        };
        const expected = await outcome(one);
        for (const backend of others) {
          assertEquals(await outcome(backend), expected, `${kernel} ${name}: ${backend.description}`);
        }
      }
    }
    assert(others.every(shared), `${others.map((backend) => backend.pool!.tiles).join(" | ")}`);
    for (const backend of [one, ...others]) {
      assertEquals(backend.stats().allocations, 0);
      backend[Symbol.dispose]();
    }
  });

  Deno.test(`${instructionSet}: training and generation go the same way on 1, 2, 3 and 4 threads`, async () => {
    const outcomes = [];
    for (const backend of await crews(instructionSet)) {
      using model = await GPT2.load(fixture("d20/model"), { backend, weights: "q8" });
      using lora = Lora.create(model, { rank: 4, dropout: 0.1, targets: "all-linear", seed: 3 });
      await shake(lora, model);
      const data = [1, 2, 3, 4, 5].map((n) => ({
        tokens: Array.from({ length: 9 * n }, (_, i) => (i * i * 7 + n) % model.config.vocab_size),
      }));
      const options = { lora, steps: 3, batchSize: 2, sequenceLength: 32, learningRate: 1e-2 };
      const steps = [];
      for await (const { loss, gradNorm } of train(model, data, options)) steps.push(loss, gradNorm);
      model.attach(lora);
      const prompt = Array.from({ length: 20 }, (_, i) => i + 5);
      const tokens = [];
      for await (
        const { token, logProb } of model.generate(prompt, { maxTokens: 12, temperature: 1, seed: 5 })
      ) {
        tokens.push(token, logProb);
      }
      const logits = await model.logits([prompt, prompt.slice(3)]);
      outcomes.push({ steps, tokens, logits, trained: await model.logProbs([data[3].tokens.slice(0, 32)]) });
      if (backend.pool) await workUntilShared(backend, 0, async () => void await model.logits([prompt]));
      model[Symbol.dispose]();
      backend[Symbol.dispose]();
    }
    for (const outcome of outcomes.slice(1)) assertEquals(outcome, outcomes[0]);
  });
}

Deno.test("tiles of a matrix product cover it, and are as many as threads want", () => {
  for (const [M, N, K] of [[1, 768, 768], [1, 50257, 768], [7, 16, 5], [64, 3072, 768], [1024, 768, 3072]]) {
    for (const threads of [2, 3, 8]) {
      const product = { M, N, K, multiple: 5, height: 95, pack: M === 1 ? 0 : 0.4, bring: 0.05 };
      const { rows, panels } = cutMatmul(product, 0.04, threads);
      assert(rows % 5 === 0 || rows >= M, `${rows} rows`);
      assert(panels >= 1 && panels <= Math.ceil(N / 16), `${panels} panels`);
      const tiles = Math.ceil(M / rows) * Math.ceil(N / 16 / panels);
      if (M * N * K > 1e5) {
        assert(tiles >= threads, `${M} × ${N} × ${K}: ${tiles} tiles on ${threads} threads`);
      } else assert(tiles <= threads, "too small to be cut up");
    }
  }
});

Deno.test("workers see memory that grew after they came", async () => {
  using backend = await openWasmBackend({ threads: 3, ...EAGER });
  await backend.pool!.assemble();
  const size = 1 << 17;
  const [one, two] = [backend.allocate([size]), backend.allocate([size])];
  backend.fill({ out: one, value: 1 });
  await workUntilShared(backend, 50, async () => {
    const x = backend.allocate([size]); // beyond what there was
    backend.add({ a: one, b: one, out: x });
    backend.add({ a: x, b: one, out: two });
    const sum = backend.allocate([1]);
    backend.sumOfSquares({ x: two, out: sum });
    assertEquals((await backend.read(sum))[0], 9 * size);
  });
});

Deno.test({
  name: "a kernel that fails on any thread is a WhetError in the caller, and the pool goes on",
  // Without V8's checks of bounds (turbo's second flag) nothing traps: this one ends the process.
  ignore: /no-wasm-bounds-checks/.test(Deno.env.get("DENO_V8_FLAGS") ?? ""),
  async fn() {
    using backend = await openWasmBackend({ threads: 3, ...EAGER });
    const pool = backend.pool!;
    await pool.assemble();
    const exports = WebAssembly.Module.exports((await compile()).module).map(({ name }) => name);
    await workUntilShared(backend, 10, async () => {
      const begin = 2 ** 28; // floats, far beyond the memory
      const error = assertThrows(
        () =>
          pool.run([{
            kernel: exports.indexOf("add"),
            args: [4096, 4096, 4096, begin, begin + 160],
            ranges: [{ at: 3, begin, end: begin + 160, step: 16 }],
          }]),
        WhetError,
      );
      assertEquals(error.code, "backend");
      assertStringIncludes(error.message, "out of bounds");
      const x = backend.upload(numbers(5000));
      const out = backend.allocate([5000]);
      backend.add({ a: x, b: x, out });
      assertEquals(await backend.read(out), numbers(5000).map((value) => 2 * value));
    });
  },
});

Deno.test("idle workers take no processor time, and end when they have waited long", async () => {
  const { cpuUsage } = await import("node:process");
  using backend = await openWasmBackend({ threads: 3, ...EAGER, patience: 400 });
  await backend.pool!.assemble();
  const x = backend.upload(numbers(100_000));
  backend.gelu({ x, out: x });
  await new Promise((resolve) => setTimeout(resolve, 20));
  const before = cpuUsage();
  await new Promise((resolve) => setTimeout(resolve, 200));
  const { user, system } = cpuUsage(before);
  assert(user + system < 100_000, `${user + system} µs of 200 ms`);
  await soon(() => backend.pool!.here === 0);
  backend.gelu({ x, out: x }); // calls them again
  await backend.pool!.assemble();
  assertEquals(backend.pool!.here, 2);
});

Deno.test("workers are called only for work that pays for them", async () => {
  using backend = await createWasmBackend({ threads: 3 }) as WasmBackend;
  const x = backend.upload(numbers(1000));
  for (let i = 0; i < 100; i++) backend.add({ a: x, b: x, out: x });
  await new Promise((resolve) => setTimeout(resolve, 50));
  assertEquals([backend.pool!.here, backend.pool!.tiles], [0, [0, 0, 0]]);
});

Deno.test("who had enough to do for a worker gets it back, after a rest, for less", async () => {
  using backend = await openWasmBackend({ threads: 2, price: 20e6, least: 0, patience: 20 });
  const a = backend.upload(numbers(64 * 512), [64, 512]);
  const b = backend.upload(numbers(512 * 512), [512, 512]);
  const out = backend.allocate([64, 512]);
  const multiply = async (times: number) => {
    for (let i = 0; i < times; i++) backend.matmul({ a, b, out });
    for (let i = 0; i < 100 && backend.pool!.here === 0; i++) await new Promise((go) => setTimeout(go, 2));
    return backend.pool!.here;
  };
  // About half a millisecond each.
  assertEquals(await multiply(4), 0);
  assertEquals(await multiply(100), 1);
  while (backend.pool!.here > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(await multiply(4), 1);
});

Deno.test("threads are a whole number of at least 1", async () => {
  for (const threads of [0, -1, 1.5, NaN, 257, Infinity]) {
    const error = await assertRejects(() => createWasmBackend({ threads }), WhetError);
    assertEquals(error.code, "option");
    assertStringIncludes(error.message, `threads: expected a whole number from 1 to 256, got ${threads}`);
  }
});

Deno.test("what needs no thread makes none, nor shared memory", async () => {
  using backend = await openWasmBackend({ threads: 1, ...EAGER });
  assertEquals(backend.pool, undefined);
  assertEquals(backend.description.endsWith(", 1 thread"), true);
});

Deno.test("the library and the command take a number of threads, and say it", async () => {
  using model = await GPT2.load(fixture("d16/model"), { backend: "wasm", threads: 3 });
  assertStringIncludes(model.backend.description, ", 3 threads");
  const args = ["generate", "--model", MODEL, "--prompt", "Hi", "--max-tokens", "8", "--temperature", "0"];
  const [one, three] = await Promise.all(
    ["1", "3"].map((threads) => whet([...args, "--backend", "wasm", "--threads", threads])),
  );
  assertStringIncludes(one.stderr, ", 1 thread\n");
  assertStringIncludes(three.stderr, ", 3 threads\n");
  assertEquals([three.stdout, three.code], [one.stdout, 0]);
});

/** Work for some threads, in a script; `after` is what it does then. */
function script(options: string, after: string, before = ""): string {
  return `${before}
    const { openWasmBackend } = await import("${BACKEND}");
    const backend = await openWasmBackend(${options});
    const x = backend.upload(new Float32Array(600 * 600).fill(0.5), [600, 600]);
    const out = backend.allocate([600, 600]);
    for (let i = 0; i < 3; i++) backend.matmul({ a: x, b: x, out });
    await backend.pool?.assemble();
    const workers = backend.pool?.here ?? 0;
    let helped = 0;
    for (let i = 0; i < 3 || helped < workers && i < 200; i++) {
      backend.matmul({ a: x, b: x, out });
      helped = (backend.pool?.tiles ?? [0]).slice(1).filter((tiles) => tiles > 0).length;
    }
    const right = (await backend.read(out)).every((value) => value === 150);
    console.log(right, helped, backend.description);
    ${after}`;
}

Deno.test("a process ends by itself, whatever becomes of its backend, with no permission", async () => {
  await using sandbox = new Sandbox();
  const endings: [name: string, after: string, code: number][] = [
    ["disposed", "backend[Symbol.dispose]();", 0],
    ["forgotten", "", 0],
    ["error", "throw new Error('so be it');", 1],
    ["WhetError", "backend.gelu({ x, out: backend.allocate([1]) });", 1],
  ];
  await Promise.all(endings.map(async ([name, after, status]) => {
    const file = sandbox.write(`${name}.ts`, script("{ threads: 3, price: 0 }", after));
    const begin = performance.now();
    const { code, stdout, stderr } = await sandbox.run("run", "--no-prompt", "--no-check", file);
    assertEquals(code, status, stderr);
    // Workers wait for half a minute, and nobody for them.
    assert(performance.now() - begin < 15_000, name);
    assertMatch(stdout, /^true 2 SIMD WebAssembly, relaxed.*, 3 threads$/m, name);
  }));
});

Deno.test("workers come from a module that is imported over http, with --allow-import alone", async () => {
  await using server = serveModule("application/typescript");
  await using sandbox = new Sandbox();
  const local = script("{ threads: 2, price: 0 }", "");
  const remote = local.replace(BACKEND, server.module.replace("mod.ts", "src/backend/wasm/backend.ts"));
  const file = sandbox.write("remote.ts", remote);
  const { stdout, stderr } = await sandbox.run("run", "--no-prompt", `--allow-import=${server.host}`, file);
  assertMatch(stdout, /^true 1 SIMD WebAssembly, relaxed.*, 2 threads$/m, stderr);
});

Deno.test("where workers or shared memory are missing there is one thread, and no error", async () => {
  await using sandbox = new Sandbox();
  const worlds: [name: string, before: string][] = [
    ["no SharedArrayBuffer", "delete globalThis.SharedArrayBuffer;"],
    ["no Worker", "delete globalThis.Worker;"],
    ["no Atomics.wait", "delete Atomics.wait;"],
    ["no Blob URLs", "URL.createObjectURL = undefined;"],
    ["workers refused", "globalThis.Worker = class { constructor() { throw new Error('not here'); } };"],
    [
      "workers that fail",
      "globalThis.Blob = class extends Blob { constructor() { super(['throw 1'], { type: 'text/javascript' }); } };",
    ],
    [
      "no shared WebAssembly",
      `const Memory = WebAssembly.Memory;
      WebAssembly.Memory = function (options) {
        if (options.shared) throw new TypeError("no");
        return new Memory(options);
      };`,
    ],
  ];
  await Promise.all(worlds.map(async ([name, before]) => {
    const file = sandbox.write(`${name}.ts`, script("{ threads: 3, price: 0 }", "", before));
    const { code, stdout, stderr } = await sandbox.run("run", "--no-prompt", "--no-check", file);
    assertEquals(code, 0, `${name}: ${stderr}`);
    assertMatch(stdout, /^true 0 SIMD WebAssembly, relaxed.*, 1 thread$/m, name);
  }));
});

Deno.test("backends that come and go leave no thread behind", async () => {
  const count = () => Number(/Threads:\s*(\d+)/.exec(Deno.readTextFileSync("/proc/self/status"))?.[1]);
  const settled = async (most: number) => {
    for (let i = 0; i < 100 && count() > most; i++) await new Promise((resolve) => setTimeout(resolve, 10));
    return count();
  };
  const before = Deno.build.os === "linux" ? count() : 0;
  for (let round = 0; round < 8; round++) {
    using backend = await openWasmBackend({ threads: 3, ...EAGER });
    if (round % 2) await backend.pool!.assemble(); // else it is disposed while they are on their way
    const x = backend.upload(numbers(1000));
    backend.gelu({ x, out: x });
  }
  // V8's and Deno's own pools may have grown meanwhile.
  if (Deno.build.os === "linux") assert(await settled(before + 4) <= before + 4, `${before}, ${count()}`);
});
