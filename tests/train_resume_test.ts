/**
 * A run that was interrupted and taken up again is the run that was not, to the bit.
 */
import { assertEquals, assertRejects } from "@std/assert";
import { createWasmBackend } from "../src/backend/wasm/backend.ts";
import type { Example } from "../src/data/example.ts";
import { WhetError } from "../src/errors.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora, type LoraOptions } from "../src/model/lora.ts";
import type { Backend } from "../src/tensor/backend.ts";
import type { TrainOptions } from "../src/train/options.ts";
import { train } from "../src/train/trainer.ts";
import { fixture, inTempDir, MODEL } from "./support/cli.ts";

const DATA: Example[] = Array.from({ length: 9 }, (_, i) => ({
  prompt: `Q${i}?`,
  response: " yes".repeat(1 + i % 4) + i,
}));

/** What a run is made of. */
interface Run {
  data?: Iterable<Example>;
  lora: LoraOptions | null;
  options: TrainOptions;
  model?: string;
}

/** What it comes to: numbers of each step, and the bytes that were trained. */
interface Result {
  steps: Map<number, string>;
  bytes: Uint8Array;
}

/**
 * Runs training in as many attempts as it takes, each with a model of its own, as processes would.
 *
 * @param deaths After which steps an attempt dies, before it can save a checkpoint of that step.
 */
async function run(backend: Backend, { data = DATA, lora, options, model: source = MODEL }: Run, {
  directory,
  deaths = [],
  resume = deaths.length > 0,
}: { directory: string; deaths?: number[]; resume?: boolean }): Promise<Result> {
  const steps = new Map<number, string>();
  for (const death of [...deaths, Infinity]) {
    using model = await GPT2.load(source, { backend });
    using adapter = lora ? Lora.create(model, lora) : null;
    const checkpoint = { directory: `${directory}/checkpoint`, every: 3 };
    const run = { ...options, checkpoint, resume, ...(adapter ? { lora: adapter } : {}) };
    let died = false;
    for await (const { step, loss, gradNorm, learningRate, tokens } of train(model, data, run)) {
      steps.set(step, JSON.stringify([loss, gradNorm, learningRate, tokens]));
      died = step >= death;
      if (died) break;
    }
    if (died) continue;
    await (adapter ?? model).save(directory);
    break;
  }
  const file = `${directory}/${lora ? "adapter_model" : "model"}.safetensors`;
  return { steps, bytes: await Deno.readFile(file) };
}

async function same(what: Run): Promise<void> {
  using backend = await createWasmBackend();
  const attempt = async (deaths: number[]) => {
    let result: Result | null = null;
    await inTempDir(async (directory) => {
      result = await run(backend, what, { directory, deaths });
    });
    return result!;
  };
  const whole = await attempt([]);
  const last = Math.max(...whole.steps.keys());
  for (let death = 1; death <= last; death++) assertEquals(await attempt([death]), whole);
  // Time and again, on the way to and after the same checkpoint.
  assertEquals(await attempt([1, 2, 3, 4, 5, 5, 6, 7, 7]), whole);
}

const options = { batchSize: 2, sequenceLength: 24, learningRate: 1e-2 };

Deno.test("resumed wherever it died: dropout, accumulation, a schedule with warm-up", () =>
  same({
    lora: { dropout: 0.3, targets: ["c_attn", "mlp.c_proj"], seed: 5 },
    options: { ...options, steps: 8, accumulate: 2, schedule: "cosine", warmupSteps: 2, seed: 5 },
  }));

Deno.test("resumed wherever it died: epochs, one example a row, loss on responses", () =>
  same({
    lora: { rank: 2 },
    options: { ...options, epochs: 2, packing: false, lossOn: "responses", weightDecay: 0.1 },
  }));

Deno.test("resumed wherever it died: epochs of packed rows, in the data's order", () =>
  same({ lora: { rsLora: true }, options: { ...options, epochs: 3, shuffle: false, accumulate: 3 } }));

Deno.test("resumed wherever it died: all weights", () =>
  same({ lora: null, options: { ...options, steps: 7, maxGradNorm: 0.5 } }));

Deno.test("resumed wherever it died: examples that come one by one", () => {
  const oneByOne = function* () {
    yield* DATA;
  };
  return same({
    data: { [Symbol.iterator]: oneByOne },
    lora: {},
    options: { ...options, steps: 9, packing: false },
  });
});

Deno.test("a run without resume begins anew, whatever lies there", () =>
  inTempDir(async (directory) => {
    using backend = await createWasmBackend();
    const what: Run = { lora: {}, options: { ...options, steps: 5 } };
    const whole = await run(backend, what, { directory });
    const other = await run(backend, { ...what, options: { ...what.options, seed: 1 } }, { directory });
    assertEquals([...other.steps.keys()], [1, 2, 3, 4, 5]);
    assertEquals(await run(backend, what, { directory }), whole);
    // It died before its first checkpoint: nothing of the run before it may come back.
    using model = await GPT2.load(MODEL, { backend });
    using lora = Lora.create(model);
    const checkpoint = { directory: `${directory}/checkpoint`, every: 3 };
    for await (const _ of train(model, DATA, { ...what.options, lora, checkpoint })) break;
    assertEquals(await run(backend, what, { directory, resume: true }), whole);
    // Wrong usage, on the other hand, leaves the checkpoint where it is.
    const wrong = train(model, DATA, { ...what.options, lora, checkpoint, sequenceLength: 41 });
    await assertRejects(() => wrong.next(), WhetError);
    const after = await run(backend, what, { directory, resume: true });
    assertEquals([after.steps.size, after.bytes], [0, whole.bytes]);
  }));

