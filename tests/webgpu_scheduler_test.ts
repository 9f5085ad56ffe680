/** Continuous batching on a GPU: requests get what they get on WASM, but for rounding, alone and beside others. */
import { assert, assertEquals } from "@std/assert";
import { type ScheduledChunk, type ScheduledRequest, Scheduler } from "../src/generate/scheduler.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import type { Backend } from "../src/tensor/backend.ts";
import { CACHE_BLOCK } from "../src/tensor/backend.ts";
import { gpuTest } from "./support/webgpu.ts";

const SHAPE = { n_layer: 2, n_head: 2, n_embd: 40, n_positions: 2 * CACHE_BLOCK, vocab_size: 90 };
const TARGETS = [["c_attn"], ["c_fc", "c_proj"]];

/** Prompts within a block and over its edge, scored and continued, with adapters of two shapes or none. */
const REQUESTS: (ScheduledRequest & { own: number })[] = [5, CACHE_BLOCK - 2, 1, CACHE_BLOCK + 1, 20, 90].map(
  (length, i) => ({
    tokens: Array.from({ length }, (_, j) => (j * 37 + i * 11) % SHAPE.vocab_size),
    maxTokens: i === 3 ? 0 : 6,
    temperature: 0,
    scorePrompt: i >= 3,
    repetitionPenalty: i === 4 ? 1.3 : 1,
    own: i % 3 - 1,
  }),
);

function adapter(model: GPT2, shape: number): Lora {
  const lora = Lora.create(model, { rank: 2 + shape, targets: TARGETS[shape], seed: shape });
  for (const { B } of lora.modules.values()) {
    for (let i = 0; i < B.length; i++) B[i] = Math.sin(i * 0.7 + shape) * 0.3;
  }
  return lora;
}

function scoresOf(chunks: readonly ScheduledChunk[]): [token: number, logProb: number | null][] {
  return chunks.flatMap((chunk) => "prompt" in chunk ? chunk.prompt : [chunk]).map((
    { token, logProb },
  ) => [token, logProb]);
}

/** What each request gets, all together or one after the other. */
async function serve(backend: Backend | "wasm", together: boolean): Promise<[number, number | null][][]> {
  using model = await GPT2.random(SHAPE, { backend, threads: 1 });
  using scheduler = new Scheduler(model, { slots: 4, rowsBeside: 7, rowsAlone: 50 });
  const bank = TARGETS.map((targets, shape) => {
    scheduler.bank.add(Lora.create(model, { rank: 2 + shape, targets, seed: 9 })); // They lie behind another.
    return scheduler.bank.add(adapter(model, shape));
  });
  const results: [number, number | null][][] = [];
  const one = async ({ own, ...request }: typeof REQUESTS[number], i: number) => {
    results[i] = scoresOf(
      await Array.fromAsync(scheduler.submit({ ...request, adapter: bank[own] ?? null })),
    );
  };
  if (together) await Promise.all(REQUESTS.map(one));
  else for (const [i, request] of REQUESTS.entries()) await one(request, i);
  await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(scheduler.state.freeBlocks, scheduler.state.blocks);
  return results;
}

gpuTest(
  "requests get what they get on WASM, alone and beside others, each with its adapter",
  async (backend) => {
    const expected = await serve("wasm", false);
    assert(expected[0][0][0] !== expected[1][0][0]);
    for (const together of [false, true]) {
      const results = await serve(backend, together);
      for (const [i, result] of results.entries()) {
        assertEquals(result.map(([token]) => token), expected[i].map(([token]) => token), `request ${i}`);
        for (const [j, [, logProb]] of result.entries()) {
          const difference = Math.abs((logProb ?? 0) - (expected[i][j][1] ?? 0));
          assert(difference < 1e-3, `request ${i}, token ${j}: ${difference} apart`);
        }
      }
    }
  },
);
