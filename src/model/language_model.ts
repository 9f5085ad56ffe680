/**
 * A GPT-2 with its tokenizer, in a backend's memory: what training, generation and scoring work on.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { Arena } from "../tensor/arena.ts";
import type { Backend } from "../tensor/backend.ts";
import { type Linear, Ops } from "../tensor/ops.ts";
import { ParameterLayout, type Parameters } from "../tensor/parameters.ts";
import { type Matrix, PackedMatrix, type Tensor, type WeightFormat } from "../tensor/tensor.ts";
import type { GPT2Config } from "./config.ts";
import type { Lora } from "./lora.ts";
import { saveModel } from "./save.ts";
import { endToEnd, groupByRows } from "../tensor/sequences.ts";
import { isMatrix, parameterShapes, Transformer } from "./transformer.ts";

/** Rows of a forward pass without gradients: enough to fill the machine, little enough memory. */
const ROWS_AT_ONCE = 1024;
/** Rows of logits in memory at once. */
const LOGIT_ROWS = 64;

/** What a model is made of; see the loaders. */
export interface ModelParts {
  /** Its name, for errors and adapters' files. */
  name: string;
  /** Its shape. */
  config: GPT2Config;
  /** Its tokenizer. */
  tokenizer: Tokenizer;
  /** Where it computes. */
  backend: Backend;
  /** Whether the backend ends with the model. */
  ownsBackend: boolean;
  /** How frozen weights are stored. */
  weights: WeightFormat;
  /** Its parameters by name. */
  parameters: Map<string, Matrix>;
}

/** A GPT-2 in a backend's memory. */
export class LanguageModel implements Disposable {
  /** Its name: what it was loaded from. */
  readonly name: string;
  /** Its shape, in Hugging Face's field names. */
  readonly config: GPT2Config;
  /** Its tokenizer. */
  readonly tokenizer: Tokenizer;
  /** Where it computes. */
  readonly backend: Backend;
  /** How its frozen weights are stored. */
  readonly weights: WeightFormat;
  /**
   * Where its temporaries live.
   *
   * @internal
   */
  readonly arena: Arena;

  readonly #ownsBackend: boolean;
  readonly #parameters: Map<string, Matrix>;
  #network: Transformer;
  #trained: Parameters | null = null;
  #adapter: Lora | null = null;
  #disposed = false;

  /**
   * @param parts What it is made of; it owns the parameters from now on.
   *
   * @internal
   */
  constructor(parts: ModelParts) {
    this.name = parts.name;
    this.config = parts.config;
    this.tokenizer = parts.tokenizer;
    this.backend = parts.backend;
    this.weights = parts.weights;
    this.#ownsBackend = parts.ownsBackend;
    this.#parameters = parts.parameters;
    this.arena = new Arena(parts.backend);
    this.#network = new Transformer(this.config, this.#parameters);
  }

  /**
   * The network, with the adapter that is attached.
   *
   * @internal
   */
  get network(): Transformer {
    this.#alive();
    return this.#network;
  }

  /** The adapter that is attached, or null. */
  get adapter(): Lora | null {
    return this.#adapter;
  }

  /** Numbers in all its parameters. */
  get parameterCount(): number {
    return [...parameterShapes(this.config).values()].reduce(
      (sum, shape) => sum + shape.reduce((a, b) => a * b, 1),
      0,
    );
  }

  /**
   * The linear layers by the names that adapters know them by.
   *
   * @internal
   */
  linears(): Map<string, Linear> {
    return this.network.linears();
  }

