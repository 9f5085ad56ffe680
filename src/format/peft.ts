/**
 * LoRA adapters in PEFT's format: `adapter_config.json` beside `adapter_model.safetensors`.
 *
 * Source: PEFT 0.21, `LoraConfig` and `save_pretrained`; what the fields do to the numbers was tried there.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { writeDirectory } from "./files.ts";
import { type AdapterConfig, formatAdapterConfig, parseAdapterConfig } from "./peft_config.ts";
import { patternValue } from "./peft_pattern.ts";
import type { Repository } from "./repository.ts";
import { Safetensors, safetensorsContent, type TensorToWrite } from "./safetensors.ts";

export type { AdapterConfig };

/** The file that says how the adapter is to be applied. */
export const ADAPTER_CONFIG = "adapter_config.json";
/** The file that holds its matrices. */
export const ADAPTER_WEIGHTS = "adapter_model.safetensors";

const PICKLE = "adapter_model.bin";
const PREFIX = "base_model.model.";
/** The longest module path that makes sense; matching patterns against longer ones could take forever. */
const LONGEST_PATH = 128;

/** One adapted module's matrices: its weight W (out, in) becomes W + scaling · B A. */
export interface AdapterModule {
  /** (R, in). */
  readonly A: Float32Array;
  /** (out, R). */
  readonly B: Float32Array;
  /** R. */
  readonly rank: number;
  /** in. */
  readonly inFeatures: number;
  /** out. */
  readonly outFeatures: number;
}

/** What {@linkcode writeAdapter} takes. */
export interface AdapterFile {
  /** Its settings. */
  readonly config: AdapterConfig;
  /** Its modules by their path in the model, such as `transformer.h.0.attn.c_attn`. */
  readonly modules: ReadonlyMap<string, AdapterModule>;
}

/** What {@linkcode readAdapter} gives: an {@linkcode AdapterFile}, and each module's scaling worked out. */
export interface LoadedAdapter extends AdapterFile {
  /** Its modules by their path in the model. */
  readonly modules: Map<string, AdapterModule & { scaling: number }>;
}

/**
 * Reads an adapter, and refuses one that it would not apply as PEFT does.
 *
 * @param repository The adapter's folder.
 * @returns Its settings and matrices.
 * @throws {WhetError} `unsupported`, naming the field or tensor of an active variant that is not
 * implemented (DoRA, biases, saved modules, …); `format`, if a file is missing, broken, or a tensor has no
 * place, no partner or the wrong shape.
 *
 * @example
 * ```ts
 * import { readAdapter, writeAdapter } from "./peft.ts";
 * import { openRepository } from "./source.ts";
 *
 * const directory = await Deno.makeTempDir();
 * const config = {
 *   rank: 1, alpha: 2, dropout: 0, targets: ["c_attn"], rsLora: false,
 *   rankPattern: {}, alphaPattern: {}, baseModel: null,
 * };
 * const module = { A: new Float32Array(4), B: new Float32Array(12), rank: 1, inFeatures: 4, outFeatures: 12 };
 * await writeAdapter(directory, { config, modules: new Map([["transformer.h.0.attn.c_attn", module]]) });
 * const { modules } = await readAdapter(await openRepository(directory));
 * console.log(modules.get("transformer.h.0.attn.c_attn")!.scaling); // 2
 * await Deno.remove(directory, { recursive: true });
 * ```
 */
export async function readAdapter(repository: Repository): Promise<LoadedAdapter> {
  const where = `${repository.name}/${ADAPTER_CONFIG}`;
  for (let attempt = 0; attempt < 3; attempt++) {
    const text = await repository.text(ADAPTER_CONFIG);
    if (text === null) throw await noConfig(repository);
    const config = parseAdapterConfig(text, where);
    const source = await repository.open(ADAPTER_WEIGHTS);
    if (!source) throw await noWeights(repository);
    using file = await Safetensors.open(source);
    // A save that came between the two files has taken the settings away before it changed the weights.
    if (await repository.text(ADAPTER_CONFIG) !== text) continue;
    return { config, modules: await readModules(file, config) };
  }
  throw new WhetError("format", `${where}: it changes while it is read; try again when nobody saves there`);
}

/**
 * Writes an adapter that PEFT loads.
 *
 * A directory that held another adapter holds, at every instant, the old one, the new one, or visibly none
 * (its adapter_config.json comes last); where the settings stay the same there is no instant without one.
 * The same adapter gives the same bytes.
 *
 * @param directory Where to; created if need be. Other files in it are left alone.
 * @param adapter Its settings and matrices.
 * @throws {WhetError} `mismatch`, if a matrix has not the size that its module says; `resource` or
 * `option`, if it cannot be written.
 */
export async function writeAdapter(directory: string, { config, modules }: AdapterFile): Promise<void> {
  const tensors: TensorToWrite[] = [];
  for (const [path, { A, B, rank, inFeatures, outFeatures }] of modules) {
    const fits = rank === moduleRank(config, path) && A.length === rank * inFeatures &&
      B.length === outFeatures * rank;
    if (!fits) {
      throw new WhetError(
        "mismatch",
        `adapter module ${path}: A has ${A.length} values and B ${B.length}; expected ` +
          `${moduleRank(config, path)} × ${inFeatures} and ${outFeatures} × ${moduleRank(config, path)}`,
      );
    }
    tensors.push(
      { name: `${PREFIX}${path}.lora_A.weight`, dtype: "F32", shape: [rank, inFeatures], data: () => A },
      { name: `${PREFIX}${path}.lora_B.weight`, dtype: "F32", shape: [outFeatures, rank], data: () => B },
    );
  }
  await writeDirectory(directory, {
    [ADAPTER_WEIGHTS]: safetensorsContent(tensors),
    [ADAPTER_CONFIG]: formatAdapterConfig(config),
  }, { marker: ADAPTER_CONFIG, obsolete: [PICKLE] });
}

