import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import { type ScheduledChunk, type ScheduledRequest, Scheduler } from "../src/generate/scheduler.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import { train } from "../src/train/trainer.ts";

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

for (const weights of ["f32", "q8"] as const) {
  for (const [rank, targets] of [[4, ["c_attn", "c_fc"]], [7, ["c_proj"]]] as const) {
    Deno.test(`an adapter in the bank gives the bits that it gives when it is attached (${weights}, rank ${rank})`, async () => {
      using model = await open(weights, 2);
      using lora = adapter(model, 3, rank, [...targets]);
      using scheduler = new Scheduler(model, { rowsAlone: 5 });
      const own = scheduler.bank.add(lora);
      const request = { tokens: prompt(12, 2), maxTokens: 8, seed: 4 };
      const banked = tokensOf(await all(scheduler.submit({ ...request, adapter: own })));
      const plain = tokensOf(await all(scheduler.submit(request)));
      model.attach(lora);
      const attached = await Array.fromAsync(model.generate(request.tokens, request));
      model.detach();
      assertEquals(banked, attached.map(({ token, logProb }) => [token, logProb]));
      assert(plain[0][1] !== banked[0][1], "the adapter changes nothing");
    });
  }
}

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
  const scored = { ...request, maxTokens: 0, scorePrompt: true, adapter: own };
  await assertRejects(() => all(scheduler.submit(scored)), WhetError, "not numbers");
});

