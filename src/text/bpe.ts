/**
 * Byte-level byte pair encoding, the tokenizer of GPT-2 and its kin.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { fromBytes } from "./bytes.ts";
import type { Merges } from "./merges.ts";
import { pieces } from "./pretokenize.ts";
import { StreamingDecoder, utf8Decoder } from "./streaming.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** A token that is found in text as it stands, before any merge. */
export interface AddedToken {
  /** Its literal. */
  content: string;
  /** Its id, within the vocabulary or above. */
  id: number;
  /** Whether it steers the model and is no text. */
  special: boolean;
  /** Whether it takes in the white space before it. */
  lstrip?: boolean;
  /** Whether it takes in the white space after it. */
  rstrip?: boolean;
}

/** What a {@linkcode ByteLevelBpe} is made of, already checked; V ids. */
export interface BpeParts {
  /** The tokens' bytes end to end, in the order of ids. */
  bytes: Uint8Array;
  /** (V + 1): token i's bytes lie from offsets[i] to offsets[i + 1]; none where i is no token. */
  offsets: Uint32Array;
  /** (256): each byte's token. */
  byteTokens: Int32Array;
  /** The merges of tokens. */
  merges: Merges;
  /** Tokens found in text before any merge. */
  added: readonly AddedToken[];
  /** Which token ends a text. */
  endOfText: number;
  /** Whether text that does not begin with a space gets one. */
  addPrefixSpace: boolean;
}

/**
 * Pieces of at most this many UTF-16 units are remembered. V8 copies substrings so short; a longer one
 * is a slice that would keep the whole text it came from alive.
 */
const CACHED_LENGTH = 12;

/** How many pieces are remembered, some 4 MB; then all are forgotten. */
const CACHED_PIECES = 2 ** 15;

/** What an id without a token decodes to: U+FFFD. */
const REPLACEMENT = new Uint8Array([0xef, 0xbf, 0xbd]);

/**
 * A byte-level BPE tokenizer: pieces of text (see {@linkcode pieces}) as UTF-8 bytes, merged.
 * Made by `gpt2Tokenizer`, `loadTokenizer` or `bpeFromVocabulary`.
 */
export class ByteLevelBpe implements Tokenizer {
  /** What it is made of; not to be written to. */
  readonly parts: Readonly<BpeParts>;
  /** The highest id + 1. */
  readonly vocabSize: number;
  /** The token that ends a text. */
  readonly endOfText: number;
  readonly #addedByContent: ReadonlyMap<string, AddedToken>;
  readonly #addedPattern: RegExp | null;
  readonly #specials: ReadonlySet<number>;
  readonly #cache = new Map<string, readonly number[]>();
  readonly #utf8 = new TextEncoder();

  /**
   * A tokenizer of parts that fit together.
   *
   * @param parts What it is made of; it is trusted and kept.
   */
  constructor(parts: BpeParts) {
    this.parts = parts;
    this.vocabSize = parts.offsets.length - 1;
    this.endOfText = parts.endOfText;
    this.#addedByContent = new Map(parts.added.map((token) => [token.content, token]));
    this.#addedPattern = anyOf([...this.#addedByContent.keys()]);
    this.#specials = new Set(parts.added.filter((token) => token.special).map((token) => token.id));
  }

