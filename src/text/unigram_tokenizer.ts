/**
 * Unigram tokenization as Hugging Face's fast tokenizers do it, for DeBERTa-v3.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { utf8Decoder } from "./streaming.ts";
import { AddedTokens } from "./unigram_added.ts";
import { byteName, UnigramModel } from "./unigram_model.ts";
import type { UnigramParts } from "./unigram_parts.ts";

/** A pair of texts as a model takes it. */
export interface PairEncoding {
  /** (T): the token ids, special tokens among them. */
  ids: number[];
  /** (T): 0 up to the first `[SEP]`, 1 after it. */
  typeIds: number[];
  /** How many tokens of the two texts were cut off. */
  dropped: number;
}

/** What an id without a token decodes to. */
const REPLACEMENT = "\ufffd";

/**
 * A Unigram tokenizer: text is normalized, cut at its spaces, and each stretch divided into the most
 * probable pieces.
 *
 * Ids are those of transformers' own tokenizer with two exceptions. A special token's literal in text
 * (`[CLS]`) stays text, whatever it is to others: transformers makes the token of it even with
 * `split_special_tokens=True`, for it is in the vocabulary too. And a lone surrogate, which Python's
 * tokenizers refuse, becomes U+FFFD. Made by `loadUnigramTokenizer`.
 *
 * Own code and no library: `npm:@huggingface/tokenizers` 0.2 takes NFKC for the charsmap of a model
 * (159 characters differ) and fails on a text of 1 MB; SentencePiece in WebAssembly (11 MB) reads no
 * tokenizer.json, and its ids differ from those that fast tokenizers, and so the models, were trained with.
 */
export class UnigramTokenizer {
  /**
   * What it is made of; not to be written to.
   *
   * @internal
   */
  readonly parts: Readonly<UnigramParts>;
  /** The highest id + 1. */
  readonly vocabSize: number;
  readonly #model: UnigramModel;
  readonly #literal: AddedTokens;
  readonly #normalized: AddedTokens;
  readonly #addedById: ReadonlyMap<number, string>;
  readonly #specials: ReadonlySet<number>;
  readonly #bytes: ReadonlyMap<string, number>;