Deno.test("limits that make no sense are refused before anything is made", async () => {
  using model = await open();
  const { allocations } = model.backend.stats();
  for (const options of [{ slots: 0 }, { slots: 1e9 }, { rowsBeside: 0.5 }, { cacheBytes: NaN }]) {
    assertThrows(() => new Scheduler(model, options), WhetError, Object.keys(options)[0]);
  }
  assertEquals(model.backend.stats().allocations, allocations);
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

Deno.test("prompts that fill blocks, or the window, are scored in room of their own", async () => {
  using model = await open();
  using scheduler = new Scheduler(model, { slots: 4 });
  const requests = [81, 161, 200, 80, 1].map((length, i) => ({
    ...{ tokens: prompt(length, i), maxTokens: 0, scorePrompt: true },
  }));
  const alone: ScheduledChunk[][] = [];
  for (const request of requests) alone.push(await all(scheduler.submit(request)));
  alone.forEach(([chunk], i) =>
    assert("prompt" in chunk && chunk.prompt.length === requests[i].tokens.length)
  );
  const beside = { tokens: prompt(79, 9), maxTokens: 100, temperature: 0 };
  const expected = tokensOf(await all(scheduler.submit(beside)));
  const [other, ...together] = await Promise.all(
    [beside, ...requests].map((one) => all(scheduler.submit(one))),
  );
  assertEquals(together, alone);
  assertEquals(tokensOf(other), expected);
  assertThrows(() => scheduler.submit({ tokens: [], maxTokens: 0 }), WhetError, "empty");
});

Deno.test("rows have their adapters whatever is attached to the model meanwhile", async () => {
  using model = await open();
  using lora = adapter(model, 3);
  using scheduler = new Scheduler(model);
  const own = scheduler.bank.add(adapter(model, 5));
  const request = { tokens: prompt(12, 2), maxTokens: 8, temperature: 0 };
  const expected = tokensOf(await all(scheduler.submit({ ...request, adapter: own })));
  const plain = tokensOf(await all(scheduler.submit(request)));
  model.attach(lora);
  assertEquals(tokensOf(await all(scheduler.submit({ ...request, adapter: own }))), expected);
  assertEquals(tokensOf(await all(scheduler.submit(request))), plain);
  model.detach();
  assert(plain[0][1] !== expected[0][1]);
});

Deno.test("training an adapter, generating and scoring beside, on the same model, leave requests alone", async () => {
  using model = await open();
  using scheduler = new Scheduler(model);
  using trained = adapter(model, 4);
  const request = { tokens: prompt(30, 2), maxTokens: 60, temperature: 0 };
  const own = scheduler.bank.add(adapter(model, 5));
  const expected = tokensOf(await all(scheduler.submit({ ...request, adapter: own })));
  const generated = await Array.fromAsync(model.generate(request.tokens, request));
  const data = [1, 2, 3].map((seed) => ({ tokens: prompt(20, seed) }));
  let running = 0;
  const learn = async () => {
    const losses: number[] = [];
    for await (const { loss } of train(model, data, { lora: trained, steps: 6, batchSize: 2, seed: 1 })) {
      losses.push(loss);
      running += scheduler.state.running;
    }
    return losses;
  };
  const [scheduled, beside, logProbs, losses] = await Promise.all([
    all(scheduler.submit({ ...request, adapter: own })),
    Array.fromAsync(model.generate(request.tokens, request)),
    model.logProbs([request.tokens]),
    learn(),
  ]);
  assert(running > 0, "they did not meet");
  assertEquals(tokensOf(scheduled), expected);
  assertEquals(beside, generated);
  model.detach();
  assertEquals(logProbs.length, 1);
  assertEquals(losses.length, 6);
  assert(losses.every(Number.isFinite));
});

Deno.test("a request that nobody begins to read ends with return(); a waiting one wakes; signals that live on keep nothing", async () => {
  using model = await open();
  using scheduler = new Scheduler(model, { slots: 1 });
  const request = { tokens: prompt(5, 1), maxTokens: 150, temperature: 0 };
  const controller = new AbortController();
  const { signal } = controller;
  let listeners = 0;
  const { addEventListener, removeEventListener } = signal;
  signal.addEventListener = (...args: Parameters<typeof addEventListener>) => {
    listeners++;
    addEventListener.apply(signal, args);
  };
  signal.removeEventListener = (...args: Parameters<typeof removeEventListener>) => {
    listeners--;
    removeEventListener.apply(signal, args);
  };
  const first = scheduler.submit({ ...request, signal });
  const second = scheduler.submit({ ...request, signal });
  const waits = second.next();
  await first.return();
  await second.return();
  assertEquals(await waits, { done: true, value: undefined });
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert(scheduler.state.generatedTokens < 5);
  assertEquals(scheduler.state.freeBlocks, scheduler.state.blocks);
  assertEquals(listeners, 0);
});

Deno.test("a pass for which memory lacks is made in smaller ones, and gives the same", async () => {
  using model = await open();
  const { allocate } = model.backend;
  using scheduler = new Scheduler(model);
  const requests = [1, 2, 3].map((i) => ({
    ...{ tokens: prompt(60 * i, i), maxTokens: 12, seed: i, repetitionPenalty: 1.2 },
  }));
  const expected: [number, number][][] = [];
  for (const request of requests) expected.push(tokensOf(await all(scheduler.submit(request))));
  let refused = 0;
  // As if no more than 100 rows of the widest activation had room: some prompts go through alone, others in halves.
  model.backend.allocate = (shape, dtype) => {
    if (shape.length === 2 && shape[1] === 256 && shape[0] > 100) {
      refused++;
      throw new WhetError("resource", "memory is out");
    }
    return allocate.call(model.backend, shape, dtype);
  };
  const results = await Promise.all(requests.map((request) => all(scheduler.submit(request))));
  model.backend.allocate = allocate;
  assert(refused > 1);
  assertEquals(results.map(tokensOf), expected);
  await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(scheduler.state.freeBlocks, scheduler.state.blocks);
});

Deno.test("a model that is disposed under its scheduler ends requests with an error; nothing else comes of it", async () => {
  const model = await open();
  using scheduler = new Scheduler(model, { slots: 2 });
  scheduler.bank.add(adapter(model, 1));
  const request = { tokens: prompt(9, 1), maxTokens: 100, repetitionPenalty: 1.1 };
  const requests = [1, 2, 3].map(() => all(scheduler.submit(request)));
  await new Promise((resolve) => setTimeout(resolve, 5));
  model[Symbol.dispose]();
  for (const one of requests) await assertRejects(() => one, WhetError, "disposed");
});

Deno.test("a removed adapter fails who names it, and removing it twice takes away nobody else's", async () => {
  using model = await open();
  using scheduler = new Scheduler(model);
  const request = { tokens: prompt(9, 1), maxTokens: 30, temperature: 0 };
  const [first, second] = [1, 2].map((seed) => scheduler.bank.add(adapter(model, seed)));
  const good = tokensOf(await all(scheduler.submit({ ...request, adapter: second })));
  const running = [first, second].map((adapter) => all(scheduler.submit({ ...request, adapter })));
  for (let i = 0; i < 2; i++) scheduler.bank.remove(first);
  const third = scheduler.bank.add(adapter(model, 3));
  scheduler.bank.remove(first);
  await assertRejects(() => running[0], WhetError, "removed");
  assertEquals(tokensOf(await running[1]), good);
  assertThrows(() => scheduler.submit({ ...request, adapter: first }), WhetError, "bank");
  assertEquals((await all(scheduler.submit({ ...request, adapter: third }))).length, 30);
});

Deno.test("more rows than are chosen for at once, and adapters of odd sizes", async () => {
  const odd = { n_layer: 1, n_head: 2, n_embd: 20, n_positions: 40, vocab_size: 90 };
  using model = await GPT2.random(odd, { backend: "wasm", threads: 1 });
  using scheduler = new Scheduler(model, { slots: 70 });
  const adapters = [1, 2, 3].map((seed) => scheduler.bank.add(adapter(model, seed, seed, ["c_attn"])));
  const requests = Array.from({ length: 70 }, (_, i): ScheduledRequest => ({
    ...{ tokens: [i + 1], maxTokens: 6, seed: i, adapter: adapters[i % 4] ?? null },
    repetitionPenalty: i % 2 ? 1.5 : 1,
  }));
  const alone: [number, number][][] = [];
  for (const request of requests) alone.push(tokensOf(await all(scheduler.submit(request))));
  const before = scheduler.state.steps;
  const together = await Promise.all(requests.map((request) => all(scheduler.submit(request))));
  assertEquals(together.map(tokensOf), alone);
  assertEquals(scheduler.state.steps - before, 6);
});