/** A module's rank: the first pattern's that names it, else the adapter's. */
function moduleRank(config: AdapterConfig, path: string): number {
  return patternValue(config.rankPattern, path) ?? config.rank;
}

/** The factor on a module's B A. */
function moduleScaling(config: AdapterConfig, path: string, rank: number): number {
  const alpha = patternValue(config.alphaPattern, path) ?? config.alpha;
  return alpha / (config.rsLora ? Math.sqrt(rank) : rank);
}

async function readModules(file: Safetensors, config: AdapterConfig): Promise<LoadedAdapter["modules"]> {
  const pairs = new Map<string, { A?: string; B?: string }>();
  for (const name of file.names()) {
    const [path, matrix] = placeOf(name, file.name);
    if (!isTarget(config.targets, path)) {
      throw new WhetError(
        "format",
        `${file.name}: tensor ${name} belongs to no module that target_modules names; the files do not belong together`,
      );
    }
    const pair = pairs.get(path) ?? {};
    pair[matrix] = name;
    pairs.set(path, pair);
  }
  if (pairs.size === 0) throw new WhetError("format", `${file.name}: it holds no LoRA matrices`);
  const modules: LoadedAdapter["modules"] = new Map();
  for (const [path, { A, B }] of pairs) {
    if (!A || !B) {
      throw new WhetError(
        "format",
        `${file.name}: tensor ${A ?? B} has no partner lora_${A ? "B" : "A"}; the file is not whole`,
      );
    }
    const rank = moduleRank(config, path);
    const [, inFeatures] = shapeOf(file, A, [rank, null]);
    const [outFeatures] = shapeOf(file, B, [null, rank]);
    modules.set(path, {
      A: await readFinite(file, A),
      B: await readFinite(file, B),
      rank,
      inFeatures,
      outFeatures,
      scaling: moduleScaling(config, path, rank),
    });
  }
  return modules;
}

/** What a tensor's name says: the module's path, and which of its matrices it is. */
function placeOf(name: string, file: string): [path: string, matrix: "A" | "B"] {
  const [, path, matrix] = /^base_model\.model\.(.+)\.lora_([AB])\.weight$/s.exec(name) ?? [];
  if (path && path.length <= LONGEST_PATH) return [path, matrix as "A" | "B"];
  const variant = [
    [/\.lora_magnitude_vector/, "DoRA"],
    [/\.lora_embedding_[AB]$/, "LoRA on an embedding"],
    [/\.lora_[AB]\.bias$/, "lora_bias"],
    [/\.base_layer\.bias$/, 'bias = "lora_only" or "all"'],
    [/\.lora_[AB]\./, "an adapter name within tensor names"],
  ].find(([pattern]) => (pattern as RegExp).test(name))?.[1] ??
    "modules_to_save, or another method than LoRA";
  throw new WhetError(
    "unsupported",
    `${file}: tensor ${
      name.slice(0, 200)
    } has no place in a plain LoRA adapter (it looks like ${variant}); ` +
      "train the adapter without it, or merge it in Python: model.merge_and_unload()",
  );
}

/** As PEFT matches a list; a pattern's tensors are taken as they come. */
function isTarget(targets: readonly string[] | string, path: string): boolean {
  return typeof targets === "string" ||
    targets.some((target) => path === target || path.endsWith(`.${target}`) || target === "all-linear");
}

function shapeOf(file: Safetensors, name: string, expected: (number | null)[]): readonly number[] {
  const { shape } = file.info(name);
  const fits = shape.length === 2 &&
    shape.every((extent, i) => extent > 0 && extent === (expected[i] ?? extent));
  if (fits) return shape;
  const wanted = expected.map((extent) => extent ?? (expected[0] === null ? "out" : "in")).join(", ");
  throw new WhetError(
    "format",
    `${file.name}: tensor ${name} is [${
      shape.join(", ")
    }]; by ${ADAPTER_CONFIG}'s r and rank_pattern it should ` +
      `be [${wanted}]`,
  );
}

async function readFinite(file: Safetensors, name: string): Promise<Float32Array> {
  const values = await file.readF32(name);
  if (values.every(Number.isFinite)) return values;
  throw new WhetError(
    "format",
    `${file.name}: tensor ${name} holds values that are not finite; its training failed`,
  );
}

async function has(repository: Repository, file: string): Promise<boolean> {
  const source = await repository.open(file);
  source?.close();
  return source !== null;
}

async function noConfig(repository: Repository): Promise<WhetError> {
  const { name } = repository;
  const why = await has(repository, ADAPTER_WEIGHTS) || await has(repository, PICKLE)
    ? "though there are an adapter's weights; a save is under way or was broken off, save or fetch it again"
    : await has(repository, "config.json")
    ? "but a config.json: it is a model, not an adapter"
    : "expected the directory of a LoRA adapter";
  return new WhetError("format", `${name}: no ${ADAPTER_CONFIG} there, ${why}`);
}

async function noWeights(repository: Repository): Promise<WhetError> {
  const { name } = repository;
  if (!await has(repository, PICKLE)) {
    return new WhetError(
      "format",
      `${name}: no ${ADAPTER_WEIGHTS} there; the adapter is not whole, fetch it again`,
    );
  }
  return new WhetError(
    "unsupported",
    `${name}: its weights are in ${PICKLE} only, which is not read; convert it in Python: ` +
      "PeftModel.from_pretrained(BASE, DIR).save_pretrained(DIR)",
  );
}
