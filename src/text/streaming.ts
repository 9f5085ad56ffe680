/**
 * Text from tokens that come one at a time.
 *
 * @module
 */

/**
 * Decodes token by token: what `push` gives never ends inside a character, and all that `push` and
 * `flush` give is together the same string that `decode` gives for all ids at once. It holds back
 * the bytes of an unfinished character; those that turn out never to finish become U+FFFD as the
 * WHATWG Encoding Standard's UTF-8 decoder says. A byte order mark is text and stays.
 *
 * @example
 * ```ts
 * import { StreamingDecoder } from "./streaming.ts";
 *
 * const bytes = new TextEncoder().encode("é");
 * const decoder = new StreamingDecoder((id) => bytes.subarray(id, id + 1));
 * console.log([decoder.push(0), decoder.push(1), decoder.flush()]); // ["", "é", ""]
 * ```
 */
export class StreamingDecoder {
  readonly #bytes: (id: number) => Uint8Array;
  readonly #utf8: TextDecoder = utf8Decoder();

  /**
   * A decoder at the beginning of a text.
   *
   * @param bytes The bytes of a token, by its id.
   */
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
