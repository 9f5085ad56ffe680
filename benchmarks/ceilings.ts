/**
 * What a CPU's cores can do at most in 128-bit WebAssembly, and what follows for GPT-2 124M:
 *
 *     deno run -A benchmarks/ceilings.ts [--json FILE]
 *
 * First bare instructions in registers, without a load; then Whet's own products; then the time that the multiplications
 * alone of a row of benchmarks/README.md take at either speed. A figure is the best of several runs on one core, and the
 * median of several with every core at work at once.
 *
 * @module
 */
import { parseArgs } from "node:util";
import asc from "npm:assemblyscript@0.28.20/asc";
import { openWasmBackend } from "../src/backend/wasm/backend.ts";
import type { WeightFormat } from "../src/tensor/tensor.ts";
import { describeMachine } from "./harness/machine.ts";
import { median } from "./harness/statistics.ts";

/** An instruction (or the fewest that do a step of a product), its operations of numbers, and how many chains run beside. */
interface Instruction {
  name: string;
  /** A chain's next value out of its last, `c`, and two constants: of `c` in the products too, lest they leave the loop. */
  step: string;
  /** Multiplications and additions of a step. */
  operations: number;
}

const CHAINS = 12;
const INSTRUCTIONS: Record<string, Instruction> = {
  fma: { name: "f32 multiply-add", step: "f32x4.relaxed_madd(a, b, c)", operations: 8 },
  dot16: {
    name: "16-bit products, sums in 32",
    step: "i32x4.add(a, i32x4.dot_i16x8_s(b, c))",
    operations: 16,
  },
  dot8: {
    name: "8-bit by 7-bit products, sums in 32, one instruction",
    step: "i32x4.relaxed_dot_i8x16_i7x16_add_s(a, b, c)",
    operations: 32,
  },
  pairs8: {
    name: "the same, pairs of products in 16",
    step: "i32x4.add(a, i32x4.extadd_pairwise_i16x8_s(i16x8.relaxed_dot_i8x16_i7x16_s(c, b)))",
    operations: 32,
  },
};

/** GPT-2 124M. */
const [L, C, V] = [12, 768, 50257];
/** The parameters that a block's products read. */
const BLOCK = C * 3 * C + C * C + 2 * C * 4 * C;

/** Rows of the bench: their multiplications and additions, a token. */
const WORKS = [
  { name: "LoRA step, 4 × 256 tokens", operations: 2 * L * BLOCK + 2 * (L * BLOCK - C * 3 * C) + 4 * C * V },
  // Of the last block all tokens need the keys and values alone, and the last token the rest.
  {
    name: "prefill of 512 tokens",
    operations: 2 * (L - 1) * BLOCK + 6 * C * C + 2 * (BLOCK - 3 * C * C + C * V) / 512,
  },
];

const RUNS = 7;

/** A module of loops over each instruction, and one that reads memory. */
async function compile(): Promise<Uint8Array<ArrayBuffer>> {
  const chains = Array.from({ length: CHAINS }, (_, i) => i);
  const loops = Object.entries(INSTRUCTIONS).map(([name, { step }]) =>
    `export function ${name}(n: i32): i32 {
      const a = v128.load(0), b = v128.load(16);
      ${chains.map((i) => `let c${i} = v128.load(${32 + 16 * i});`).join(" ")}
      for (let i = 0; i < n; i++) { ${
      chains.map((i) => `c${i} = ${step.replace(/\bc\b/g, `c${i}`)};`).join(" ")
    } }
      return v128.any_true(${chains.map((i) => `c${i}`).reduce((x, y) => `v128.or(${x}, ${y})`)}) ? 1 : 0;
    }`
  );
  const source = `memory.grow(4096); ${loops.join("\n")}
    export function read(n: i32): i32 {
      let c0 = v128.load(0), c1 = c0, c2 = c0, c3 = c0;
      for (let i = 0; i < n; i += 64) {
        c0 = v128.or(c0, v128.load(i)), c1 = v128.or(c1, v128.load(i + 16));
        c2 = v128.or(c2, v128.load(i + 32)), c3 = v128.or(c3, v128.load(i + 48));
      }
      return v128.any_true(v128.or(v128.or(c0, c1), v128.or(c2, c3))) ? 1 : 0;
    }
    export function touch(n: i32): void { memory.fill(0, 1, n); }`;
  let module: Uint8Array | undefined;
  const flags = ["--enable", "simd", "--enable", "relaxed-simd", "-O3", "--noAssert", "--runtime", "stub"];
  const { error } = await asc.main(["ceilings.ts", "--outFile", "ceilings.wasm", ...flags], {
    readFile: (name: string) => name === "ceilings.ts" ? source : null,
    writeFile: (_: string, contents: string | Uint8Array) => void (module = contents as Uint8Array),
    listFiles: () => [],
  });
  if (error || !module) throw error ?? new Error("the loops were not compiled");
  return module.slice();
}

/** What each thread runs: it answers a call's name and count with its milliseconds. */
const WORKER = `let exports;
onmessage = async ({ data }) => {
  if (data.module) {
    exports = (await WebAssembly.instantiate(data.module)).instance.exports;
    return postMessage(0);
  }
  const begin = performance.now();
  exports[data.name](data.count);
  postMessage(performance.now() - begin);
};`;

/** Threads that all do the same at once. */
class Threads implements Disposable {
  #workers: Worker[] = [];

