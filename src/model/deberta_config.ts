/**
 * The shape of a DeBERTa-v2 or v3 that classifies sequences, in Hugging Face's field names.
 *
 * @module
 */
import { WhetError } from "../errors.ts";

/** A DeBERTa's shape and switches, as config.json has them. */
export interface DebertaConfig {
  /** Tokens in the vocabulary, V. */
  readonly vocab_size: number;
  /** Channels, C. */
  readonly hidden_size: number;
  /** Channels of the token embedding, E; C unless told. */
  readonly embedding_size: number;
  /** Layers. */
  readonly num_hidden_layers: number;
  /** Attention heads, H; C is a multiple of it. */
  readonly num_attention_heads: number;
  /** Channels inside the feed-forward layer. */
  readonly intermediate_size: number;
  /** The feed-forward layer's activation. */
  readonly hidden_act: Activation;
  /** Longest sequence, in tokens. */
  readonly max_position_embeddings: number;
  /** Kinds of tokens: 0 for none, else 2 or more, of which a pair has two. */
  readonly type_vocab_size: number;
  /** Added to the variance in layer normalisation. */
  readonly layer_norm_eps: number;
  /** Whether attention knows relative positions. */
  readonly relative_attention: boolean;
  /** Relative positions reach so far; `max_position_embeddings` where the file says less than 1. */
  readonly max_relative_positions: number;
  /** Relative positions beyond half of so many share places, by their logarithm; 0 where each has its own. */
  readonly position_buckets: number;
  /** The attention's terms that know positions: content-to-position, position-to-content. */
  readonly pos_att_type: readonly ("c2p" | "p2c")[];
  /** Whether relative positions go through the content's own projections. */
  readonly share_att_key: boolean;
  /** Whether relative embeddings are normalised first. */
  readonly norm_rel_ebd: "layer_norm" | "none";
  /** Whether absolute positions are added to the token embedding. */
  readonly position_biased_input: boolean;
  /** Width of the convolution beside the first layer; 0 for none. */
  readonly conv_kernel_size: number;
  /** Its activation. */
  readonly conv_act: Activation;
  /** The pooler's activation. */
  readonly pooler_hidden_act: HeadActivation;
}

/** Activations that the layers have: GELU by the error function, or by tanh. */
export type Activation = "gelu" | "gelu_new";
/** Activations that the pooler has. */
export type HeadActivation = Activation | "relu" | "tanh" | "linear";

/** What transformers calls the same. */
const ACTIVATIONS: Record<string, Activation> = {
  gelu: "gelu",
  gelu_python: "gelu",
  gelu_new: "gelu_new",
  gelu_fast: "gelu_new",
  gelu_pytorch_tanh: "gelu_new",
};
const HEAD_ACTIVATIONS: Record<string, HeadActivation> = {
  ...ACTIVATIONS,
  relu: "relu",
  tanh: "tanh",
  linear: "linear",
};

/** What a field is where config.json does not say, and the largest that is not a lie or a mistake. */
const SIZES = {
  vocab_size: [128100, 10_000_000],
  hidden_size: [1536, 1 << 16],
  num_hidden_layers: [24, 1000],
  num_attention_heads: [24, 1 << 12],
  intermediate_size: [6144, 1 << 18],
  max_position_embeddings: [512, 1 << 16],
} as const;

/**
 * Completes and checks the configuration of a reward model, with the defaults of transformers' DebertaV2Config.
 *
 * @param given config.json's content.
 * @param where What to name in errors, such as "models/mine/config.json".
 * @returns The whole configuration.
 * @throws {WhetError} `format` where a field is of the wrong kind, or it describes no reward model that Whet runs.
 */
