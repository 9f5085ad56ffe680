/** How tokens are chosen, on every backend: the distribution, the cuts, ties, penalties, seeds. */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { openWasmBackend } from "../src/backend/wasm/backend.ts";
import { checkSampling, Sampler, type SamplingOptions } from "../src/generate/sampler.ts";
import { Arena } from "../src/tensor/arena.ts";
import type { Backend, SampleArgs, SampleRow } from "../src/tensor/backend.ts";
import { uniform } from "../src/tensor/random.ts";
import { failing, onEachBackend } from "./support/models.ts";
import { ReferenceBackend } from "./support/reference.ts";
import { candidates, type Choice, choose, PLAIN } from "./support/sampling.ts";
import { gpuTest } from "./support/webgpu.ts";

/** What was chosen. */
interface Chosen {
  tokens: number[];
  logProbs: number[];
}

/** Chooses once for each draw, from the same logits and after the same tokens. */
async function chosen(
  backend: Backend,
  logits: Float32Array,
  options: Partial<Choice>,
  draws: readonly number[],
  seen: readonly number[] = [],
): Promise<Chosen> {
  const rows = draws.map((draw) => ({ ...PLAIN, ...options, draw }));
  return await chosenBy(backend, rows.map(() => logits), rows, seen);
}

/** Chooses once for each row. */
async function chosenBy(
  backend: Backend,
  logits: readonly Float32Array[],
  rows: readonly Omit<SampleRow, "slot">[],
  seen: readonly number[] = [],
): Promise<Chosen> {
  const [N, V, W] = [rows.length, logits[0].length, Math.ceil(logits[0].length / 32)];
  const all = new Float32Array(N * V);
  const set = new Uint32Array(N * W);
  for (let n = 0; n < N; n++) {
    all.set(logits[n], n * V);
    for (const token of seen) set[n * W + (token >> 5)] |= 1 << (token & 31);
  }
  const arena = new Arena(backend);
  const [tokens, logProbs] = await arena.scope(() => {
    const [tokens, logProbs] = [arena.temporary([N], "u32"), arena.temporary([N])];
    backend.sample({
      logits: arena.upload(all, [N, V]),
      rows: rows.map((row, slot) => ({ ...row, slot })),
      seen: arena.upload(set, [N, W]),
      tokens,
      logProbs,
    });
    return Promise.all([backend.readU32(tokens), backend.read(logProbs)]);
  });
  return { tokens: [...tokens], logProbs: [...logProbs] };
}

/** So many draws without pattern. */
const random = (count: number, seed = 1) => Array.from({ length: count }, (_, i) => uniform(i, [seed, 0]));

/** So many draws, evenly. */
const even = (count: number) => Array.from({ length: count }, (_, i) => (i + 0.5) / count);

/** Logits about as a language model has them: pseudo-random, of this spread. */
function logitsOf(V: number, spread: number, seed = 1): Float32Array {
  let x = seed;
  const uniform = () => (x = (x * 48271) % 2147483647) / 2147483647;
  return Float32Array.from({ length: V }, () => (uniform() + uniform() + uniform() - 1.5) * 2 * spread - 30);
}

/** The probabilities that transformers' warpers leave, in plain steps: penalty, temperature, top-k, top-p. */
function distribution(logits: Float32Array, seen: number[], options: Partial<Choice>): number[] {
  const { temperature = 1, topK = 0, topP = 1, repetitionPenalty = 1 } = options;
  const scores = [...logits].map((x, i) =>
    (!seen.includes(i) ? x : x < 0 ? x * repetitionPenalty : x / repetitionPenalty) / temperature
  );
  const order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a] || a - b);
  const softmax = (kept: number[]) => {
    const exps = scores.map((x, i) => kept.includes(i) ? Math.exp(x - scores[order[0]]) : 0);
    const sum = exps.reduce((a, b) => a + b);
    return exps.map((x) => x / sum);
  };
  let kept = topK > 0 ? order.slice(0, topK) : order;
  const probabilities = softmax(kept);
  let sum = 0;
  kept = kept.filter((i) => {
    const needed = sum < topP;
    sum += probabilities[i];
    return needed;
  });
  return softmax(kept);
}

