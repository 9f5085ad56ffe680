/**
 * Twenty LoRA steps of a randomly initialised GPT-2 124M on a file of HH-RLHF dialogues, on WASM:
 *
 *     deno run -A benchmarks/hh_rlhf.ts DIALOGUES [STEPS] [THREADS]
 *
 * prints each step's loss and time, then the median time, tokens per second and the process's memory.
 *
 * @module
 */
import { Dialogues } from "../src/data/dialogues.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import { train } from "../src/train/trainer.ts";

const [file, steps = "20", threads] = Deno.args;
if (!file) throw new Error("usage: hh_rlhf.ts DIALOGUES [STEPS] [THREADS]");

const begin = performance.now();
using model = await GPT2.random({}, {
  seed: 1,
  backend: "wasm",
  ...(threads ? { threads: Number(threads) } : {}),
});
console.log(`${model.backend.description}; random weights in ${seconds(performance.now() - begin)} s`);
const lora = Lora.create(model, { rank: 8, alpha: 16, targets: ["c_attn"] });
const data = await Dialogues.load(file);
const times: number[] = [];
let tokens = 0;
for await (
  const step of train(model, data, {
    lora,
    steps: Number(steps),
    batchSize: 4,
    sequenceLength: 256,
    learningRate: 1e-3,
    schedule: "constant",
  })
) {
  const time = step.tokens / step.tokensPerSecond * 1000;
  times.push(time);
  tokens += step.tokens;
  console.log(`step ${step.step}: loss ${step.loss.toFixed(4)}, ${step.tokens} tokens in ${seconds(time)} s`);
}
const median = times.toSorted((a, b) => a - b)[times.length >> 1];
const total = times.reduce((a, b) => a + b, 0);
console.log(
  `median ${seconds(median)} s a step, ${(tokens / total * 1000).toFixed(0)} tokens/s, ` +
    `${(Deno.memoryUsage().rss / 2 ** 20).toFixed(0)} MiB resident`,
);

function seconds(milliseconds: number): string {
  return (milliseconds / 1000).toFixed(2);
}