export function parseDebertaConfig(given: Record<string, unknown>, where: string): DebertaConfig {
  const wrong = (what: string): never => {
    throw new WhetError("format", `${where}: ${what}`);
  };
  const whole = (name: string, fallback: number, least: number, most: number): number => {
    const value = given[name] ?? fallback;
    return typeof value === "number" && Number.isInteger(value) && value >= least && value <= most
      ? value
      : wrong(`${name} is ${JSON.stringify(value)}; expected a whole number from ${least} to ${most}`);
  };
  const size = (name: keyof typeof SIZES) => whole(name, SIZES[name][0], 1, SIZES[name][1]);
  const flag = (name: string, fallback: boolean): boolean => {
    const value = given[name] ?? fallback;
    return typeof value === "boolean"
      ? value
      : wrong(`${name} is ${JSON.stringify(value)}; expected true or false`);
  };
  const oneOf = <Choice>(name: string, fallback: string, choices: Record<string, Choice>): Choice => {
    const value = given[name] ?? fallback;
    if (typeof value === "string" && Object.hasOwn(choices, value)) return choices[value];
    return wrong(
      `${name} is ${JSON.stringify(value)}; Whet has ${Object.keys(choices).join(", ")}`,
    );
  };
  /** A field that would change the result, and has one value alone here. */
  const only = (name: string, value: unknown) => {
    if ((given[name] ?? value) === value) return;
    wrong(`${name} is ${JSON.stringify(given[name])}, which Whet does not support; it has ${value}`);
  };

  checkKind(given, where);
  checkLabels(given, where);
  if (given.quantization_config) wrong("quantization_config is set, which Whet does not support");

  const hidden_size = size("hidden_size");
  const num_attention_heads = size("num_attention_heads");
  if (hidden_size % num_attention_heads !== 0) {
    wrong(`hidden_size (${hidden_size}) is not a multiple of num_attention_heads (${num_attention_heads})`);
  }
  only("attention_head_size", hidden_size / num_attention_heads);
  only("pooler_hidden_size", hidden_size);

  const max_position_embeddings = size("max_position_embeddings");
  const reach = whole("max_relative_positions", -1, -(1 << 16), 1 << 16);
  const max_relative_positions = reach < 1 ? max_position_embeddings : reach;
  const position_buckets = Math.max(0, whole("position_buckets", -1, -(1 << 16), 1 << 16));
  const relative_attention = flag("relative_attention", false);
  const half = Math.floor(position_buckets / 2);
  const cramped = half + 1 >= max_relative_positions && max_position_embeddings > half + 1;
  if (relative_attention && (position_buckets === 1 || cramped)) {
    wrong(
      `position_buckets (${position_buckets}) leaves no room for the logarithms of positions up to ` +
        `max_relative_positions (${max_relative_positions})`,
    );
  }

  const type_vocab_size = whole("type_vocab_size", 0, 0, 1 << 16);
  if (type_vocab_size === 1) wrong("type_vocab_size is 1; a prompt and its response are of two types");
  const conv_kernel_size = whole("conv_kernel_size", 0, 0, 63);
  if (conv_kernel_size > 0) {
    only("conv_groups", 1);
    if (conv_kernel_size % 2 === 0) wrong(`conv_kernel_size is ${conv_kernel_size}; expected an odd number`);
  }
  const epsilon = given.layer_norm_eps ?? 1e-7;
  if (typeof epsilon !== "number" || !(epsilon > 0 && epsilon < 1)) {
    wrong(`layer_norm_eps is ${JSON.stringify(epsilon)}; expected a number between 0 and 1`);
  }
  const norms = words(given.norm_rel_ebd ?? "none") ?? wrong("norm_rel_ebd is no text");
  return {
    vocab_size: size("vocab_size"),
    hidden_size,
    embedding_size: whole("embedding_size", hidden_size, 1, 1 << 16),
    num_hidden_layers: size("num_hidden_layers"),
    num_attention_heads,
    intermediate_size: size("intermediate_size"),
    hidden_act: oneOf("hidden_act", "gelu", ACTIVATIONS),
    max_position_embeddings,
    type_vocab_size,
    layer_norm_eps: epsilon as number,
    relative_attention,
    max_relative_positions,
    position_buckets,
    pos_att_type: attentionTerms(given.pos_att_type) ??
      wrong(
        `pos_att_type is ${JSON.stringify(given.pos_att_type)}; expected "c2p", "p2c", "c2p|p2c" or none`,
      ),
    share_att_key: flag("share_att_key", false),
    norm_rel_ebd: norms.includes("layer_norm") ? "layer_norm" : "none",
    position_biased_input: flag("position_biased_input", true),
    conv_kernel_size,
    conv_act: conv_kernel_size > 0 ? oneOf("conv_act", "tanh", ACTIVATIONS) : "gelu",
    pooler_hidden_act: oneOf("pooler_hidden_act", "gelu", HEAD_ACTIVATIONS),
  };
}

/** Refuses other kinds of model, by name. */
function checkKind({ model_type, architectures }: Record<string, unknown>, where: string): void {
  const [architecture] = Array.isArray(architectures) ? architectures : [];
  const type = model_type ?? (/^DebertaV2/.test(architecture) ? "deberta-v2" : model_type);
  if (type === "gpt2" || /^GPT2/.test(architecture)) {
    throw new WhetError(
      "format",
      `${where}: it describes a GPT-2, a language model: load it with GPT2.load (--model); here a reward model ` +
        "is wanted, a DeBERTa-v2 or v3",
    );
  }
  if (type !== "deberta-v2") {
    const other = type === "deberta" ? ": the first DeBERTa, whose layers differ" : "";
    throw new WhetError(
      "format",
      `${where}: model_type is ${
        JSON.stringify(type ?? null)
      }${other}; as a reward model Whet runs "deberta-v2" ` +
        "(DeBERTa-v2 and v3)",
    );
  }
  if (architecture !== undefined && architecture !== "DebertaV2ForSequenceClassification") {
    throw new WhetError(
      "format",
      `${where}: architectures has ${
        JSON.stringify(architecture)
      }; a reward model is a DebertaV2ForSequenceClassification`,
    );
  }
}

/** Refuses a classifier of several labels: which of them means "better" nobody can tell. */
function checkLabels({ id2label, num_labels }: Record<string, unknown>, where: string): void {
  const labels = typeof id2label === "object" && id2label !== null ? Object.values(id2label) : null;
  const count = labels?.length ?? num_labels ?? 2; // transformers' order, and its default
  if (count === 1) return;
  throw new WhetError(
    "format",
    `${where}: a classifier of ${count} labels${
      labels ? ` (${labels.slice(0, 8).join(", ")})` : ""
    }; a reward model has one (id2label with one entry)`,
  );
}

/** "c2p|p2c", a list of such words, or nothing; undefined for anything else. */
function attentionTerms(value: unknown): readonly ("c2p" | "p2c")[] | undefined {
  const terms = words(value ?? []);
  const known = (["c2p", "p2c"] as const).filter((term) => terms?.includes(term));
  return terms?.every((term) => term === "" || term === "none" || term === "c2p" || term === "p2c")
    ? known
    : undefined;
}

/** The words of a text that "|" parts, in small letters, or of a list of words. */
function words(value: unknown): string[] | undefined {
  if (typeof value === "string") return value.toLowerCase().split("|").map((word) => word.trim());
  return Array.isArray(value) && value.every((word) => typeof word === "string") ? value : undefined;
}