  /**
   * Token ids of a text.
   *
   * @param text Any text; lone surrogates count as U+FFFD, as in UTF-8.
   * @returns Its ids.
   * @throws {WhetError} `option` where the text is no string.
   */
  encode(text: string): number[] {
    if (typeof text !== "string") {
      throw new WhetError(
        "option",
        `text to encode: expected a string, got ${text === null ? "null" : typeof text}`,
      );
    }
    const ids: number[] = [];
    const wellFormed = text.toWellFormed();
    if (this.#addedPattern === null) {
      this.#encodeText(wellFormed, ids);
      return ids;
    }
    // With a capturing group, text and added tokens take turns, text first and last.
    const runs = wellFormed.split(this.#addedPattern);
    for (let i = 0; i < runs.length; i++) {
      if (i % 2 === 1) {
        ids.push(this.#addedByContent.get(runs[i])!.id);
        continue;
      }
      let run = runs[i];
      if (i > 0 && this.#addedByContent.get(runs[i - 1])!.rstrip) run = withoutLeadingSpace(run);
      if (i + 1 < runs.length && this.#addedByContent.get(runs[i + 1])!.lstrip) {
        run = withoutTrailingSpace(run);
      }
      this.#encodeText(run, ids);
    }
    return ids;
  }

  /** Appends the ids of text that has no added token in it. */
  #encodeText(text: string, ids: number[]): void {
    if (this.parts.addPrefixSpace && text !== "" && !text.startsWith(" ")) text = " " + text;
    for (const piece of pieces(text)) {
      for (const id of this.#cache.get(piece) ?? this.#encodePiece(piece)) ids.push(id);
    }
  }

  #encodePiece(piece: string): readonly number[] {
    const bytes = this.#utf8.encode(piece);
    const symbols = new Int32Array(bytes.length);
    for (let i = 0; i < bytes.length; i++) symbols[i] = this.parts.byteTokens[bytes[i]];
    const ids = Array.from(symbols.subarray(0, this.parts.merges.apply(symbols, symbols.length)));
    if (piece.length <= CACHED_LENGTH) {
      if (this.#cache.size >= CACHED_PIECES) this.#cache.clear();
      this.#cache.set(piece, ids);
    }
    return ids;
  }

  /**
   * The text of token ids, added tokens as their literals.
   *
   * @param ids Token ids.
   * @returns The text; U+FFFD for bytes that are not UTF-8 and for ids that the vocabulary does not have.
   * @throws {WhetError} `option` for an id that is negative or not whole.
   */
  decode(ids: Iterable<number>): string {
    const tokens = Array.from(ids, (id) => this.#bytes(id));
    const bytes = new Uint8Array(tokens.reduce((sum, token) => sum + token.length, 0));
    let end = 0;
    for (const token of tokens) {
      bytes.set(token, end);
      end += token.length;
    }
    return utf8Decoder().decode(bytes);
  }

  /**
   * A decoder for ids that come one at a time.
   *
   * @returns A fresh one.
   */
  decoder(): StreamingDecoder {
    return new StreamingDecoder((id) => this.#bytes(id));
  }

  /**
   * The bytes of one token.
   *
   * @param id The token.
   * @returns A copy of its bytes; U+FFFD's for an id that the vocabulary does not have.
   * @throws {WhetError} `option` for an id that is negative or not whole.
   */
  bytes(id: number): Uint8Array {
    return this.#bytes(id).slice();
  }

  #bytes(id: number): Uint8Array {
    if (!Number.isInteger(id) || id < 0) {
      throw new WhetError(
        "option",
        `token id ${id}: expected a whole number from 0 to ${this.vocabSize - 1}`,
      );
    }
    const { bytes, offsets } = this.parts;
    if (id >= this.vocabSize || offsets[id] === offsets[id + 1]) return REPLACEMENT;
    return bytes.subarray(offsets[id], offsets[id + 1]);
  }

  /**
   * Whether an id steers the model and is no text.
   *
   * @param id The token.
   * @returns True for end-of-text and other special tokens.
   */
  isSpecial(id: number): boolean {
    return this.#specials.has(id);
  }

  /**
   * The vocabulary as its files write it: added tokens as their literals, others in GPT-2's byte alphabet.
   *
   * @returns Each token's name and id, in the order of ids.
   */
  *entries(): Generator<[name: string, id: number], void, undefined> {
    const added = new Map(this.parts.added.map((token) => [token.id, token.content]));
    const { bytes, offsets } = this.parts;
    for (let id = 0; id < this.vocabSize; id++) {
      if (offsets[id] === offsets[id + 1]) continue;
      yield [added.get(id) ?? fromBytes(bytes.subarray(offsets[id], offsets[id + 1])), id];
    }
  }
}

/** A pattern with one group that finds the leftmost of some literals, of several there the longest. */
function anyOf(literals: string[]): RegExp | null {
  if (literals.length === 0) return null;
  const longestFirst = literals.toSorted((a, b) => b.length - a.length);
  const escaped = longestFirst.map((literal) => literal.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
  return new RegExp(`(${escaped.join("|")})`, "u");
}

const WHITE_SPACE = /^\p{White_Space}$/u;

function withoutLeadingSpace(text: string): string {
  let start = 0;
  while (start < text.length && WHITE_SPACE.test(text[start])) start++;
  return text.slice(start);
}

function withoutTrailingSpace(text: string): string {
  let end = text.length;
  while (end > 0 && WHITE_SPACE.test(text[end - 1])) end--;
  return text.slice(0, end);
}
