/**
 * A GPT-2 with its tokenizer, in a backend's memory: what training, generation and scoring work on.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { Arena } from "../tensor/arena.ts";
import type { Backend } from "../tensor/backend.ts";
import { type Linear, type LowRank, Ops } from "../tensor/ops.ts";
import { ParameterLayout, type Parameters } from "../tensor/parameters.ts";
import {
  type Matrix,
  PackedMatrix,
  type StoredMatrix,
  type Tensor,
  type WeightFormat,
} from "../tensor/tensor.ts";
import type { GPT2Config } from "./config.ts";
import type { Lora } from "./lora.ts";
import type { MatrixInfo } from "./quantized.ts";
import { saveModel } from "./save.ts";
import { type EndToEnd, endToEnd, groupByRows } from "../tensor/sequences.ts";
import { isMatrix, parameterShapes, Transformer } from "./transformer.ts";

/** Rows of a forward pass without gradients: enough to fill the machine, little enough memory. */
export const ROWS_AT_ONCE = 1024;
/** Rows of logits in memory at once. */
export const LOGIT_ROWS = 64;

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

/**
 * A GPT-2 in a backend's memory: weights, tokenizer, and the adapter that is attached. `GPT2` is one that
 * generates and scores too.
 *
 * @example
 * ```ts
 * import { GPT2, type LanguageModel } from "../../mod.ts";
 *
 * using model: LanguageModel = await GPT2.load("nano");
 * const [logits] = await model.logits([model.tokenizer.encode("The cat")]);
 * console.log(logits.length / model.config.vocab_size, "tokens");
 * ```
 */
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
  /** Where the attached adapter's values lay when it was attached. */
  #adapterValues: Parameters | null = null;
  #lastTurn: Promise<unknown> = Promise.resolve();
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
    return this.networkWith(this.#adapter);
  }

  /**
   * The network with an adapter, attached or not; null for none.
   *
   * @throws {WhetError} "disposed" if the model or the adapter was.
   *
   * @internal
   */
  networkWith(adapter: Lora | null): Transformer {
    this.#alive();
    if (adapter !== this.#adapter) return this.#build(adapter);
    if (adapter && !adapter.holds(this.#adapterValues!)) {
      throw new WhetError(
        "disposed",
        `${adapter.name} was disposed or unbound while it was attached to ${this.name}; detach it, or attach it again`,
      );
    }
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
    this.#alive();
    return this.#network.linears();
  }

  /**
   * The logits of every token of every sequence.
   *
   * @param sequences Token ids; each sequence by itself, at most `n_positions` long.
   * @returns For each sequence (length × V), row-major.
   * @throws {WhetError} "option" where a token is not in the vocabulary or a sequence too long.
   */
  async logits(sequences: readonly (readonly number[])[]): Promise<Float32Array[]> {
    this.network; // Throws if it was disposed.
    for (const [index, tokens] of sequences.entries()) this.checkTokens(tokens, `sequences[${index}]`);
    const lengths = sequences.map(({ length }) => length);
    const results = lengths.map((length) => this.#room(length));
    for (const group of groupByRows(lengths, ROWS_AT_ONCE)) {
      const reads: Promise<void>[] = [];
      try {
        this.arena.scope(() => this.#readLogits(sequences, group, results, reads));
      } finally {
        await Promise.allSettled(reads);
      }
      await Promise.all(reads);
    }
    return results;
  }

  /** Computes the logits of a group of sequences, which `reads` wait for. */
  #readLogits(
    sequences: readonly (readonly number[])[],
    group: readonly number[],
    results: readonly Float32Array[],
    reads: Promise<void>[],
  ): void {
    const ops = new Ops(this.arena);
    const hidden = this.hiddenStates(ops, endToEnd(group.map((index) => sequences[index])));
    let row = 0;
    for (const index of group) {
      const T = sequences[index].length;
      for (let first = 0; first < T; first += LOGIT_ROWS) {
        this.arena.scope(() => {
          const n = Math.min(LOGIT_ROWS, T - first);
          const rows = this.arena.upload(Uint32Array.from({ length: n }, (_, i) => row + first + i));
          const read = this.backend.read(ops.unembed(ops.gather(hidden, rows), this.network.wte));
          reads.push(read.then((values) => results[index].set(values, first * this.config.vocab_size)));
        });
      }
      row += T;
    }
  }

  /** Room for a sequence's logits, (length × V). */
  #room(length: number): Float32Array {
    try {
      return new Float32Array(length * this.config.vocab_size);
    } catch (cause) {
      const mebibytes = Math.ceil(length * this.config.vocab_size * 4 / 2 ** 20);
      throw new WhetError(
        "resource",
        `no memory for ${mebibytes} MiB of logits; give fewer sequences at once`,
        {
          cause,
        },
      );
    }
  }

  /**
   * Hidden states of whole sequences, end to end: (T, C), T the sum of their lengths, or (N, C), of the counted rows.
   *
   * @param ops What computes, and records if there is a tape.
   * @param rows The sequences, laid end to end; checked already.
   * @param counted The rows that are wanted [all].
   * @param adapter The adapter to compute with [the one attached].
   *
   * @internal
   */
  hiddenStates(
    ops: Ops,
    { tokens, positions, starts, ends }: EndToEnd,
    counted?: Uint32Array,
    adapter: Lora | null = this.#adapter,
  ): Tensor {
    return this.networkWith(adapter).forward(ops, {
      tokens: this.arena.upload(tokens),
      positions: this.arena.upload(positions),
      context: { starts: this.arena.upload(starts), ends: this.arena.upload(ends) },
      counted: counted && this.arena.upload(counted),
    });
  }

  /**
   * Hangs an adapter on the model; one that was attached before is detached. No base weight changes.
   *
   * @param lora The adapter.
   * @throws {WhetError} "mismatch" if it is for another model, "disposed".
   */
  attach(lora: Lora): void {
    this.#network = this.#build(lora);
    this.#adapter = lora;
    this.#adapterValues = lora.place(this.backend);
  }

  /** Takes the adapter off; the model is what it was before. */
  detach(): void {
    for (const linear of this.linears().values()) linear.lora = undefined;
    this.#adapter = this.#adapterValues = null;
  }

  /**
   * Folds an adapter into the weights, W += scaling · (B A)ᵀ; it is not attached afterwards. There is
   * no unmerge: in floating point it would not give the same weights back. Matrix by matrix, so that
   * little memory beside the model's is needed: what computes meanwhile sees some of them merged.
   *
   * @param lora The adapter.
   * @throws {WhetError} "mismatch" if it is for another model, "disposed"; if it fails halfway, "resource"
   * for want of memory, say, the model is disposed, so that nobody works with half of an adapter.
   */
  merge(lora: Lora): Promise<void> {
    return this.#inTurn(async () => {
      this.#build(lora); // Throws if it does not fit.
      if (this.#adapter === lora) this.detach();
      let merged = 0;
      try {
        for (const name of lora.modules.keys()) {
          await this.#mergeInto(name, () => lora.lowRanks(this.backend).get(name)!);
          merged++;
        }
      } catch (error) {
        if (merged === 0 || this.#disposed) throw error;
        this[Symbol.dispose]();
        const [code, why] = error instanceof WhetError
          ? [error.code, error.message]
          : ["backend" as const, error];
        throw new WhetError(code, `${this.name} is half merged and was disposed, load it again: ${why}`, {
          cause: error,
        });
      }
    });
  }

  async #mergeInto(name: string, lowRank: () => LowRank): Promise<void> {
    const { weight } = this.linears().get(name)!;
    const update = (out: Tensor) => {
      const { A, B, scaling: alpha } = lowRank();
      this.backend.matmul({ a: A, transposeA: true, b: B, transposeB: true, alpha, accumulate: true, out });
    };
    if (!(weight instanceof PackedMatrix)) return update(weight);
    const before = await this.backend.unpack(weight);
    this.#alive();
    const merged = await this.arena.scope(() => {
      const sum = this.arena.upload(before, weight.shape);
      update(sum);
      return this.backend.read(sum);
    });
    this.#alive();
    const packed = this.backend.pack(merged, weight.rows, weight.columns, weight.format, weight.axis);
    this.#replace(`${name.replace(/^transformer\./, "")}.weight`, packed);
    this.linears().get(name)!.weight = packed;
  }

  /**
   * Makes all weights trainable: packed ones become plain tensors, side by side in slabs.
   *
   * @returns The weights, which the model computes with from now on.
   * @throws {WhetError} "option" if they are not stored as f32.
   *
   * @internal
   */
  unfreeze(): Promise<Parameters> {
    return this.#inTurn(() => this.#unfreeze());
  }

  async #unfreeze(): Promise<Parameters> {
    this.#alive();
    if (this.#trained) return this.#trained;
    if (this.weights !== "f32") {
      throw new WhetError(
        "option",
        `weights: training all weights needs "f32"; ${this.name} was loaded as "${this.weights}": load it with ` +
          'weights "f32" (--weights f32)',
      );
    }
    const layout = new ParameterLayout(
      [...parameterShapes(this.config)].map(([name, shape]) => ({ name, shape, decays: isMatrix(name) })),
    );
    const trained = layout.allocate(this.backend);
    try {
      for (const name of trained.tensors.keys()) trained.write(name, await this.parameter(name));
      this.#alive();
    } catch (error) {
      trained[Symbol.dispose]();
      throw error;
    }
    for (const [name, tensor] of trained.tensors) this.#replace(name, tensor);
    this.#trained = trained;
    const before = this.#network.linears();
    this.#network = new Transformer(this.config, this.#parameters);
    for (const [name, linear] of this.#network.linears()) linear.lora = before.get(name)!.lora;
    return trained;
  }

  /** One parameter's values, row-major. */
  async parameter(name: string): Promise<Float32Array> {
    this.#alive();
    const parameter = this.#parameters.get(name);
    if (!parameter) throw new WhetError("option", `${this.name} has no parameter ${name}`);
    return await (parameter instanceof PackedMatrix
      ? this.backend.unpack(parameter)
      : this.backend.read(parameter));
  }

  /**
   * One frozen weight as files hold it, or null for a parameter that is plain f32.
   *
   * @internal
   */
  frozen(name: string): { info: MatrixInfo; stored: () => Promise<StoredMatrix> } | null {
    this.#alive();
    const parameter = this.#parameters.get(name);
    if (!(parameter instanceof PackedMatrix) || parameter.format === "f32") return null;
    const { rows, columns, format, axis } = parameter;
    return {
      info: { rows, columns, format, axis },
      stored: async () => {
        this.#alive();
        return await this.backend.unpackStored(this.#parameters.get(name) as PackedMatrix);
      },
    };
  }

  /**
   * Saves the model: config.json, model.safetensors, vocab.json, merges.txt. By default every weight is saved as
   * it is stored, so that what is loaded again computes the same: f32 and f16 in Hugging Face's format; q8 and q4
   * with their scales, which Whet alone reads (the module `src/model/quantized.ts` tells how they lie).
   * The adapter that is attached is not part of it; merge it first, or save it by itself.
   *
   * @param directory Where to; it is made.
   * @param options `dtype`: all weights as plain numbers of that type, F32, F16 or BF16, whatever they are stored
   * as: Hugging Face's format.
   * @throws {WhetError} "resource" where the disk is full or permission is missing.
   */
  async save(directory: string, options: { dtype?: "F32" | "F16" | "BF16" } = {}): Promise<void> {
    this.#alive();
    await saveModel(directory, this, options.dtype);
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
    if (typeof tokens !== "object" || tokens === null) {
      throw new WhetError("option", `${what}: expected a list of token ids, got ${tokens}`);
    }
    if (tokens.length > n_positions) {
      throw new WhetError(
        "option",
        `${what}: ${tokens.length} tokens are more than ${this.name}'s window of ${n_positions}; shorten it`,
      );
    }
    for (const token of tokens) {
      if (Number.isInteger(token) && token >= 0 && token < vocab_size) continue;
      throw new WhetError(
        "option",
        `${what}: token ${token} is not in the vocabulary of ${this.name} (0 to ${vocab_size - 1})`,
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
    const views = new Set<Matrix>(this.#trained?.tensors.values());
    for (const parameter of this.#parameters.values()) {
      if (!views.has(parameter)) this.backend.free(parameter);
    }
  }

  #alive(): void {
    if (this.#disposed) throw new WhetError("disposed", `${this.name} was disposed; load it again to use it`);
  }

  /** Work that changes weights, one after the other. */
  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const turn = this.#lastTurn.then(work);
    this.#lastTurn = turn.catch(() => {});
    return turn;
  }

  #replace(name: string, parameter: Matrix): void {
    this.backend.free(this.#parameters.get(name)!);
    this.#parameters.set(name, parameter);
  }

  /** A network over the parameters as they are now, with an adapter that fits. */
  #build(adapter: Lora | null): Transformer {
    adapter?.checkFits(this);
    const lowRanks = adapter?.lowRanks(this.backend);
    const network = new Transformer(this.config, this.#parameters);
    for (const [name, linear] of network.linears()) linear.lora = lowRanks?.get(name);
    return network;
  }
}
