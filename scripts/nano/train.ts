/**
 * `deno task nano`: makes the embedded model anew, from text that this project generates, by this
 * project's own trainer, and writes `src/nano/*.gen.ts`.
 *
 * @module
 */
import { Dialogues } from "../../src/data/dialogues.ts";
import { GPT2 } from "../../src/gpt2.ts";
import { loadTokenizer } from "../../src/text/tokenizers.ts";
import { train } from "../../src/train/trainer.ts";
import { Progress } from "../../src/report/progress.ts";
import { trainBpe } from "./bpe_trainer.ts";
import { generateCorpus } from "./corpus.ts";
import { generateDialogues } from "./dialogues.ts";
import { embed } from "./embed.ts";

const SEED = 2026;
const VOCABULARY = 1024;
const CORPUS_BYTES = 6_000_000;
const STEPS = Number(Deno.env.get("NANO_STEPS") ?? 6000);

const corpus = generateCorpus(SEED, CORPUS_BYTES);
const { vocab, merges } = trainBpe(corpus, VOCABULARY);
const files: Record<string, string> = {
  "vocab.json": JSON.stringify(vocab),
  "merges.txt": `#version: 0.2\n${merges.map((pair) => pair.join(" ")).join("\n")}\n`,
};
const tokenizer = await loadTokenizer({ text: (name) => Promise.resolve(files[name] ?? null) });
if (!tokenizer) throw new Error("no tokenizer");

using model = await GPT2.random(
  { vocab_size: VOCABULARY, n_positions: 256, n_embd: 112, n_layer: 4, n_head: 4 },
  { seed: SEED, tokenizer, backend: "wasm" },
);
console.error(`${model.parameterCount} parameters, ${corpus.length} texts`);

const texts = corpus.map((text) => ({ text }));
const held = Dialogues.from(texts.splice(0, 64));
const bar = new Progress({ total: STEPS, label: "nano" });
for await (
  const step of train(model, texts, {
    steps: STEPS,
    batchSize: 4,
    sequenceLength: 256,
    learningRate: 3e-3,
    schedule: "cosine",
    warmupSteps: 50,
    weightDecay: 0.01,
    betas: [0.9, 0.98],
    seed: SEED,
    evalData: held,
    evalEvery: 500,
  })
) {
  bar.update({
    done: step.step,
    fields: { loss: step.loss.toFixed(4), "tokens/s": Math.round(step.tokensPerSecond) },
  });
  if (step.evalLoss !== undefined) {
    console.error(`step ${step.step}: held-out loss ${step.evalLoss.toFixed(4)}`);
  }
}
bar.finish();

const directory = await Deno.makeTempDir();
await model.save(directory, { dtype: "BF16" });
await embed(directory, generateDialogues(SEED, 1200, "train"), generateDialogues(SEED, 60, "test"));
await Deno.remove(directory, { recursive: true });