await onEachBackend(
  "tokens are drawn from the distribution that transformers' rules leave",
  async (backend) => {
    const V = 12, N = backend.name === "webgpu" ? 600 : 8000;
    const logits = logitsOf(V, 3).map((x) => x + 30);
    const cases: Partial<Choice>[] = [
      {},
      { temperature: 0.5 },
      { temperature: 3 },
      { topK: 4 },
      { topK: 1000 },
      { topP: 0.7 },
      { topP: 0.95, temperature: 2 },
      { topK: 6, topP: 0.8, temperature: 1.5 },
      { repetitionPenalty: 1.8 },
      { repetitionPenalty: 0.5, temperature: 2, topK: 9, topP: 0.9 },
    ];
    for (const [index, options] of cases.entries()) {
      const seen = [0, 3, 7, 3];
      const expected = distribution(logits, seen, options);
      const counts = new Array(V).fill(0);
      const { tokens } = await chosen(backend, logits, options, random(N, 100 + index), seen);
      for (const token of tokens) counts[token]++;
      const what = JSON.stringify(options);
      let chiSquare = 0, cells = 0;
      for (let token = 0; token < V; token++) {
        if (expected[token] === 0) {
          assertEquals(counts[token], 0, `${what}: token ${token} is out of the running`);
        } else if (expected[token] * N >= 5) {
          chiSquare += (counts[token] - expected[token] * N) ** 2 / (expected[token] * N);
          cells++;
        }
      }
      assert(cells >= 2, what);
      // The 99.9 % quantile of a chi-square of `cells` degrees is below this.
      assert(chiSquare < cells + 4.5 * Math.sqrt(cells) + 6, `${what}: chi-square ${chiSquare} of ${cells}`);
    }
  },
);

await onEachBackend(
  "of a whole vocabulary each token has its share of the draws, to a millionth",
  async (backend) => {
    const V = 50_257;
    for (const [spread, temperature] of [[0.3, 1], [4, 1], [4, 3], [30, 1]]) {
      const logits = logitsOf(V, spread, 5);
      const { weights } = candidates(logits, { ...PLAIN, temperature });
      const total = weights.reduce((a, b) => a + b, 0);
      const upTo = new Float64Array(V + 1);
      for (let token = 0; token < V; token++) upTo[token + 1] = upTo[token] + weights[token] / total;
      const draws = [0, ...even(14), 1 - 2 ** -24];
      const { tokens } = await chosen(backend, logits, { temperature }, draws);
      for (const [i, token] of tokens.entries()) {
        const what = `spread ${spread}, temperature ${temperature}: a draw of ${draws[i]} gives ${token}`;
        assert(draws[i] > upTo[token] - 1e-6 && draws[i] < upTo[token + 1] + 1e-6, what);
      }
    }
  },
);

await onEachBackend(
  "greedy, a temperature near 0, the likeliest alone and a tiny nucleus are the same choice",
  async (backend) => {
    for (const seed of [1, 2, 3]) {
      const logits = logitsOf(1000, 2, seed);
      const best = logits.indexOf(Math.max(...logits));
      for (
        const options of [{ temperature: 0 }, { temperature: 1e-6 }, { temperature: 1e-300 }, { topK: 1 }, {
          topP: 1e-9,
        }]
      ) {
        const { tokens } = await chosen(backend, logits, options, [0, ...random(10, seed), 1 - 2 ** -24]);
        assertEquals(new Set(tokens), new Set([best]), JSON.stringify(options));
      }
    }
  },
);

await onEachBackend(
  "of equal tokens the lower ids are kept, exactly as many as are asked for",
  async (backend) => {
    const flat = new Float32Array(100);
    const kept = async (options: Partial<Choice>, logits = flat) =>
      [...new Set((await chosen(backend, logits, options, even(100))).tokens)].sort((a, b) => a - b);
    assertEquals(await kept({ temperature: 0 }), [0]);
    assertEquals(await kept({ topK: 1 }), [0]);
    assertEquals(await kept({ topK: 5 }), [0, 1, 2, 3, 4]);
    assertEquals(await kept({ topP: 0.045 }), [0, 1, 2, 3, 4]);
    assertEquals(await kept({ topP: 0.3, topK: 10 }), [0, 1, 2]);
    assertEquals(await kept({}), [...flat.keys()]);
    const two = Float32Array.of(0, 1, -0, 1, 0, -0);
    assertEquals(await kept({ topK: 3 }, two), [0, 1, 3]);
    assertEquals(await kept({ topP: 0.65 }, two), [0, 1, 3]);
    assertEquals(await kept({ topK: 4 }, two), [0, 1, 2, 3], "zeros of both signs are equal");
  },
);