  /**
   * The logits of every token of every sequence.
   *
   * @param sequences Token ids; each sequence by itself, at most `n_positions` long.
   * @returns For each sequence (length × V), row-major.
   * @throws {WhetError} "option" where a token is not in the vocabulary or a sequence too long.
   */
  async logits(sequences: readonly (readonly number[])[]): Promise<Float32Array[]> {
    const { wte } = this.network;
    const V = this.config.vocab_size;
    const results = sequences.map(({ length }) => new Float32Array(length * V));
    for (const group of this.#groups(sequences)) {
      const pending: Promise<void>[] = [];
      this.arena.scope(() => {
        const ops = new Ops(this.arena);
        const hidden = this.hiddenStates(ops, group.map((index) => sequences[index]));
        let row = 0;
        for (const index of group) {
          const T = sequences[index].length;
          for (let first = 0; first < T; first += LOGIT_ROWS) {
            this.arena.scope(() => {
              const n = Math.min(LOGIT_ROWS, T - first);
              const rows = this.arena.upload(Uint32Array.from({ length: n }, (_, i) => row + first + i));
              const logits = ops.unembed(ops.gather(hidden, rows), wte);
              const read = this.backend.read(logits);
              pending.push(read.then((values) => results[index].set(values, first * V)));
            });
          }
          row += T;
        }
      });
      await Promise.all(pending);
    }
    return results;
  }

  /**
   * Hidden states of whole sequences, end to end: (T, C), T the sum of their lengths.
   *
   * @param ops What computes.
   * @param sequences Token ids, checked already.
   *
   * @internal
   */
  hiddenStates(ops: Ops, sequences: readonly (readonly number[])[]): Tensor {
    const { tokens, positions, starts, ends } = endToEnd(sequences);
    return this.network.forward(ops, {
      tokens: this.arena.upload(tokens),
      positions: this.arena.upload(positions),
      context: { starts: this.arena.upload(starts), ends: this.arena.upload(ends) },
    });
  }

  /**
   * Hangs an adapter on the model; one that was attached before is detached. No base weight changes.
   *
   * @param lora The adapter.
   * @throws {WhetError} "mismatch" if it is for another model.
   */
  attach(lora: Lora): void {
    lora.checkFits(this);
    const lowRanks = lora.lowRanks(this.backend);
    this.detach();
    for (const [name, linear] of this.linears()) {
      const lowRank = lowRanks.get(name);
      if (lowRank) linear.lora = lowRank;
    }
    this.#adapter = lora;
  }

  /** Takes the adapter off; the model is what it was before. */
  detach(): void {
    for (const linear of this.linears().values()) delete linear.lora;
    this.#adapter = null;
  }

