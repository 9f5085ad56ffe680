/**
 * What a tokenizer is: text to token ids and back, at once or token by token.
 *
 * @module
 */
import { WhetError } from "../errors.ts";

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
 * Decodes token by token: what `push` gives never ends inside a character, and all that `push` and
 * `flush` give is together the same string that `decode` gives for all ids at once. It holds back
 * the bytes of an unfinished character; those that turn out never to finish become U+FFFD as the
 * WHATWG Encoding Standard's UTF-8 decoder says. A byte order mark is text and stays.
 *
 * @example
 * ```ts
 * import { StreamingDecoder } from "./tokenizer.ts";
 *
 * const bytes = new TextEncoder().encode("é");
 * const decoder = new StreamingDecoder((id) => bytes.subarray(id, id + 1));
 * console.log([decoder.push(0), decoder.push(1), decoder.flush()]); // ["", "é", ""]
 * ```
 */
export class StreamingDecoder {
  readonly #bytes: (id: number) => Uint8Array;
  readonly #utf8: TextDecoder = utf8Decoder();

  /** @param bytes The bytes of a token, by its id. */
  constructor(bytes: (id: number) => Uint8Array) {
    this.#bytes = bytes;
  }

  /**
   * Takes the next token.
   *
   * @param id The token.
   * @returns The characters that are whole by now; often none.
   */
  push(id: number): string {
    return this.#utf8.decode(this.#bytes(id) as Uint8Array<ArrayBuffer>, { stream: true });
  }

  /**
   * Ends the text; the decoder may then begin another.
   *
   * @returns U+FFFD for a character that was never finished, else nothing.
   */
  flush(): string {
    return this.#utf8.decode();
  }
}

/**
 * A decoder of UTF-8 that keeps byte order marks.
 *
 * @returns A fresh one: a TextDecoder holds the state of its stream.
 */
export function utf8Decoder(): TextDecoder {
  return new TextDecoder("utf-8", { ignoreBOM: true });
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
