/**
 * GPT-2 XL (1.5 billion random weights) on WASM's 4 GiB: loads, generates, takes LoRA steps of 256 tokens, and says what
 * each cost:
 *
 *     deno run -A benchmarks/xl.ts [q8|f16|q4] [STEPS]
 *
 * @module
 */
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import type { WeightFormat } from "../src/tensor/tensor.ts";
import { train } from "../src/train/trainer.ts";

const [weights = "q8", steps = "2"] = Deno.args;
const seconds = (since: number) => ((performance.now() - since) / 1000).toFixed(2);

let begin = performance.now();
using model = await GPT2.random({ n_layer: 48, n_head: 25, n_embd: 1600 }, {
  backend: "wasm",
  weights: weights as WeightFormat,
});
console.log(`${model.parameterCount} weights in ${weights}: ${seconds(begin)} s`);

begin = performance.now();
let tokens = 0;
const prompt = Array.from({ length: 16 }, (_, i) => i * 101 % model.config.vocab_size);
for await (const _ of model.generate(prompt, { maxTokens: 9, temperature: 0 })) {
  if (tokens++ > 0) continue;
  console.log(`first token after 16: ${seconds(begin)} s`);
  begin = performance.now();
}
console.log(`${((tokens - 1) / Number(seconds(begin))).toFixed(1)} tokens/s then`);

const lora = Lora.create(model, { rank: 8, targets: ["c_attn"] });
const data = [{ tokens: Array.from({ length: 256 }, (_, i) => i * 7919 % model.config.vocab_size) }];
const options = { lora, steps: Number(steps), batchSize: 1, sequenceLength: 256, learningRate: 1e-3 };
for await (const { step, loss, tokensPerSecond } of train(model, data, options)) {
  console.log(`LoRA step ${step}: loss ${loss.toFixed(4)}, ${tokensPerSecond.toFixed(1)} tokens/s`);
}
const peak = /VmHWM:\s*(\d+) kB/.exec(await Deno.readTextFile("/proc/self/status").catch(() => ""));
console.log(
  `${(model.backend.stats().allocatedBytes / 2 ** 20).toFixed(0)} MiB of weights` +
    (peak ? `, at most ${(Number(peak[1]) / 1024).toFixed(0)} MiB resident` : ""),
);