  static async open(count: number, module: Uint8Array<ArrayBuffer>): Promise<Threads> {
    const threads = new Threads();
    const url = URL.createObjectURL(new Blob([WORKER], { type: "text/javascript" }));
    for (let i = 0; i < count; i++) threads.#workers.push(new Worker(url, { type: "module" }));
    await threads.#all({ module });
    return threads;
  }

  /** Everyone calls; the slowest one's milliseconds. */
  async run(name: string, count: number): Promise<number> {
    return Math.max(...await this.#all({ name, count }));
  }

  #all(message: unknown): Promise<number[]> {
    return Promise.all(this.#workers.map((worker) =>
      new Promise<number>((resolve, reject) => {
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = ({ message }) => reject(new Error(message));
        worker.postMessage(message);
      })
    ));
  }

  [Symbol.dispose](): void {
    for (const worker of this.#workers) worker.terminate();
  }
}

/** Billions a second of one core, and of all at once. */
interface Speed {
  one: number;
  all: number;
}

async function speedOf(run: (threads: number) => Promise<number>, amount: number): Promise<Speed> {
  const one: number[] = [], all: number[] = [];
  for (let i = 0; i < RUNS; i++) {
    one.push(amount / await run(1) / 1e6);
    all.push(cores * amount / await run(cores) / 1e6);
  }
  return { one: Math.max(...one), all: median(all) };
}

/** The speed of Whet's product of 1024 rows; `transposeB`: as backward passes have it; `precise`: as rewards have it. */
async function product(format: WeightFormat, transposeB: boolean, precise = false): Promise<Speed> {
  const [M, K, N] = [1024, C, 4 * C];
  const speeds: number[] = [];
  for (const threads of [1, cores]) {
    using backend = await openWasmBackend({ threads });
    await backend.pool?.assemble();
    const weights = Float32Array.from({ length: K * N }, (_, i) => Math.sin(i));
    const b = transposeB ? backend.pack(weights, N, K, format) : backend.pack(weights, K, N, format);
    const a = backend.upload(weights.subarray(0, M * K), [M, K]);
    const out = backend.allocate([M, N]);
    const times: number[] = [];
    for (let i = 0; i < 2 * RUNS; i++) {
      const begin = performance.now();
      backend.matmul({ a, b, transposeB, precise, out });
      if (i > 1) times.push(performance.now() - begin);
    }
    speeds.push(2 * M * K * N / 1e6 / (threads === 1 ? Math.min(...times) : median(times)));
  }
  return { one: speeds[0], all: speeds[1] };
}

const { values } = parseArgs({ options: { json: { type: "string" } } });
const cores = navigator.hardwareConcurrency;
const machine = await describeMachine();
const figure = (value: number) => value >= 100 ? value.toFixed(0) : value.toFixed(1);
const line = (...cells: string[]) => console.log(`| ${cells.join(" | ")} |`);
const record: Record<string, Speed> = {};

console.log(`${machine.cpu}, ${cores} cores, ${machine.system}; Deno ${machine.deno}, V8 ${machine.v8}\n`);
line("what", "one core", `${cores} cores`, "unit"), line("---", "---", "---", "---");
{
  const module = await compile();
  using single = await Threads.open(1, module);
  using every = await Threads.open(cores, module);
  const on = (threads: number) => threads === 1 ? single : every;
  for (const [name, { name: words, operations }] of Object.entries(INSTRUCTIONS)) {
    const count = 2e7;
    await Promise.all([single, every].map((threads) => threads.run(name, count))); // compiled for speed by now
    const speed = await speedOf((threads) => on(threads).run(name, count), count * CHAINS * operations);
    line(words, figure(speed.one), figure(speed.all), name === "fma" ? "GFLOP/s" : "Gop/s");
    record[name] = speed;
  }
  const bytes = 2 ** 28 - 64;
  await Promise.all([single, every].map((threads) => threads.run("touch", bytes)));
  record.read = await speedOf((threads) => on(threads).run("read", bytes), bytes);
  line("reading memory", figure(record.read.one), figure(record.read.all), "GB/s");
}
for (const format of ["f32", "q8", "q4"] as const) {
  for (const transposed of [false, true]) {
    const speed = record[`${format}${transposed ? " transposed" : ""}`] = await product(format, transposed);
    const words = `Whet's ${format} product 1024 × 768 × 3072${transposed ? ", transposed weight" : ""}`;
    line(words, figure(speed.one), figure(speed.all), format === "f32" ? "GFLOP/s" : "Gop/s");
  }
}
{
  const speed = record["q8 precise"] = await product("q8", false, true);
  line(
    "Whet's q8 product 1024 × 768 × 3072, 12 bits, as for rewards",
    figure(speed.one),
    figure(speed.all),
    "Gop/s",
  );
}

console.log();
line(
  "tokens/s, if there were nothing but multiplications",
  "at the instruction's peak",
  "at Whet's product's speed",
);
line("---", "---", "---");
for (const { name, operations } of WORKS) {
  for (const [format, instruction] of [["f32", "fma"], ["q8", "pairs8"]]) {
    const at = ({ all }: Speed) => figure(all * 1e9 / operations);
    line(`${name}, ${format}`, at(record[instruction]), at(record[format]));
  }
}
if (values.json) await Deno.writeTextFile(values.json, JSON.stringify({ machine, speeds: record }, null, 2));
