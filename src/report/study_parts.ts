/**
 * What a study does to both of its models: it measures their loss and has them answer questions.
 *
 * @module
 */
import { BatchStream } from "../data/batches.ts";
import type { Batch } from "../data/batches.ts";
import type { Dialogues } from "../data/dialogues.ts";
import { lastExchange } from "../data/example.ts";
import { WhetError } from "../errors.ts";
import type { GPT2 } from "../gpt2.ts";
import { evaluate, type Evaluation } from "../score/evaluate.ts";
import { bits } from "../tensor/random.ts";
import { STOP } from "../text/templates.ts";
import type { TrainSettings } from "../train/options.ts";
import type { StudyRecord } from "./study_record.ts";

/** Who is told how far a part is, and what ends it. */
export interface PartOptions {
  /** Where it is recorded. */
  record: StudyRecord;
  /** Called as it proceeds. */
  onProgress?: (done: number, total: number) => void;
  /** Ends it when aborted; what was done up to there is recorded. */
  signal?: AbortSignal;
}

/** A loss and how long it took to find. */
export type TimedEvaluation = Omit<Evaluation, "perplexity"> & { seconds: number };

/** An answer and how long it took to give. */
export interface TimedAnswer {
  /** What was said, without space around it. */
  text: string;
  /** Seconds. */
  seconds: number;
}

/** How questions are answered. */
export interface AnswerSampling {
  /** The most tokens of an answer. */
  maxTokens: number;
  /** 0 takes the likeliest token each time. */
  temperature: number;
  /** Only the k likeliest tokens; 0 for all. */
  topK: number;
  /** Only the likeliest tokens of this probability together. */
  topP: number;
}

/** How batches of held-out data are made: as those that are trained on. */
export type HeldOut = Pick<TrainSettings, "batchSize" | "sequenceLength" | "lossOn" | "packing">;

/** Keep random numbers for one purpose apart from those for another. */
const QUESTIONS = 0x9e57, ANSWERS = 0xa450;

/**
 * Mean loss on held-out data, with the adapter that is attached.
 *
 * @param model The model.
 * @param held The data.
 * @param how How they are cut into batches.
 * @param part Which part it is recorded as.
 * @param options Record, progress, signal.
 * @returns The loss, from the record if it is there.
 */
export async function measureLoss(
  model: GPT2,
  held: Dialogues,
  how: HeldOut,
  part: "loss-base" | "loss-tuned",
  { record, onProgress, signal }: PartOptions,
): Promise<TimedEvaluation> {
  const known = await record.read<TimedEvaluation>(
    part,
    ({ loss, tokens, seconds }) => [loss, tokens, seconds].every(Number.isFinite),
  );
  if (known) return known;
  const begin = performance.now();
  const stream = new BatchStream(held, model.tokenizer, { ...how, shuffle: false, epochs: 1 });
  const total = await stream.total();
  const batches = async function* (): AsyncGenerator<Batch, void, undefined> {
    for await (const batch of stream) {
      signal?.throwIfAborted();
      yield batch;
      onProgress?.(stream.stats.batches, total);
    }
  };
  const { loss, tokens } = await evaluate(model, batches());
  if (!Number.isFinite(loss)) {
    const whose = part === "loss-base" ? "its weights are broken" : "the adapter is broken";
    throw new WhetError("diverged", `${model.name}: the loss of held-out data is not a number; ${whose}`);
  }
  const found = { loss, tokens, seconds: (performance.now() - begin) / 1000 };
  await record.write(part, found);
  return found;
}

/**
 * Held-out dialogues whose last question fits the window with its answer, chosen by seed.
 *
 * @param model Whose window and tokenizer count.
 * @param held The dialogues.
 * @param options How many, how long answers may be, which seed.
 * @returns Questions, each with the data's own answer; fewer where there are no more.
 */
export function pickQuestions(
  model: GPT2,
  held: Dialogues,
  { questions, maxTokens, seed }: { questions: number; maxTokens: number; seed: number },
): { prompt: string; reference: string }[] {
  const order = [...held].map((example, i) => ({ example, key: bits(i, [seed >>> 0, QUESTIONS]) }));
  order.sort((a, b) => a.key - b.key);
  const picked: { prompt: string; reference: string }[] = [];
  for (const { example } of order) {
    if (picked.length === questions) break;
    const exchange = exchangeOf(example);
    if (!exchange || exchange.prompt === "") continue;
    const { prompt, response } = exchange;
    if (model.tokenizer.encode(prompt).length + maxTokens > model.config.n_positions) continue;
    picked.push({ prompt, reference: response.trim() });
  }
  return picked;
}

/** The last question and answer of an example, if it has one. */
function exchangeOf(
  example: Parameters<typeof lastExchange>[0],
): { prompt: string; response: string } | null {
  try {
    return lastExchange(example);
  } catch (error) {
    if (error instanceof WhetError) return null;
    throw error;
  }
}

/**
 * Answers questions, from where the record ends, with the adapter that is attached.
 *
 * Each is answered alone, with a seed of its own made of the study's and the question's number: what is
 * said depends on nothing else, neither on the other questions nor on what an earlier process had done. The
 * same seed serves both models.
 *
 * @param model The model.
 * @param prompts The questions.
 * @param sampling How tokens are chosen, and the study's seed.
 * @param part Which part it is recorded as.
 * @param options Record, progress, signal.
 * @returns An answer to each.
 */
export async function answerQuestions(
  model: GPT2,
  prompts: readonly string[],
  { seed, ...sampling }: AnswerSampling & { seed: number },
  part: "answers-base" | "answers-tuned",
  { record, onProgress, signal }: PartOptions,
): Promise<TimedAnswer[]> {
  const known = await record.read<{ answers: TimedAnswer[] }>(
    part,
    ({ answers }) =>
      answers.length <= prompts.length &&
      answers.every(({ text, seconds }) => typeof text === "string" && Number.isFinite(seconds)),
  );
  const answers = known?.answers ?? [];
  while (answers.length < prompts.length) {
    const begin = performance.now();
    const number = answers.length;
    const options = { ...sampling, seed: bits(number, [seed >>> 0, ANSWERS]), stop: STOP, signal };
    let text = "";
    for await (const chunk of model.generate(prompts[number], options)) text += chunk.text;
    answers.push({ text: text.trim(), seconds: (performance.now() - begin) / 1000 });
    await record.write(part, { answers });
    onProgress?.(answers.length, prompts.length);
  }
  return answers;
}
