/**
 * Added tokens: literals that are found in text before it is divided into pieces.
 *
 * @module
 */
import type { AddedToken } from "./bpe.ts";
import { isWhiteSpace, type Normalizer } from "./unigram_normalize.ts";

/** An added token of a Unigram tokenizer, with the flags that tokenizer.json gives it. */
export interface UnigramAddedToken extends AddedToken {
  /** Whether it is looked for in normalized text, in its own normalized form; else in text as it stands. */
  normalized: boolean;
  /** Whether it counts only where no letter, digit or underscore is beside it. */
  singleWord: boolean;
}

/** A stretch of text, or the added token that was found there. */
export interface Run {
  /** The text as it stands. */
  text: string;
  /** The added token; undefined for text. */
  token?: UnigramAddedToken;
}

/** What Unicode counts to a word (UTS 18, `\w`). */
const WORD = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;

/**
 * Finds added tokens of one kind: the leftmost, of several there the longest. Special tokens take part in the
 * search, as they do in the `tokenizers` library, and stay text where they are found
 * (`split_special_tokens=True` of transformers).
 */
export class AddedTokens {
  readonly #tokens = new Map<string, UnigramAddedToken>();
  readonly #pattern: RegExp | null = null;

  /**
   * A search.
   *
   * @param tokens What to find.
   * @param normalize Makes of a token's content what is looked for.
   */
  constructor(tokens: readonly UnigramAddedToken[], normalize: Normalizer) {
    for (const token of tokens) this.#tokens.set(normalize(token.content), token);
    this.#tokens.delete("");
    if (tokens.every((token) => token.special)) return; // nothing that would not stay text
    const longestFirst = [...this.#tokens.keys()].sort((a, b) => b.length - a.length);
    if (longestFirst.length === 0) return;
    const escaped = longestFirst.map((literal) => literal.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
    this.#pattern = new RegExp(escaped.join("|"), "gu");
  }

  /**
   * Divides a text.
   *
   * @param text A text.
   * @returns Its runs in order; text runs are not empty.
   */
  split(text: string): Run[] {
    if (this.#pattern === null) return text === "" ? [] : [{ text }];
    const runs: Run[] = [];
    let done = 0;
    for (const { 0: literal, index } of text.matchAll(this.#pattern)) {
      const token = this.#tokens.get(literal)!;
      let start = index, end = index + literal.length;
      if (token.special || (token.singleWord && (endsWord(text, start) || beginsWord(text, end)))) continue;
      if (token.lstrip) { while (start > done && isWhiteSpace(text, start - 1)) start--; }
      if (token.rstrip) { while (isWhiteSpace(text, end)) end++; }
      if (done < start) runs.push({ text: text.slice(done, start) });
      runs.push({ text: text.slice(start, end), token });
      done = end;
    }
    if (done < text.length) runs.push({ text: text.slice(done) });
    return runs;
  }
}

function endsWord(text: string, end: number): boolean {
  const low = end > 1 && (text.charCodeAt(end - 1) & 0xfc00) === 0xdc00;
  return end > 0 && WORD.test(text.slice(end - (low ? 2 : 1), end));
}

function beginsWord(text: string, start: number): boolean {
  return start < text.length && WORD.test(String.fromCodePoint(text.codePointAt(start)!));
}
