/**
 * SentencePiece's normalization rules as its models and tokenizer.json carry them: a
 * `precompiled_charsmap`.
 *
 * The format: the length of a trie in bytes (uint32, as all numbers little-endian), the trie, and the
 * replacements as UTF-8 texts that end in a zero byte. The trie is a double array over UTF-8 bytes
 * (Darts-clone) whose values are the replacements' offsets. A unit of 32 bits holds: bits 0–7 the byte
 * that leads here; bit 8 whether a key ends here; bit 9 whether the offset counts in 256s; bits 10–31 the
 * offset of the children. The unit where a key's value is kept has it in bits 0–30.
 *
 * The rules are applied as the `tokenizers` library does, not as SentencePiece itself: to grapheme
 * clusters of fewer than 6 bytes, of which the shortest rule replaces the whole, else to characters. It
 * loses what follows the matched part of a cluster (huggingface/tokenizers issues 2116 and 2334), and so do
 * we: ids must be those that models were trained with.
 *
 * @module
 */
import { WhetError } from "../errors.ts";

/** Clusters of at least so many UTF-8 bytes are taken character by character. */
const LONG_CLUSTER = 6;

/** Text whose clusters are single characters, and CR LF. */
const ASCII = /^[\0-\x7f]*$/;

/** The replacements of characters and clusters. */
export class Charsmap {
  /** The trie's units. */
  readonly #units: Uint32Array;
  /** The replacements, each with a zero byte at its end. */
  readonly #texts: Uint8Array;
  readonly #place: string;
  /** Replacements by offset. */
  readonly #known = new Map<number, string>();
  /** (128): what becomes of each ASCII character; undefined where it stays. */
  readonly #ascii: (string | undefined)[];
  #segmenter: Intl.Segmenter | null = null;

  /**
   * Reads rules.
   *
   * @param bytes The `precompiled_charsmap`.
   * @param place The file and field that they come from, for errors.
   * @throws {WhetError} `format` where the bytes cannot be such rules.
   */
  constructor(bytes: Uint8Array, place: string) {
    this.#place = place;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const size = bytes.length < 4 ? 0 : view.getUint32(0, true);
    if (size === 0 || size % 4 !== 0 || size > bytes.length - 4) {
      const got = bytes.length < 4 ? `${bytes.length} bytes in all` : `a trie of ${size}`;
      throw this.#broken(`expected a trie of at most ${Math.max(0, bytes.length - 4)} bytes, got ${got}`);
    }
    this.#units = Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
    this.#texts = bytes.subarray(4 + size);
    this.#ascii = Array.from({ length: 128 }, (_, code) => this.#lookup(String.fromCharCode(code), 0, 1));
  }

  /**
   * Applies the rules to a text.
   *
   * @param text Any well-formed text.
   * @returns The text with its replacements.
   * @throws {WhetError} `format` where a rule's replacement lies outside the file.
   */
  normalize(text: string): string {
    let result = "", copied = 0;
    const put = (start: number, end: number, replacement: string) => {
      result += text.slice(copied, start) + replacement;
      copied = end;
    };
    if (ASCII.test(text)) {
      for (let start = 0, end; start < text.length; start = end) {
        end = start + (text.startsWith("\r\n", start) ? 2 : 1);
        if (end > start + 1) {
          this.#cluster(text, start, end, put);
          continue;
        }
        const replacement = this.#ascii[text.charCodeAt(start)];
        if (replacement !== undefined) put(start, end, replacement);
      }
    } else {
      this.#segmenter ??= new Intl.Segmenter("und", { granularity: "grapheme" });
      for (const { index, segment } of this.#segmenter.segment(text)) {
        this.#cluster(text, index, index + segment.length, put);
      }
    }
    return copied === 0 ? text : result + text.slice(copied);
  }

  #cluster(
    text: string,
    start: number,
    end: number,
    put: (start: number, end: number, replacement: string) => void,
  ): void {
    const whole = isLong(text, start, end) ? undefined : this.#lookup(text, start, end);
    if (whole !== undefined) {
      put(start, end, whole);
      return;
    }
    for (let i = start, next; i < end; i = next) {
      next = i + (text.codePointAt(i)! > 0xffff ? 2 : 1);
      const replacement = this.#lookup(text, i, next);
      if (replacement !== undefined) put(i, next, replacement);
    }
  }

  /** What the shortest key that text from `start` to `end` begins with is replaced by. */
  #lookup(text: string, start: number, end: number): string | undefined {
    const units = this.#units;
    let node = offsetOf(units[0]);
    for (let i = start; i < end;) {
      const code = text.codePointAt(i)!;
      i += code > 0xffff ? 2 : 1;
      for (let left = utf8Length(code); left > 0; left--) {
        const byte = utf8Byte(code, left);
        if (byte === 0) return undefined;
        node ^= byte;
        const unit = units[node]; // undefined, which no byte is, outside
        if ((unit & 0x800000ff) !== byte) return undefined;
        node ^= offsetOf(unit);
        if (unit & 0x100) return this.#replacement(units[node] & 0x7fffffff);
      }
    }
    return undefined;
  }

  #replacement(offset: number): string {
    let text = this.#known.get(offset);
    if (text === undefined) {
      if (offset > this.#texts.length) {
        throw this.#broken(`the replacement at byte ${offset} of ${this.#texts.length} is not there`);
      }
      let end = this.#texts.indexOf(0, offset);
      if (end < 0) end = this.#texts.length;
      try {
        text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
          this.#texts.slice(offset, end),
        );
      } catch {
        throw this.#broken(`the replacement at byte ${offset} is not UTF-8`);
      }
      this.#known.set(offset, text);
    }
    return text;
  }

  #broken(what: string): WhetError {
    return new WhetError("format", `${this.#place}: ${what}; download the file again`);
  }
}

function offsetOf(unit: number): number {
  return (unit >>> 10) << ((unit & 0x200) >>> 6);
}

function isLong(text: string, start: number, end: number): boolean {
  if (end - start >= LONG_CLUSTER) return true;
  let bytes = 0;
  for (let i = start; i < end; i++) {
    const code = text.charCodeAt(i);
    bytes += code < 0x80 ? 1 : code < 0x800 || (code & 0xf800) === 0xd800 ? 2 : 3; // half of a pair: 2 of 4
  }
  return bytes >= LONG_CLUSTER;
}

function utf8Length(code: number): number {
  return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
}

/** The byte of a code point's UTF-8 after which `left` − 1 others come. */
function utf8Byte(code: number, left: number): number {
  const bits = code >> (6 * (left - 1));
  const length = utf8Length(code);
  if (left < length) return 0x80 | (bits & 0x3f);
  return length === 1 ? code : (0xf00 >> length) & 0xff | bits;
}
