/**
 * What a GPU is asked for, a token and a training step at a time: one submission each, nothing made after the first
 * few, no more memory after a thousand than after ten.
 */
import { assert, assertEquals } from "@std/assert";
import { createWebGpuBackend } from "../src/backend/webgpu/backend.ts";
import type { GenerateOptions, Prompt } from "../src/generate/decode.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import type { Backend, BackendStats } from "../src/tensor/backend.ts";
import type { WeightFormat } from "../src/tensor/tensor.ts";
import { absentTokenizer } from "../src/text/absent.ts";
import { train } from "../src/train/trainer.ts";
import { adapterTest, findAdapter, gpuTest } from "./support/webgpu.ts";

const SHAPE = { vocab_size: 97, n_positions: 256, n_embd: 32, n_head: 2 };
/** Tokens before nothing new is met: a step's choices have one of as many places as steps may be under way. */
const WARM_UP = 70;

/** A model whose texts have no end. */
async function endless(backend: Backend, n_layer = 2, weights: WeightFormat = "f32"): Promise<GPT2> {
  const tokenizer = absentTokenizer("endless", SHAPE.vocab_size, undefined);
  return await GPT2.random({ ...SHAPE, n_layer, eos_token_id: 96 }, { backend, weights, tokenizer });
}

/** Counters after each token of the first sequence. */
async function decode(
  model: GPT2,
  prompts: Prompt[],
  options: GenerateOptions,
): Promise<BackendStats[]> {
  const stats: BackendStats[] = [];
  for await (const { index } of model.generate(prompts, options)) {
    if (index === 0) stats.push(model.backend.stats());
  }
  return stats;
}

/** What there was more of. */
function since(before: BackendStats, after: BackendStats): Record<string, number> {
  const { dispatches, submissions, bindGroups, buffers, pipelines, creations, readbacks } = after;
  assertEquals(creations, bindGroups! + buffers! + pipelines!);
  return {
    dispatches: dispatches - before.dispatches,
    submissions: submissions - before.submissions,
    bindGroups: bindGroups! - before.bindGroups!,
    buffers: buffers! - before.buffers!,
    pipelines: pipelines! - before.pipelines!,
    readbacks: readbacks - before.readbacks,
  };
}

const NOTHING_MADE = { bindGroups: 0, buffers: 0, pipelines: 0 };

const SAMPLED = { temperature: 0.9, topK: 20, topP: 0.9, repetitionPenalty: 1.2, seed: 3 };

for (
  const [weights, options, targets] of [
    ["f32", { temperature: 0 }],
    ["q8", SAMPLED],
    ["f32", { temperature: 0 }, ["c_attn"]],
  ] as const
) {
  gpuTest(
    `a token of a ${weights} model${
      targets ? " with an adapter" : ""
    } is one submission of few kernels, and nothing is made for it`,
    async (backend) => {
      const beside: number[] = [];
      for (const n_layer of [1, 3]) {
        using model = await endless(backend, n_layer, weights);
        if (targets) model.attach(Lora.create(model, { rank: 4, targets: [...targets] }));
        const stats = await decode(model, [[1, 2, 3], [4]], { ...options, maxTokens: 105 });
        const [before, after] = [stats[WARM_UP], stats[WARM_UP + 16]];
        const tokens = 16;
        const { dispatches, ...others } = since(before, after);
        // Choices come back eight steps at a time.
        assertEquals(others, { ...NOTHING_MADE, submissions: tokens, readbacks: 2 * tokens / 8 });
        assertEquals([after.allocatedBytes, after.heldBytes], [before.allocatedBytes, before.heldBytes]);
        beside.push(dispatches / tokens);
      }
      const perLayer = (beside[1] - beside[0]) / 2;
      assert(perLayer <= 8, `${perLayer} kernels a layer`);
      assert(beside[0] - perLayer <= 12, `${beside[0] - perLayer} kernels beside the layers`);
    },
  );
}

