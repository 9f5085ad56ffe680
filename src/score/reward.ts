/**
 * A reward model: how good an answer is, by a DeBERTa that people's preferences were taught to.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { Deberta, neighboursOf, rowsOfPlaces } from "../model/deberta.ts";
import type { DebertaConfig, HeadActivation } from "../model/deberta_config.ts";
import { loadDeberta, type RewardParts } from "../model/deberta_load.ts";
import type { LoadOptions } from "../model/load.ts";
import { Arena } from "../tensor/arena.ts";
import type { Backend } from "../tensor/backend.ts";
import { Ops } from "../tensor/ops.ts";
import { endToEnd, groupByRows } from "../tensor/sequences.ts";
import type { WeightFormat } from "../tensor/tensor.ts";
import type { PairEncoding, UnigramTokenizer } from "../text/unigram.ts";
import type { ScoredPair, ScoreOptions, Scorer } from "./scorer.ts";

/** Tokens of a forward pass: enough to fill the machine, little enough memory. */
const BATCH_TOKENS = 1024;

/** How {@linkcode RewardModel.score} scores. */
export interface RewardOptions extends ScoreOptions {
  /** Pairs go together as long as they have at most so many tokens; no score depends on it [1024]. */
  batchTokens?: number;
}

/**
 * A DeBERTa-v2 or v3 with one label (He et al. 2021, 2023) and its tokenizer, in the memory of a GPU or of WASM.
 *
 * @example
 * ```ts ignore
 * import { RewardModel } from "../../mod.ts";
 *
 * using reward = await RewardModel.load("OpenAssistant/reward-model-deberta-v3-large-v2", { weights: "q8" });
 * const [good, bad] = await reward.score([
 *   { prompt: "Who wrote Faust?", response: "Goethe did, in two parts." },
 *   { prompt: "Who wrote Faust?", response: "No idea, go away." },
 * ]);
 * console.log(good > bad);
 * ```
 */
export class RewardModel implements Scorer, Disposable {
  /** Its name: what it was loaded from. */
  readonly name: string;
  /** Its shape, in Hugging Face's field names. */
  readonly config: DebertaConfig;
  /** Its tokenizer. */
  readonly tokenizer: UnigramTokenizer;
  /** Where it computes. */
  readonly backend: Backend;
  /** How its matrices are stored. */
  readonly weights: WeightFormat;

  readonly #parts: RewardParts;
  readonly #network: Deberta;
  readonly #arena: Arena;
  #disposed = false;

  private constructor(parts: RewardParts) {
    this.name = parts.name;
    this.config = parts.config;
    this.tokenizer = parts.tokenizer;
    this.backend = parts.backend;
    this.weights = parts.weights;
    this.#parts = parts;
    this.#network = new Deberta(parts.config, parts.placed.weights);
    this.#arena = new Arena(parts.backend);
  }

  /**
   * Loads a reward model in Hugging Face's format, a `DebertaV2ForSequenceClassification` of one label: config.json;
   * model.safetensors, its shards, or pytorch_model.bin; tokenizer.json or spm.model.
   *
   * In `q8` (and `q4`) a large model of 1.7 GB takes less than 1 GB. Rounding would shift all its scores alike: at load
   * a few texts go through the exact weights too, and biases are corrected by what they show, which takes some seconds.
   *
   * @param source A directory, an http(s) URL of one, or a Hub id.
   * @param options Backend, storage of the weights, progress.
   * @returns The model; `using` frees its memory.
   * @throws {WhetError} "format" where a file is broken, of another kind of model, or of several labels; "mismatch" where
   * the tokenizer has more tokens than the model; "network", "resource", "backend".
   *
   * @example
   * ```ts ignore
   * import { RewardModel } from "../../mod.ts";
   *
   * using reward = await RewardModel.load("models/reward", { backend: "wasm", weights: "q8" });
   * console.log(reward.config.num_hidden_layers);
   * ```
   */
  static async load(source: string, options: LoadOptions = {}): Promise<RewardModel> {
    return new RewardModel(await loadDeberta(source, options));
  }

