/**
 * Examples to tokens, and which of them are to be learned.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { type Example, type Segment, turns } from "./example.ts";

export { type Example, lastExchange } from "./example.ts";

/** What counts in the loss: every token, or the assistant's answers only. */
export type LossOn = "all" | "responses";

/** What encoding needs of a tokenizer. */
export type Encoder = Pick<Tokenizer, "encode" | "endOfText" | "vocabSize">;

/** A sequence of n ≥ 1 tokens. */
export interface EncodedExample {
  /** (n). */
  tokens: Uint32Array;
  /** (n): 1 where the token is a target. The first never is one: nothing comes before it. */
  counts: Uint8Array;
}

/**
 * Encodes an example, and closes it with one end-of-text token.
 *
 * A prompt and its response are tokenised apart, and so is what the assistant says in a dialogue (in
 * `chosen`, and in a `text` with `\n\nAssistant:` turns), because generation meets them apart; the tokens
 * do not depend on `lossOn`. With `"responses"` what counts is the response, or what follows each
 * `\n\nAssistant:` up to the next turn, and the end-of-text token behind it; a dialogue that ends with
 * a human's turn has no such token that counts. What counts goes by place, never by token id, so that a literal
 * `<|endoftext|>` is learned like any other. `{ tokens }` are taken as they are: nothing is appended,
 * and as they have no turns they cannot be learned with `"responses"`.
 *
 * @param example The example.
 * @param tokenizer The model's tokenizer.
 * @param options What counts.
 * @param where What messages call the example.
 * @returns Its tokens.
 * @throws {WhetError} `format`, if it has no response to learn, or a token id beyond the vocabulary.
 *
 * @example
 * ```ts
 * import { encodeExample } from "./encode.ts";
 *
 * const letters = { encode: (text: string) => [...text].map((c) => c.charCodeAt(0)), endOfText: 0, vocabSize: 128 };
 * const { counts } = encodeExample({ prompt: "1+1=", response: "2" }, letters, { lossOn: "responses" });
 * console.log(counts.join("")); // 000011
 * ```
 */
export function encodeExample(
  example: Example,
  tokenizer: Encoder,
  options: { lossOn: LossOn },
  where = "the example",
): EncodedExample {
  checkExample(example, tokenizer, options.lossOn, where);
  if ("tokens" in example) {
    const encoded = allocate(example.tokens.length);
    encoded.tokens.set(example.tokens);
    encoded.counts.fill(1, 1);
    return encoded;
  }
  const parts = segments(example).map(({ text, response }) => (
    { ids: text === "" ? [] : tokenizer.encode(text), response }
  ));
  const last = parts.at(-1)!;
  // Data sets that close their texts themselves do not get it twice.
  if (last.ids.at(-1) !== tokenizer.endOfText) last.ids.push(tokenizer.endOfText);

  const encoded = allocate(parts.reduce((sum, { ids }) => sum + ids.length, 0));
  let at = 0;
  for (const { ids, response } of parts) {
    encoded.tokens.set(ids, at);
    if (response || options.lossOn === "all") encoded.counts.fill(1, at, at + ids.length);
    at += ids.length;
  }
  encoded.counts[0] = 0;
  return encoded;
}

/**
 * Checks, without the work of tokenising, that an example can be encoded.
 *
 * @param example The example.
 * @param tokenizer The model's tokenizer.
 * @param lossOn What counts.
 * @param where What messages call the example.
 * @throws {WhetError} As {@linkcode encodeExample}.
 */
export function checkExample(example: Example, tokenizer: Encoder, lossOn: LossOn, where: string): void {
  if ("tokens" in example) {
    for (let i = 0; i < example.tokens.length; i++) {
      if (example.tokens[i] < tokenizer.vocabSize) continue;
      throw new WhetError(
        "format",
        `${where}, field "tokens": token ${example.tokens[i]} at index ${i} is beyond the vocabulary of ` +
          `${tokenizer.vocabSize}; encode it with this model's tokenizer`,
      );
    }
  }
  if (lossOn === "all") return;
  if ("tokens" in example || !segments(example).some(({ response }) => response)) {
    const what = "tokens" in example
      ? "token ids have no turns"
      : String.raw`it has no "\n\nAssistant:" turn`;
    throw new WhetError(
      "format",
      `${where}: nothing to learn with the loss on responses: ${what}; put the loss on all, ` +
        'or give "prompt" and "response"',
    );
  }
}

/** The stretches of an example's text that are tokenised apart; at least one. */
function segments(example: Exclude<Example, { tokens: ArrayLike<number> }>): Segment[] {
  if ("text" in example) return turns(example.text);
  if ("chosen" in example) return turns(example.chosen);
  return [{ text: example.prompt, response: false }, { text: example.response, response: true }];
}

/** Tokens and counts of n tokens in one piece of memory: data sets have many short examples. */
function allocate(n: number): EncodedExample {
  const memory = new ArrayBuffer(5 * n);
  return { tokens: new Uint32Array(memory, 0, n), counts: new Uint8Array(memory, 4 * n, n) };
}
