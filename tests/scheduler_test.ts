import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import { type ScheduledChunk, type ScheduledRequest, Scheduler } from "../src/generate/scheduler.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";

const SHAPE = { n_layer: 2, n_head: 2, n_embd: 64, n_positions: 200, vocab_size: 300 };

function open(weights: "f32" | "q8" = "f32", threads = 1): Promise<GPT2> {
  return GPT2.random(SHAPE, { backend: "wasm", weights, threads });
}

/** An adapter that changes what the model says. */
function adapter(model: GPT2, seed: number, rank = 4, targets: string[] = ["c_attn", "c_fc"]): Lora {
  const lora = Lora.create(model, { rank, targets, seed });
  for (const { B } of lora.modules.values()) {
    for (let i = 0; i < B.length; i++) B[i] = Math.sin(i * 0.7 + seed) * 0.3;
  }
  return lora;
}

function prompt(length: number, seed: number): number[] {
  return Array.from({ length }, (_, i) => (i * 37 + seed * 101) % SHAPE.vocab_size);
}

async function all(chunks: AsyncIterable<ScheduledChunk>): Promise<ScheduledChunk[]> {
  return await Array.fromAsync(chunks);
}

function tokensOf(chunks: readonly ScheduledChunk[]): [token: number, logProb: number][] {
  return chunks.flatMap((chunk) => "prompt" in chunk ? [] : [[chunk.token, chunk.logProb]]);
}

for (const weights of ["f32", "q8"] as const) {
  Deno.test(`a request gives what generate gives, to the bit (${weights})`, async () => {
    using model = await open(weights);
    using scheduler = new Scheduler(model, { rowsAlone: 7 });
    for (const options of [{ temperature: 0 }, { seed: 5, topK: 20 }, { seed: 1, repetitionPenalty: 1.3 }]) {
      const tokens = prompt(23, 1);
      const expected = await Array.fromAsync(model.generate(tokens, { maxTokens: 9, ...options }));
      const chunks = await all(scheduler.submit({ tokens, maxTokens: 9, ...options }));
      assertEquals(chunks as unknown[], expected);
    }
  });

  Deno.test(`a request's tokens and log-probabilities are the same bits alone and beside others (${weights})`, async () => {
    using model = await open(weights, 2);
    const adapters = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((seed) =>
      adapter(model, seed, seed % 2 ? 4 : 6, seed % 3 ? ["c_attn"] : ["c_attn", "c_proj"])
    );
    const requests: ScheduledRequest[] = Array.from({ length: 14 }, (_, i) => ({
      tokens: prompt(1 + (i * 29) % 90, i),
      maxTokens: 3 + i,
      ...(i % 3 === 0 ? { temperature: 0 } : { seed: i, temperature: 0.8 }),
      ...(i % 4 === 0 ? { repetitionPenalty: 1.2 } : {}),
    }));
    const alone: [number, number][][] = [];
    for (const [i, request] of requests.entries()) {
      using scheduler = new Scheduler(model);
      const own = i < adapters.length ? scheduler.bank.add(adapters[i]) : null;
      alone.push(tokensOf(await all(scheduler.submit({ ...request, adapter: own }))));
    }
    using scheduler = new Scheduler(model, { slots: 5, rowsBeside: 6, rowsAlone: 11 });
    const banked = adapters.map((lora) => scheduler.bank.add(lora));
    const together = await Promise.all(
      requests.map((request, i) => all(scheduler.submit({ ...request, adapter: banked[i] ?? null }))),
    );
    assertEquals(together.map(tokensOf), alone);
    assert(
      new Set(alone.map((tokens) => tokens[0][0])).size > 5,
      "the requests are alike: this proves little",
    );
  });
}

Deno.test("an adapter in the bank does what it does when it is attached", async () => {
  using model = await open();
  using lora = adapter(model, 3);
  using scheduler = new Scheduler(model);
  const own = scheduler.bank.add(lora);
  const request = { tokens: prompt(12, 2), maxTokens: 8, temperature: 0 };
  const banked = tokensOf(await all(scheduler.submit({ ...request, adapter: own })));
  const plain = tokensOf(await all(scheduler.submit(request)));
  model.attach(lora);
  const attached = await Array.fromAsync(model.generate(request.tokens, request));
  model.detach();
  assertEquals(banked.map(([token]) => token), attached.map(({ token }) => token));
  attached.forEach(({ logProb }, i) => assert(Math.abs(logProb - banked[i][1]) < 1e-4));
  assert(plain[0][1] !== banked[0][1], "the adapter changes nothing");
});

