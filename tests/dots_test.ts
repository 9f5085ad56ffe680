/**
 * Products with 8-bit weights by products of bytes. What this processor has decides what is computed with by default;
 * here the strict build, which does in several instructions what a processor may have one for, stands for those that
 * take the second operand's bytes for unsigned (AVX-VNNI) and for signed (AVX-VNNI-INT8, ARM), and for pairs (x86 else).
 */
import { assert, assertEquals } from "@std/assert";
import { openWasmBackend } from "../src/backend/wasm/backend.ts";
import { type Dots, findDots, WORDS } from "../src/backend/wasm/dots.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import { RewardModel } from "../src/score/reward.ts";
import type { Backend } from "../src/tensor/backend.ts";
import { train } from "../src/train/trainer.ts";
import { bytesStep } from "./support/backends.ts";
import { suite } from "./support/cases.ts";
import { type Case, compare, Lab } from "./support/lab.ts";
import { EXPECTED, withModel } from "./support/deberta.ts";
import { fixture } from "./support/models.ts";

const KINDS = ["unsigned", "signed", "pairs"] as const;
/** What 8-bit weights have to do with. */
function casesOf(dots: Dots): Record<string, Case> {
  const all = suite({ activationStep: (_, transposed) => bytesStep(dots, transposed) });
  return Object.fromEntries(
    ["matmul with packed weights", "embedding"].flatMap((kernel) =>
      Object.entries(all[kernel]).filter(([name]) => /q8/.test(name))
    ),
  );
}

/** More than one slice of the transpose, more than one height of rows, and what fills neither. */
const LARGE: [M: number, N: number, K: number][] = [[1, 40, 600], [5, 33, 1100], [530, 17, 545], [
  67,
  50,
  33,
]];

const open = (dots: Dots, threads = 1) =>
  openWasmBackend({ instructionSet: "strict", dots, threads, price: 0, least: 0 });

function numbers(length: number, seed: number): Float32Array {
  return Float32Array.from({ length }, (_, i) => Math.fround(Math.sin(seed + i * 12.9898) * 43758.5453 % 1));
}

/** Both products with an 8-bit matrix. */
async function products(
  backend: Backend,
  [M, N, K]: [number, number, number],
  weights: Float32Array,
  a = numbers(M * K, 1),
): Promise<{ a: Float32Array; b: Float32Array; outputs: Float32Array[] }> {
  const x = backend.upload(a, [M, K]);
  const outputs = [];
  const plain = backend.pack(weights, K, N, "q8");
  const transposed = backend.pack(weights, N, K, "q8");
  for (const b of [plain, transposed]) {
    const out = backend.allocate([M, N]);
    backend.matmul({ a: x, b, out, transposeB: b === transposed });
    outputs.push(await backend.read(out));
    backend.free(out);
  }
  const b = await backend.unpack(plain);
  for (const memory of [x, plain, transposed]) backend.free(memory);
  return { a, b, outputs };
}

for (const dots of KINDS) {
  Deno.test(`${dots}: products of bytes agree with the float64 reference`, async () => {
    const cases = casesOf(dots);
    assert(Object.keys(cases).length > 100);
    using backend = await open(dots);
    assert(backend.description.includes(WORDS[dots]), backend.description);
    await compare(backend, cases);
  });

  Deno.test(`${dots}: a row has the same bits alone and in a batch, on 1, 2 and 3 threads`, async () => {
    using one = await open(dots);
    for (const size of LARGE) {
      const [M, N, K] = size;
      const weights = numbers(K * N, 7);
      const expected = await products(one, size, weights);
      for (const threads of [2, 3]) {
        using more = await open(dots, threads);
        await more.pool!.assemble();
        assertEquals(
          (await products(more, size, weights)).outputs,
          expected.outputs,
          `${size}, ${threads} threads`,
        );
      }
      const b = one.pack(weights, K, N, "q8");
      const out = one.allocate([1, N]);
      for (const m of [0, M - 1]) {
        const a = one.upload(expected.a.subarray(m * K, (m + 1) * K), [1, K]);
        one.matmul({ a, b, out });
        assertEquals(
          await one.read(out),
          expected.outputs[0].subarray(m * N, (m + 1) * N),
          `${size}, row ${m}`,
        );
        one.free(a);
      }
      one.free(b), one.free(out);
    }
    assertEquals(one.stats().allocations, 0);
  });
}

Deno.test("rows that go one by one, and those that go in fours, have the bits that they have alone, bias and residual too", async () => {
  const [N, K, MOST] = [83, 300, 6];
  for (const dots of ["none", ...KINDS] as const) {
    using backend = await open(dots, 2);
    for (const format of ["q8", "q4"] as const) {
      const b = backend.pack(numbers(K * N, 7), K, N, format);
      const bias = backend.upload(numbers(N, 8));
      const run = async (first: number, count: number) => {
        const a = backend.upload(numbers(MOST * K, 9).subarray(first * K, (first + count) * K), [count, K]);
        const residual = backend.upload(
          numbers(MOST * N, 5).subarray(first * N, (first + count) * N),
          [count, N],
        );
        const out = backend.allocate([count, N]);
        backend.matmul({ a, b, bias, residual, activation: "gelu", out });
        const result = await backend.read(out);
        for (const memory of [a, residual, out]) backend.free(memory);
        return result;
      };
      const rows = [];
      for (let m = 0; m < MOST; m++) rows.push(...await run(m, 1));
      for (let count = 2; count <= MOST; count++) {
        assertEquals([...await run(0, count)], rows.slice(0, count * N), `${dots}, ${format}, ${count} rows`);
      }
    }
  }
});