  /**
   * Scores answers: the model's raw logit of each, higher is better. What is longer than 512 tokens (or the model's window)
   * loses tokens from the prompt's front.
   *
   * @param pairs Prompts and answers to them.
   * @param options Who is told, what ends it.
   * @returns A logit for each pair, in their order; the same whatever else is in the batch.
   * @throws {WhetError} "option" where a text is missing; "disposed".
   *
   * @example
   * ```ts ignore
   * import { RewardModel } from "../../mod.ts";
   *
   * using reward = await RewardModel.load("OpenAssistant/reward-model-deberta-v3-large-v2");
   * const scores = await reward.score([{ prompt: "Is water wet?", response: "It is." }]);
   * console.log(scores[0]);
   * ```
   */
  async score(pairs: readonly ScoredPair[], options: RewardOptions = {}): Promise<Float32Array> {
    this.#alive();
    const { batchTokens = BATCH_TOKENS, onProgress, signal } = options;
    if (!(batchTokens >= 1)) {
      throw new WhetError("option", `batchTokens: expected a number of at least 1, got ${batchTokens}`);
    }
    const encoded = pairs.map((pair, index) => this.#encode(pair, index));
    const scores = new Float32Array(pairs.length);
    let done = 0;
    // While the numbers of one batch are on their way, the next is being computed.
    let reading: Promise<void> = Promise.resolve();
    for (const group of groupByRows(encoded.map(({ ids }) => ids.length), batchTokens)) {
      signal?.throwIfAborted();
      const read = this.#pooled(group.map((index) => encoded[index]));
      const before = reading;
      reading = read.then((pooled) => {
        for (const [n, index] of group.entries()) scores[index] = this.#logit(pooled, n);
      });
      reading.catch(() => {}); // Whoever waits for it hears of it.
      await before;
      if (done > 0) onProgress?.(done, pairs.length);
      done += group.length;
      this.#alive();
    }
    await reading;
    if (done > 0) onProgress?.(done, pairs.length);
    signal?.throwIfAborted();
    return scores;
  }

  #encode({ prompt, response }: ScoredPair, index: number): PairEncoding {
    for (const [field, text] of Object.entries({ prompt, response })) {
      if (typeof text === "string") continue;
      throw new WhetError("option", `pairs[${index}].${field}: expected text, got ${text}`);
    }
    return this.tokenizer.encodePair(prompt, response, this.#parts.longest);
  }

  /** What the pooler makes of each pair, before its activation, (N, C). */
  #pooled(pairs: readonly PairEncoding[]): Promise<Float32Array> {
    const rows = endToEnd(pairs.map(({ ids }) => ids));
    return this.#arena.scope(() => {
      const place = (values: Uint32Array) => this.#arena.upload(values);
      return this.backend.read(this.#network.forward(new Ops(this.#arena), {
        tokens: place(rows.tokens),
        places: place(
          rowsOfPlaces(this.config, this.#parts.longest, rows, pairs.flatMap(({ typeIds }) => typeIds)),
        ),
        sequences: { starts: place(rows.starts), ends: place(rows.ends) },
        first: place(Uint32Array.from(new Set(rows.starts))),
        neighbours: neighboursOf(this.config, rows).map(place),
      }));
    });
  }

  /** The pooler's activation and the classifier, of row n of (N, C). */
  #logit(pooled: Float32Array, n: number): number {
    const { weight, bias } = this.#parts.placed.classifier;
    const act = HEAD[this.config.pooler_hidden_act];
    const C = weight.length;
    let sum = bias[0];
    for (let c = 0; c < C; c++) sum += weight[c] * act(pooled[n * C + c]);
    return sum;
  }

  #alive(): void {
    if (this.#disposed) throw new WhetError("disposed", `${this.name} was disposed; load it again to use it`);
  }

  /** Frees its memory, and the backend if the model made it. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#arena[Symbol.dispose]();
    if (this.#parts.ownsBackend) return this.backend[Symbol.dispose]();
    for (const matrix of this.#parts.placed.owned) this.backend.free(matrix);
  }
}

const gelu = (x: number) => 0.5 * x * (1 + erf(x / Math.SQRT2));
const geluNew = (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

/** The pooler's activations: so few numbers that the host computes them. */
const HEAD: Record<HeadActivation, (x: number) => number> = {
  gelu,
  gelu_new: geluNew,
  relu: (x) => Math.max(0, x),
  tanh: Math.tanh,
  linear: (x) => x,
};

/** The error function, by the series 7.1.6 of Abramowitz & Stegun (1964), whose terms have one sign. */
function erf(x: number): number {
  if (!(Math.abs(x) < 6)) return Math.sign(x); // 1 in float64, and NaN
  let sum = 0;
  for (let n = 0, term = x; sum + term !== sum; n++) {
    sum += term;
    term *= 2 * x * x / (2 * n + 3);
  }
  return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x) * sum;
}
