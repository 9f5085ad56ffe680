/**
 * Builds a model in a backend's memory: from files, or from random numbers.
 *
 * @module
 */
import { createBackend } from "../backend/select.ts";
import { WhetError } from "../errors.ts";
import { type Checkpoint, openCheckpoint } from "../format/checkpoint.ts";
import { parseJsonObject } from "../format/json.ts";
import { openRepository, type Progress, type Repository } from "../format/source.ts";
import type { Backend } from "../tensor/backend.ts";
import { dequantize } from "../tensor/stored.ts";
import type { Matrix, StoredMatrix, WeightFormat } from "../tensor/tensor.ts";
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
import { assemble, findMatrices, type MatrixEntry } from "./quantized.ts";
import { isMatrix, parameterShapes, summedAxis } from "./transformer.ts";

/** Where a model computes. */
export interface BackendOptions {
  /** `"auto"` (a hardware GPU, else WASM), `"webgpu"`, `"wasm"`, or a backend to share [`"auto"`]. */
  backend?: "auto" | "webgpu" | "wasm" | Backend;
  /** WASM's instructions: `"relaxed"` (fast) or `"strict"` (the same bits on every machine) [relaxed where there is]. */
  instructionSet?: "relaxed" | "strict";
  /** Threads that WASM computes with, which its results do not depend on [all cores; 1 where workers are missing]. */
  threads?: number;
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
  const own = await loadTokenizer(repository, config.eos_token_id);
  if (own) checkVocabulary(own, config.vocab_size);
  const tokenizer = own ?? await standardTokenizer(called, config);

  using checkpoint = await openCheckpoint(repository);
  const shapes = parameterShapes(config);
  const matrices = findMatrices(checkpoint);
  const names = matchNames(checkpoint, matrices, shapes, called);
  const weights = options.weights ?? storedFormat(matrices, called) ?? "f32";
  return await withBackend(options, async (backend, ownsBackend) => {
    const read = () => readParameters(checkpoint, matrices, names, shapes, weights, options.signal);
    const parameters = await placeAll(backend, weights, read);
    return { name: called, config, tokenizer, backend, ownsBackend, weights, parameters };
  });
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
  return await withBackend(options, async (backend, ownsBackend) => {
    const parameters = await placeAll(backend, weights, async function* () {
      for (const [index, [name, shape]] of [...shapes].entries()) {
        const values = initialValues(config, name, elements(shape), [seed >>> 0, index]);
        yield { name, shape, values };
      }
    });
    const name = `random GPT-2 (seed ${seed})`;
    return { name, config, tokenizer, backend, ownsBackend, weights, parameters };
  });
}

