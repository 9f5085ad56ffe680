/**
 * Makes the files that peers compute with, in a process of its own:
 *
 *     make.ts model DIRECTORY ADAPTER LAYERS      a GPT-2 of random weights in f32, and an adapter for it
 *     make.ts whet MODEL DIRECTORY q8             the model in one of Whet's formats
 *     make.ts gguf MODEL FILE q8_0                the model for llama.cpp
 *     make.ts onnx MODEL DIRECTORY                the model for transformers.js
 *     make.ts dialogues DATA JSONL JSON COUNT     the first dialogues that fit the window; and as tokens
 *     make.ts reward DIRECTORY LAYERS             a DeBERTa-v3 large of random weights in f32, with one label
 *     make.ts pairs DATA MODEL JSON COUNT         its prompts and answers of 150 to 250 tokens; and as tokens
 *
 * @module
 */
import { Dialogues } from "../../src/data/dialogues.ts";
import { encodeExample } from "../../src/data/encode.ts";
import { GPT2 } from "../../src/gpt2.ts";
import { Lora } from "../../src/model/lora.ts";
import type { WeightFormat } from "../../src/tensor/tensor.ts";
import { gpt2Tokenizer } from "../../src/text/tokenizers.ts";
import { openRepository } from "../../src/format/source.ts";
import { selectPairs } from "../../src/score/pairs.ts";
import { loadUnigramTokenizer } from "../../src/text/unigram.ts";
import { writeReward } from "./reward.ts";
import type { GgufType } from "./gguf.ts";
import { gpt2Gguf } from "./gpt2_gguf.ts";
import { gpt2Onnx } from "./gpt2_onnx.ts";

const load = (model: string, weights?: WeightFormat) => GPT2.load(model, { backend: "wasm", weights });

const KINDS: Record<string, (...args: string[]) => Promise<void>> = {
  async model(directory, adapter, layers) {
    using model = await GPT2.random({ n_layer: Number(layers) }, { seed: 1, backend: "wasm" });
    await model.save(directory);
    await Lora.create(model, { rank: 8, alpha: 16, targets: ["c_attn"], seed: 1 }).save(adapter);
  },
  async whet(from, directory, weights) {
    using model = await load(from, weights as WeightFormat);
    await model.save(directory);
  },
  async gguf(from, file, type) {
    using model = await load(from);
    const vocab = JSON.parse(await Deno.readTextFile(`${from}/vocab.json`));
    const merges = await Deno.readTextFile(`${from}/merges.txt`);
    await write(file, gpt2Gguf(model, { vocab, merges }, type as GgufType));
  },
  async onnx(from, directory) {
    using model = await load(from);
    await Deno.mkdir(`${directory}/onnx`, { recursive: true });
    await Deno.copyFile(`${from}/config.json`, `${directory}/config.json`);
    await write(`${directory}/onnx/model.onnx`, await gpt2Onnx(model));
  },
  async dialogues(data, jsonl, json, count) {
    const tokenizer = await gpt2Tokenizer();
    const chosen = [], encoded = [];
    for (const example of await Dialogues.load(data)) {
      const { tokens, counts } = encodeExample(example, tokenizer, { lossOn: "responses" });
      if (tokens.length > 1024) continue;
      chosen.push(JSON.stringify(example));
      encoded.push({ tokens: [...tokens], counts: [...counts] });
      if (chosen.length === Number(count)) break;
    }
    await Deno.writeTextFile(jsonl, chosen.join("\n") + "\n");
    await Deno.writeTextFile(json, JSON.stringify(encoded));
  },
  reward: writeReward,
  async pairs(data, model, json, count) {
    const tokenizer = await loadUnigramTokenizer(await openRepository(model));
    const found = [];
    for (const { prompt, response } of selectPairs(await Array.fromAsync(await Dialogues.load(data))).pairs) {
      const { ids, dropped } = tokenizer.encodePair(prompt, response);
      if (dropped === 0 && ids.length >= 150 && ids.length <= 250) found.push({ prompt, response, ids });
      if (found.length === Number(count)) break;
    }
    const pairs = found.map(({ prompt, response }) => ({ prompt, response }));
    await Deno.writeTextFile(json, JSON.stringify({ pairs, ids: found.map(({ ids }) => ids) }));
  },
};

async function write(path: string, pieces: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): Promise<void> {
  using file = await Deno.create(path);
  for await (const piece of pieces) {
    for (let at = 0; at < piece.length;) at += await file.write(piece.subarray(at));
  }
}

const [kind, ...args] = Deno.args;
await KINDS[kind](...args);
// Workers may be waiting still.
Deno.exit(0);
