/**
 * Finds and reads the Unigram tokenizer of a model directory.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { object, parse } from "./fields.ts";
import type { TextFiles } from "./load.ts";
import { readDebertaSpm } from "./unigram_deberta.ts";
import { readUnigramJson } from "./unigram_json.ts";
import { UnigramTokenizer } from "./unigram_tokenizer.ts";

/** Where a model's files come from: a directory, the Hub, memory. A `Repository` is one. */
export interface UnigramFiles extends TextFiles {
  /** The whole of a file by its name, of at most `limit` bytes, or null where there is none. */
  bytes(name: string, limit: number): Promise<Uint8Array | null>;
}

/** The most bytes of spm.model; DeBERTa-v3's has 2.5 MB, the largest known 16 MB. */
const SPM_LIMIT = 128 * 2 ** 20;

/**
 * Reads a directory's Unigram tokenizer: tokenizer.json, else spm.model with tokenizer_config.json,
 * special_tokens_map.json and added_tokens.json where they are.
 *
 * @param files The directory.
 * @returns The tokenizer.
 * @throws {WhetError} `format` where neither file is there, or one is broken or contradicts itself;
 * `mismatch` where two contradict each other; `unsupported` for a tokenizer of another kind. All name the
 * file and the entry.
 *
 * @example
 * ```ts ignore
 * import { openRepository } from "../format/source.ts";
 * import { loadUnigramTokenizer } from "./unigram.ts";
 *
 * const tokenizer = await loadUnigramTokenizer(await openRepository("OpenAssistant/reward-model-deberta-v3-large-v2"));
 * console.log(tokenizer.encodePair("Who are you?", "A model.").ids);
 * ```
 */
export async function loadUnigramTokenizer(files: UnigramFiles): Promise<UnigramTokenizer> {
  const place = (name: string) =>
    files.name === undefined ? name : `${files.name.replace(/\/$/, "")}/${name}`;
  const read = async (name: string) => {
    const text = await files.text(name);
    return text === null ? null : object(parse(text, place(name)), place(name));
  };
  const json = await read("tokenizer.json");
  if (json !== null) return new UnigramTokenizer(readUnigramJson(json, place("tokenizer.json")));

  const bytes = await files.bytes("spm.model", SPM_LIMIT);
  if (bytes === null) {
    throw new WhetError(
      "format",
      `${
        place("tokenizer.json")
      }: not found, and no spm.model either; a reward model needs its tokenizer's file`,
    );
  }
  const companions = {
    config: await read("tokenizer_config.json"),
    specialTokens: await read("special_tokens_map.json"),
    addedTokens: await read("added_tokens.json"),
  };
  return new UnigramTokenizer(readDebertaSpm(bytes, companions, place));
}
