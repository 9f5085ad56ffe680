import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { createWasmBackend } from "../src/backend/wasm/backend.ts";
import type { GeneratedChunk, GenerateOptions, Prompt } from "../src/generate/decode.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import type { Backend } from "../src/tensor/backend.ts";
import { uniform } from "../src/tensor/random.ts";
import { train } from "../src/train/trainer.ts";
import {
  failure,
  fixture,
  inTempDir,
  onEachBackend,
  readModel,
  shake,
  writeModel,
  writeReciting,
} from "./support/models.ts";
import { PLAIN, sampleRow } from "./support/sampling.ts";

async function collect(chunks: AsyncIterable<GeneratedChunk>): Promise<GeneratedChunk[]> {
  return await Array.fromAsync(chunks);
}

/** The tokens of one sequence of a batch. */
const tokensOf = (chunks: GeneratedChunk[], index = 0) =>
  chunks.filter((chunk) => chunk.index === index).map(({ token }) => token);

const greedy = (maxTokens: number): GenerateOptions => ({ maxTokens, temperature: 0 });

function prompt(length: number, seed = 1): number[] {
  let x = seed;
  return Array.from({ length }, () => (x = (x * 48271) % 2147483647) % 250);
}

async function withModel(
  work: (model: GPT2, backend: Backend) => Promise<void>,
  name = "d16",
): Promise<void> {
  using backend = await createWasmBackend({ instructionSet: "strict" });
  using model = await GPT2.load(fixture(`${name}/model`), { backend });
  await work(model, backend);
}

/** A test of a model that recites a text; see {@linkcode writeReciting}. */
function reciting(
  claim: string,
  text: string,
  work: (run: (options?: GenerateOptions) => Promise<GeneratedChunk[]>, model: GPT2) => Promise<void>,
): void {
  Deno.test(claim, () =>
    inTempDir(async (directory) => {
      using standard = await GPT2.load(fixture("d16/model"), { backend: "wasm" });
      const script = standard.tokenizer.encode(text);
      assert(script.length <= 40);
      await writeReciting(directory, script);
      using model = await GPT2.load(directory, { backend: "wasm" });
      const run = (options: GenerateOptions = {}) =>
        collect(model.generate([0], { temperature: 0, maxTokens: script.length, ...options }));
      await work(run, model);
    }));
}

const shown = (chunks: GeneratedChunk[]) => chunks.map(({ text }) => text).join("");
const reasons = (chunks: GeneratedChunk[]) => chunks.map(({ finishReason }) => finishReason);

// The cache

await onEachBackend(
  "the cache changes nothing: each token is the likeliest by the logits of all before it",
  async (backend) => {
    for (const name of backend.name === "webgpu" ? ["d20"] : ["d16", "d20", "d64", "d80"]) {
      using model = await GPT2.load(fixture(`${name}/model`), { backend });
      const V = model.config.vocab_size;
      const count = backend.name === "webgpu" ? 6 : 39;
      for (const tokens of [[3], prompt(40 - count)]) {
        const chunks = await collect(model.generate(tokens, { maxTokens: count, temperature: 0 }));
        const all = [...tokens, ...tokensOf(chunks)];
        const [logits] = await model.logits([all]);
        for (const [i, { token, logProb }] of chunks.entries()) {
          const row = logits.subarray((tokens.length + i - 1) * V, (tokens.length + i) * V);
          const top = Math.max(...row);
          assert(row[token] > top - 1e-5, `${name}: token ${i} is ${token}`);
          assertAlmostEquals(
            logProb,
            top - Math.log(row.reduce((sum, x) => sum + Math.exp(x - top), 0)) - top,
            2e-5,
          );
        }
      }
    }
  },
);

await onEachBackend("every prompt of a batch is continued as it would be alone", async (backend) => {
  using model = await GPT2.load(fixture("d20/model"), { backend });
  const before = backend.stats().allocatedBytes;
  const prompts = [prompt(5, 3), prompt(1, 4), prompt(17, 5), prompt(35, 6), [7, 7, 7]];
  const chunks = await collect(model.generate(prompts, greedy(5)));
  for (const [index, tokens] of prompts.entries()) {
    assertEquals(
      tokensOf(chunks, index),
      tokensOf(await collect(model.generate(tokens, greedy(5)))),
      `prompt ${index}`,
    );
  }
  assertEquals(backend.stats().allocatedBytes, before);
});

