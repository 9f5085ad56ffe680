/**
 * What requests may say, for validation and for the OpenAPI document alike.
 *
 * @module
 */
import { z } from "npm:@hono/zod-openapi@1.6.3";

/** A number that OpenAI has and Whet has not: only its neutral value is taken. */
const neutral = (value: number) =>
  z.literal(value, { error: `only ${value} is supported` }).nullish().openapi({
    description: "Only its neutral value.",
  });

const stop = z.union([z.string().min(1), z.array(z.string().min(1)).max(4)]).nullish()
  .openapi({ description: "Ends the text when one of these appears; it is not part of it." });

/** What both kinds of completion have. */
const sampling = {
  model: z.string().min(1).optional().openapi({
    description: "The base model or an adapter; the base where it is left out.",
  }),
  temperature: z.number().min(0).max(2).nullish().openapi({
    description: "0 takes the likeliest token [1].",
  }),
  top_p: z.number().gt(0).max(1).nullish().openapi({
    description: "Only the likeliest tokens that together have this probability [1].",
  }),
  top_k: z.int().min(0).nullish().openapi({
    description: "Only the k likeliest tokens; 0 for all [0]. Not OpenAI's.",
  }),
  repetition_penalty: z.number().gt(0).max(100).nullish().openapi({
    description: "Divides the logits of tokens that were there already [1]. Not OpenAI's.",
  }),
  n: z.int().min(1).max(16).nullish().openapi({ description: "Continuations of each prompt [1]." }),
  seed: z.int().nullish().openapi({ description: "The same seed gives the same text." }),
  stop,
  stream: z.boolean().nullish().openapi({
    description: "Whether tokens come as server-sent events [false].",
  }),
  stream_options: z.object({
    include_usage: z.boolean().nullish(),
    include_obfuscation: z.boolean().nullish(),
  }).nullish(),
  presence_penalty: neutral(0),
  frequency_penalty: neutral(0),
  logit_bias: z.record(z.string(), z.number()).nullish().refine(
    (bias) => !bias || Object.keys(bias).length === 0,
    {
      error: "logit_bias is not supported",
    },
  ),
  user: z.string().nullish(),
};

/** A list that OpenAI has and Whet has not: only an empty one is taken. */
const none = (name: string) => z.array(z.unknown()).max(0, { error: `${name} are not supported` }).nullish();

const tokens = z.array(z.int().min(0)).min(1);

/** The body of `/v1/completions`. */
export const completionRequest = z.object({
  ...sampling,
  prompt: z.union([z.string(), tokens, z.array(z.string()).min(1).max(64), z.array(tokens).min(1).max(64)])
    .openapi({ description: "A text or its tokens, or several." }),
  max_tokens: z.int().min(0).nullish().openapi({ description: "Tokens at most [16]; 0 only with echo." }),
  logprobs: z.int().min(0).max(20).nullish().openapi({
    description: "How many of the likeliest tokens come with each.",
  }),
  echo: z.boolean().nullish().openapi({ description: "Whether the prompt comes back too [false]." }),
  best_of: neutral(1),
  suffix: z.null({ error: "suffix is not supported" }).optional(),
}).openapi("CompletionRequest");

const content = z.union([
  z.string(),
  z.array(z.object({ type: z.literal("text", { error: "only text is supported" }), text: z.string() })),
]);

/** The body of `/v1/chat/completions`. */
export const chatRequest = z.object({
  ...sampling,
  messages: z.array(z.object({
    role: z.enum(["system", "developer", "user", "assistant"]),
    content: content.nullish(),
    name: z.string().nullish(),
  })).min(1).openapi({ description: "The dialogue so far, the user's message last." }),
  max_tokens: z.int().min(1).nullish().openapi({ description: "As max_completion_tokens." }),
  max_completion_tokens: z.int().min(1).nullish().openapi({
    description: "Tokens at most [as the window allows, 256 at most].",
  }),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
  tools: none("tools"),
  functions: none("functions"),
  response_format: z.object({ type: z.literal("text", { error: "only text is supported" }) }).nullish(),
}).openapi("ChatRequest");