Deno.test("whether a processor takes bytes for signed or unsigned changes no bit", async () => {
  const outcomes = [];
  for (const dots of ["unsigned", "signed"] as const) {
    using backend = await open(dots);
    const outcome = [];
    for (const run of Object.values(casesOf(dots))) {
      const lab = new Lab(backend, false);
      run(lab);
      outcome.push((await lab.finish()).outputs.map(({ content }) => content));
    }
    for (const size of LARGE) {
      outcome.push((await products(backend, size, numbers(size[1] * size[2], 3))).outputs);
    }
    outcomes.push(outcome);
  }
  assertEquals(outcomes[0], outcomes[1]);
});

Deno.test("numbers that are none stay none, and zeros are zeros", async () => {
  using backend = await open("unsigned");
  const [M, N, K] = [3, 20, 70];
  const a = new Float32Array(M * K);
  a[5] = NaN, a[2 * K + 69] = 1;
  const x = backend.upload(a, [M, K]);
  const b = backend.pack(numbers(K * N, 2), K, N, "q8");
  const out = backend.allocate([M, N]);
  backend.matmul({ a: x, b, out });
  const result = await backend.read(out);
  assert(result.subarray(0, N).every(Number.isNaN));
  assertEquals(result.subarray(N, 2 * N), new Float32Array(N));
  const row = (await backend.unpack(b)).subarray(69 * N, 70 * N);
  result.subarray(2 * N).forEach((y, n) => assert(Math.abs(y - row[n]) <= 1e-6, `${y}, not ${row[n]}`));
});

// The relaxed build's instructions: every processor agrees about seven bits of activations that have no sign.
for (const dots of KINDS) {
  const own = await findDots("relaxed").catch(() => "none");
  Deno.test({
    name: `relaxed: the instruction itself, ${dots}`,
    ignore: dots === "unsigned" && own !== dots,
    async fn() {
      using backend = await openWasmBackend({ instructionSet: "relaxed", threads: 1, dots });
      for (const size of LARGE) {
        const [M, N, K] = size;
        const weights = numbers(K * N, 5);
        const rows = numbers(M * K, 1).map((x) => dots === "signed" ? Math.abs(x) : x);
        const { a, b, outputs } = await products(backend, size, weights, rows);
        const most = Math.max(...outputs[0].map(Math.abs));
        for (let m = 0; m < M; m += 3) {
          for (let n = 0; n < N; n++) {
            let sum = 0;
            for (let k = 0; k < K; k++) sum += a[m * K + k] * b[k * N + n];
            const actual = outputs[0][m * N + n];
            assert(Math.abs(actual - sum) <= 0.02 * most, `${size} at ${m}, ${n}: ${actual}, not ${sum}`);
          }
        }
        // The transpose is another matrix, of the same numbers: strict's answer is what it should be.
        using strict = await open(dots);
        const other = await products(strict, size, weights, rows);
        other.outputs.forEach((expected, i) =>
          expected.forEach((y, j) => {
            assert(
              Math.abs(y - outputs[i][j]) <= 1e-5 * most,
              `${size}, product ${i} at ${j}: ${outputs[i][j]}, not ${y}`,
            );
          })
        );
      }
    },
  });
}

Deno.test("what asks for more than eight bits of its rows gets them, as rewards do", () =>
  withModel(EXPECTED.cases["as DeBERTa-v3"], async (directory) => {
    const scores = [];
    for (const dots of ["none", "unsigned", "pairs"] as const) {
      using backend = await open(dots);
      using reward = await RewardModel.load(directory, { backend, weights: "q8" });
      scores.push(await reward.score(EXPECTED.pairs));
    }
    assertEquals(scores[0], scores[1]);
    assertEquals(scores[0], scores[2]);
  }));

Deno.test("an 8-bit base trains by products of bytes as it does without", async () => {
  const losses: number[][] = [];
  for (const dots of ["none", ...KINDS] as const) {
    using backend = await open(dots);
    using model = await GPT2.load(fixture("d64/model"), { backend, weights: "q8" });
    using lora = Lora.create(model, { rank: 4, targets: "all-linear", seed: 3 });
    const data = [1, 2, 3].map((n) => ({
      tokens: Array.from({ length: 9 * n }, (_, i) => (i * i * 7 + n) % model.config.vocab_size),
    }));
    const some = [];
    const options = { lora, steps: 6, batchSize: 2, sequenceLength: 24, learningRate: 1e-2 };
    for await (const { loss } of train(model, data, options)) some.push(loss);
    losses.push(some);
  }
  assertEquals(losses[1], losses[2]);
  losses[0].forEach((loss, i) => {
    for (const bytes of [1, 3]) assert(Math.abs(loss - losses[bytes][i]) <= 0.01 * loss, `${losses}`);
  });
});