Deno.test("a batch of more tokens than go through the network at once is continued all the same", () =>
  withModel(async (model) => {
    const prompts = Array.from({ length: 90 }, (_, i) => prompt(1 + (i * 7) % 37, i + 1));
    assert(prompts.flat().length > 1024);
    const chunks = await collect(model.generate(prompts, greedy(3)));
    assertEquals(chunks.length, 270);
    for (const index of [0, 1, 45, 63, 64, 65, 89]) {
      const alone = await collect(model.generate(prompts[index], greedy(3)));
      assertEquals(tokensOf(chunks, index), tokensOf(alone), `prompt ${index}`);
    }
  }));

Deno.test("log-probabilities are those of model.logProbs, also under temperature, penalty and an adapter", () =>
  withModel(async (model) => {
    using lora = await Lora.load(fixture("d16/lora/attn"));
    model.attach(lora);
    const tokens = prompt(6);
    const options = { maxTokens: 20, temperature: 1.7, topK: 40, topP: 0.9, repetitionPenalty: 1.3, seed: 4 };
    const chunks = await collect(model.generate(tokens, options));
    const [expected] = await model.logProbs([[...tokens, ...tokensOf(chunks)]]);
    for (const [i, { logProb }] of chunks.entries()) {
      assertAlmostEquals(logProb, expected[tokens.length - 1 + i], 2e-5);
    }
  }));

Deno.test("sampling with a repetition penalty counts the prompt's tokens and the new ones", () =>
  withModel(async (model) => {
    const V = model.config.vocab_size;
    const options = { repetitionPenalty: 1.9, temperature: 1.2, topP: 0.8, seed: 11 };
    const all = prompt(8);
    const expected: number[] = [];
    for (let i = 0; i < 12; i++) {
      const [logits] = await model.logits([all]);
      const row = { ...PLAIN, ...options, draw: uniform(i, [options.seed, 0]) };
      const { token } = sampleRow(logits.subarray(-V), row, (token) => all.includes(token));
      all.push(token);
      expected.push(token);
      if (token === model.tokenizer.endOfText) break;
    }
    assert(expected.length > 4);
    assertEquals(tokensOf(await collect(model.generate(prompt(8), { ...options, maxTokens: 12 }))), expected);
  }));

// Lengths

Deno.test("the window is filled to its last token, and refused beyond before anything is computed", () =>
  withModel(async (model, backend) => {
    const chunks = await collect(model.generate(prompt(10), greedy(30)));
    assertEquals([chunks.length, chunks.at(-1)!.finishReason], [30, "length"]);
    assertEquals(
      chunks.slice(0, 12).map(({ token }) => token),
      tokensOf(await collect(model.generate(prompt(10), greedy(12)))),
    );
    const before = backend.stats();
    const cases: [Prompt | Prompt[], GenerateOptions, string[]][] = [
      [prompt(10), greedy(31), ["prompt: 10 tokens and 31 more", "window of 40", "--max-tokens"]],
      [prompt(40), greedy(1), ["prompt: 40 tokens and 1 more"]],
      [prompt(40), {}, ["prompt: 40 tokens and 1 more"]],
      [prompt(41), {}, ["prompt: 41 tokens are more than", "window of 40"]],
      [[[1], prompt(40)], {}, ["prompt 1: 40 tokens"]],
      [[[1], [2, 300]], {}, ["prompt 1: token 300 is not in the vocabulary"]],
      ["", {}, ["prompt: it is empty"]],
      [["a", ""], {}, ["prompt 1: it is empty"]],
      [[], {}, ["prompt", "empty"]],
      [undefined as unknown as string, {}, ["prompt: expected text or a list of token ids, got undefined"]],
      [[[1], 7 as unknown as string], {}, ["prompt 1: expected text or a list of token ids, got 7"]],
      [[[]], {}, ["prompt: it is empty"]],
      [[1], { maxTokens: 0 }, ["maxTokens: expected", "got 0"]],
      [[1], { maxTokens: 1.5 }, ["maxTokens", "1.5"]],
      [[1], { maxTokens: Infinity }, ["maxTokens", "Infinity"]],
      [[1], { temperature: -1 }, ["temperature"]],
      [[1], { stop: ["a", ""] }, ["stop", "empty"]],
    ];
    for (const [given, options, words] of cases) {
      await failure("option", words, () => collect(model.generate(given, options)));
    }
    assertEquals(backend.stats(), before);
  }));

