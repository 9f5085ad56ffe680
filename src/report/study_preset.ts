/**
 * The study that Whet repeats: what is known of its setting, and what Whet chose where nothing is.
 *
 * @module
 */
import type { StudyResult } from "./study_result.ts";
import { formatDuration, formatNumber } from "./text.ts";

/**
 * The study's setting. Model, data, method, optimizer, loss, steps, number of questions and judge are the
 * original's; the rest (adapter's shape, batches, learning rate, sampling) is Whet's choice.
 */
export const STUDY_PRESET = {
  model: "openai-community/gpt2",
  data: "Anthropic/hh-rlhf/helpful-base/train.jsonl.gz",
  evalData: "Anthropic/hh-rlhf/helpful-base/test.jsonl.gz",
  rewardModel: "OpenAssistant/reward-model-deberta-v3-large-v2",
  questions: 50,
  lora: { rank: 8, alpha: 16, targets: ["c_attn"] as string[] },
  // A dialogue a step: 60,000 steps are then one and a third passes over the 43,835 dialogues.
  training: {
    steps: 60_000,
    batchSize: 1,
    sequenceLength: 512,
    packing: false,
    lossOn: "all",
    learningRate: 2e-4,
    schedule: "linear",
    weightDecay: 0,
  },
  sampling: { maxTokens: 128, temperature: 0.7, topP: 0.9 },
} as const;

/** One line of the comparison with the original. */
export interface Comparison {
  /** What is compared. */
  what: string;
  /** What the original has; absent where it is not known. */
  original?: string;
  /** What this study has. */
  here: string;
}

/**
 * Sets a study beside the original.
 *
 * @param result What was found.
 * @returns Lines for the report, what is known of the original first.
 */
export function compareWithOriginal(result: Omit<StudyResult, "comparison">): Comparison[] {
  const { scores, settings, points, answers } = result;
  const score = (value: number | undefined) =>
    value === undefined ? "not scored" : `${value < 0 ? "−" : ""}${Math.abs(value).toFixed(4)}`;
  const trained = points.length > 0;
  const own = (name: string) => String(settings[name] ?? "as the adapter was trained");
  return [
    { what: "model", original: "GPT-2", here: result.model },
    {
      what: "data",
      original: "HH-RLHF helpful-base: 43,835 dialogues, 2,354 to test with",
      here: result.data,
    },
    {
      what: "method",
      original: "supervised fine-tuning with LoRA",
      here: trained ? "the same" : "an adapter",
    },
    { what: "loss", original: "cross-entropy", here: "the same" },
    {
      what: "optimizer",
      original: "Adam",
      here: trained ? "Adam, without weight decay" : own("optimizer"),
    },
    { what: "steps", original: "about 60,000", here: formatNumber(points.length) },
    { what: "questions", original: "50", here: formatNumber(answers.length) },
    {
      what: "judge",
      original: "OpenAssistant/reward-model-deberta-v3-large-v2",
      here: scores?.judge ?? "none",
    },
    { what: "mean score, plain", original: "−0.6233", here: score(scores?.meanBase) },
    { what: "mean score, fine-tuned", original: "−0.5658", here: score(scores?.meanTuned) },
    { what: "time", original: "about half a day on a P100", here: formatDuration(result.seconds) },
    { what: "adapter", here: `rank ${own("rank")}, alpha ${own("alpha")}, on ${own("targets")}` },
    {
      what: "batch",
      here: `${own("batch size")} × up to ${own("sequence length")} tokens${
        settings.packing === "no" ? ", a dialogue a row" : ""
      }; loss on ${own("loss on")}`,
    },
    {
      what: "learning rate",
      here: trained
        ? `${own("learning rate")}, ${own("schedule")}; gradients clipped to norm ${own("gradient norm")}`
        : own("learning rate"),
    },
    {
      what: "sampling",
      here: `temperature ${own("temperature")}, top-p ${own("top-p")}, ${own("answers up to")}, seed ${
        own("seed")
      }`,
    },
  ];
}
