/**
 * GPT-2's shape, in Hugging Face's field names.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { isConfigNote } from "./quantized.ts";

/** A GPT-2's shape, as config.json has it. */
export interface GPT2Config {
  /** Tokens in the vocabulary, V. */
  readonly vocab_size: number;
  /** Longest sequence, in tokens. */
  readonly n_positions: number;
  /** Channels, C. */
  readonly n_embd: number;
  /** Blocks. */
  readonly n_layer: number;
  /** Attention heads, H; C is a multiple of it. */
  readonly n_head: number;
  /** Channels inside the MLP; 4 C by default. */
  readonly n_inner: number;
  /** Added to the variance in layer normalisation. */
  readonly layer_norm_epsilon: number;
  /** Whether query · key is divided by sqrt(D). */
  readonly scale_attn_weights: boolean;
  /** Whether it is divided by the block's number, from 1, too. */
  readonly scale_attn_by_inverse_layer_idx: boolean;
  /** Standard deviation of initial weights. */
  readonly initializer_range: number;
  /** Id of the token that ends a text, if the file says so. */
  readonly eos_token_id?: number;
  /** Id of the token that begins a text, if the file says so. */
  readonly bos_token_id?: number;
}

/** What must be given of a configuration; the rest has GPT-2's defaults. */
export type GPT2Shape = Partial<GPT2Config>;

const GPT2_SMALL: GPT2Config = {
  vocab_size: 50257,
  n_positions: 1024,
  n_embd: 768,
  n_layer: 12,
  n_head: 12,
  n_inner: 3072,
  layer_norm_epsilon: 1e-5,
  scale_attn_weights: true,
  scale_attn_by_inverse_layer_idx: false,
  initializer_range: 0.02,
};

/** Sizes above these are a lie or a mistake, not a GPT-2. */
const LIMITS: Record<string, number> = {
  vocab_size: 10_000_000,
  n_positions: 1 << 20,
  n_embd: 1 << 16,
  n_layer: 1000,
  n_head: 1 << 12,
  n_inner: 1 << 18,
};

/**
 * Completes and checks a configuration.
 *
 * @param fields config.json's content, or the fields that differ from GPT-2 124M's.
 * @param where What to name in errors, such as "models/mine/config.json".
 * @returns The whole configuration.
 * @throws {WhetError} "format" where a field is of the wrong kind or describes no GPT-2 that Whet runs.
 */
export function parseConfig(fields: unknown, where: string): GPT2Config {
  const wrong = (what: string): never => {
    throw new WhetError("format", `${where}: ${what}`);
  };
  if (typeof fields !== "object" || fields === null || Array.isArray(fields)) {
    return wrong("expected a JSON object");
  }
  const given = fields as Record<string, unknown>;
  const type = given.model_type;
  if (type !== undefined && type !== "gpt2") {
    return wrong(
      typeof type === "string" && type.startsWith("deberta")
        ? `model_type is ${
          JSON.stringify(type)
        }, a reward model's: load it with RewardModel.load (--reward-model); ` +
          "here a GPT-2 is wanted"
        : `model_type is ${JSON.stringify(type)}; Whet runs "gpt2"`,
    );
  }
  const size = (name: keyof GPT2Config, fallback: number): number => {
    const value = given[name] ?? fallback;
    if (typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > LIMITS[name]) {
      return wrong(`${name} is ${JSON.stringify(value)}; expected a whole number from 1 to ${LIMITS[name]}`);
    }
    return value;
  };
  const number = (name: "layer_norm_epsilon" | "initializer_range"): number => {
    const value = given[name] ?? GPT2_SMALL[name];
    if (typeof value !== "number" || !(value > 0 && value < 1)) {
      return wrong(`${name} is ${JSON.stringify(value)}; expected a number between 0 and 1`);
    }
    return value;
  };
  const flag = (name: "scale_attn_weights" | "scale_attn_by_inverse_layer_idx"): boolean => {
    const value = given[name] ?? GPT2_SMALL[name];
    return typeof value === "boolean"
      ? value
      : wrong(`${name} is ${JSON.stringify(value)}; expected true or false`);
  };
  const token = (name: "eos_token_id" | "bos_token_id"): { [name: string]: number } => {
    const value = given[name];
    if (value === undefined || value === null) return {};
    if (typeof value !== "number" || !Number.isInteger(value) || value < 0) {
      return wrong(`${name} is ${JSON.stringify(value)}; expected a token id`);
    }
    return value < vocab_size ? { [name]: value } : {};
  };
  const activation = given.activation_function ?? "gelu_new";
  if (activation !== "gelu_new" && activation !== "gelu_pytorch_tanh") {
    return wrong(`activation_function is ${JSON.stringify(activation)}; Whet has "gelu_new"`);
  }
  if (given.add_cross_attention) return wrong("add_cross_attention is set, which Whet does not support");
  if (given.quantization_config && !isConfigNote(given.quantization_config)) {
    return wrong("quantization_config is set, and not by Whet, which does not support it");
  }
  if (given.tie_word_embeddings === false) {
    return wrong("tie_word_embeddings is false; Whet runs GPT-2s whose output layer is the embedding");
  }
  const vocab_size = size("vocab_size", GPT2_SMALL.vocab_size);
  const n_embd = size("n_embd", GPT2_SMALL.n_embd);
  const n_head = size("n_head", GPT2_SMALL.n_head);
  if (n_embd % n_head !== 0) return wrong(`n_embd (${n_embd}) is not a multiple of n_head (${n_head})`);
  return {
    vocab_size,
    n_positions: size("n_positions", typeof given.n_ctx === "number" ? given.n_ctx : GPT2_SMALL.n_positions),
    n_embd,
    n_layer: size("n_layer", GPT2_SMALL.n_layer),
    n_head,
    n_inner: size("n_inner", 4 * n_embd),
    layer_norm_epsilon: number("layer_norm_epsilon"),
    scale_attn_weights: flag("scale_attn_weights"),
    scale_attn_by_inverse_layer_idx: flag("scale_attn_by_inverse_layer_idx"),
    initializer_range: number("initializer_range"),
    ...token("eos_token_id"),
    ...token("bos_token_id"),
  };
}

/**
 * config.json's content for a configuration, as transformers reads it.
 *
 * @param config The configuration.
 * @param endOfText The tokenizer's token that ends a text; -1 for none.
 * @param dtype What the weights' elements are, quantised ones aside.
 * @param quantization What `quantization_config` says, if there is one.
 * @returns JSON text.
 */
export function formatConfig(
  config: GPT2Config,
  endOfText: number,
  dtype: "float32" | "float16" | "bfloat16",
  quantization: Record<string, unknown> | null = null,
): string {
  const fields = {
    architectures: ["GPT2LMHeadModel"],
    model_type: "gpt2",
    activation_function: "gelu_new",
    ...(endOfText >= 0 ? { bos_token_id: endOfText, eos_token_id: endOfText } : {}),
    ...config,
    n_ctx: config.n_positions,
    n_inner: config.n_inner === 4 * config.n_embd ? null : config.n_inner,
    torch_dtype: dtype,
    ...(quantization ? { quantization_config: quantization } : {}),
  };
  return `${JSON.stringify(fields, null, 2)}\n`;
}