Deno.test("without a limit each sequence goes on to the window's end or 128 tokens", () =>
  withModel(async (model) => {
    const chunks = await collect(model.generate([prompt(30), prompt(39), [1]], { temperature: 0 }));
    const counts = [0, 1, 2].map((index) => tokensOf(chunks, index).length);
    assertEquals(counts, [10, 1, 39]);
    using wide = await GPT2.random({ vocab_size: 20, n_positions: 200, n_embd: 4, n_head: 1, n_layer: 1 }, {
      backend: "wasm",
    });
    assertEquals((await collect(wide.generate([1]))).length, 128);
  }));

Deno.test("the last chunk of each sequence, and no other, says why it ends", () =>
  withModel(async (model) => {
    const chunks = await collect(model.generate([prompt(37), prompt(3)], { temperature: 0 }));
    for (const index of [0, 1]) {
      const own = reasons(chunks.filter((chunk) => chunk.index === index));
      assertEquals(own, [...Array(own.length - 1).fill(undefined), "length"]);
    }
  }));

// Text

reciting(
  "characters of several tokens come whole, and all text together is the tokens' decoded",
  "aé€😀 日本語z",
  async (run, model) => {
    const chunks = await run();
    assertEquals(shown(chunks), "aé€😀 日本語z");
    assertEquals(chunks[0].text, "a");
    assert(chunks.some(({ text }) => text === "") && chunks.some(({ text }) => text === "😀"));
    for (const { text } of chunks) assert(text.isWellFormed() && !text.includes("\ufffd"));
    assertEquals(model.tokenizer.decode(chunks.map(({ token }) => token)), shown(chunks));
  },
);

reciting("a character that is cut off by the limit is shown as what it is, broken", "ab😀", async (run) => {
  const chunks = await run({ maxTokens: 4 });
  assertEquals([shown(chunks), chunks.at(-1)!.finishReason], ["ab\ufffd", "length"]);
});

reciting(
  "stop strings end the text before them, wherever the tokens' borders are",
  "Hello there\n\nHuman: x",
  async (run) => {
    for (
      const [stop, text] of [
        ["\n\nHuman:", "Hello there"],
        [["zzz", "there"], "Hello "],
        ["H", ""],
        [["lo th", "o t"], "Hell"],
        ["Human: x", "Hello there\n\n"],
      ] as const
    ) {
      const chunks = await run({ stop });
      assertEquals(shown(chunks), text, `stop ${JSON.stringify(stop)}`);
      assertEquals(reasons(chunks), [...Array(chunks.length - 1).fill(undefined), "stop"]);
      const longest = [stop].flat().reduce((most, { length }) => Math.max(most, length), 0);
      let soFar = "";
      for (const chunk of chunks) soFar += chunk.text;
      assert(![stop].flat().some((s) => soFar.includes(s)) && longest > 0);
    }
    const chunks = await run({ stop: "\n\nRobot:" });
    assertEquals([shown(chunks), chunks.at(-1)!.finishReason], ["Hello there\n\nHuman: x", "length"]);
  },
);

reciting(
  "what is held back for a stop string is shown when the limit comes first",
  "Hello\n\nHuman",
  async (run) => {
    const chunks = await run({ stop: "\n\nHuman:" });
    assertEquals([shown(chunks), chunks.at(-1)!.finishReason], ["Hello\n\nHuman", "length"]);
    assertEquals(chunks.slice(0, -1).map(({ text }) => text).join(""), "Hello");
  },
);

reciting("a stop string of several characters of several bytes is found", "はい。おわり", async (run) => {
  assertEquals(shown(await run({ stop: "。お" })), "はい");
});

reciting(
  "the token that ends a text ends generation, and is not text",
  "Bye!<|endoftext|>more",
  async (run, model) => {
    for (const options of [{}, { maxTokens: 5 }]) {
      const chunks = await run(options);
      assertEquals([shown(chunks), chunks.at(-1)!.finishReason], ["Bye!", "stop"]);
      assertEquals(chunks.at(-1)!.token, model.tokenizer.endOfText);
    }
    const held = await run({ stop: "!!" });
    assertEquals(shown(held), "Bye!", "what was held back is shown");
  },
);

reciting("the end of a text at once is one chunk without text", "<|endoftext|>", async (run) => {
  const chunks = await run();
  assertEquals(chunks.map(({ text, finishReason }) => [text, finishReason]), [["", "stop"]]);
});

