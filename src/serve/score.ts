/**
 * `/v1/score`: how likely texts are, and how good answers.
 *
 * @module
 */
import type { Scored } from "../generate/log_probs.ts";
import { ApiError } from "./errors.ts";
import type { ScoreRequest } from "./schemas.ts";
import type { Service } from "./service.ts";

/**
 * Scores texts, or the answers of pairs.
 *
 * @param service Who works.
 * @param request What is to be scored.
 * @param signal Ends it.
 * @returns For each text its tokens' log-probabilities (of a pair, the answer's) and their sum; rewards of pairs where a
 * reward model is loaded.
 */
export async function scoresOf(service: Service, request: ScoreRequest, signal: AbortSignal) {
  const inputs = Array.isArray(request.input) ? request.input : [request.input];
  const model = service.admit(request.model, inputs.length);
  const { tokenizer } = service.model;
  const texts = inputs.map((input) => {
    if (typeof input === "string") return { tokens: service.tokensOf(input, 0, "input"), from: 1 };
    const before = tokenizer.encode(input.prompt);
    const tokens = service.tokensOf([...before, ...tokenizer.encode(input.response)], 0, "input");
    if (before.length === 0) {
      throw new ApiError(400, "input: a prompt is empty; score the response as a text", { param: "input" });
    }
    return { tokens, from: before.length };
  });
  const pairs = inputs.filter((input) => typeof input !== "string");
  const { reward } = service.options;
  const [scored, rewards] = await Promise.all([
    Promise.all(texts.map(async ({ tokens, from }) => {
      let prompt: Scored[] = [];
      for await (const chunk of service.run({ model, tokens, maxTokens: 0, scorePrompt: true }, signal)) {
        if ("prompt" in chunk) prompt = chunk.prompt;
      }
      return prompt.slice(from);
    })),
    reward && pairs.length > 0 ? reward.score(pairs, { signal }) : null,
  ]);
  const promptTokens = texts.reduce((sum, { tokens }) => sum + tokens.length, 0);
  let next = 0;
  return {
    object: "list",
    model,
    data: scored.map((tokens, index) => {
      const logProbs = tokens.map(({ logProb }) => logProb!);
      return {
        ...{
          index,
          object: "score",
          log_likelihood: logProbs.reduce((sum, x) => sum + x, 0),
          tokens: tokens.length,
        },
        token_ids: tokens.map(({ token }) => token),
        token_logprobs: logProbs,
        ...(rewards && typeof inputs[index] !== "string" ? { reward: rewards[next++] } : {}),
      };
    }),
    ...(reward ? { reward_model: reward.name } : {}),
    usage: { prompt_tokens: promptTokens, completion_tokens: 0, total_tokens: promptTokens },
  };
}
