/**
 * `/v1/completions`: continuations of texts.
 *
 * @module
 */
import type { Scored } from "../generate/log_probs.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { ApiError } from "./errors.ts";
import type { Piece, Wanted } from "./pieces.ts";
import type { CompletionRequest } from "./schemas.ts";
import type { Service } from "./service.ts";

/** OpenAI's default. */
const MAX_TOKENS = 16;

/** What both kinds of completion are sampled with. */
export function samplingOf(
  { temperature, top_p, top_k, repetition_penalty, seed, stop }: Pick<
    CompletionRequest,
    "temperature" | "top_p" | "top_k" | "repetition_penalty" | "seed" | "stop"
  >,
): Pick<Wanted, "temperature" | "topP" | "topK" | "repetitionPenalty" | "seed" | "stop"> {
  return {
    temperature: temperature ?? 1,
    topP: top_p ?? 1,
    topK: top_k ?? 0,
    repetitionPenalty: repetition_penalty ?? 1,
    seed: seed ?? undefined,
    stop: stop ?? undefined,
  };
}

/**
 * The texts that a request asks for.
 *
 * @param service Who will work on them.
 * @param request The request.
 * @returns They, and how many tokens the prompts have.
 * @throws {ApiError} Where it cannot be.
 */
export function completionsOf(
  service: Service,
  request: CompletionRequest,
): { wanted: Wanted[]; promptTokens: number } {
  const { prompt, echo, n } = request;
  const most = request.max_tokens ?? MAX_TOKENS;
  if (most === 0 && !echo) {
    throw new ApiError(400, "max_tokens: 0 is for echo only; ask for at least 1", { param: "max_tokens" });
  }
  const isMany = typeof prompt !== "string" && typeof prompt[0] !== "number";
  const prompts = (isMany ? prompt : [prompt]) as (string | number[])[];
  const model = service.admit(request.model, prompts.length * (n ?? 1));
  const alternatives = request.logprobs ?? undefined;
  let promptTokens = 0;
  const wanted = prompts.flatMap((prompt) => {
    const tokens = service.tokensOf(prompt, most, "prompt");
    promptTokens += tokens.length;
    const echoed = typeof prompt === "string" ? prompt : service.model.tokenizer.decode(prompt);
    return Array.from({ length: n ?? 1 }, (_, choice): Wanted => ({
      ...samplingOf(request),
      ...{ model, tokens, maxTokens: most, choice, alternatives },
      ...(echo ? { echo: echoed, scorePrompt: alternatives !== undefined } : {}),
    }));
  });
  return { wanted, promptTokens };
}

/** OpenAI's log-probabilities of a stretch of text. */
interface CompletionLogProbs {
  tokens: string[];
  token_logprobs: (number | null)[];
  top_logprobs: (Record<string, number> | null)[] | null;
  text_offset: number[];
}

/** Makes the choices of one request out of pieces. */
export class CompletionChoices {
  /** Tokens that came, without the prompts'. */
  tokens = 0;
  readonly #offsets: number[];

  /**
   * @param tokenizer The model's.
   * @param request What was asked.
   * @param count How many texts there are.
   */
  constructor(
    private readonly tokenizer: Tokenizer,
    private readonly request: CompletionRequest,
    count: number,
  ) {
    this.#offsets = new Array(count).fill(0);
  }

  /**
   * A piece as a choice of a stream's chunk.
   *
   * @param piece The piece.
   */
  choice({ index, text, scored, isPrompt, finishReason }: Piece) {
    if (!isPrompt) this.tokens += scored.length;
    const wanted = this.request.logprobs !== null && this.request.logprobs !== undefined;
    return {
      index,
      text,
      logprobs: wanted ? this.#logProbs(index, scored) : null,
      finish_reason: finishReason,
    };
  }

  #logProbs(index: number, scored: readonly Scored[]): CompletionLogProbs {
    const name = (token: number) => nameOf(this.tokenizer, token);
    const tokens = scored.map(({ token }) => name(token));
    return {
      tokens,
      token_logprobs: scored.map(({ logProb }) => logProb),
      top_logprobs: this.request.logprobs
        ? scored.map(({ alternatives }) =>
          alternatives
            ? Object.fromEntries(alternatives.map(({ token, logProb }) => [name(token), logProb]))
            : null
        )
        : null,
      text_offset: tokens.map(({ length }) => (this.#offsets[index] += length) - length),
    };
  }
}

/** A token's text; bytes that are no text as OpenAI writes them. */
export function nameOf(tokenizer: Tokenizer, token: number): string {
  const bytes = tokenizer.bytes(token);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
      bytes as Uint8Array<ArrayBuffer>,
    );
  } catch {
    return "bytes:" + Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
  }
}

/** Choices of a whole answer out of those of its chunks. */
export function joinCompletions(chunks: readonly ReturnType<CompletionChoices["choice"]>[], count: number) {
  return Array.from({ length: count }, (_, index) => {
    const own = chunks.filter((chunk) => chunk.index === index);
    const logprobs = own.map(({ logprobs }) => logprobs).filter((logprobs) => logprobs !== null);
    const joined = logprobs.length === 0 ? null : {
      tokens: logprobs.flatMap(({ tokens }) => tokens),
      token_logprobs: logprobs.flatMap(({ token_logprobs }) => token_logprobs),
      top_logprobs: logprobs[0].top_logprobs && logprobs.flatMap(({ top_logprobs }) => top_logprobs!),
      text_offset: logprobs.flatMap(({ text_offset }) => text_offset),
    };
    return {
      index,
      text: own.map(({ text }) => text).join(""),
      logprobs: joined,
      finish_reason: own.findLast(({ finish_reason }) => finish_reason)?.finish_reason ?? null,
    };
  });
}
