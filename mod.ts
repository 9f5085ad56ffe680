/**
 * Whet fine-tunes GPT-2 with LoRA, generates with it and scores it: on the GPU that WebGPU finds, or on
 * SIMD WebAssembly where there is none.
 *
 * Imported, this module is a library; run as a program (`deno run -A mod.ts --help`), it is a command.
 *
 * @example
 * ```ts
 * import { GPT2, Lora, train } from "./mod.ts";
 *
 * using model = await GPT2.load("nano");
 * const lora = Lora.create(model, { rank: 4 });
 * const data = [{ prompt: "\n\nHuman: Hi\n\nAssistant:", response: " Hello!" }];
 * for await (const step of train(model, data, { lora, steps: 5 })) console.log(step.loss);
 * for await (const chunk of model.generate("\n\nHuman: Hi\n\nAssistant:", { maxTokens: 16 })) console.log(chunk.text);
 * ```
 *
 * @module
 */
export { type ErrorCode, WhetError } from "./src/errors.ts";
export { GPT2 } from "./src/gpt2.ts";
export { Lora, type LoraConfig, type LoraModule, type LoraOptions } from "./src/model/lora.ts";
export type { AdapterModule } from "./src/format/peft.ts";
export { LanguageModel } from "./src/model/language_model.ts";
export type { BackendOptions, LoadOptions, RandomOptions } from "./src/model/load.ts";
export type { GPT2Config, GPT2Shape } from "./src/model/config.ts";
export { train, type TrainStep } from "./src/train/trainer.ts";
export type { TrainOptions } from "./src/train/options.ts";
export type { Schedule } from "./src/train/schedule.ts";
export { Dialogues, type DialoguesOptions } from "./src/data/dialogues.ts";
export { type Example, lastExchange } from "./src/data/example.ts";
export type { ExampleSource } from "./src/data/examples.ts";
export type { Progress } from "./src/format/repository.ts";
export type { FinishReason, GeneratedChunk, GenerateOptions, Prompt } from "./src/generate/decode.ts";
export type { Backend, BackendStats } from "./src/tensor/backend.ts";
export type { WeightFormat } from "./src/tensor/tensor.ts";
export { StreamingDecoder, type Tokenizer } from "./src/text/tokenizers.ts";
export { RewardModel, type RewardOptions } from "./src/score/reward.ts";
export type { ScoredPair, ScoreOptions, Scorer } from "./src/score/scorer.ts";
export {
  createJudge,
  type Judge,
  type Judgement,
  type JudgeOptions,
  type RateOptions,
} from "./src/score/judge.ts";
export type { ChatEndpointOptions } from "./src/score/chat_endpoint.ts";
export { createHandler, type Handler, type HandlerOptions } from "./src/serve/handler.ts";
export type { ServiceOptions } from "./src/serve/service.ts";
export type { SchedulerOptions } from "./src/generate/scheduler.ts";
export { type Study, study, type StudyOptions, type StudyProgress } from "./src/report/study.ts";
export type { Activation, DebertaConfig, HeadActivation } from "./src/model/deberta_config.ts";
export type { LazyScorer, StudyJudge } from "./src/report/study_judge.ts";
export type { PairEncoding, UnigramTokenizer } from "./src/text/unigram_tokenizer.ts";
export type { StudyAnswer, StudyResult, StudyScores } from "./src/report/study_result.ts";
export type { LossPoint } from "./src/report/series.ts";
export type { SamplingOptions } from "./src/generate/sampler.ts";

if (import.meta.main) {
  const { main } = await import("./src/cli/main.ts");
  Deno.exit(await main(Deno.args));
}
