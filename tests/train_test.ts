/**
 * What the training loop promises beside PyTorch's numbers (those are in parity_test.ts).
 */
import { assert, assertAlmostEquals, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { createWasmBackend } from "../src/backend/wasm/backend.ts";
import { makeBatch } from "../src/data/batches.ts";
import { WhetError } from "../src/errors.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import type { Backend } from "../src/tensor/backend.ts";
import type { Parameters } from "../src/tensor/parameters.ts";
import { AdamW } from "../src/train/optimizer.ts";
import { runStep } from "../src/train/step.ts";
import { train, type TrainStep } from "../src/train/trainer.ts";
import { candidates } from "./support/backends.ts";
import { fixture, inTempDir, MODEL } from "./support/cli.ts";

/** A tiny GPT-2 that no tokenizer belongs to. */
const TINY = { n_layer: 2, n_embd: 32, n_head: 2, n_positions: 32, vocab_size: 61 };

async function withModel(work: (model: GPT2, backend: Backend) => Promise<void>): Promise<void> {
  using backend = await createWasmBackend();
  using model = await GPT2.load(MODEL, { backend });
  await work(model, backend);
}

async function all(steps: AsyncIterable<TrainStep>): Promise<TrainStep[]> {
  const done: TrainStep[] = [];
  for await (const step of steps) done.push(step);
  return done;
}

/** Every value of every parameter, by name. */
async function values(parameters: Parameters): Promise<Map<string, Float32Array>> {
  const read = new Map<string, Float32Array>();
  for (const name of parameters.tensors.keys()) read.set(name, await parameters.read(name));
  return read;
}

/** Token ids that look like nothing in particular. */
function someTokens(length: number, seed: number): number[] {
  return Array.from({ length }, (_, i) => (seed * 31 + i * i * 7 + i * 13) % 61);
}

const sum = (numbers: Iterable<number>) => [...numbers].reduce((a, b) => a + b, 0);

Deno.test("micro-batches of very different sizes come to the loss and gradients of one large batch", () =>
  withModel(async (model) => {
    using lora = await Lora.load(fixture("d16/lora/attn"));
    model.attach(lora);
    const sequences = [3, 38, 2, 20].map((length, i) => ({
      tokens: Uint32Array.from(someTokens(length, i + 1)),
      counts: new Uint8Array(length).fill(1, 1),
    }));
    const measure = async (parts: typeof sequences[]) => {
      const parameters = lora.bind(model.backend);
      using optimizer = new AdamW(parameters, {
        ...{ betas: [0.9, 0.999], epsilon: 1e-8, weightDecay: 0, maxGradNorm: 0 },
      });
      for (const tensor of parameters.tensors.values()) tensor.requiresGradient = true;
      const options = { step: 1, learningRate: 0, seed: 0 };
      const result = await runStep(model, optimizer, parts.map(makeBatch), options);
      return { ...result, gradients: await values(optimizer.gradients) };
    };
    const whole = await measure([sequences]);
    const apart = await measure(sequences.map((sequence) => [sequence]));
    assertAlmostEquals(apart.loss, whole.loss, 1e-5);
    assertAlmostEquals(apart.gradNorm, whole.gradNorm, 1e-5 * whole.gradNorm);
    for (const [name, gradient] of whole.gradients) {
      const largest = gradient.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
      assert(largest > 0, `${name} has no gradient`);
      const other = apart.gradients.get(name)!;
      gradient.forEach((x, i) => assert(Math.abs(x - other[i]) <= 1e-5 * largest, `${name}[${i}]`));
    }
    // A mean of the batches' means, which weighs 1 token as much as 37, is something else.
    const means = await Promise.all(sequences.map(async ({ tokens }) => {
      const [logs] = await model.logProbs([[...tokens]]);
      return -sum(logs) / logs.length;
    }));
    assert(Math.abs(sum(means) / means.length - whole.loss) > 1e-3);
  }));

Deno.test("packed into one batch, examples have the loss that they have alone", () =>
  withModel(async (model) => {
    const data = [5, 17, 2, 9, 30, 3].map((length, i) => ({ tokens: someTokens(length, i) }));
    const alone = await model.logProbs(data.map(({ tokens }) => tokens));
    const expected = -sum(alone.map(sum)) / sum(alone.map(({ length }) => length));
    for (const packing of [true, false]) {
      using lora = Lora.create(model);
      const batch = packing ? { batchSize: 2, sequenceLength: 40 } : { batchSize: 6, sequenceLength: 30 };
      const [{ loss, tokens }] = await all(train(model, data, { lora, steps: 1, packing, ...batch }));
      assertEquals(tokens, 66);
      assertAlmostEquals(loss, expected, 1e-5);
    }
  }));

Deno.test("with the loss on responses nothing but the response and the end of text counts", () =>
  withModel(async (model) => {
    const { tokenizer } = model;
    const prompt = "How much?", response = " a lot";
    const [before, after] = [prompt, response].map((text) => tokenizer.encode(text));
    const [logs] = await model.logProbs([[...before, ...after, tokenizer.endOfText]]);
    const counted = logs.subarray(before.length - 1);
    assertEquals(counted.length, after.length + 1);
    using lora = Lora.create(model);
    const first = async (lossOn: "all" | "responses") =>
      (await all(train(model, [{ prompt, response }], { lora, steps: 1, lossOn })))[0].loss;
    assertAlmostEquals(await first("responses"), -sum(counted) / counted.length, 1e-5);
  }));

Deno.test("the end of text is learned: a trained text ends where it ends", () =>
  withModel(async (model) => {
    const data = [{ prompt: "ab", response: "cdef" }];
    const steps = await all(train(model, data, { steps: 60, learningRate: 1e-2, batchSize: 1 }));
    assert(steps.at(-1)!.loss < 0.01, `loss ${steps.at(-1)!.loss}`);
    let text = "", end: { token: number; finishReason?: string } | null = null;
    for await (const chunk of model.generate("ab", { temperature: 0, maxTokens: 30 })) {
      text += chunk.text;
      end = chunk;
    }
    assertEquals(text, "cdef");
    assertEquals([end?.token, end?.finishReason], [model.tokenizer.endOfText, "stop"]);
  }));

Deno.test("from random weights, and with token ids alone, a model learns what repeats", async () => {
  using backend = await createWasmBackend();
  const endless = function* () {
    for (let i = 0;; i++) yield { tokens: Array.from({ length: 24 }, (_, j) => (i + j) % 7) };
  };
  const losses: number[][] = [];
  for (let run = 0; run < 2; run++) {
    using model = await GPT2.random(TINY, { seed: 3, backend });
    const options = { steps: 60, batchSize: 4, sequenceLength: 24, learningRate: 1e-2, weightDecay: 0.01 };
    losses.push((await all(train(model, endless(), options))).map(({ loss }) => loss));
  }
  assertAlmostEquals(losses[0][0], Math.log(TINY.vocab_size), 0.2);
  assert(losses[0].at(-1)! < 0.5, `loss ${losses[0].at(-1)}`);
  assertEquals(losses[1], losses[0]);
  using model = await GPT2.random(TINY, { seed: 3, backend });
  const text = () => all(train(model, [{ text: "words" }], { steps: 1 }));
  await assertRejects(text, WhetError, "no tokenizer.json");
});

Deno.test("full fine-tuning moves every weight; an adapter moves none of the base", () =>
  withModel(async (model) => {
    const data = [{ text: "one two three four" }, { text: "five six" }];
    const names = ["wte.weight", "wpe.weight", "h.0.ln_1.bias", "h.1.attn.c_attn.weight", "ln_f.weight"];
    const read = () => Promise.all(names.map((name) => model.parameter(name)));
    const before = await read();
    using lora = Lora.create(model, { targets: "all-linear" });
    const adapted = await all(train(model, data, { lora, steps: 12, learningRate: 1e-2 }));
    assert(adapted.at(-1)!.loss < adapted[0].loss - 0.5, "the adapter learns");
    assertEquals(await read(), before);
    const full = await all(train(model, data, { steps: 12, learningRate: 1e-2 }));
    assertEquals(model.adapter, null);
    assertAlmostEquals(full[0].loss, adapted[0].loss, 1e-5);
    assert(full.at(-1)!.loss < full[0].loss - 0.5, "the weights learn");
    // What comes next, an adapter's training for one, must not pay for their gradients.
    const tensors = [...(await model.unfreeze()).tensors.values()];
    assertEquals(tensors.filter(({ requiresGradient }) => requiresGradient), []);
    (await read()).forEach((after, i) => assertNotEquals(after, before[i], names[i]));
  }));

Deno.test("on weights of 16, 8 and 4 bits an adapter learns, but all weights cannot be trained", async () => {
  using backend = await createWasmBackend();
  const data = [{ text: "one two three four" }, { text: "five six" }];
  for (const weights of ["f16", "q8", "q4"] as const) {
    using model = await GPT2.load(MODEL, { backend, weights });
    const before = await model.parameter("h.0.attn.c_attn.weight");
    using lora = Lora.create(model, { targets: "all-linear" });
    const steps = await all(train(model, data, { lora, steps: 12, learningRate: 1e-2 }));
    assert(steps.at(-1)!.loss < steps[0].loss - 0.5, weights);
    assertEquals(await model.parameter("h.0.attn.c_attn.weight"), before);
    const full = () => all(train(model, data, { steps: 1 }));
    const { code } = await assertRejects(full, WhetError, `needs "f32"`);
    assertEquals(code, "option");
  }
});

Deno.test("held-out data is evaluated when asked for, and changes nothing", () =>
  withModel(async (model) => {
    const data = [5, 17, 2, 9, 30].map((length, i) => ({ tokens: someTokens(length, i) }));
    const evalData = [12, 4].map((length, i) => ({ tokens: someTokens(length, i + 40) }));
    const run = async (evaluation: { evalData?: typeof evalData; evalEvery?: number }) => {
      using lora = Lora.create(model, { dropout: 0.2 });
      const options = { lora, steps: 8, learningRate: 1e-2, batchSize: 1, sequenceLength: 40, ...evaluation };
      const steps = await all(train(model, data, options));
      const logs = await model.logProbs(evalData.map(({ tokens }) => tokens));
      return { steps, held: -sum(logs.map(sum)) / sum(logs.map(({ length }) => length)) };
    };
    const plain = await run({});
    const atEnd = await run({ evalData });
    const often = await run({ evalData, evalEvery: 3 });
    const evaluated = ({ steps }: typeof plain) =>
      steps.filter(({ evalLoss }) => evalLoss !== undefined).map(({ step }) => step);
    assertEquals([plain, atEnd, often].map(evaluated), [[], [8], [3, 6, 8]]);
    for (const { steps, held } of [atEnd, often]) {
      assertAlmostEquals(steps.at(-1)!.evalLoss!, held, 1e-5);
      assertEquals(steps.map(({ loss }) => loss), plain.steps.map(({ loss }) => loss));
    }
  }));

Deno.test("weights that are no numbers stop training at the first step, which says so", async () => {
  using backend = await createWasmBackend();
  using model = await GPT2.random(TINY, { backend });
  backend.write(await brokenParameter(model), new Float32Array(TINY.n_embd).fill(NaN));
  const data = [{ tokens: [1, 2, 3] }];
  for (const lora of [undefined, Lora.create(model)]) {
    const error = await assertRejects(() => all(train(model, data, { lora, steps: 3 })), WhetError);
    assertEquals(error.code, "diverged");
    assertEquals(
      error.message,
      "step 1: the loss is not a number any more; the model's own weights are broken, or its adapter's",
    );
    lora?.[Symbol.dispose]();
  }
});

/** Where the last layer normalisation's scale lies. */
async function brokenParameter(model: GPT2) {
  return (await model.unfreeze()).tensors.get("ln_f.weight")!;
}

Deno.test("a learning rate beyond all reason stops training and leaves the last good checkpoint", () =>
  inTempDir(async (directory) => {
    await withModel(async (model) => {
      const data = [5, 17, 9, 30].map((length, i) => ({ tokens: someTokens(length, i) }));
      const attempt = async (learningRate: number, options: { steps: number; resume?: boolean }) => {
        using lora = Lora.create(model);
        const steps: number[] = [];
        const error = await assertRejects(async () => {
          // The first step of a warm-up has a learning rate of 0, and leaves a good checkpoint.
          const warmUp = { warmupSteps: 1, checkpoint: { directory, every: 1 }, batchSize: 1 };
          const run = train(model, data, { lora, learningRate, ...warmUp, ...options });
          for await (const { step } of run) steps.push(step);
        }, WhetError);
        assertEquals(error.code, "diverged");
        return { steps, message: error.message };
      };
      for (const learningRate of [1e30, 1e300]) {
        const first = await attempt(learningRate, { steps: 6 });
        assertEquals(first.steps, [1, 2]);
        assertEquals(
          first.message,
          `step 2: the weights are not a number any more; the checkpoint of step 1 in ${directory} is whole; ` +
            "try a lower learning rate (--lr) or a warm-up (--warmup-steps)",
        );
        const again = await attempt(learningRate, { steps: 6, resume: true });
        assertEquals(again, { steps: [2], message: first.message });
      }
      // Also where no step follows that would find it out.
      assertEquals((await attempt(1e30, { steps: 2 })).steps, [1, 2]);
    });
  }));

Deno.test("an aborted signal ends training between two steps, with a checkpoint", () =>
  inTempDir((directory) =>
    withModel(async (model) => {
      const data = [{ text: "one two three" }];
      const checkpoint = { directory, every: 100 };
      const controller = new AbortController();
      using lora = Lora.create(model);
      const steps: number[] = [];
      const reason = new Error("enough");
      const error = await assertRejects(async () => {
        for await (
          const { step } of train(model, data, { lora, steps: 9, checkpoint, signal: controller.signal })
        ) {
          steps.push(step);
          if (step === 3) controller.abort(reason);
        }
      });
      assertEquals([error, steps], [reason, [1, 2, 3]]);
      assertEquals(model.arena.size, 0);
      const rest = await all(train(model, data, { lora, steps: 9, checkpoint, resume: true }));
      assertEquals(rest.map(({ step }) => step), [4, 5, 6, 7, 8, 9]);
      const aborted = train(model, data, { lora, steps: 9, signal: AbortSignal.abort(reason) });
      assertEquals(await assertRejects(() => all(aborted)), reason);
    })
  ));

for (const { name, create, ignore } of await candidates()) {
  // A software adapter takes a hundred times as long for a step.
  const count = name === "webgpu" ? 14 : 50;
  Deno.test({
    name: `${name}: ${count} steps take no more memory than one, and all of it comes back`,
    ignore,
    fn: async () => {
      using backend = await create();
      await keepsMemory(backend, count);
    },
  });
}

async function keepsMemory(backend: Backend, count: number): Promise<void> {
  using model = await GPT2.load(MODEL, { backend });
  const data = [5, 17, 2, 9, 30].map((length, i) => ({ tokens: someTokens(length, i) }));
  const before = backend.stats();
  const options = { batchSize: 1, sequenceLength: 40, accumulate: 2, evalData: data, evalEvery: 7 };
  {
    using lora = Lora.create(model, { dropout: 0.1, targets: "all-linear" });
    const held: number[] = [];
    for await (const _ of train(model, data, { lora, steps: count, ...options })) {
      held.push(backend.stats().allocatedBytes);
      assertEquals(model.arena.size, 0);
    }
    assertEquals(held.length, count);
    assertEquals(new Set(held).size, 1);
    for await (const { step } of train(model, data, { lora, steps: count, ...options })) {
      if (step === 2) break;
    }
    assertEquals(model.arena.size, 0);
    await assertRejects(async () => {
      for await (const _ of train(model, data, { lora, steps: count, ...options })) {
        throw new Error("the consumer's");
      }
    });
    model.detach();
  }
  const { allocatedBytes, allocations } = backend.stats();
  assertEquals([allocatedBytes, allocations], [before.allocatedBytes, before.allocations]);
  await all(train(model, data, { steps: 2, ...options }));
  model[Symbol.dispose]();
  assertEquals(backend.stats().allocatedBytes, 0);
}

Deno.test("an option that makes no sense is refused by its name before anything is computed", () =>
  withModel(async (model, backend) => {
    const { dispatches, allocatedBytes } = backend.stats();
    const cases: [Record<string, unknown>, string][] = [
      [{ steps: 0 }, "steps: expected a whole number from 1"],
      [{ steps: 1.5 }, "steps: expected"],
      [{ steps: 1, epochs: 1 }, "steps, epochs: give one of them"],
      [{ epochs: -1 }, "epochs: expected"],
      [{ batchSize: 0 }, "batchSize: expected"],
      [{ batchSize: "4" }, 'batchSize: expected a whole number from 1 to 2147483647, got "4"'],
      [{ sequenceLength: 41 }, "41 is beyond"],
      [{ sequenceLength: 1 }, "sequenceLength: expected"],
      [{ accumulate: 0 }, "accumulate: expected"],
      [{ learningRate: 0 }, "learningRate: expected a number above 0"],
      [{ learningRate: NaN }, "learningRate: expected"],
      [{ schedule: "step" }, 'schedule: expected one of constant, linear, cosine, got "step"'],
      [{ warmupSteps: -1 }, "warmupSteps: expected"],
      [{ weightDecay: -0.1 }, "weightDecay: expected"],
      [{ betas: [0.9, 1] }, "betas: expected"],
      [{ betas: [0.9] }, "betas: expected"],
      [{ epsilon: 0 }, "epsilon: expected"],
      [{ maxGradNorm: -1 }, "maxGradNorm: expected"],
      [{ maxGradNorm: Infinity }, "maxGradNorm: expected"],
      [{ seed: 0.5 }, "seed: expected"],
      [{ seed: -1 }, "seed: expected"],
      [{ lossOn: "prompts" }, "lossOn: expected"],
      [{ evalEvery: 0 }, "evalEvery: expected"],
      [{ checkpoint: { directory: "x", every: 0 } }, "checkpoint.every: expected"],
      [{ resume: true }, "resume: say by checkpoint"],
    ];
    for (const [options, message] of cases) {
      const error = await assertRejects(
        () => all(train(model, [{ text: "ab" }], options)),
        WhetError,
        message,
      );
      assertEquals(error.code, "option", message);
    }
    await assertRejects(() => all(train(model, [], { steps: 1 })), WhetError, "the data are empty");
    const { dispatches: later, allocatedBytes: still } = backend.stats();
    assertEquals([later, still], [dispatches, allocatedBytes]);
  }));

Deno.test("another adapter attached between two steps does not come between an adapter and its training", () =>
  withModel(async (model) => {
    const data = [{ tokens: someTokens(24, 3) }, { tokens: someTokens(24, 5) }];
    const options = { steps: 4, learningRate: 1e-2, evalData: data };
    using alone = Lora.create(model, { rank: 2 });
    const undisturbed = (await all(train(model, data, { ...options, lora: alone }))).map(({ loss }) => loss);
    using lora = Lora.create(model, { rank: 2 });
    using other = await Lora.load(fixture("d16/lora/attn"));
    const losses: number[] = [];
    for await (const { loss } of train(model, data, { ...options, lora })) {
      losses.push(loss);
      model.attach(other);
    }
    assertEquals(losses, undisturbed);
  }));