Deno.test("sequences of a batch end one by one", () =>
  inTempDir(async (directory) => {
    using standard = await GPT2.load(fixture("d16/model"), { backend: "wasm" });
    await writeReciting(directory, standard.tokenizer.encode("abcdefgh<|endoftext|>".padEnd(20, "z")));
    using model = await GPT2.load(directory, { backend: "wasm" });
    const chunks = await collect(model.generate([[1], [1, 2, 3], [1, 2, 3, 4, 5, 6, 7, 8, 9]], greedy(10)));
    const ends = [0, 1, 2].map((index) => {
      const own = chunks.filter((chunk) => chunk.index === index);
      return [shown(own), own.at(-1)!.finishReason];
    });
    assertEquals(ends.slice(0, 2), [["abcdefgh", "stop"], ["cdefgh", "stop"]]);
    assertEquals(ends[2][1], "stop");
  }));

Deno.test("a token that the tokenizer does not know is shown as a broken character", () =>
  inTempDir(async (directory) => {
    await writeReciting(directory, [300, 301], 320);
    using model = await GPT2.load(directory, { backend: "wasm" });
    const chunks = await collect(model.generate([0], greedy(2)));
    assertEquals([tokensOf(chunks), shown(chunks)], [[300, 301], "\ufffd\ufffd"]);
  }));

// Seeds

Deno.test("a seed is reproducible; other seeds and other places in a batch differ; place 0 is as alone", () =>
  withModel(async (model) => {
    const options = { maxTokens: 15, temperature: 1.5 };
    const of = async (seed: number) =>
      tokensOf(await collect(model.generate(prompt(4), { ...options, seed })));
    const first = await of(1);
    assertEquals(await of(1), first);
    assert(String(await of(2)) !== String(first));
    const batch = await collect(model.generate([prompt(4), prompt(4), [9]], { ...options, seed: 1 }));
    assertEquals(tokensOf(batch, 0), first);
    assert(String(tokensOf(batch, 1)) !== String(first));
    await failure("option", ["seed"], () => of(NaN));
  }));

// Ends

Deno.test("an abort ends generation with its reason, before the first token, between tokens, within a step of a batch", () =>
  withModel(async (model, backend) => {
    const before = backend.stats().allocatedBytes;
    const aborted = model.generate([1], { signal: AbortSignal.abort(new Error("never")) });
    await assertRejects(() => collect(aborted), Error, "never");
    for (const batch of [[[1]], [[1], [2], [3]]]) {
      const controller = new AbortController();
      const seen: GeneratedChunk[] = [];
      await assertRejects(
        async () => {
          for await (const chunk of model.generate(batch, { ...greedy(30), signal: controller.signal })) {
            seen.push(chunk);
            if (seen.length === 4) controller.abort(new Error("enough"));
          }
        },
        Error,
        "enough",
      );
      assertEquals(seen.length, 4);
      assertEquals([backend.stats().allocatedBytes, model.arena.size], [before, 0]);
    }
  }));

await onEachBackend("leaving the loop early frees the cache", async (backend) => {
  using model = await GPT2.load(fixture("d16/model"), { backend });
  const before = backend.stats().allocatedBytes;
  for await (const _ of model.generate([[1], [2, 3]], { maxTokens: 9 })) {
    assert(backend.stats().allocatedBytes > before);
    break;
  }
  assertEquals(backend.stats().allocatedBytes, before);
  model.generate([1]); // never begun
  assertEquals(backend.stats().allocatedBytes, before);
});

Deno.test("weights that are not numbers, even one, are found at the first token", () =>
  inTempDir(async (directory) => {
    for (
      const [name, at] of [["wte.weight", 250 * 32], ["h.1.mlp.c_fc.bias", 3], ["ln_f.weight", 31]] as const
    ) {
      for (const broken of [NaN, Infinity]) {
        const files = await readModel("d16");
        const { values } = files.tensors.get(name)!;
        values[at] = broken;
        // One of two tokens' logits is then +∞: one that is −∞ only means that the token is never chosen.
        if (name === "wte.weight") values[at + 32] = -broken;
        await writeModel(directory, files, { vocabulary: "d16" });
        using model = await GPT2.load(directory, { backend: "wasm" });
        for (const temperature of [0, 1]) {
          await failure(
            "diverged",
            [model.name, "not numbers"],
            () => collect(model.generate([1, 2], { temperature })),
          );
        }
        assertEquals(model.arena.size, 0);
      }
    }
  }));

