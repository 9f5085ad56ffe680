/**
 * Writes a model in Hugging Face's format, for Whet and for Python's transformers.
 *
 * @module
 */
import { type Content, writeDirectory } from "../format/files.ts";
import { safetensorsContent } from "../format/safetensors.ts";
import { ByteLevelBpe } from "../text/bpe.ts";
import { saveTokenizer, type Tokenizer } from "../text/tokenizers.ts";
import { formatConfig, type GPT2Config } from "./config.ts";
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
  /** One parameter's values, row-major. */
  parameter(name: string): Promise<Float32Array>;
}

/** What an element of a saved tensor is. */
export type SaveDType = "F32" | "F16" | "BF16";

const TORCH_DTYPES = { F32: "float32", F16: "float16", BF16: "bfloat16" } as const;

/**
 * Saves a model: config.json, model.safetensors, vocab.json, merges.txt.
 *
 * @param directory Where to; it is made.
 * @param model The model.
 * @param dtype What an element is in the file.
 * @throws {WhetError} "resource" where the disk is full or permission is missing.
 */
export async function saveModel(directory: string, model: Saveable, dtype: SaveDType): Promise<void> {
  const { config, tokenizer } = model;
  const files: Record<string, Content> = {
    "model.safetensors": safetensorsContent(
      [...parameterShapes(config)].map(([name, shape]) => ({
        name: `transformer.${name}`,
        dtype,
        shape,
        data: () => model.parameter(name),
      })),
    ),
  };
  if (tokenizer instanceof ByteLevelBpe) {
    await saveTokenizer(tokenizer, (name, text) => {
      files[name] = text;
      return Promise.resolve();
    });
  }
  files["config.json"] = formatConfig(config, tokenizer.endOfText, TORCH_DTYPES[dtype]);
  await writeDirectory(directory, files, {
    marker: "config.json",
    obsolete: OTHERS.filter((name) => !(name in files)),
  });
}
