/**
 * What storage formats cost in quality, beside f32 on the same backend:
 *
 *     deno run -A benchmarks/quality.ts [DIALOGUES] [--steps N] [--model M|124M] [--batch-size B] [--seq-len T]
 *
 * First the perplexity of the embedded nano, a trained model, on its own held-out dialogues; then, with a file of
 * HH-RLHF dialogues, the loss on a held-out tenth of it after so many LoRA steps on each base, all with the same
 * batches: on nano, or on a randomly initialised GPT-2 124M.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { Dialogues } from "../src/data/dialogues.ts";
import type { Example } from "../src/data/example.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import { nanoDialogues } from "../src/nano/nano.ts";
import type { WeightFormat } from "../src/tensor/tensor.ts";
import { train } from "../src/train/trainer.ts";

const FORMATS: WeightFormat[] = ["f32", "q8"];

const { values, positionals: [file] } = parseArgs({
  allowPositionals: true,
  options: {
    steps: { type: "string", default: "200" },
    model: { type: "string", default: "nano" },
    "batch-size": { type: "string", default: "4" },
    "seq-len": { type: "string", default: "128" },
  },
});

/** Opens the base model with weights of a format. */
async function open(name: string, weights: WeightFormat): Promise<GPT2> {
  const where = { backend: "wasm", weights } as const;
  return name === "124M" ? await GPT2.random({}, { ...where, seed: 1 }) : await GPT2.load(name, where);
}

/** Mean loss in nats of each token given those before it, up to the model's window. */
async function meanLoss(model: GPT2, texts: string[]): Promise<number> {
  let sum = 0, count = 0;
  const sequences = texts.map((text) => model.tokenizer.encode(text).slice(0, model.config.n_positions));
  for (const logProbs of await model.logProbs(sequences.filter((tokens) => tokens.length > 1))) {
    for (const logProb of logProbs) sum -= logProb, count++;
  }
  return sum / count;
}

/** A row of a table: how far a loss is from f32's, and what that makes of the perplexity. */
function row(format: string, loss: number, base: number): string {
  const [off, factor] = [(loss / base - 1) * 100, (Math.exp(loss - base) - 1) * 100];
  return `| ${format} | ${loss.toFixed(5)} | ${off.toFixed(3)} % | ${factor.toFixed(3)} % |`;
}

const HEAD = "| weights | loss | beside f32's | perplexity beside f32's |\n|---|---|---|---|";

/** What is learned of an example. */
function text(example: Example): string {
  if ("chosen" in example) return example.chosen;
  if ("prompt" in example) return example.prompt + example.response;
  if ("text" in example) return example.text;
  throw new Error("token ids have no text");
}

const held = [...(await nanoDialogues()).held].map(text);
console.log(`nano, ${held.length} held-out dialogues of its own\n\n${HEAD}`);
let base = 0;
for (const format of FORMATS) {
  using model = await open("nano", format);
  const loss = await meanLoss(model, held);
  if (format === "f32") base = loss;
  console.log(row(format, loss, base));
}

if (file) {
  const examples: Example[] = [...await Dialogues.load(file)];
  const cut = Math.floor(examples.length * 0.9);
  const test = examples.slice(cut).map(text).slice(0, values.model === "124M" ? 16 : 120);
  console.log(
    `\n${values.model}: ${values.steps} LoRA steps (r = 8 on c_attn) on HH-RLHF, ${test.length} held out\n`,
  );
  console.log(HEAD);
  for (const format of FORMATS) {
    using model = await open(values.model, format);
    const lora = Lora.create(model, { rank: 8, alpha: 16, targets: ["c_attn"], seed: 0 });
    const options = {
      lora,
      steps: Number(values.steps),
      batchSize: Number(values["batch-size"]),
      sequenceLength: Number(values["seq-len"]),
      learningRate: 1e-3,
      seed: 0,
    };
    for await (const _ of train(model, examples.slice(0, cut), options));
    model.attach(lora);
    const loss = await meanLoss(model, test);
    if (format === "f32") base = loss;
    console.log(row(format, loss, base));
  }
}
