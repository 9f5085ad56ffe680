/**
 * Builds a model in a backend's memory: from files, or from random numbers.
 *
 * @module
 */
import { createBackend } from "../backend/select.ts";
import { WhetError } from "../errors.ts";
import { openCheckpoint } from "../format/checkpoint.ts";
import { parseJsonObject } from "../format/json.ts";
import { openRepository, type Progress, type Repository } from "../format/source.ts";
import type { Backend } from "../tensor/backend.ts";
import type { WeightFormat } from "../tensor/tensor.ts";
import {
  absentTokenizer,
  checkVocabulary,
  gpt2Tokenizer,
  loadTokenizer,
  type Tokenizer,
} from "../text/tokenizers.ts";
import { type GPT2Config, type GPT2Shape, parseConfig } from "./config.ts";
import { initialValues } from "./initialise.ts";
import type { ModelParts } from "./language_model.ts";
import { memoryNeed } from "./memory.ts";
import {
  elements,
  findParameters,
  placeAll,
  readParameters,
  storedFormat,
  type Values,
} from "./parameters.ts";
import { parameterShapes } from "./transformer.ts";

/** Where a model computes. */
export interface BackendOptions {
  /** `"auto"` (a hardware GPU, else WASM), `"webgpu"`, `"wasm"`, or a backend to share [`"auto"`]. */
  backend?: "auto" | "webgpu" | "wasm" | Backend;
  /** WASM's instructions: `"relaxed"` (fast) or `"strict"` (the same bits on every machine) [relaxed where there is]. */
  instructionSet?: "relaxed" | "strict";
  /** Threads that WASM computes with, which its results do not depend on [all cores; 1 where workers are missing]. */
  threads?: number;
  /**
   * Whether WebGPU computes in a worker of its own [no]: for servers, whose event loop else stands still while Deno waits
   * for the GPU. What the GPU refuses is then thrown by the next call or read, and by every one after.
   */
  worker?: boolean;
  /**
   * What WebGPU multiplies matrices with: `"f16"` where the card has it, sums of slices in f32; `"i8"` for q8 and q4 weights,
   * activations rounded to 8 bits in groups of 32. Both are less exact [`"f32"`].
   */
  arithmetic?: "f32" | "f16" | "i8";
}

/** How {@linkcode GPT2.load} loads. */
export interface LoadOptions extends BackendOptions {
  /** How frozen weights are stored [as a model that Whet saved has them, else `"f32"`]. */
  weights?: WeightFormat;
  /** Called as files arrive. */
  onProgress?: (progress: Progress) => void;
  /** Takes lines for people: a download tried again, the cache used for want of a network. */
  onNote?: (note: string) => void;
  /** Ends loading when aborted. */
  signal?: AbortSignal;
}

/** How {@linkcode GPT2.random} begins. */
export interface RandomOptions extends BackendOptions {
  /** Seed of the initial weights [0]. */
  seed?: number;
  /** How frozen weights are stored [`"f32"`]. */
  weights?: WeightFormat;
  /** Its tokenizer [GPT-2's]. */
  tokenizer?: Tokenizer;
}

/** Tokens of GPT-2's own vocabulary. */
const GPT2_VOCABULARY = 50257;
/** A tensor's elements at most. */
const LARGEST = 2 ** 30;
const FORMATS: readonly WeightFormat[] = ["f32", "f16", "q8", "q4"];

/**
 * Loads a Hugging Face GPT-2.
 *
 * @param source A directory, an http(s) URL of one, a Hub id, or `"nano"`.
 * @param options Backend, storage, progress.
 * @returns The model's parts.
 */
export async function loadModel(source: string, options: LoadOptions = {}): Promise<ModelParts> {
  checkFormat(options.weights);
  const repository = await openModelRepository(source, options);
  const { name: called } = repository;
  const text = await repository.text("config.json");
  if (text === null) {
    const adapter = await repository.text("adapter_config.json") !== null;
    throw new WhetError(
      "format",
      `${called}: no config.json there${
        adapter
          ? "; it is an adapter: give it with --adapter (Lora.load) beside its base model"
          : "; give the directory of a GPT-2 in Hugging Face's format"
      }`,
    );
  }
  const where = `${called}/config.json`;
  const config = parseConfig(parseJsonObject(text, where), where);
  using checkpoint = await openCheckpoint(repository);
  const found = findParameters(checkpoint, parameterShapes(config), called);
  const weights = options.weights ?? storedFormat(found, called) ?? "f32";
  // The tokenizer keeps this thread busy for a while; meanwhile kernels compile, and the first numbers are read.
  const values = readParameters(checkpoint, found, weights, options.signal);
  const first = values.next();
  const tokenizing = readTokenizer(repository, config);
  for (const promise of [first, tokenizing]) promise.catch(() => {}); // Whoever waits for it hears of it.
  try {
    return await withBackend(options, async (backend, ownsBackend) => {
      await backend.admit?.(memoryNeed(called, config, weights));
      const tokenizer = await tokenizing;
      const parameters = await placeAll(backend, weights, resumed(first, values));
      return { name: called, config, tokenizer, backend, ownsBackend, weights, parameters };
    });
  } finally {
    await values.return(undefined); // No read is under way any more when the checkpoint is closed.
  }
}