// Side by side

Deno.test("generations that are advanced in turns, beside scoring and training, give what each gives alone", () =>
  withModel(async (model, backend) => {
    using adapter = await Lora.load(fixture("d16/lora/attn"));
    using trained = Lora.create(model, { rank: 2, targets: "all-linear", dropout: 0.1 });
    const before = { ...backend.stats() };
    const start = (which: number) => {
      if (which === 1) model.attach(adapter);
      else model.detach();
      const options = { maxTokens: 20, temperature: 1, seed: which };
      const prompts = [[prompt(5, 2)], [prompt(3, 3), prompt(12, 4)], [[8]]][which];
      return model.generate(prompts, options)[Symbol.asyncIterator]();
    };
    const alone: GeneratedChunk[][] = [];
    for (const which of [0, 1, 2]) {
      const chunks: GeneratedChunk[] = [];
      const it = start(which);
      for (let next = await it.next(); !next.done; next = await it.next()) chunks.push(next.value);
      alone.push(chunks);
    }
    model.detach();
    const logits = await model.logits([prompt(20)]);

    const iterators = [0, 1, 2].map(start); // The second has the adapter, which the third's start took off.
    const together: GeneratedChunk[][] = [[], [], []];
    const training = train(model, [{ tokens: prompt(30) }], {
      lora: trained,
      steps: 100,
      learningRate: 0.05,
    });
    let open = 3;
    while (open > 0) {
      open = 0;
      const nexts = await Promise.all([...iterators.map((it) => it.next()), training.next()]);
      for (const which of [0, 1, 2]) {
        const { done, value } = nexts[which] as IteratorResult<GeneratedChunk>;
        if (done) continue;
        together[which].push(value);
        open++;
      }
    }
    await training.return();
    assertEquals(together, alone);
    assertEquals(model.adapter, trained);
    model.detach();
    assertEquals(await model.logits([prompt(20)]), logits);
    trained[Symbol.dispose]();
    adapter[Symbol.dispose]();
    assertEquals(backend.stats().allocatedBytes, before.allocatedBytes);
    assertEquals(model.arena.size, 0);
  }));

Deno.test("a generation keeps the adapter that it was called with, whatever is attached meanwhile", () =>
  withModel(async (model) => {
    using A = Lora.create(model, { rank: 2, targets: "all-linear", seed: 1 });
    using B = Lora.create(model, { rank: 3, targets: ["c_attn"], seed: 2 });
    await shake(A, model, 0.5);
    await shake(B, model, 0.9);
    const run = async (adapter: Lora | null, meanwhile: (step: number) => void = () => {}) => {
      model.detach();
      if (adapter) model.attach(adapter);
      const chunks = model.generate(prompt(4), greedy(12));
      meanwhile(0);
      const tokens: number[] = [];
      for await (const { token } of chunks) {
        tokens.push(token);
        meanwhile(tokens.length);
      }
      return tokens;
    };
    const [plain, withA, withB] = [await run(null), await run(A), await run(B)];
    assert(String(plain) !== String(withA) && String(withA) !== String(withB));
    assertEquals(await run(A, (step) => step === 0 && model.detach()), withA);
    assertEquals(await run(A, (step) => step === 5 && model.attach(B)), withA);
    assertEquals(await run(null, (step) => step === 3 && model.attach(B)), plain);
    assertEquals(await run(B, (step) => step % 2 ? model.attach(A) : model.attach(B)), withB);
    const generation = model.generate(prompt(4), greedy(12))[Symbol.asyncIterator]();
    await generation.next();
    model.detach();
    B[Symbol.dispose]();
    await failure("disposed", [B.name], () => generation.next());
  }));

Deno.test("text and token ids are the same prompt", () =>
  withModel(async (model) => {
    const text = "Hi there<|endoftext|>";
    const expected = await collect(model.generate(text, greedy(4)));
    assertEquals(await collect(model.generate(model.tokenizer.encode(text), greedy(4))), expected);
    assertEquals(await collect(model.generate([text], greedy(4))), expected);
    const typed = Uint32Array.from(model.tokenizer.encode(text)) as unknown as number[];
    assertEquals(await collect(model.generate(typed, greedy(4))), expected);
    const mixed = await collect(model.generate([text, [1, 2]], greedy(4)));
    assertEquals(tokensOf(mixed), tokensOf(expected));
  }));