await onEachBackend(
  "the cuts keep exactly the right tokens of a whole vocabulary, peaked or flat",
  async (backend) => {
    for (const spread of [0, 0.01, 1, 4, 30]) {
      const logits = logitsOf(5003, spread, 77);
      const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a] || a - b);
      for (
        const [topK, share, temperature] of [[0, 0.5, 1], [0, 0.95, 0.7], [0, 0.9999, 1], [300, 0.6, 2], [
          7,
          1,
          1,
        ]]
      ) {
        const weights = order.slice(0, topK || undefined).map((i) =>
          Math.exp((logits[i] - logits[order[0]]) / temperature)
        );
        const total = weights.reduce((a, b) => a + b);
        let count = 0, sum = 0;
        if (share === 1) count = weights.length;
        while (sum < share * total && share < 1) sum += weights[count++];
        // The share ends in the middle of the last token's, so that rounding does not decide.
        const topP = share === 1 ? 1 : (sum - weights[count - 1] / 2) / total;
        const options = { topK, topP, temperature };
        const set = (count: number) => {
          const tokens = order.slice(0, count).sort((a, b) => a - b);
          return {
            tokens,
            weights: tokens.map((i) => Math.exp((logits[i] - logits[order[0]]) / temperature)),
          };
        };
        /** The draw in the middle of a token's part. */
        const middle = ({ tokens, weights }: ReturnType<typeof set>, token: number) => {
          const at = tokens.indexOf(token);
          const before = weights.slice(0, at).reduce((a, b) => a + b, 0);
          return (before + weights[at] / 2) / weights.reduce((a, b) => a + b, 0);
        };
        // Where one token more would be kept, its own draw shows it; the last that is kept has one too.
        const [right, more] = [set(count), set(count + 1)];
        const draws = [middle(right, order[count - 1]), middle(right, order[0])];
        if (count < order.length) draws.push(middle(more, order[count]));
        const expected = draws.map((draw) => choose(right, draw));
        assertEquals(expected.slice(0, 2), [order[count - 1], order[0]]);
        const { tokens } = await chosen(backend, logits, options, draws);
        const what = `spread ${spread}, topK ${topK}, topP ${topP}, temperature ${temperature}`;
        // A part of less than a millionth may be missed by rounding.
        const narrow = weights[count - 1] / total < 2e-6;
        if (!narrow) assertEquals(tokens, expected, what);
        else assertEquals(tokens[1], expected[1], what);
      }
    }
  },
);

await onEachBackend(
  "log-probabilities are the model's own, whatever the temperature, penalty and cuts",
  async (backend) => {
    const logits = logitsOf(300, 2);
    const lse = Math.log(logits.reduce((sum, x) => sum + Math.exp(x + 30), 0)) - 30;
    for (
      const options of [{}, { temperature: 0 }, { temperature: 5, topK: 10, topP: 0.5, repetitionPenalty: 2 }]
    ) {
      const { tokens, logProbs } = await chosen(backend, logits, options, even(5), [1, 2, 3]);
      for (const [i, token] of tokens.entries()) assertAlmostEquals(logProbs[i], logits[token] - lse, 4e-6);
    }
  },
);

await onEachBackend(
  "a penalty divides positive logits of seen tokens and multiplies negative ones, once each",
  async (backend) => {
    const logits = Float32Array.of(2, 1.5, -1, -1.2);
    const greedy = async (seen: number[], repetitionPenalty: number, of = logits) =>
      (await chosen(backend, of, { temperature: 0, repetitionPenalty }, [0], seen)).tokens[0];
    assertEquals(await greedy([0], 1.3), 0); // 2 / 1.3 > 1.5
    assertEquals(await greedy([0, 0, 0], 1.3), 0);
    assertEquals(await greedy([0], 1.4), 1); // 2 / 1.4 < 1.5
    assertEquals(await greedy([], 1.4), 0);
    assertEquals(await greedy([2], 1.3, Float32Array.of(-9, -9, -1, -1.2)), 3); // −1.3 < −1.2
    assertEquals(await greedy([1], 0.7), 1); // 1.5 / 0.7 > 2
    assertEquals(await greedy([0], 0.01, Float32Array.of(3e38, 1)), 0); // held within f32
  },
);

await onEachBackend(
  "logits that are no numbers, wherever, give no log-probability and token 0",
  async (backend) => {
    for (const broken of [NaN, -NaN, Infinity]) {
      const all = [0, 1, 99].flatMap((at) =>
        [{}, { temperature: 0 }, { topK: 3 }, { topP: 0.5 }, { topK: 3, topP: 0.5 }].map((options) => {
          const logits = logitsOf(100, 1);
          logits[at] = broken;
          return { logits, row: { ...PLAIN, ...options, draw: 0.7 } };
        })
      );
      const { tokens, logProbs } = await chosenBy(
        backend,
        all.map(({ logits }) => logits),
        all.map(({ row }) => row),
      );
      assertEquals([...new Set(tokens)], [0]);
      assertEquals([...new Set(logProbs)], [NaN], `${broken}`);
    }
  },
);

