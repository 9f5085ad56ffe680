/**
 * Fine-tunes a model on dialogues of your own, keeps the adapter and lets the model answer:
 * `deno run --allow-read --allow-write examples/train.ts nano chats.jsonl adapter`. For a model of the Hub,
 * such as `openai-community/gpt2`, add `--allow-net --allow-env`.
 */
import { Dialogues, GPT2, Lora, train } from "../mod.ts";

const [source, file, directory, question = "Tell me a story about a cat."] = Deno.args;
if (!directory) throw new Error("usage: train.ts MODEL DATA OUT [QUESTION]");

using model = await GPT2.load(source);
const data = await Dialogues.load(file);
using lora = Lora.create(model, { rank: 8, alpha: 16, targets: "all-linear" });

const options = { steps: 40, learningRate: 2e-3, lossOn: "responses" } as const;
for await (const { step, loss } of train(model, data, { lora, ...options })) {
  console.log(`step ${step}: loss ${loss.toFixed(4)}`);
}
await lora.save(directory);

const prompt = `\n\nHuman: ${question}\n\nAssistant:`;
for await (const { text } of model.generate(prompt, { maxTokens: 64, temperature: 0, stop: "\n\nHuman:" })) {
  await Deno.stdout.write(new TextEncoder().encode(text));
}
console.log();
