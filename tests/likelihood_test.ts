import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { createWasmBackend } from "../src/backend/wasm/backend.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import type { Backend } from "../src/tensor/backend.ts";
import { failure, fixture, onEachBackend } from "./support/models.ts";

/** Token ids below 257, the smallest fixture's vocabulary. */
function tokensOf(length: number, seed: number): number[] {
  let x = seed + 1;
  return Array.from({ length }, () => (x = (x * 48271) % 2147483647) % 257);
}

const bits = (values: Float32Array) => new Uint32Array(values.buffer, values.byteOffset, values.length);

async function withModel(
  work: (model: GPT2, backend: Backend) => Promise<void>,
  name = "d16",
): Promise<void> {
  using backend = await createWasmBackend();
  using model = await GPT2.load(fixture(`${name}/model`), { backend });
  await work(model, backend);
}

/** Natural logs of the softmax at the tokens that come next, in doubles. */
function logSoftmax(logits: Float32Array, tokens: readonly number[], V: number): number[] {
  return tokens.slice(1).map((token, row) => {
    const scores = logits.subarray(row * V, (row + 1) * V);
    const top = Math.max(...scores);
    return scores[token] - top - Math.log(scores.reduce((sum, x) => sum + Math.exp(x - top), 0));
  });
}

await onEachBackend("log-probabilities are the log-softmax of the logits", async (backend) => {
  using model = await GPT2.load(fixture("d20/model"), { backend });
  const before = backend.stats().allocatedBytes;
  const sequences = [tokensOf(5, 1), [7], [], tokensOf(40, 2), tokensOf(2, 3)];
  const logits = await model.logits(sequences);
  const logProbs = await model.logProbs(sequences);
  assertEquals(logits.map(({ length }) => length), sequences.map(({ length }) => length * 257));
  assertEquals(logProbs.map(({ length }) => length), [4, 0, 0, 39, 1]);
  for (const [i, tokens] of sequences.entries()) {
    const expected = logSoftmax(logits[i], tokens, 257);
    for (const [t, logProb] of logProbs[i].entries()) assertAlmostEquals(logProb, expected[t], 2e-5);
  }
  assertEquals(backend.stats().allocatedBytes, before);
});

Deno.test("no sequences and empty ones have results of their own kind", () =>
  withModel(async (model) => {
    assertEquals(await model.logits([]), []);
    assertEquals(await model.logProbs([]), []);
    assertEquals(await model.logits([[], []]), [new Float32Array(), new Float32Array()]);
    assertEquals(await model.logProbs([[], [3]]), [new Float32Array(), new Float32Array()]);
    assertEquals((await model.logits([[3]]))[0].length, 263);
  }));

Deno.test("a sequence's results are the same, to the bit, alone, in a batch, and as many as need several passes", () =>
  withModel(async (model, backend) => {
    const before = backend.stats().allocatedBytes;
    const lengths = [1, 40, 2, 7, 39, 17, 33, 40, 5];
    const sequences = Array.from({ length: 70 }, (_, i) => tokensOf(lengths[i % lengths.length], i));
    assert(sequences.flat().length > 1024, "more than one pass");
    const [logits, logProbs] = [await model.logits(sequences), await model.logProbs(sequences)];
    assertEquals(backend.stats().allocatedBytes, before);
    for (const i of [0, 1, 2, 3, 41, 44, 46, 69]) {
      assertEquals(bits((await model.logits([sequences[i]]))[0]), bits(logits[i]), `logits of ${i}`);
      assertEquals(bits((await model.logProbs([sequences[i]]))[0]), bits(logProbs[i]), `logProbs of ${i}`);
    }
  }));

Deno.test("a token's logits do not depend on what comes after it", () =>
  withModel(async (model) => {
    const tokens = tokensOf(40, 9);
    const [whole] = await model.logits([tokens]);
    for (const length of [1, 2, 13, 39]) {
      const [part] = await model.logits([tokens.slice(0, length)]);
      for (const [i, x] of part.entries()) assertAlmostEquals(x, whole[i], 1e-5);
    }
  }));

Deno.test("an adapter that is attached counts", () =>
  withModel(async (model) => {
    using lora = await Lora.load(fixture("d16/lora/attn"));
    const tokens = tokensOf(12, 4);
    const [plain] = await model.logProbs([tokens]);
    model.attach(lora);
    const [adapted] = await model.logProbs([tokens]);
    const expected = logSoftmax((await model.logits([tokens]))[0], tokens, 263);
    assert(adapted.some((x, t) => Math.abs(x - plain[t]) > 1e-3));
    for (const [t, x] of adapted.entries()) assertAlmostEquals(x, expected[t], 2e-5);
  }));

Deno.test("tokens that are none and sequences beyond the window are refused before anything is computed", () =>
  withModel(async (model, backend) => {
    const before = backend.stats();
    const sparse = [1, 2, 3];
    delete sparse[1];
    const cases: [readonly number[], string][] = [
      [[1, 263], "token 263"],
      [[-1], "token -1"],
      [[1.5], "token 1.5"],
      [[NaN], "token NaN"],
      [[2 ** 32], "token 4294967296"],
      [[undefined as unknown as number], "token undefined"],
      [["1" as unknown as number], "token 1 is"],
      [sparse, "token undefined"],
      [7 as unknown as number[], "expected a list of token ids, got 7"],
      [tokensOf(41, 1), "41 tokens are more than"],
      [new Array(10_000_000).fill(0), "10000000 tokens are more than"],
    ];
    for (const [tokens, words] of cases) {
      for (const call of [() => model.logits([[1], tokens]), () => model.logProbs([[1], tokens])]) {
        const error = await failure("option", ["sequences[1]", words], call);
        assert(error.message.length < 300);
      }
    }
    assertEquals(backend.stats(), before);
  }));

Deno.test("calls that overlap give what each gives alone", () =>
  withModel(async (model) => {
    const calls = [tokensOf(30, 1), tokensOf(3, 2), tokensOf(40, 3)];
    const alone = [];
    for (const tokens of calls) alone.push([await model.logits([tokens]), await model.logProbs([tokens])]);
    const together = await Promise.all(
      calls.map((tokens) => Promise.all([model.logits([tokens]), model.logProbs([tokens])])),
    );
    assertEquals(together, alone as typeof together);
    assertEquals(model.arena.size, 0);
  }));