  /**
   * A tokenizer of parts that fit together.
   *
   * @param parts What it is made of, checked by `checkUnigram`; it is kept.
   *
   * @internal
   */
  constructor(parts: UnigramParts) {
    this.parts = parts;
    const { added, template, unknown } = parts;
    this.vocabSize = added.reduce((size, { id }) => Math.max(size, id + 1), parts.pieces.length);
    this.#addedById = new Map(added.map(({ id, content }) => [id, content]));
    this.#specials = new Set([
      unknown,
      ...added.flatMap(({ id, special }) => special ? [id] : []),
      ...template.flatMap((part) => "ids" in part ? part.ids : []),
    ]);
    this.#model = new UnigramModel({ ...parts, excluded: this.#specials });
    this.#literal = new AddedTokens(added.filter((token) => !token.normalized), (text) => text);
    this.#normalized = new AddedTokens(added.filter((token) => token.normalized), parts.normalize);
    this.#bytes = new Map(
      parts.byteFallback ? Array.from({ length: 256 }, (_, byte) => [byteName(byte), byte]) : [],
    );
  }

  /**
   * Token ids of a text, without special tokens, in time linear in its length.
   *
   * @param text Any text; lone surrogates count as U+FFFD.
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
    let first = true;
    for (const raw of this.#literal.split(text.toWellFormed())) {
      const runs = raw.token ? [raw] : this.#normalized.split(this.parts.normalize(raw.text));
      for (const run of runs) {
        if (run.token) ids.push(run.token.id);
        else this.#encodeText(run.text, first, ids);
        first = false;
      }
      first = false;
    }
    return ids;
  }

  /** Appends the ids of normalized text that has no added token in it. */
  #encodeText(text: string, first: boolean, ids: number[]): void {
    const { replacement, prepend, split } = this.parts.metaspace;
    let marked = text.replaceAll(" ", replacement);
    const wanted = prepend === "always" || (prepend === "first" && first);
    if (wanted && !marked.startsWith(replacement)) marked = replacement + marked;
    if (!split) return this.#model.segment(marked, ids);
    for (let start = 0, end; start < marked.length; start = end) {
      end = marked.indexOf(replacement, start + replacement.length);
      if (end < 0) end = marked.length;
      this.#model.segment(marked.slice(start, end), ids);
    }
  }

  /**
   * Token ids of a prompt and its response: `[CLS] prompt [SEP] response [SEP]`.
   *
   * What is longer than the limit loses tokens from the prompt's front, where a dialogue is oldest; only
   * where the response alone is too long is there no prompt, and the response loses its end.
   *
   * @param prompt The first text; it may be empty.
   * @param response The second text; it may be empty, and has its `[SEP]` all the same.
   * @param maxLength The most tokens, special ones included; Infinity for no limit. DeBERTa-v3 was trained
   * with 512, and its relative positions allow more.
   * @returns Ids and token type ids.
   * @throws {WhetError} `option` where a text is no string, or the limit leaves no room for special tokens.
   *
   * @example
   * ```ts ignore
   * const { ids, typeIds } = tokenizer.encodePair("Who are you?", "A model.");
   * ```
   */
  encodePair(prompt: string, response: string, maxLength = 512): PairEncoding {
    const { template } = this.parts;
    const special = template.reduce((count, part) => count + ("ids" in part ? part.ids.length : 0), 0);
    if (!(maxLength >= special) || (!Number.isInteger(maxLength) && maxLength !== Infinity)) {
      throw new WhetError(
        "option",
        `maxLength: expected a whole number of at least ${special}, or Infinity, got ${maxLength}`,
      );
    }
    const texts = { prompt: this.encode(prompt), response: this.encode(response) };
    const length = texts.prompt.length + texts.response.length;
    const room = maxLength - special;
    if (length > room) {
      texts.response = texts.response.slice(0, room);
      texts.prompt = texts.prompt.slice(Math.max(0, texts.prompt.length - (room - texts.response.length)));
    }
    const ids: number[] = [], typeIds: number[] = [];
    for (const part of template) {
      for (const id of "text" in part ? texts[part.text] : part.ids) {
        ids.push(id);
        typeIds.push(part.typeId);
      }
    }
    return { ids, typeIds, dropped: length + special - ids.length };
  }

  /**
   * The text of token ids: special tokens as their literals, `▁` as a space, but for one at the beginning
   * that stands for no space of the text. What normalization changed does not come back.
   *
   * @param ids Token ids.
   * @returns The text; U+FFFD for ids that have no token, and for byte tokens that are not UTF-8.
   * @throws {WhetError} `option` for an id that is negative or not whole.
   */
  decode(ids: Iterable<number>): string {
    const { replacement, prepend } = this.parts.metaspace;
    let text = "", first = true, bytes: number[] = [];
    const flush = () => {
      if (bytes.length > 0) text += utf8Decoder().decode(Uint8Array.from(bytes));
      bytes = [];
    };
    for (const id of ids) {
      const token = this.#content(id);
      const byte = this.#bytes.get(token);
      if (byte === undefined) {
        flush();
        text += token.replaceAll(replacement, first && prepend !== "never" ? "" : " ");
      } else {
        bytes.push(byte);
      }
      first = false;
    }
    flush();
    return text;
  }

  #content(id: number): string {
    if (!Number.isInteger(id) || id < 0) {
      throw new WhetError(
        "option",
        `token id ${id}: expected a whole number from 0 to ${this.vocabSize - 1}`,
      );
    }
    return this.#addedById.get(id) ?? this.parts.pieces[id] ?? REPLACEMENT;
  }

  /**
   * Whether an id steers the model and is no text; no text is encoded to it.
   *
   * @param id The token.
   * @returns True for `[CLS]`, `[SEP]` and other special tokens, and the unknown one.
   */
  isSpecial(id: number): boolean {
    return this.#specials.has(id);
  }
}
