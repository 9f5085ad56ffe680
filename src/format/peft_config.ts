/**
 * `adapter_config.json`: which of PEFT's many switches Whet knows, and what it refuses by name.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { parseJsonObject } from "./json.ts";
import { checkPatterns } from "./peft_pattern.ts";

/** An adapter's settings, with PEFT's defaults filled in. */
export interface AdapterConfig {
  /** R, the rank of modules that no pattern names. */
  readonly rank: number;
  /** Alpha of modules that no pattern names. */
  readonly alpha: number;
  /** Share of the adapter's inputs dropped in training. */
  readonly dropout: number;
  /** Names of the modules that it adapts, by their ends; a string is a regular expression, or `all-linear`. */
  readonly targets: readonly string[] | string;
  /** Whether the scaling is alpha / sqrt(R) rather than alpha / R. */
  readonly rsLora: boolean;
  /** Ranks of modules that differ, by name or pattern. */
  readonly rankPattern: Readonly<Record<string, number>>;
  /** Alphas of modules that differ, by name or pattern. */
  readonly alphaPattern: Readonly<Record<string, number>>;
  /** What it was made for, as a name for people; null if not told. */
  readonly baseModel: string | null;
}

/** Fields that are read here, or that change nothing in what a finished adapter does. */
const KNOWN = new Set([
  "peft_type",
  "r",
  "lora_alpha",
  "lora_dropout",
  "target_modules",
  "use_rslora",
  "rank_pattern",
  "alpha_pattern",
  "bias",
  "init_lora_weights",
  "base_model_name_or_path",
  "task_type",
  "auto_mapping",
  "peft_version",
  "revision",
  "inference_mode",
  "fan_in_fan_out", // Says how the base stores its weights, which Whet knows better.
  "merge_weights",
]);

/** Fields that stand in every file with a value that is not empty, and do nothing while they have it. */
const DEFAULTS: Readonly<Record<string, unknown>> = { megatron_core: "megatron.core", qalora_group_size: 16 };

/** Ways to begin A and B that leave the base as it is; the rest (PiSSA, OLoRA, LoftQ, …) change it. */
const PLAIN_BEGINNINGS: readonly unknown[] = [undefined, null, true, false, "gaussian", "orthogonal"];

/**
 * Reads an adapter's settings.
 *
 * @param text The file's text.
 * @param where The file, for messages.
 * @returns The settings.
 * @throws {WhetError} `format`, if a field is missing or makes no sense; `unsupported`, naming an active
 * switch that is not implemented. A switch that nobody has heard of is taken for active unless it is
 * null, false or empty.
 */
export function parseAdapterConfig(text: string, where: string): AdapterConfig {
  const json = parseJsonObject(text, where);
  const fail = (field: string, expected: string) =>
    new WhetError("format", `${where}: ${field}: expected ${expected}, got ${show(json[field])}`);
  const refuse = (field: string) =>
    new WhetError(
      "unsupported",
      `${where}: ${field} = ${
        show(json[field])
      } is not implemented; train the adapter without it, or merge it in ` +
        "Python: model.merge_and_unload()",
    );

  if (typeof json.peft_type !== "string") throw fail("peft_type", '"LORA"');
  if (json.peft_type !== "LORA") throw refuse("peft_type");
  for (const [field, value] of Object.entries(json)) {
    if (!KNOWN.has(field) && !isIdle(value) && value !== DEFAULTS[field]) throw refuse(field);
  }
  if (!PLAIN_BEGINNINGS.includes(json.init_lora_weights)) throw refuse("init_lora_weights");
  if ((json.bias ?? "none") !== "none") throw refuse("bias");

  const { r, lora_alpha: alpha, lora_dropout: dropout = 0, use_rslora: rsLora = false } = json;
  if (!isRank(r)) throw fail("r", "a whole number of at least 1");
  if (!isNumber(alpha)) throw fail("lora_alpha", "a number");
  if (!isNumber(dropout) || dropout < 0 || dropout >= 1) {
    throw fail("lora_dropout", "a number from 0 to below 1");
  }
  if (typeof rsLora !== "boolean") throw fail("use_rslora", "true or false");
  const targets = json.target_modules;
  if (typeof targets !== "string" && !isNames(targets)) {
    throw fail("target_modules", "a list of module names");
  }
  const patterns = (field: string, isValue: (value: unknown) => value is number, expected: string) => {
    const table = json[field] ?? {};
    if (!isTable(table, isValue)) throw fail(field, `an object of patterns and ${expected}`);
    checkPatterns(Object.keys(table), `${where}: ${field}`);
    return table;
  };
  const name = json.base_model_name_or_path;
  return {
    rank: r,
    alpha,
    dropout,
    targets,
    rsLora,
    rankPattern: patterns("rank_pattern", isRank, "whole numbers"),
    alphaPattern: patterns("alpha_pattern", isNumber, "numbers"),
    baseModel: typeof name === "string" ? name : null,
  };
}

/**
 * Writes an adapter's settings as a PEFT of any age reads them: fields that old ones do not know stay away.
 *
 * @param config The settings.
 * @returns The file's text, the same for the same settings.
 */
export function formatAdapterConfig(config: AdapterConfig): string {
  const { targets, rankPattern, alphaPattern } = config;
  const json = {
    alpha_pattern: alphaPattern,
    base_model_name_or_path: config.baseModel,
    bias: "none",
    fan_in_fan_out: true, // GPT-2's weights are (in, out).
    inference_mode: true,
    init_lora_weights: true,
    lora_alpha: config.alpha,
    lora_dropout: config.dropout,
    peft_type: "LORA",
    r: config.rank,
    rank_pattern: rankPattern,
    target_modules: typeof targets === "string" ? targets : [...new Set(targets)].sort(),
    task_type: "CAUSAL_LM",
    use_dora: false,
    use_rslora: config.rsLora,
  };
  return JSON.stringify(json, null, 2) + "\n";
}

/** Null, false, empty, or an object of nothing else; 0 may be the number of a layer. */
function isIdle(value: unknown): boolean {
  if (value === null || value === false || value === "") return true;
  if (Array.isArray(value)) return value.length === 0;
  return typeof value === "object" &&
    Object.values(value).every((entry) => entry === null || entry === false);
}

function isNumber(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value);
}

function isRank(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 1;
}

function isNames(value: unknown): value is string[] {
  return Array.isArray(value) && value.length > 0 &&
    value.every((name) => typeof name === "string" && name !== "");
}

function isTable<V>(value: unknown, isValue: (value: unknown) => value is V): value is Record<string, V> {
  return typeof value === "object" && value !== null && !Array.isArray(value) &&
    Object.values(value).every(isValue);
}

function show(value: unknown): string {
  const text = value === undefined ? "nothing" : JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
