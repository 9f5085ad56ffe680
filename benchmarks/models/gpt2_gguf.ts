/**
 * A GPT-2 of Whet's as llama.cpp knows it: tensors by its names, Conv1D's weights transposed.
 *
 * @module
 */
import type { GPT2 } from "../../src/gpt2.ts";
import { parameterShapes } from "../../src/model/transformer.ts";
import { ggufContent, type GgufTensor, type GgufType, type GgufValue } from "./gguf.ts";

/** Whet's (and Hugging Face's) names, and llama.cpp's. */
const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^wte/, "token_embd"],
  [/^wpe/, "position_embd"],
  [/^ln_f/, "output_norm"],
  [/^h\.(\d+)\.ln_1/, "blk.$1.attn_norm"],
  [/^h\.(\d+)\.attn\.c_attn/, "blk.$1.attn_qkv"],
  [/^h\.(\d+)\.attn\.c_proj/, "blk.$1.attn_output"],
  [/^h\.(\d+)\.ln_2/, "blk.$1.ffn_norm"],
  [/^h\.(\d+)\.mlp\.c_fc/, "blk.$1.ffn_up"],
  [/^h\.(\d+)\.mlp\.c_proj/, "blk.$1.ffn_down"],
];

/** `general.file_type`'s numbers. */
const FILE_TYPES: Record<GgufType, number> = { f32: 0, q8_0: 7 };

/** The vocabulary's files, as `model.save` writes them. */
export interface Vocabulary {
  /** vocab.json. */
  vocab: Record<string, number>;
  /** merges.txt. */
  merges: string;
}

/**
 * The file of a model; wpe, biases and norms are f32 always, as in llama.cpp's own conversions.
 *
 * @param model The model, in f32.
 * @param vocabulary Its tokenizer's.
 * @param type How matrices are stored.
 */
export function gpt2Gguf(
  model: GPT2,
  { vocab, merges }: Vocabulary,
  type: GgufType,
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const { config } = model;
  const words = Object.keys(vocab).sort((a, b) => vocab[a] - vocab[b]);
  const end = vocab["<|endoftext|>"];
  const NORMAL = 1, CONTROL = 3;
  const notes: Record<string, GgufValue> = {
    "general.architecture": "gpt2",
    "general.name": "random GPT-2",
    "general.file_type": FILE_TYPES[type],
    "general.quantization_version": 2,
    "gpt2.block_count": config.n_layer,
    "gpt2.context_length": config.n_positions,
    "gpt2.embedding_length": config.n_embd,
    "gpt2.feed_forward_length": config.n_inner,
    "gpt2.attention.head_count": config.n_head,
    "gpt2.attention.layer_norm_epsilon": { float: config.layer_norm_epsilon },
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": words,
    "tokenizer.ggml.token_type": words.map((_, id) => id === end ? CONTROL : NORMAL),
    "tokenizer.ggml.merges": merges.split("\n").filter((line) => line && !line.startsWith("#version")),
    "tokenizer.ggml.bos_token_id": end,
    "tokenizer.ggml.eos_token_id": end,
  };
  const tensors = [...parameterShapes(config)].map(([name, shape]): GgufTensor => {
    const linear = shape.length === 2 && name.startsWith("h.");
    return {
      name: rename(name),
      shape: linear ? shape.toReversed() : shape,
      type: linear || name === "wte.weight" ? type : "f32",
      values: async () => {
        const values = await model.parameter(name);
        return linear ? transpose(values, shape[0], shape[1]) : values;
      },
    };
  });
  return ggufContent(notes, tensors);
}

function rename(name: string): string {
  for (const [pattern, replacement] of NAMES) {
    if (pattern.test(name)) return name.replace(pattern, replacement);
  }
  throw new Error(`${name}: llama.cpp has no name for it`);
}

function transpose(values: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) out[j * rows + i] = values[i * columns + j];
  }
  return out;
}
