/**
 * Several texts at once, as one stream of pieces.
 *
 * @module
 */
import type { FinishReason } from "../generate/sequence.ts";
import type { Scored } from "../generate/log_probs.ts";
import { Mailbox } from "../generate/mailbox.ts";
import type { Order, Service } from "./service.ts";

/** A piece of one of the texts. */
export interface Piece {
  /** Which text. */
  index: number;
  /** What is to be shown; the prompt's own text too, where it is wanted. */
  text: string;
  /** The tokens that it is about, with their log-probabilities. */
  scored: Scored[];
  /** Whether it is the prompt, come back. */
  isPrompt: boolean;
  /** With the last piece of a text. */
  finishReason: FinishReason | null;
}

/** One text that is wanted, and what of its prompt comes back. */
export interface Wanted extends Order {
  /** The prompt's text, where it is to come back. */
  echo?: string;
}

/**
 * Works on several texts side by side.
 *
 * @param service Who works.
 * @param wanted The texts.
 * @param signal Ends all of them.
 * @returns Their pieces as they come; when one fails, all end.
 */
export async function* pieces(
  service: Service,
  wanted: readonly Wanted[],
  signal: AbortSignal,
): AsyncGenerator<Piece, void, undefined> {
  const controller = new AbortController();
  const both = AbortSignal.any([signal, controller.signal]);
  const mailbox = new Mailbox<Piece>();
  let open = wanted.length;
  const follow = async (index: number, { echo, ...order }: Wanted) => {
    try {
      if (echo !== undefined && !order.scorePrompt) {
        mailbox.push({ index, text: echo, scored: [], isPrompt: true, finishReason: null });
      }
      for await (const chunk of service.run(order, both)) {
        if ("prompt" in chunk) {
          mailbox.push({ index, text: echo ?? "", scored: chunk.prompt, isPrompt: true, finishReason: null });
          continue;
        }
        const { text, token, logProb, alternatives, finishReason = null } = chunk;
        mailbox.push({
          index,
          text,
          scored: [{ token, logProb, alternatives }],
          isPrompt: false,
          finishReason,
        });
      }
      if (order.maxTokens === 0) {
        mailbox.push({ index, text: "", scored: [], isPrompt: false, finishReason: "length" });
      }
      if (--open === 0) mailbox.end();
    } catch (error) {
      mailbox.fail(error);
    }
  };
  wanted.forEach((one, index) => follow(index, one));
  try {
    yield* mailbox;
  } finally {
    mailbox.close();
    controller.abort();
  }
}