function elements(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

/** GPT-2's tokenizer where the vocabulary has room for it, else none. */
async function standardTokenizer(name: string, config: GPT2Config): Promise<Tokenizer> {
  const { vocab_size, eos_token_id } = config;
  return vocab_size < GPT2_VOCABULARY
    ? absentTokenizer(name, vocab_size, eos_token_id)
    : await gpt2Tokenizer();
}

/** A parameter's numbers as they come: plain, or as a file has them. */
type Values =
  & { name: string; shape: readonly number[] }
  & ({ values: Float32Array } | { stored: StoredMatrix });

/** Places parameters one by one as they come: all, or none if one fails. */
async function placeAll(
  backend: Backend,
  weights: WeightFormat,
  source: () => AsyncIterable<Values>,
): Promise<Map<string, Matrix>> {
  const parameters = new Map<string, Matrix>();
  try {
    for await (const parameter of source()) {
      parameters.set(parameter.name, place(backend, weights, parameter));
    }
    return parameters;
  } catch (error) {
    for (const parameter of parameters.values()) backend.free(parameter);
    throw error;
  }
}

function place(backend: Backend, weights: WeightFormat, parameter: Values): Matrix {
  const { name, shape } = parameter;
  const frozen = isMatrix(name);
  if ("stored" in parameter && frozen && parameter.stored.format === weights) {
    return backend.packStored(parameter.stored);
  }
  const values = "stored" in parameter ? dequantize(parameter.stored) : parameter.values;
  if (!frozen) return backend.upload(values, shape);
  return backend.pack(values, shape[0], shape[1], weights, summedAxis(name));
}

/**
 * Reads parameters in the order of the files, one pass through each. There the scales of quantised matrices come
 * before all codes, for which they wait in memory; as the waiting grow fewer, those in place grow more.
 */
async function* readParameters(
  checkpoint: Checkpoint,
  matrices: ReadonlyMap<string, MatrixEntry>,
  names: ReadonlyMap<string, string>,
  shapes: ReadonlyMap<string, readonly number[]>,
  weights: WeightFormat,
  signal?: AbortSignal,
): AsyncGenerator<Values> {
  /** Tensor → the parameter that it is a part of, as it is stored. */
  const owners = new Map<string, string>();
  for (const stored of names.keys()) {
    const tensors = matrices.get(stored)?.tensors ?? { codes: stored };
    for (const tensor of Object.values(tensors)) owners.set(tensor, stored);
  }
  const waiting = new Map<string, Map<string, Uint8Array<ArrayBuffer>>>();
  for (const tensor of checkpoint.inFileOrder([...owners.keys()])) {
    signal?.throwIfAborted();
    const stored = owners.get(tensor)!;
    const name = names.get(stored)!;
    const shape = shapes.get(name)!;
    const matrix = matrices.get(stored);
    // Halves become f32 and other formats as any plain tensor's do.
    if (!matrix || matrix.format === "f16" && weights !== "f16") {
      yield { name, shape, values: await checkpoint.readF32(tensor) };
      continue;
    }
    const parts = waiting.get(stored) ?? new Map();
    waiting.set(stored, parts.set(tensor, await checkpoint.readBytes(tensor)));
    if (parts.size < Object.keys(matrix.tensors).length) continue;
    waiting.delete(stored);
    yield { name, shape, stored: assemble(matrix, parts) };
  }
}

/** How a checkpoint's quantised matrices are stored, if there are any. */
function storedFormat(matrices: ReadonlyMap<string, MatrixEntry>, source: string): WeightFormat | undefined {
  const [format, other] = new Set([...matrices.values()].map(({ format }) => format));
  if (other === undefined) return format;
  throw new WhetError(
    "option",
    `weights: ${source} has some stored as ${format} and some as ${other}; say which of them all are to be`,
  );
}

/** Makes the backend that is asked for; one that was made here ends if `work` fails. */
async function withBackend<Result>(
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

/** Stored name → parameter name, when all parameters are there in their shapes. */
function matchNames(
  checkpoint: Checkpoint,
  matrices: ReadonlyMap<string, MatrixEntry>,
  shapes: ReadonlyMap<string, readonly number[]>,
  source: string,
): Map<string, string> {
  const names = new Map<string, string>();
  const found = new Map<string, string>();
  const parts = new Set([...matrices.values()].flatMap(({ tensors }) => Object.values(tensors)));
  for (const stored of checkpoint.names()) {
    const matrix = matrices.get(stored);
    if (!matrix && parts.has(stored)) continue;
    const name = stored.replace(/^transformer\./, "");
    const shape = shapes.get(name);
    if (!shape) {
      if (/^h\.\d+\.attn\.(masked_)?bias$/.test(name)) continue; // causal masks that old versions saved
      if (shapes.has(name.replace(/\.(scales|minima)$/, ""))) {
        throw new WhetError(
          "format",
          `${source}: tensor ${stored} is of a quantised model, but the note in the file's metadata that says how ` +
            "is missing; save the model again",
        );
      }
      if (/^(h|ln_f|wte|wpe)\./.test(name)) {
        throw new WhetError(
          "format",
          `${source}: tensor ${stored} has no place in the GPT-2 that config.json describes`,
        );
      }
      continue; // heads beside the language model's
    }
    if (found.has(name)) {
      throw new WhetError("format", `${source}: ${found.get(name)} and ${stored} are the same parameter`);
    }
    const actual = matrix ? [matrix.rows, matrix.columns] : checkpoint.shape(stored);
    if (actual.join() !== shape.join()) {
      throw new WhetError(
        "format",
        `${source}: tensor ${stored} is [${actual.join(", ")}]; by config.json it should be [${
          shape.join(", ")
        }]`,
      );
    }
    found.set(name, stored);
    names.set(stored, name);
  }
  const missing = [...shapes.keys()].filter((name) => !found.has(name));
  if (missing.length > 0) {
    const more = missing.length > 1 ? ` and ${missing.length - 1} more` : "";
    throw new WhetError(
      "format",
      `${source}: tensor ${missing[0]}${more} is missing; the checkpoint is not whole`,
    );
  }
  return names;
}

function checkFormat(weights: WeightFormat | undefined): void {
  if (weights !== undefined && !FORMATS.includes(weights)) {
    throw new WhetError(
      "option",
      `weights: expected one of ${FORMATS.join(", ")}, got ${JSON.stringify(weights)}`,
    );
  }
}
