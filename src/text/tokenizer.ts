/**
 * What a tokenizer is; `tokenizers.ts` has them.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import type { StreamingDecoder } from "./streaming.ts";

/**
 * Text to token ids and back.
 *
 * Text is encoded as UTF-8; a lone surrogate becomes U+FFFD. The end-of-text token and other added
 * tokens are found in text wherever their literal stands.
 */
export interface Tokenizer {
  /** The highest id + 1. */
  readonly vocabSize: number;
  /** The token that ends a text: GPT-2's `<|endoftext|>`, id 50256. */
  readonly endOfText: number;
  /** Token ids of a text. */
  encode(text: string): number[];
  /** The text of token ids; bytes that are not UTF-8 become U+FFFD. */
  decode(ids: Iterable<number>): string;
  /** A decoder for ids that come one at a time. */
  decoder(): StreamingDecoder;
  /** The bytes of one token; U+FFFD's for an id that the vocabulary does not have. */
  bytes(id: number): Uint8Array;
  /** Whether an id is a control token, such as end-of-text, and no text. */
  isSpecial(id: number): boolean;
}

/**
 * Refuses a tokenizer whose ids a model cannot embed.
 *
 * @param tokenizer The tokenizer.
 * @param vocabSize The model's `vocab_size`; it may be larger (padded), never smaller.
 * @throws {WhetError} `mismatch`.
 */
export function checkVocabulary(tokenizer: Tokenizer, vocabSize: number): void {
  if (tokenizer.vocabSize <= vocabSize) return;
  throw new WhetError(
    "mismatch",
    `the tokenizer has ids up to ${tokenizer.vocabSize - 1}, but the model's vocab_size is ${vocabSize}; ` +
      "use the tokenizer files that belong to the model",
  );
}
