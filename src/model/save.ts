/**
 * Writes a model: in Hugging Face's format, for Whet and for Python's transformers, or as it is stored, for Whet.
 *
 * @module
 */
import { type Content, writeDirectory } from "../format/files.ts";
import { safetensorsContent, type TensorToWrite } from "../format/safetensors.ts";
import type { StoredMatrix, WeightFormat } from "../tensor/tensor.ts";
import { ByteLevelBpe } from "../text/bpe.ts";
import { saveTokenizer, type Tokenizer } from "../text/tokenizers.ts";
import { formatConfig, type GPT2Config } from "./config.ts";
import { configNote, type MatrixInfo, matrixNote, matrixTensors } from "./quantized.ts";
import { parameterShapes } from "./transformer.ts";

/** Files of an earlier save, by Whet or another program, which would be read instead of the new ones or with them. */
const OTHERS = [
  "model.safetensors.index.json",
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "vocab.json",
  "merges.txt",
  "added_tokens.json",
  "special_tokens_map.json",
];

/** What is saved of a model. */
export interface Saveable {
  /** Its shape. */
  readonly config: GPT2Config;
  /** Its tokenizer. */
  readonly tokenizer: Tokenizer;
  /** How its frozen weights are stored. */
  readonly weights: WeightFormat;
  /** One parameter's values, row-major. */
  parameter(name: string): Promise<Float32Array>;
  /** One frozen weight as files hold it, or null for a parameter that is plain f32. */
  frozen(name: string): { info: MatrixInfo; stored: () => Promise<StoredMatrix> } | null;
}

/** What an element of a saved tensor is. */
export type SaveDType = "F32" | "F16" | "BF16";

const TORCH_DTYPES = { F32: "float32", F16: "float16", BF16: "bfloat16" } as const;

/**
 * Saves a model: config.json, model.safetensors, vocab.json, merges.txt.
 *
 * @param directory Where to; it is made.
 * @param model The model.
 * @param dtype What an element is in the file; without, every weight is what it is in the model.
 * @throws {WhetError} "resource" where the disk is full or permission is missing.
 */
export async function saveModel(directory: string, model: Saveable, dtype?: SaveDType): Promise<void> {
  const { config, tokenizer, weights } = model;
  const matrices = new Map<string, MatrixInfo>();
  const tensors = [...parameterShapes(config)].flatMap(([parameter, shape]): TensorToWrite[] => {
    const name = `transformer.${parameter}`;
    const frozen = dtype ? null : model.frozen(parameter);
    if (!frozen) return [{ name, dtype: dtype ?? "F32", shape, data: () => model.parameter(parameter) }];
    matrices.set(name, frozen.info);
    return matrixTensors(name, frozen.info, frozen.stored);
  });
  const stored = dtype || weights === "f32" ? null : weights;
  const files: Record<string, Content> = {
    "model.safetensors": stored
      ? safetensorsContent(tensors, matrixNote(stored, matrices))
      : safetensorsContent(tensors),
  };
  if (tokenizer instanceof ByteLevelBpe) {
    await saveTokenizer(tokenizer, (name, text) => {
      files[name] = text;
      return Promise.resolve();
    });
  }
  const torchDType = TORCH_DTYPES[dtype ?? (weights === "f16" ? "F16" : "F32")];
  files["config.json"] = formatConfig(config, tokenizer.endOfText, torchDType, stored && configNote(stored));
  await writeDirectory(directory, files, {
    marker: "config.json",
    obsolete: OTHERS.filter((name) => !(name in files)),
  });
}