/** The body of `/v1/score`. */
export const scoreRequest = z.object({
  model: sampling.model,
  input: z.union([
    z.string(),
    z.array(z.union([z.string(), z.object({ prompt: z.string(), response: z.string() })])).min(1).max(64),
  ])
    .openapi({ description: "Texts, or answers to prompts." }),
}).openapi("ScoreRequest");

/** The body of `POST /v1/adapters`. */
export const adapterRequest = z.object({
  id: z.string().regex(/^[\w.:-]+(\/[\w.:-]+)*$/).openapi({ description: "What requests call it." }),
  source: z.string().min(1).openapi({
    description: "A directory of the server, an http(s) URL or a Hub id.",
  }),
}).openapi("AdapterRequest");

/** What a completion is asked for. */
export type CompletionRequest = z.infer<typeof completionRequest>;
/** What a chat completion is asked for. */
export type ChatRequest = z.infer<typeof chatRequest>;
/** What is to be scored. */
export type ScoreRequest = z.infer<typeof scoreRequest>;

/** The error that every route may answer with. */
export const errorResponse = z.object({
  error: z.object({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string().nullable(),
  }),
}).openapi("Error");

const usage = z.object({
  prompt_tokens: z.int(),
  completion_tokens: z.int(),
  total_tokens: z.int(),
}).openapi("Usage");

const finishReason = z.enum(["stop", "length"]).nullable();

/** What every completion has. */
const frame = {
  id: z.string(),
  created: z.int(),
  model: z.string(),
  system_fingerprint: z.string(),
  usage,
};

/** The answer of `/v1/completions`. */
export const completionResponse = z.object({
  ...frame,
  object: z.literal("text_completion"),
  choices: z.array(z.object({
    index: z.int(),
    text: z.string(),
    logprobs: z.object({
      tokens: z.array(z.string()),
      token_logprobs: z.array(z.number().nullable()),
      top_logprobs: z.array(z.record(z.string(), z.number()).nullable()).nullable(),
      text_offset: z.array(z.int()),
    }).nullable(),
    finish_reason: finishReason,
  })),
}).openapi("Completion");

const tokenLogProb = z.object({ token: z.string(), logprob: z.number(), bytes: z.array(z.int()) });

/** The answer of `/v1/chat/completions`. */
export const chatResponse = z.object({
  ...frame,
  object: z.literal("chat.completion"),
  choices: z.array(z.object({
    index: z.int(),
    message: z.object({ role: z.literal("assistant"), content: z.string(), refusal: z.null() }),
    logprobs: z.object({
      content: z.array(tokenLogProb.extend({ top_logprobs: z.array(tokenLogProb) })),
      refusal: z.null(),
    }).nullable(),
    finish_reason: finishReason,
  })),
}).openapi("ChatCompletion");

/** The answer of `/v1/score`. */
export const scoreResponse = z.object({
  object: z.literal("list"),
  model: z.string(),
  data: z.array(z.object({
    index: z.int(),
    object: z.literal("score"),
    log_likelihood: z.number().openapi({ description: "Of the text, or of the answer given its prompt." }),
    tokens: z.int(),
    token_ids: z.array(z.int()),
    token_logprobs: z.array(z.number()),
    reward: z.number().optional().openapi({ description: "Of an answer, where a reward model is loaded." }),
  })),
  reward_model: z.string().optional(),
  usage,
}).openapi("Scores");

/** A model in lists. */
export const modelResponse = z.object({
  id: z.string(),
  object: z.literal("model"),
  created: z.int(),
  owned_by: z.string(),
  parent: z.string().optional().openapi({ description: "An adapter's base model." }),
}).openapi("Model");

/** The answer of `/v1/models`. */
export const modelsResponse = z.object({ object: z.literal("list"), data: z.array(modelResponse) })
  .openapi("Models");

/** The answer of `DELETE /v1/adapters/{id}`. */
export const deletedResponse = z.object({
  id: z.string(),
  object: z.literal("model"),
  deleted: z.literal(true),
}).openapi("Deleted");