/** What comes first, then the rest. */
async function* resumed<Item>(
  first: Promise<IteratorResult<Item, void>>,
  rest: AsyncGenerator<Item, void>,
): AsyncGenerator<Item> {
  const { done, value } = await first;
  if (done) return;
  yield value;
  yield* rest;
}

/**
 * A model with GPT-2's published initialisation.
 *
 * @param shape What differs from GPT-2 124M.
 * @param options Seed, backend, tokenizer.
 * @returns The model's parts.
 */
export async function randomModel(shape: GPT2Shape, options: RandomOptions = {}): Promise<ModelParts> {
  const { weights = "f32", seed = 0 } = options;
  checkFormat(weights);
  if (!Number.isSafeInteger(seed)) {
    throw new WhetError("option", `seed: expected a whole number, got ${seed}`);
  }
  const config = parseConfig(shape, "config");
  const tokenizer = options.tokenizer ?? await standardTokenizer("the random model", config);
  const shapes = parameterShapes(config);
  for (const [parameter, shape] of shapes) {
    if (elements(shape) <= LARGEST) continue;
    throw new WhetError(
      "resource",
      `config: ${parameter} would be [${shape.join(", ")}], more than 4 GiB; make the model smaller`,
    );
  }
  const name = `random GPT-2 (seed ${seed})`;
  return await withBackend(options, async (backend, ownsBackend) => {
    await backend.admit?.(memoryNeed(name, config, weights));
    const parameters = await placeAll(backend, weights, initialParameters(config, shapes, seed >>> 0));
    return { name, config, tokenizer, backend, ownsBackend, weights, parameters };
  });
}

async function* initialParameters(
  config: GPT2Config,
  shapes: ReadonlyMap<string, readonly number[]>,
  seed: number,
): AsyncGenerator<Values> {
  for (const [index, [name, shape]] of [...shapes].entries()) {
    yield { name, shape, values: initialValues(config, name, elements(shape), [seed, index]) };
  }
}

/** The tokenizer in a model's own files, else GPT-2's. */
async function readTokenizer(repository: Repository, config: GPT2Config): Promise<Tokenizer> {
  const own = await loadTokenizer(repository, config.eos_token_id);
  if (own) checkVocabulary(own, config.vocab_size);
  return own ?? await standardTokenizer(repository.name, config);
}

/** GPT-2's tokenizer where the vocabulary has room for it, else none. */
async function standardTokenizer(name: string, config: GPT2Config): Promise<Tokenizer> {
  const { vocab_size, eos_token_id } = config;
  return vocab_size < GPT2_VOCABULARY
    ? absentTokenizer(name, vocab_size, eos_token_id)
    : await gpt2Tokenizer();
}

/** Makes the backend that is asked for; one that was made here ends if `work` fails. */
export async function withBackend<Result>(
  { backend = "auto", ...options }: BackendOptions,
  work: (backend: Backend, owns: boolean) => Promise<Result>,
): Promise<Result> {
  if (typeof backend !== "string") return await work(backend, false);
  const made = await createBackend(backend, options);
  try {
    return await work(made, true);
  } catch (error) {
    made[Symbol.dispose]();
    throw error;
  }
}

async function openModelRepository(source: string, options: LoadOptions): Promise<Repository> {
  if (source !== "nano") return await openRepository(source, options);
  const { nanoRepository } = await import("../nano/nano.ts");
  return nanoRepository();
}

/** Refuses a storage format that there is none of. */
export function checkFormat(weights: WeightFormat | undefined): void {
  if (weights !== undefined && !FORMATS.includes(weights)) {
    throw new WhetError(
      "option",
      `weights: expected one of ${FORMATS.join(", ")}, got ${JSON.stringify(weights)}`,
    );
  }
}