await onEachBackend("tokens of a logit of −∞ are never drawn, even by the last draws", async (backend) => {
  const logits = new Float32Array(700).fill(-Infinity);
  logits[3] = logits[300] = -2;
  for (const options of [{}, { topK: 500 }, { topP: 0.999 }, { temperature: 100 }]) {
    const { tokens } = await chosen(backend, logits, options, [0, 0.3, 0.7, 1 - 2 ** -24, 1 - 2 ** -53]);
    assertEquals(tokens, [3, 3, 300, 300, 300], JSON.stringify(options));
  }
});

await onEachBackend("a row's choice has the same bits alone and in any batch", async (backend) => {
  const options: Partial<Choice>[] = [
    {},
    { temperature: 0 },
    { temperature: 0.7, topP: 0.9 },
    { topK: 50, repetitionPenalty: 1.2 },
    { temperature: 2, topK: 900, topP: 0.95 },
  ];
  const rows = options.map((option, i) => ({ ...PLAIN, ...option, draw: uniform(i, [3, 3]) }));
  const logits = rows.map((_, i) => logitsOf(7001, 4, i + 1));
  const together = await chosenBy(backend, logits, rows, [1, 2, 3]);
  for (const [i, row] of rows.entries()) {
    const alone = await chosenBy(backend, [logits[i]], [row], [1, 2, 3]);
    assertEquals(alone, { tokens: [together.tokens[i]], logProbs: [together.logProbs[i]] });
  }
});

for (const instructionSet of ["strict", "relaxed"] as const) {
  Deno.test(`wasm ${instructionSet}: a whole vocabulary's choices have the same bits on 1, 2 and 3 threads`, async () => {
    const rows = random(9, 7).map((draw, i) => ({
      ...PLAIN,
      ...[{}, { temperature: 0 }, { topP: 0.9 }, {
        topK: 40,
        temperature: 0.8,
        repetitionPenalty: 1.3,
      }][i % 4],
      draw,
    }));
    const logits = rows.map((_, i) => logitsOf(50_257, 4, i + 1));
    const outcomes: Chosen[] = [];
    for (const threads of [1, 2, 3]) {
      using backend = await openWasmBackend({ instructionSet, threads, price: 0, least: 0 });
      await backend.pool?.assemble();
      outcomes.push(await chosenBy(backend, logits, rows, [5, 6, 7]));
    }
    assertEquals(outcomes[1], outcomes[0]);
    assertEquals(outcomes[2], outcomes[0]);
  });
}

Deno.test("wasm: what does not fit is refused by name, before anything is chosen", async () => {
  using backend = await openWasmBackend({ threads: 1 });
  const f32 = (...shape: number[]) => backend.allocate(shape);
  const row = { ...PLAIN, draw: 0, slot: 0 };
  const args = { logits: f32(1, 40), rows: [row], tokens: backend.allocate([1], "u32"), logProbs: f32(1) };
  const seen = backend.allocate([2, 2], "u32");
  const cases: [string[], Partial<SampleArgs>][] = [
    [["1 rows of logits", "options for 2"], { rows: [row, row] }],
    [["penalty needs seen"], { rows: [{ ...row, repetitionPenalty: 2 }] }],
    [["slot 2", "below 2"], { rows: [{ ...row, slot: 2 }], seen }],
    [["slot NaN"], { rows: [{ ...row, slot: NaN }], seen }],
    [["1 words", "40 tokens"], { seen: backend.allocate([1, 1], "u32") }],
    [["tokens", "expected u32"], { tokens: f32(1) }],
    [["logProbs: expected 1"], { logProbs: f32(2) }],
    [["V is 0"], { logits: f32(1, 0) }],
  ];
  for (const [words, change] of cases) {
    failing("option", words, () => backend.sample({ ...args, ...change }));
  }
  backend.sample({ ...args, logits: f32(0, 40), rows: [] });
});

const many = (backend: Backend) =>
  chosenBy(
    backend,
    random(150).map((_, n) => logitsOf(33, 3, n + 1)),
    random(150).map((draw) => ({ ...PLAIN, topP: 0.9, repetitionPenalty: 1.5, draw })),
    [7, 8],
  );

