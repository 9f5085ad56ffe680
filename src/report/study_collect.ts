/**
 * Puts a study's parts together: the figures, what was set, where and how long it ran.
 *
 * @module
 */
import type { GPT2 } from "../gpt2.ts";
import type { Lora } from "../model/lora.ts";
import type { MetricsLine } from "../train/metrics.ts";
import { checkTrainOptions, type TrainOptions } from "../train/options.ts";
import { VERSION } from "../version.ts";
import type { RecordedScores } from "./study_judge.ts";
import type { AnswerSampling, HeldOut, TimedAnswer, TimedEvaluation } from "./study_parts.ts";
import { compareWithOriginal } from "./study_preset.ts";
import type { StudyAnswer, StudyResult, StudyScores } from "./study_result.ts";

/** All parts of a study. */
export interface StudyParts {
  /** The model, with the adapter attached. */
  model: GPT2;
  /** The data, in a phrase. */
  description: string;
  /** The plain model's loss. */
  before: TimedEvaluation;
  /** The tuned model's. */
  after: TimedEvaluation;
  /** The plain model's answers. */
  plain: readonly TimedAnswer[];
  /** The tuned model's. */
  tuned: readonly TimedAnswer[];
  /** Questions with both. */
  answers: readonly StudyAnswer[];
  /** A score of every answer, if there is a judge. */
  scores?: RecordedScores;
  /** What the scores say together. */
  summary?: StudyScores;
  /** Every step of the training. */
  lines: readonly MetricsLine[];
  /** The adapter. */
  lora: Lora;
  /** The training's options; null where an adapter was given. */
  training: TrainOptions | null;
  /** How answers were sampled. */
  sampling: AnswerSampling;
  /** How held-out data were cut. */
  how: HeldOut;
  /** Seed of everything random. */
  seed: number;
  /** Whether to set it beside the original. */
  comparison: boolean;
}

/**
 * Puts them together.
 *
 * @param parts The parts.
 * @returns Everything that a report tells.
 */
export function collectResult(parts: StudyParts): StudyResult {
  const { model, before, after, plain, tuned, lines, lora, scores, summary } = parts;
  const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
  const answering = (answers: readonly TimedAnswer[]) => sum(answers.map(({ seconds }) => seconds));
  const times: Record<string, number> = {
    "loss, plain": before.seconds,
    "answers, plain": answering(plain),
    ...(parts.training ? { training: sum(lines.map(({ seconds = 0 }) => seconds)) } : {}),
    "loss, fine-tuned": after.seconds,
    "answers, fine-tuned": answering(tuned),
    ...(scores ? { scores: scores.seconds } : {}),
  };
  const tokens = sum(lines.map(({ tokens }) => tokens));
  const pace = tokens / sum(lines.map(({ tokens, tokens_per_second }) => tokens / tokens_per_second));
  const result: StudyResult = {
    model: model.name,
    data: parts.description,
    ...(parts.training ? {} : { adapter: lora.name }),
    lossBase: before.loss,
    lossTuned: after.loss,
    perplexityBase: Math.exp(before.loss),
    perplexityTuned: Math.exp(after.loss),
    evalTokens: before.tokens,
    points: lines.map(({ step, loss }) => ({ step, loss })),
    evalPoints: parts.training
      ? [
        { step: 0, loss: before.loss },
        ...lines.flatMap(({ step, eval_loss }) => eval_loss === undefined ? [] : [{ step, loss: eval_loss }]),
      ]
      : [],
    answers: parts.answers.map((answer, i) =>
      scores ? { ...answer, scoreBase: scores.base[i], scoreTuned: scores.tuned[i] } : answer
    ),
    ...(summary ? { scores: summary } : {}),
    settings: settingsOf(parts),
    parametersTrained: lora.parameterCount,
    parametersTotal: model.parameterCount,
    tokensPerSecond: Number.isFinite(pace) ? pace : 0,
    seconds: sum(Object.values(times)),
    times,
    environment: {
      whet: VERSION,
      deno: globalThis.Deno?.version.deno ?? "none",
      backend: model.backend.description,
      ...(globalThis.Deno ? { device: `${Deno.build.arch}, ${Deno.build.os}` } : {}),
    },
  };
  return parts.comparison ? { ...result, comparison: compareWithOriginal(result) } : result;
}

function settingsOf(
  { model, lora, training, lines, sampling, how, seed }: StudyParts,
): StudyResult["settings"] {
  const { rank, alpha, targets, dropout } = lora.config;
  const adapter = { rank, alpha, targets: [targets].flat().join(", ") };
  let trained: StudyResult["settings"] = {};
  if (training) {
    const checked = checkTrainOptions(model, training);
    const { batchSize, accumulate, learningRate, schedule, warmupSteps, weightDecay, maxGradNorm } = checked;
    trained = {
      ...{ steps: lines.length, "batch size": batchSize },
      ...(accumulate > 1 ? { "batches per step": accumulate } : {}),
      ...{ "learning rate": learningRate, schedule, "warm-up steps": warmupSteps },
      ...{ optimizer: weightDecay === 0 ? "Adam" : "AdamW", "weight decay": weightDecay },
      ...{ "gradient norm": maxGradNorm === 0 ? "any" : `up to ${maxGradNorm}`, dropout },
    };
  }
  const { maxTokens, temperature, topK, topP } = sampling;
  return {
    ...trained,
    ...adapter,
    ...{ "sequence length": how.sequenceLength, packing: how.packing ? "yes" : "no", "loss on": how.lossOn },
    ...{ weights: model.weights, "answers up to": `${maxTokens} tokens`, temperature },
    ...(topK > 0 ? { "top-k": topK } : {}),
    ...{ "top-p": topP, seed },
  };
}
