/**
 * `/v1/chat/completions`: the next turn of a dialogue.
 *
 * @module
 */
import type { Scored } from "../generate/log_probs.ts";
import { formatPrompt, STOP, type Turn } from "../text/templates.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { nameOf, samplingOf } from "./completions.ts";
import { ApiError } from "./errors.ts";
import type { Piece, Wanted } from "./pieces.ts";
import type { ChatRequest } from "./schemas.ts";
import type { Service } from "./service.ts";

/** Tokens of an answer at most, where nothing is said. */
const MAX_TOKENS = 256;

/**
 * The texts that a request asks for.
 *
 * @param service Who will work on them.
 * @param request The request.
 * @returns They, and how many tokens the prompt has.
 * @throws {ApiError} Where it cannot be.
 */
export async function chatsOf(
  service: Service,
  request: ChatRequest,
): Promise<{ wanted: Wanted[]; promptTokens: number }> {
  const n = request.n ?? 1;
  const { text, stop } = await promptOf(service, request);
  const model = service.admit(request.model, n); // From here to the beginning nobody comes between.
  const given = request.max_completion_tokens ?? request.max_tokens;
  const tokens = service.tokensOf(text, given ?? 1, "messages");
  const room = service.model.config.n_positions - tokens.length;
  if (request.top_logprobs && !request.logprobs) {
    throw new ApiError(400, "top_logprobs: it needs logprobs: true", { param: "top_logprobs" });
  }
  const sampling = samplingOf(request);
  const wanted = Array.from({ length: n }, (_, choice): Wanted => ({
    ...sampling,
    ...{ model, tokens, choice },
    stop: [...stop, ...[sampling.stop ?? []].flat()],
    maxTokens: given ?? Math.min(MAX_TOKENS, room),
    alternatives: request.top_logprobs ?? undefined,
  }));
  return { wanted, promptTokens: tokens.length };
}

/** The dialogue as one text: by the model's own template, or Human and Assistant. */
async function promptOf(
  service: Service,
  { messages }: ChatRequest,
): Promise<{ text: string; stop: readonly string[] }> {
  const said = messages.map(({ role, content }) => ({
    role,
    content: typeof content === "string" ? content : (content ?? []).map(({ text }) => text).join(""),
  }));
  const { chatTemplate } = service.options;
  if (chatTemplate !== undefined) {
    const { Template } = await import("npm:@huggingface/jinja@0.5.11");
    const eos_token = service.model.tokenizer.decode([service.model.tokenizer.endOfText]);
    try {
      const variables = { messages: said, add_generation_prompt: true, bos_token: eos_token, eos_token };
      return { text: new Template(chatTemplate).render(variables), stop: [] };
    } catch (error) {
      throw new ApiError(
        400,
        `messages: the model's chat template refuses them: ${(error as Error).message}`,
        {
          param: "messages",
        },
      );
    }
  }
  if (said.at(-1)!.role !== "user") {
    throw new ApiError(400, "messages: the last one must be the user's, which is to be answered", {
      param: "messages",
    });
  }
  const turns: Turn[] = [];
  let before = ""; // What the system says goes into the turn that follows.
  for (const { role, content } of said) {
    if (role === "system" || role === "developer") {
      before += `${withoutMarkers(content)}\n\n`;
      continue;
    }
    turns.push({ role: role === "user" ? "human" : "assistant", text: before + withoutMarkers(content) });
    before = "";
  }
  return { text: formatPrompt(turns), stop: [STOP] };
}

/** Text that cannot be taken for a turn of its own: a marker counts only after an empty line. */
function withoutMarkers(text: string): string {
  return text.trim().replaceAll(/\n+(?=\n(Human|Assistant):)/g, "");
}

/** One token as chats have it. */
function tokenLogProb(tokenizer: Tokenizer, token: number, logProb: number | null) {
  const bytes = tokenizer.bytes(token);
  return { token: nameOf(tokenizer, token), logprob: logProb ?? 0, bytes: [...bytes] };
}

/** OpenAI's log-probabilities of a stretch of a chat. */
export function chatLogProbs(tokenizer: Tokenizer, scored: readonly Scored[]) {
  return {
    content: scored.map(({ token, logProb, alternatives = [] }) => ({
      ...tokenLogProb(tokenizer, token, logProb),
      top_logprobs: alternatives.map(({ token, logProb }) => tokenLogProb(tokenizer, token, logProb)),
    })),
    refusal: null,
  };
}

/** Choices of a whole answer out of its pieces. */
export function joinChats(
  tokenizer: Tokenizer,
  pieces: readonly Piece[],
  { logprobs }: ChatRequest,
  count: number,
) {
  return Array.from({ length: count }, (_, index) => {
    const own = pieces.filter((piece) => piece.index === index);
    const content = own.map(({ text }) => text).join("").replace(/^ /, ""); // The template has no space after its colon.
    return {
      index,
      message: { role: "assistant" as const, content, refusal: null },
      logprobs: logprobs ? chatLogProbs(tokenizer, own.flatMap(({ scored }) => scored)) : null,
      finish_reason: own.at(-1)?.finishReason ?? null,
    };
  });
}