Deno.test("a checkpoint is taken up by its own run only; the error names what differs", () =>
  inTempDir(async (directory) => {
    using backend = await createWasmBackend();
    const what: Run = { lora: { rank: 4 }, options: { ...options, steps: 4, schedule: "linear" } };
    await run(backend, what, { directory });
    const others: [Partial<Run>, string][] = [
      [{ lora: null }, 'method "lora", this one has "full"'],
      [{ lora: { rank: 8 } }, "lora.rank 4, this one has 8"],
      [{ lora: { rank: 4, alpha: 8 } }, "lora.alpha 16, this one has 8"],
      [{ lora: { rank: 4, targets: ["c_fc"] } }, 'lora.targets ["c_attn"], this one has ["c_fc"]'],
      [{ options: { ...what.options, steps: 5 } }, "steps 4, this one has 5"],
      [{ options: { ...options, epochs: 1 } }, "steps 4, this one has null"],
      [{ options: { ...what.options, schedule: "constant" } }, 'schedule "linear", this one has "constant"'],
      [{ options: { ...what.options, learningRate: 1e-3 } }, "learningRate 0.01, this one has 0.001"],
      [{ options: { ...what.options, batchSize: 3 } }, "batchSize 2, this one has 3"],
      [{ options: { ...what.options, sequenceLength: 25 } }, "sequenceLength 24, this one has 25"],
      [{ options: { ...what.options, accumulate: 2 } }, "accumulate 1, this one has 2"],
      [{ options: { ...what.options, seed: 1 } }, "seed 0, this one has 1"],
      [{ options: { ...what.options, packing: false } }, "packing true, this one has false"],
      [{ options: { ...what.options, lossOn: "responses" } }, 'lossOn "all", this one has "responses"'],
      [{ data: DATA.slice(1) }, "data "],
      [{ data: [...DATA.slice(1), { prompt: "Q0!", response: " yes0" }] }, "data "],
      [{ model: fixture("d20/model") }, "config."],
    ];
    for (const [other, message] of others) {
      const resumed = () => run(backend, { ...what, ...other }, { directory, resume: true });
      const error = await assertRejects(resumed, WhetError, `is of a run with ${message}`);
      assertEquals(error.code, "mismatch");
    }
    // The same shape with other weights.
    {
      using model = await GPT2.load(MODEL, { backend });
      for await (const _ of train(model, DATA, { ...options, steps: 1 }));
      await model.save(`${directory}/tuned`);
    }
    const tuned = { ...what, model: `${directory}/tuned` };
    await assertRejects(
      () => run(backend, tuned, { directory, resume: true }),
      WhetError,
      "of a run with model ",
    );
  }));

Deno.test("with a constant learning rate a run may be made longer, but not shorter than it is", () =>
  inTempDir(async (directory) => {
    using backend = await createWasmBackend();
    const what = (steps: number): Run => ({ lora: {}, options: { ...options, steps, schedule: "constant" } });
    await run(backend, what(4), { directory });
    const longer = await run(backend, what(7), { directory, resume: true });
    assertEquals([...longer.steps.keys()], [5, 6, 7]);
    const shorter = () => run(backend, what(5), { directory, resume: true });
    await assertRejects(shorter, WhetError, "steps: 5 are asked for, the checkpoint is at 7 already");
    await inTempDir(async (fresh) => {
      assertEquals(longer.bytes, (await run(backend, what(7), { directory: fresh })).bytes);
    });
  }));

Deno.test("a damaged checkpoint is told, and changes nothing", () =>
  inTempDir(async (directory) => {
    using backend = await createWasmBackend();
    const what: Run = { lora: {}, options: { ...options, steps: 4 } };
    await run(backend, what, { directory });
    const path = `${directory}/checkpoint/checkpoint.safetensors`;
    const whole = await Deno.readFile(path);
    const header = new TextDecoder().decode(whole.subarray(8, 8 + Number(whole[0] + 256 * whole[1])));
    const replaced = (from: string, to: string) => {
      assertEquals([header.includes(from), from.length], [true, to.length]);
      const bytes = whole.slice();
      bytes.set(new TextEncoder().encode(header.replace(from, to)), 8);
      return bytes;
    };
    const cases: [Uint8Array, RegExp][] = [
      [new Uint8Array(0), /not a safetensors file: 0 bytes.*; remove it to begin anew$/],
      [whole.subarray(0, 100), /truncated: its header .*; remove it to begin anew$/],
      [whole.subarray(0, whole.length - 1), /truncated: .*; remove it to begin anew$/],
      [
        replaced("whet-checkpoint", "whet-chequepoin"),
        /not a checkpoint of Whet's; remove it to begin anew$/,
      ],
      [replaced('\\"step\\":4', '\\"stop\\":4'), /not a checkpoint of Whet's/],
      [replaced('\\"position\\"', '\\"positron\\"'), /the checkpoint's place in the data is damaged/],
      [replaced('"v:', '"w:'), /"?v:transformer\S+ is missing or of another size/],
    ];
    for (const [bytes, message] of cases) {
      await Deno.writeFile(path, bytes);
      const error = await assertRejects(() => run(backend, what, { directory, resume: true }), WhetError);
      assertEquals([message.test(error.message), error.message.includes("\n")], [true, false], error.message);
    }
    await Deno.remove(path);
    await Deno.mkdir(path);
    await assertRejects(
      () => run(backend, what, { directory, resume: true }),
      WhetError,
      "not a regular file",
    );
  }));
