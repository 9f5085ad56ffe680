/**
 * Several steps of decoding under way at once: what comes out is what comes one by one, to the bit. On WASM, where
 * calls are done when they return, so that nothing hides what is in flight.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { createWasmBackend } from "../src/backend/wasm/backend.ts";
import { WhetError } from "../src/errors.ts";
import type { GeneratedChunk, GenerateOptions, Prompt } from "../src/generate/decode.ts";
import { Pace } from "../src/generate/pace.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import type { Backend } from "../src/tensor/backend.ts";
import { fixture, inTempDir, readModel, writeModel, writeReciting } from "./support/models.ts";

/** A backend that decoding keeps so many steps under way on, and how many begin on it. */
async function ahead(depth: number): Promise<{ backend: Backend; steps: () => number }> {
  const backend = await createWasmBackend({ instructionSet: "strict" });
  let steps = 0;
  const counted = new Proxy(backend as Backend, {
    get(target, name) {
      if (name === "readAhead") return depth;
      if (name === "sample") steps++;
      const value = target[name as keyof Backend];
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  return { backend: counted, steps: () => steps };
}

/** What a generation gives, or how it fails, and how many steps it took. */
interface Outcome {
  chunks: GeneratedChunk[];
  error?: string;
  steps: number;
}

async function outcome(
  depth: number,
  source: string,
  prompts: Prompt | Prompt[],
  options: GenerateOptions,
): Promise<Outcome> {
  const { backend, steps } = await ahead(depth);
  using _backend = backend;
  using model = await GPT2.load(source, { backend });
  const before = backend.stats().allocatedBytes;
  const chunks: GeneratedChunk[] = [];
  let error: string | undefined;
  try {
    for await (const chunk of model.generate(prompts, options)) chunks.push(chunk);
  } catch (thrown) {
    assert(thrown instanceof WhetError);
    error = thrown.message;
  }
  assertEquals([backend.stats().allocatedBytes, model.arena.size], [before, 0]);
  return { chunks, error, steps: steps() };
}

/** The same with 2, 8 and 100 steps under way as with one. */
async function same(source: string, prompts: Prompt | Prompt[], options: GenerateOptions): Promise<Outcome> {
  const one = await outcome(1, source, prompts, options);
  for (const depth of [2, 8, 100]) {
    const several = await outcome(depth, source, prompts, options);
    assertEquals([several.chunks, several.error], [one.chunks, one.error], `${depth} at once`);
    assert(several.steps >= one.steps);
  }
  return one;
}

const D16 = fixture("d16/model");

function prompt(length: number, seed = 1): number[] {
  let x = seed;
  return Array.from({ length }, () => (x = (x * 48271) % 2147483647) % 250);
}

for (
  const options of [
    { temperature: 0 },
    { temperature: 1.3 },
    { topK: 7 },
    { topP: 0.6 },
    { temperature: 0, repetitionPenalty: 1.7 },
    { temperature: 1.4, topK: 30, topP: 0.9, repetitionPenalty: 1.2 },
  ] satisfies GenerateOptions[]
) {
  Deno.test(`read ahead: the same tokens with ${JSON.stringify(options)}`, async () => {
    const alone = await same(D16, prompt(6), { ...options, seed: 7, maxTokens: 21 });
    assertEquals(alone.steps, alone.chunks.length);
    await same(D16, [prompt(6), [3], prompt(17, 4), prompt(6)], { ...options, seed: 8, maxTokens: 20 });
  });
}

Deno.test("read ahead: nothing runs beyond the window, and sequences that fill it one by one go on right", async () => {
  const { chunks } = await same(D16, [prompt(30), prompt(39), prompt(1), prompt(12)], { temperature: 0 });
  assertEquals([0, 1, 2, 3].map((i) => chunks.filter(({ index }) => index === i).length), [10, 1, 39, 28]);
});

Deno.test("read ahead: nothing is begun that the limit forbids", async () => {
  for (const maxTokens of [1, 2, 7, 8, 9, 34]) {
    for (const depth of [1, 8]) {
      const { steps } = await outcome(depth, D16, prompt(6), { temperature: 0, maxTokens });
      assertEquals(steps, maxTokens);
    }
  }
});

Deno.test("read ahead: more sequences than go through the network at once", async () => {
  const prompts = Array.from({ length: 70 }, (_, i) => prompt(1 + (i * 7) % 30, i + 1));
  assert(prompts.flat().length > 1024);
  await same(D16, prompts, { temperature: 1.1, seed: 3, maxTokens: 5 });
});

Deno.test("read ahead: stop strings and ends of texts cut what comes after", () =>
  inTempDir(async (directory) => {
    using standard = await GPT2.load(D16, { backend: "wasm" });
    await writeReciting(directory, standard.tokenizer.encode("Hello there\n\nHuman: x<|endoftext|>and more"));
    const shown = ({ chunks }: Outcome) => chunks.map(({ text }) => text).join("");
    for (
      const [stop, text] of [
        ["\n\nHuman:", "Hello there"],
        [["zzz", "there"], "Hello "],
        ["H", ""],
        [[], "Hello there\n\nHuman: x"],
        ["x!", "Hello there\n\nHuman: x"],
      ] as const
    ) {
      const options = { temperature: 0, maxTokens: 30, stop };
      const one = await same(directory, [0], options);
      assertEquals([shown(one), one.chunks.at(-1)!.finishReason], [text, "stop"]);
      // One step a token, and with several under way at most those that were begun when the last token came.
      assertEquals(one.steps, one.chunks.length);
      const { steps, chunks } = await outcome(8, directory, [0], options);
      assert(steps >= chunks.length && steps <= Math.min(30, chunks.length + 7));
    }
    // Others of the batch go on, each from its own place in the text.
    await same(directory, [[1], [1, 2, 3, 4, 5], [7, 7, 7], [1]], {
      temperature: 0,
      maxTokens: 25,
      stop: "\n",
    });
  }));

Deno.test("read ahead: logits that are no numbers are found at their token, after those before it", () =>
  inTempDir(async (directory) => {
    const files = await readModel("d16");
    files.tensors.get("wpe.weight")!.values[20 * 32 + 5] = NaN;
    await writeModel(directory, files, { vocabulary: "d16" });
    const { chunks, error } = await same(directory, [prompt(4), prompt(2)], {
      temperature: 0,
      maxTokens: 30,
    });
    // Position 20 is fed when the first has 17 new tokens, and the second too.
    assertEquals(chunks.length, 2 * 17);
    assert(error!.includes("logits that are not numbers"));
  }));

Deno.test("read ahead: an abort and a consumer that leaves end it at the same token", async () => {
  const { backend } = await ahead(8);
  using _backend = backend;
  using model = await GPT2.load(D16, { backend });
  const before = backend.stats().allocatedBytes;
  const controller = new AbortController();
  let seen = 0;
  await assertRejects(
    async () => {
      for await (const _ of model.generate([prompt(3), [5]], { temperature: 0, signal: controller.signal })) {
        if (++seen === 5) controller.abort(new Error("enough"));
      }
    },
    Error,
    "enough",
  );
  assertEquals([seen, backend.stats().allocatedBytes, model.arena.size], [5, before, 0]);
  for await (const _ of model.generate(prompt(3), { temperature: 0 })) break;
  assertEquals([backend.stats().allocatedBytes, model.arena.size], [before, 0]);
});

Deno.test("read ahead: an adapter that is disposed meanwhile is told, not used", async () => {
  const { backend } = await ahead(4);
  using _backend = backend;
  using model = await GPT2.load(D16, { backend });
  const lora = Lora.create(model, { rank: 2 });
  model.attach(lora);
  const tokens = model.generate(prompt(3), { temperature: 0, maxTokens: 20 })[Symbol.asyncIterator]();
  await tokens.next();
  model.detach();
  lora[Symbol.dispose]();
  const error = await assertRejects(() => tokens.next(), WhetError);
  assertEquals(error.code, "disposed");
});

Deno.test("the first step goes alone; then as many go together as make a fetch worth its sleep, and no more", () => {
  const backend = { readAhead: 64 } as Backend;
  const pace = new Pace(backend, 1);
  const seen = () => [pace.together, pace.ahead];
  assertEquals(seen(), [1, 1]);
  const periods = (ms: number, count: number) => {
    for (let i = 0; i < count; i++) pace.arrived(now += ms);
  };
  let now = 1000;
  periods(0, 1);
  assertEquals(seen(), [1, 2]);
  periods(5, 1);
  assertEquals(seen(), [2, 4]);
  periods(5, 9);
  assertEquals(seen(), [32, 64], "never more than may be");
  periods(20, 5);
  assertEquals(seen(), [32, 64], "neither sleep nor stutter");
  periods(50, 2);
  assertEquals(seen(), [8, 16]);
  periods(500, 9);
  assertEquals(seen(), [1, 2]);
  periods(1, 2);
  // Another generation begins where this one was, a batch always in the same way.
  const next = new Pace(backend, 1);
  assertEquals([next.together, next.ahead], [1, 1]);
  next.arrived(0);
  assertEquals([next.together, next.ahead], [4, 8]);
  const batch = new Pace(backend, 2);
  for (const at of [0, 1, 2, 1000, 2000]) batch.arrived(at);
  assertEquals([batch.together, batch.ahead], [8, 16]);
  const wasm = new Pace({} as Backend, 1);
  for (const at of [0, 1, 2]) wasm.arrived(at);
  assertEquals([wasm.together, wasm.ahead], [1, 1]);
});