gpuTest("logits that are more than a kernel sees at once are chosen from in parts", async (backend) => {
  const reference = await many(new ReferenceBackend(Float32Array));
  assertEquals((await many(backend)).tokens, reference.tokens);
}, { maxBindingBytes: 64 * 33 * 4 });

// The sampler of a batch

/** A sampler for so many sequences over a backend of its own. */
function sampler(options: SamplingOptions, prompts: number[][] = [[0]], V = 1000) {
  const backend = new ReferenceBackend(Float32Array);
  const arena = new Arena(backend);
  const it = new Sampler(arena, V, checkSampling({ seed: 1, ...options }), prompts);
  const take = async (sequences: number[], logits = new Float32Array(V)) => {
    const all = arena.upload(Float32Array.from(sequences.flatMap(() => [...logits])), [sequences.length, V]);
    const { tokens } = it.choose(all, sequences);
    arena.release(all);
    return [...await backend.readU32(tokens)];
  };
  return { it, take, arena, backend };
}

Deno.test("the same seed gives the same draws, another seed or place in the batch others", async () => {
  const of = async (seed: number | undefined, sequence = 0, count = 20) => {
    const { take } = sampler({ seed }, [[0], [0]]);
    const tokens: number[] = [];
    for (let i = 0; i < count; i++) tokens.push(...await take([sequence]));
    return tokens;
  };
  assertEquals(await of(7), await of(7));
  assertEquals(await of(2 ** 32 + 7), await of(7), "the lower 32 bits count");
  const all = (await Promise.all([of(7), of(8), of(-7), of(7, 1), of(8, 1), of(0)])).map(String);
  assertEquals(new Set(all).size, all.length);
  const { take } = sampler({ seed: 7 }, [[0], [0]]);
  const pairs = [];
  for (let i = 0; i < 20; i++) pairs.push(await take([0, 1]));
  assertEquals(pairs, (await of(7)).map((token, i) => [token, Number(all[3].split(",")[i])]));
  const unseeded = await Promise.all(Array.from({ length: 8 }, () => of(undefined, 0, 1)));
  assert(new Set(unseeded.map(String)).size > 4, "without a seed each run differs");
});

Deno.test("what each sequence has seen is its own: its prompt and its choices", async () => {
  const V = 70;
  const { take } = sampler({ temperature: 0, repetitionPenalty: 4 }, [[69, 0], [1]], V);
  const logits = Float32Array.from({ length: V }, (_, v) => [4, 3, 2.5][v] ?? (v === 69 ? 3.5 : 0.1));
  // 4 and 3.5 are 1 and 0.875 to the first sequence, 3 is 0.75 to the second; then what they chose is less, too.
  assertEquals(await take([0, 1], logits), [1, 0]);
  assertEquals(await take([1, 0], logits), [69, 2]);
  assertEquals(await take([0, 1], logits), [0, 2]);
});

Deno.test("the tokens last chosen for sequences together can be taken as they are, and no others", async () => {
  const { it, take, arena } = sampler({}, [[0], [0], [0], [0]]);
  const read = async (sequences: number[]) => {
    const tokens = it.chosen(sequences);
    return tokens && [...await arena.backend.readU32(tokens)];
  };
  assertEquals(await read([0]), null);
  const [first, pair] = [await take([0]), await take([1, 2])];
  assertEquals([await read([0]), await read([1, 2])], [first, pair]);
  assertEquals(
    [await read([1]), await read([2]), await read([2, 1]), await read([0, 1])],
    Array(4).fill(null),
  );
  const three = await take([0, 1, 2]);
  assertEquals([await read([0, 1, 2]), await read([1, 2]), await read([0])], [three, null, null]);
  const two = await take([0, 1]);
  assertEquals([await read([0, 1]), await read([2]), await read([0, 1, 2])], [two, null, null]);
  it[Symbol.dispose]();
  assertEquals([arena.size, arena.backend.stats().allocations], [0, 0]);
});

Deno.test("options that make no sense are refused by name", () => {
  const cases: [keyof SamplingOptions, unknown[]][] = [
    ["temperature", [-0.1, 101, NaN, Infinity]],
    ["topK", [-1, 1.5, NaN]],
    ["topP", [0, 1.01, -1, NaN]],
    ["repetitionPenalty", [0, -1, NaN, Infinity]],
    ["seed", [0.5, NaN, 2 ** 60]],
  ];
  for (const [name, values] of cases) {
    for (const value of values) {
      failing("option", [`${name}: expected`, String(value)], () => checkSampling({ [name]: value }));
    }
  }
});
