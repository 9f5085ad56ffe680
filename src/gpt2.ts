/**
 * GPT-2 as users meet it: load, generate, score, adapt, save.
 *
 * @module
 */
import { generate, type GeneratedChunk, type GenerateOptions, type Prompt } from "./generate/decode.ts";
import type { GPT2Shape } from "./model/config.ts";
import { LanguageModel } from "./model/language_model.ts";
import { loadModel, type LoadOptions, randomModel, type RandomOptions } from "./model/load.ts";
import { logProbs } from "./score/likelihood.ts";

/**
 * A GPT-2 (Radford et al. 2019) with its tokenizer, in the memory of a GPU or of WASM.
 *
 * @example
 * ```ts
 * import { GPT2 } from "../mod.ts";
 *
 * using model = await GPT2.load("nano");
 * for await (const { text } of model.generate("\n\nHuman: Hi\n\nAssistant:", { maxTokens: 16, seed: 1 })) {
 *   await Deno.stdout.write(new TextEncoder().encode(text));
 * }
 * ```
 */
export class GPT2 extends LanguageModel {
  /**
   * Loads a model in Hugging Face's format: config.json, model.safetensors (or its shards), and the
   * directory's own vocabulary, else GPT-2's.
   *
   * @param source A directory, an http(s) URL of one, a Hub id such as `openai-community/gpt2`, or
   * `"nano"`, the small model that is part of Whet.
   * @param options Backend, storage of the weights, progress.
   * @returns The model; `using` frees its memory.
   * @throws {WhetError} "format" where a file is broken or of another kind of model, "network",
   * "resource", "backend".
   *
   * @example
   * ```ts
   * import { GPT2 } from "../mod.ts";
   *
   * using model = await GPT2.load("nano", { backend: "wasm" });
   * console.log(model.config.n_layer, model.tokenizer.encode("Hello"));
   * ```
   */
  static async load(source: string, options: LoadOptions = {}): Promise<GPT2> {
    return new GPT2(await loadModel(source, options));
  }

  /**
   * A model with GPT-2's published initialisation, to train from scratch or to measure with.
   *
   * @param config What differs from GPT-2 124M, in Hugging Face's field names.
   * @param options Seed, backend, tokenizer.
   * @returns The model; `using` frees its memory.
   * @throws {WhetError} "format" where the configuration makes no sense, "resource", "backend".
   *
   * @example
   * ```ts
   * import { GPT2 } from "../mod.ts";
   *
   * using model = await GPT2.random({ n_layer: 2, n_embd: 64, n_head: 4, n_positions: 128 }, { seed: 1 });
   * console.log(model.parameterCount);
   * ```
   */
  static async random(config: GPT2Shape, options: RandomOptions = {}): Promise<GPT2> {
    return new GPT2(await randomModel(config, options));
  }

  /**
   * Generates a continuation, token by token, with the adapter that is attached when this is called.
   * Several may go on at a time.
   *
   * @param prompt Text or token ids; or an array of texts or of id lists, which are continued side by
   * side, each chunk saying by `index` whose it is.
   * @param options Length, temperature, top-k, top-p, repetition penalty, stop strings, seed, signal.
   * @returns Chunks as they come; a sequence's last carries `finishReason`.
   * @throws {WhetError} "option" where the prompt is empty or does not fit the window.
   *
   * @example
   * ```ts
   * import { GPT2 } from "../mod.ts";
   *
   * using model = await GPT2.load("nano");
   * let text = "";
   * for await (const chunk of model.generate("The cat", { maxTokens: 8, temperature: 0 })) text += chunk.text;
   * console.log(text);
   * ```
   */
  generate(prompt: Prompt | readonly Prompt[], options: GenerateOptions = {}): AsyncIterable<GeneratedChunk> {
    const batch = Array.isArray(prompt) && typeof prompt[0] !== "number";
    return generate(this, batch ? prompt as readonly Prompt[] : [prompt as Prompt], options);
  }

  /**
   * The log-probability of every token given those before it.
   *
   * @param sequences Token ids, each sequence by itself and at most `n_positions` long.
   * @returns For each sequence natural logs, (length − 1).
   * @throws {WhetError} "option" where a token is not in the vocabulary or a sequence too long.
   *
   * @example
   * ```ts
   * import { GPT2 } from "../mod.ts";
   *
   * using model = await GPT2.load("nano");
   * const [logProbs] = await model.logProbs([model.tokenizer.encode("The cat says meow.")]);
   * console.log(Math.exp(-logProbs.reduce((a, b) => a + b, 0) / logProbs.length), "perplexity");
   * ```
   */
  logProbs(sequences: readonly (readonly number[])[]): Promise<Float32Array[]> {
    return logProbs(this, sequences);
  }
}