  /**
   * Folds an adapter into the weights, W += scaling · (B A)ᵀ; it is not attached afterwards. There is
   * no unmerge: in floating point it would not give the same weights back.
   *
   * @param lora The adapter.
   * @throws {WhetError} "mismatch" if it is for another model.
   */
  async merge(lora: Lora): Promise<void> {
    lora.checkFits(this);
    const lowRanks = lora.lowRanks(this.backend);
    if (this.#adapter === lora) this.detach();
    for (const [name, { A, B, scaling: alpha }] of lowRanks) {
      const key = `${name.replace(/^transformer\./, "")}.weight`;
      const update = (out: Tensor) =>
        this.backend.matmul({ a: A, transposeA: true, b: B, transposeB: true, alpha, accumulate: true, out });
      const weight = this.#parameters.get(key)!;
      if (!(weight instanceof PackedMatrix)) {
        update(weight);
        continue;
      }
      const before = await this.backend.unpack(weight);
      const merged = await this.arena.scope(() => {
        const sum = this.arena.upload(before, weight.shape);
        update(sum);
        return this.backend.read(sum);
      });
      this.#replace(key, this.backend.pack(merged, weight.rows, weight.columns, weight.format));
    }
    this.#rebuild();
  }

  /**
   * Makes all weights trainable: packed ones become plain tensors, side by side in slabs.
   *
   * @returns The weights, which the model computes with from now on.
   * @throws {WhetError} "option" if they are not stored as f32.
   *
   * @internal
   */
  async unfreeze(): Promise<Parameters> {
    this.#alive();
    if (this.#trained) return this.#trained;
    if (this.weights !== "f32") {
      throw new WhetError(
        "option",
        `weights: training all weights needs "f32"; ${this.name} was loaded as "${this.weights}"`,
      );
    }
    const layout = new ParameterLayout(
      [...parameterShapes(this.config)].map(([name, shape]) => ({ name, shape, decays: isMatrix(name) })),
    );
    const trained = layout.allocate(this.backend);
    for (const [name, tensor] of trained.tensors) {
      const before = this.#parameters.get(name)!;
      trained.write(name, await this.#values(before));
      this.#replace(name, tensor);
    }
    this.#trained = trained;
    this.#rebuild();
    return trained;
  }

  /** One parameter's values, row-major. */
  parameter(name: string): Promise<Float32Array> {
    this.#alive();
    const parameter = this.#parameters.get(name);
    if (!parameter) throw new WhetError("option", `${this.name} has no parameter ${name}`);
    return this.#values(parameter);
  }

  /**
   * Saves the model in Hugging Face's format: config.json, model.safetensors, vocab.json, merges.txt.
   * The adapter that is attached is not part of it; merge it first, or save it by itself.
   *
   * @param directory Where to; it is made.
   * @param options `dtype`: F32, or F16 or BF16 at half the size [F16 if the weights are stored so, else F32].
   * @throws {WhetError} "resource" where the disk is full or permission is missing.
   */
  async save(directory: string, options: { dtype?: "F32" | "F16" | "BF16" } = {}): Promise<void> {
    this.#alive();
    await saveModel(directory, this, options.dtype ?? (this.weights === "f16" ? "F16" : "F32"));
  }

  /**
   * Checks token ids.
   *
   * @param tokens A sequence.
   * @param what What to call it in the error.
   * @throws {WhetError} "option" where one is not in the vocabulary, or they are more than `n_positions`.
   *
   * @internal
   */
  checkTokens(tokens: readonly number[], what = "sequence"): void {
    const { vocab_size, n_positions } = this.config;
    if (tokens.length > n_positions) {
      throw new WhetError(
        "option",
        `${what}: ${tokens.length} tokens are more than ${this.name}'s window of ${n_positions}; shorten it`,
      );
    }
    const wrong = tokens.find((token) => !(Number.isInteger(token) && token >= 0 && token < vocab_size));
    if (wrong !== undefined) {
      throw new WhetError(
        "option",
        `${what}: token ${wrong} is not in the vocabulary of ${this.name} (0 to ${vocab_size - 1})`,
      );
    }
  }

  /** Frees its memory, and the backend if the model made it; an attached adapter is detached, not disposed. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.detach();
    this.#disposed = true;
    this.arena[Symbol.dispose]();
    if (this.#ownsBackend) return this.backend[Symbol.dispose]();
    this.#trained?.[Symbol.dispose]();
    for (const parameter of this.#parameters.values()) {
      if (![...(this.#trained?.tensors.values() ?? [])].includes(parameter as Tensor)) {
        this.backend.free(parameter);
      }
    }
  }

  #alive(): void {
    if (this.#disposed) throw new WhetError("disposed", `${this.name} was disposed; load it again to use it`);
  }

  /** Checked sequences in groups that go through the network together. */
  #groups(sequences: readonly (readonly number[])[]): number[][] {
    for (const [index, tokens] of sequences.entries()) this.checkTokens(tokens, `sequences[${index}]`);
    return groupByRows(sequences.map(({ length }) => length), ROWS_AT_ONCE);
  }

  #values(parameter: Matrix): Promise<Float32Array> {
    return parameter instanceof PackedMatrix ? this.backend.unpack(parameter) : this.backend.read(parameter);
  }

  #replace(name: string, parameter: Matrix): void {
    this.backend.free(this.#parameters.get(name)!);
    this.#parameters.set(name, parameter);
  }

  /** Builds the network anew over changed parameters. */
  #rebuild(): void {
    const adapter = this.#adapter;
    this.#network = new Transformer(this.config, this.#parameters);
    if (adapter) this.attach(adapter);
  }
}
