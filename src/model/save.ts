/**
 * Writes a model in Hugging Face's format, for Whet and for Python's transformers.
 *
 * @module
 */
import { writeDirectory } from "../format/files.ts";
import { safetensorsContent } from "../format/safetensors.ts";
import { saveTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import { formatConfig, type GPT2Config } from "./config.ts";
import { parameterShapes } from "./transformer.ts";

/** What is saved of a model. */
export interface Saveable {
  /** Its shape. */
  readonly config: GPT2Config;
  /** Its tokenizer. */
  readonly tokenizer: Tokenizer;
  /** One parameter's values, row-major. */
  parameter(name: string): Promise<Float32Array>;
}
