/**
 * What stands in for a tokenizer where a model has none: a small vocabulary, no files that say what
 * its tokens are. Token ids go in and out; text does not.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { StreamingDecoder } from "./streaming.ts";
import type { Tokenizer } from "./tokenizer.ts";

/**
 * A tokenizer that knows how many tokens there are and no more.
 *
 * @param name The model's name, for the error.
 * @param vocabSize The model's `vocab_size`.
 * @param endOfText The id that its config names, if any.
 * @returns One that decodes to nothing, and refuses to encode with `mismatch`.
 */
export function absentTokenizer(name: string, vocabSize: number, endOfText: number | undefined): Tokenizer {
  const none = new Uint8Array();
  return {
    vocabSize,
    endOfText: endOfText ?? -1,
    encode() {
      throw new WhetError(
        "mismatch",
        `${name} has ${vocabSize} tokens, which are not GPT-2's, and no tokenizer.json or vocab.json with ` +
          "merges.txt that says what they are; add those files, or give token ids instead of text",
      );
    },
    decode: () => "",
    decoder: () => new StreamingDecoder(() => none),
    bytes: () => none,
    isSpecial: (id) => id === endOfText,
  };
}