gpuTest("tokens of several steps under way are those of one at a time", async (backend) => {
  using model = await endless(backend);
  const run = async (depth: number, options: GenerateOptions) => {
    Object.defineProperty(backend, "readAhead", { value: depth, configurable: true });
    return await Array.fromAsync(model.generate([[1, 2, 3], [4], [5, 6]], { ...options, maxTokens: 20 }));
  };
  for (const options of [{ temperature: 0 }, SAMPLED]) {
    const one = await run(1, options);
    assertEquals(one.length, 60);
    for (const depth of [2, 8, 50]) assertEquals(await run(depth, options), one, `${depth} at once`);
  }
});

gpuTest(
  "a thousand tokens take no more memory than the first ten, whatever is generated before",
  async (backend) => {
    using model = await endless(backend);
    const weights = backend.stats();
    const all: BackendStats[] = [];
    for (let i = 0; i < 5; i++) {
      all.push(
        ...await decode(model, [[1, 2, 3], [4]], {
          ...(i % 2 ? SAMPLED : { temperature: 0 }),
          maxTokens: 200,
        }),
      );
      assertEquals(backend.stats().allocatedBytes, weights.allocatedBytes);
    }
    assertEquals(all.length, 1000);
    // The first two meet everything: the second is the first that is sampled, with a set of the tokens seen.
    for (const first of [0, 200, 400, 600, 800]) {
      const begin = all[first + (first < 400 ? WARM_UP : 1)];
      const { submissions: _, dispatches: __, readbacks: ___, ...made } = since(begin, all[first + 199]);
      assertEquals(made, NOTHING_MADE, `tokens from ${first}`);
    }
    const live = (index: number) => [all[index].allocatedBytes, all[index].allocations];
    for (const index of [20, 100, 199, 400, 500, 800, 999]) {
      assertEquals(live(index), live(0), `token ${index}`);
    }
    for (const index of [300, 399, 600, 799]) assertEquals(live(index), live(200), `token ${index}`);
    assert(all[999].heldBytes! <= all[200 + WARM_UP].heldBytes!);
    // The first token comes alone, before any step after it.
    assertEquals(all[999].submissions - all[0].submissions, 999);
  },
);

gpuTest(
  "two hundred training steps are a submission each, and take no more memory than the first",
  async (backend) => {
    using model = await endless(backend);
    const before = backend.stats();
    {
      using lora = Lora.create(model, { rank: 4, dropout: 0.1 });
      const data = Array.from({ length: 50 }, (_, i) => ({
        tokens: Array.from({ length: 17 }, (_, j) => (i * 7 + j * j) % 96),
      }));
      const stats: BackendStats[] = [];
      const options = { lora, steps: 200, batchSize: 1, sequenceLength: 16, packing: false, seed: 1 };
      for await (const { loss } of train(model, data, options)) {
        assert(Number.isFinite(loss));
        stats.push(backend.stats());
      }
      const [warm, last] = [stats[3], stats[199]];
      const { dispatches, ...others } = since(warm, last);
      assertEquals(others, { ...NOTHING_MADE, submissions: 196, readbacks: 2 * 196 });
      assertEquals(dispatches % 196, 0);
      assertEquals([last.allocatedBytes, last.allocations], [stats[0].allocatedBytes, stats[0].allocations]);
      assertEquals(last.heldBytes, warm.heldBytes);
    }
    assertEquals(backend.stats().allocatedBytes, before.allocatedBytes);
  },
);

adapterTest("after disposal nothing is held", async () => {
  const backend = await createWebGpuBackend(await findAdapter());
  const model = await endless(backend);
  const tokens = model.generate([1], { temperature: 0, maxTokens: 30 })[Symbol.asyncIterator]();
  await tokens.next();
  assert(backend.stats().heldBytes! > 0);
  model[Symbol.dispose]();
  const { allocations, allocatedBytes } = backend.stats();
  // The cache and the sampler's memory went with the model's other temporaries.
  assertEquals([allocations, allocatedBytes], [0, 0]);
  backend[Symbol.dispose]();
  const after = backend.stats();
  assertEquals([after.allocations, after.allocatedBytes, after.heldBytes], [0, 0, 0]);
  await tokens.return!(undefined);
});
