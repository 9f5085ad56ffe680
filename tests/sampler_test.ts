import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { candidates, checkSampling, Sampler, type SamplingOptions } from "../src/generate/sampler.ts";
import { failing } from "./support/models.ts";

const sampler = (options: SamplingOptions, sequence?: number) =>
  new Sampler(checkSampling({ seed: 1, ...options }), sequence);

function draws(options: SamplingOptions, logits: Float32Array, count: number, seen: number[] = []): number[] {
  const it = sampler(options);
  return Array.from({ length: count }, () => it.sample(logits, seen).token);
}

/** Logits about as a language model has them: pseudo-random, of this spread. */
function logitsOf(V: number, spread: number, seed = 1): Float32Array {
  let x = seed;
  const uniform = () => (x = (x * 48271) % 2147483647) / 2147483647;
  return Float32Array.from({ length: V }, () => (uniform() + uniform() + uniform() - 1.5) * 2 * spread - 30);
}

/** The probabilities that transformers' warpers leave, in plain steps: penalty, temperature, top-k, top-p. */
function distribution(logits: Float32Array, seen: number[], options: SamplingOptions): number[] {
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

Deno.test("tokens are drawn from the distribution that transformers' rules leave", () => {
  const V = 12, N = 8000;
  const logits = logitsOf(V, 3).map((x) => x + 30);
  const cases: SamplingOptions[] = [
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
    for (const token of draws({ seed: 100 + index, ...options }, logits, N, seen)) counts[token]++;
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
});

Deno.test("greedy, a temperature near 0, the likeliest alone and a tiny nucleus are the same choice", () => {
  for (const seed of [1, 2, 3]) {
    const logits = logitsOf(1000, 2, seed);
    const best = logits.indexOf(Math.max(...logits));
    for (
      const options of [{ temperature: 0 }, { temperature: 1e-6 }, { temperature: 1e-300 }, { topK: 1 }, {
        topP: 1e-9,
      }]
    ) {
      assertEquals(
        new Set(draws({ seed, ...options }, logits, 50)),
        new Set([best]),
        JSON.stringify(options),
      );
    }
  }
});

Deno.test("of equal tokens the lower ids are kept, exactly as many as are asked for", () => {
  const flat = new Float32Array(100);
  const kept = (options: SamplingOptions, logits = flat) =>
    [...new Set(draws(options, logits, 500))].sort((a, b) => a - b);
  assertEquals(kept({ temperature: 0 }), [0]);
  assertEquals(kept({ topK: 1 }), [0]);
  assertEquals(kept({ topK: 5 }), [0, 1, 2, 3, 4]);
  assertEquals(kept({ topP: 0.045 }), [0, 1, 2, 3, 4]);
  assertEquals(kept({ topP: 0.3, topK: 10 }), [0, 1, 2]);
  const two = Float32Array.of(0, 1, 0, 1, 0, 0);
  assertEquals(kept({ topK: 3 }, two), [0, 1, 3]);
  assertEquals(kept({ topP: 0.65 }, two), [0, 1, 3]);
});

Deno.test("the cuts keep exactly the right tokens of a whole vocabulary, peaked or flat", () => {
  for (const spread of [0, 0.01, 1, 4, 30]) {
    const logits = logitsOf(5003, spread, 77);
    const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a] || a - b);
    for (
      const [topK, topP, temperature] of [[0, 0.5, 1], [0, 0.95, 0.7], [0, 0.999999, 1], [300, 0.6, 2], [
        7,
        1,
        1,
      ]]
    ) {
      const weights = order.slice(0, topK || undefined).map((i) =>
        Math.exp((logits[i] - logits[order[0]]) / temperature)
      );
      const wanted = topP * weights.reduce((a, b) => a + b);
      let count = 0;
      for (let sum = 0; topP < 1 && sum < wanted; count++) sum += weights[count];
      if (topP === 1) count = weights.length;
      const { tokens } = candidates(logits, temperature, topK, topP);
      const what = `spread ${spread}, topK ${topK}, topP ${topP}, temperature ${temperature}`;
      // Sums of thousands of weights in another order may differ by one token at the edge.
      assert(
        Math.abs(tokens.length - count) <= (count > 1000 ? 1 : 0),
        `${what}: ${tokens.length}, not ${count}`,
      );
      assertEquals([...tokens], order.slice(0, tokens.length).sort((a, b) => a - b), what);
    }
  }
});

Deno.test("log-probabilities are the model's own, whatever the temperature, penalty and cuts", () => {
  const logits = logitsOf(300, 2);
  const lse = Math.log(logits.reduce((sum, x) => sum + Math.exp(x + 30), 0)) - 30;
  for (
    const options of [{}, { temperature: 0 }, { temperature: 5, topK: 10, topP: 0.5, repetitionPenalty: 2 }]
  ) {
    const before = logits.slice();
    const { token, logProb } = sampler(options).sample(logits, [1, 2, 3]);
    assertAlmostEquals(logProb, logits[token] - lse, 1e-6);
    assertEquals(logits, before, "the logits are not changed");
  }
});

Deno.test("a penalty divides positive logits of seen tokens and multiplies negative ones, once each", () => {
  const logits = Float32Array.of(2, 1.5, -1, -1.2);
  const greedy = (seen: number[], repetitionPenalty: number, of = logits) =>
    sampler({ temperature: 0, repetitionPenalty }).sample(of, seen).token;
  assertEquals(greedy([0], 1.3), 0); // 2 / 1.3 > 1.5
  assertEquals(greedy([0, 0, 0], 1.3), 0);
  assertEquals(greedy([0], 1.4), 1); // 2 / 1.4 < 1.5
  assertEquals(greedy([], 1.4), 0);
  assertEquals(greedy([2], 1.3, Float32Array.of(-9, -9, -1, -1.2)), 3); // −1.3 < −1.2
  assertEquals(greedy([1], 0.7), 1); // 1.5 / 0.7 > 2
});

Deno.test("the same seed gives the same draws, another seed or place in the batch others", () => {
  const flat = new Float32Array(10_000);
  const of = (seed: number, sequence = 0) => {
    const it = sampler({ seed }, sequence);
    return Array.from({ length: 20 }, () => it.sample(flat, []).token);
  };
  assertEquals(of(7), of(7));
  assertEquals(of(2 ** 32 + 7), of(7), "the lower 32 bits count");
  const all = [of(7), of(8), of(-7), of(7, 1), of(8, 1), of(0)].map(String);
  assertEquals(new Set(all).size, all.length);
  const unseeded = () => new Sampler(checkSampling({})).sample(flat, []).token;
  assert(new Set(Array.from({ length: 8 }, unseeded)).size > 4, "without a seed each run differs");
});

Deno.test("logits that are no numbers, wherever, give no log-probability", () => {
  for (const broken of [NaN, Infinity]) {
    for (const at of [0, 1, 99]) {
      for (const options of [{}, { temperature: 0 }, { topK: 3 }, { topP: 0.5 }, { topK: 3, topP: 0.5 }]) {
        const logits = logitsOf(100, 1);
        logits[at] = broken;
        assert(Number.isNaN(sampler(options).sample(logits, []).logProb), `${broken} at ${at}`);
      }
    }
  }
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