Deno.test("a prompt's tokens are scored as logProbs scores them, with the likeliest beside, in pieces too", async () => {
  using model = await open();
  using scheduler = new Scheduler(model, { rowsAlone: 13 });
  const tokens = prompt(70, 4);
  const [expected] = await model.logProbs([tokens]);
  const request = { tokens, maxTokens: 0, scorePrompt: true, alternatives: 3 };
  const [chunk, ...rest] = await all(scheduler.submit(request));
  assertEquals(rest, []);
  assert("prompt" in chunk);
  assertEquals(chunk.prompt.map(({ token }) => token), tokens);
  assertEquals(chunk.prompt[0], { token: tokens[0], logProb: null });
  chunk.prompt.slice(1).forEach(({ logProb, alternatives }, i) => {
    assert(Math.abs(logProb! - expected[i]) < 1e-4);
    assertEquals(alternatives!.length, 3);
    assert(alternatives![0].logProb >= alternatives![1].logProb && alternatives![0].logProb >= logProb!);
  });
  const both = await all(scheduler.submit({ ...request, maxTokens: 2, temperature: 0 }));
  assertEquals(both[0], chunk);
  assertEquals(both.length, 3);
  assert("token" in both[1] && both[1].alternatives![0].token === both[1].token);
});

Deno.test("who stops reading, or aborts, ends its request within a token and gives its room back; others go on", async () => {
  using model = await open();
  using scheduler = new Scheduler(model);
  const { freeBlocks } = scheduler.state;
  const request = { tokens: prompt(5, 1), maxTokens: 150, temperature: 0 };
  const expected = tokensOf(await all(scheduler.submit({ ...request, maxTokens: 20 })));
  const other = all(scheduler.submit({ ...request, maxTokens: 20 }));
  for await (const _ of scheduler.submit(request)) break;
  const controller = new AbortController();
  let error: unknown;
  try {
    for await (const _ of scheduler.submit({ ...request, signal: controller.signal })) {
      controller.abort("enough");
    }
  } catch (reason) {
    error = reason;
  }
  assertEquals(error, "enough");
  assertEquals(tokensOf(await other), expected);
  await new Promise((resolve) => setTimeout(resolve, 10));
  const { running, waiting, freeBlocks: now, generatedTokens } = scheduler.state;
  assertEquals({ running, waiting, now }, { running: 0, waiting: 0, now: freeBlocks });
  assert(generatedTokens < 80, `${generatedTokens} tokens were generated`);
});

Deno.test("requests wait for room in the cache, whole ones first come first served; one that never fits is refused", async () => {
  using model = await open();
  using scheduler = new Scheduler(model, { slots: 4, cacheBytes: 1 });
  assertEquals(scheduler.state.blocks, 3);
  const order: number[] = [];
  await Promise.all([150, 100, 20, 60].map(async (length, i) => {
    const chunks = await all(scheduler.submit({ tokens: prompt(length, i), maxTokens: 3, temperature: 0 }));
    assertEquals(chunks.length, 3);
    order.push(i);
  }));
  assertEquals(order[0], 0);
  await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(scheduler.state.freeBlocks, 3);
  assertThrows(() => scheduler.submit({ tokens: prompt(201, 1) }), WhetError, "window");
  assertThrows(() => scheduler.submit({ tokens: prompt(2, 1), alternatives: 21 }), WhetError, "alternatives");
});

Deno.test("a broken adapter fails its own request only", async () => {
  using model = await open();
  using scheduler = new Scheduler(model);
  const broken = adapter(model, 1);
  for (const { A } of broken.modules.values()) A.fill(NaN);
  const own = scheduler.bank.add(broken);
  const request = { tokens: prompt(9, 1), maxTokens: 5, temperature: 0 };
  const expected = tokensOf(await all(scheduler.submit(request)));
  const good = all(scheduler.submit(request));
  await assertRejects(() => all(scheduler.submit({ ...request, adapter: own })), WhetError, "not numbers");
  assertEquals(tokensOf(await good), expected);
});

Deno.test("disposing ends all requests and gives back all memory", async () => {
  using model = await open();
  const { allocations } = model.backend.stats();
  const scheduler = new Scheduler(model);
  scheduler.bank.add(adapter(model, 1));
  const waiting = all(scheduler.submit({ tokens: prompt(9, 1), maxTokens: 100 }));
  await new Promise((resolve) => setTimeout(resolve, 5));
  scheduler[Symbol.dispose]();
  await assertRejects(() => waiting, WhetError, "disposed");
  assertThrows(() => scheduler.submit({ tokens: [1] }), WhetError, "disposed");
  await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(model.backend.stats().allocations, allocations);
});
