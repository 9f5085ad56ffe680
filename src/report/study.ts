/**
 * The experiment: a model before and after fine-tuning, by its loss on held-out data and by its answers.
 *
 * @module
 */
import { BatchStream } from "../data/batches.ts";
import type { Dialogues } from "../data/dialogues.ts";
import { lastExchange } from "../data/example.ts";
import { WhetError } from "../errors.ts";
import { GPT2 } from "../gpt2.ts";
import { Lora, type LoraOptions } from "../model/lora.ts";
import { evaluate, type Evaluation } from "../score/evaluate.ts";
import { bits } from "../tensor/random.ts";
import { STOP } from "../text/templates.ts";
import type { TrainOptions } from "../train/options.ts";
import { train, type TrainStep } from "../train/trainer.ts";
import { VERSION } from "../version.ts";
import { studyReport } from "./study_report.ts";
import type { StudyAnswer, StudyResult } from "./study_result.ts";

/** What a study is made of; with nothing given it runs on the model and the dialogues that are part of Whet. */
export interface StudyOptions {
  /** The model to fine-tune; it ends with the adapter attached [nano]. */
  model?: GPT2;
  /** What to fine-tune on [nano's dialogues]. */
  data?: Dialogues;
  /** Held-out data [nano's, or the last tenth of `data`, which is then not trained on]. */
  evalData?: Dialogues;
  /** The adapter's shape [rank 8, alpha 16, all linear layers]. */
  lora?: LoraOptions;
  /** The training's settings. */
  training?: Omit<TrainOptions, "lora" | "evalData" | "checkpoint" | "resume" | "signal">;
  /** How many held-out questions both models answer [8]. */
  questions?: number;
  /** The most tokens of an answer [64]. */
  maxTokens?: number;
  /** Temperature of the answers [0, the likeliest token each time]. */
  temperature?: number;
  /** Seed of everything random [0]. */
  seed?: number;
  /** Called after each training step. */
  onStep?: (step: TrainStep) => void;
  /** Called with a line of words when a part begins. */
  onNote?: (text: string) => void;
  /** Ends the study when aborted. */
  signal?: AbortSignal;
}

/** What a study leaves: figures and answers for the report, and the adapter. */
export interface Study {
  /** Figures, curve and answers. */
  result: StudyResult;
  /** The same as one self-contained HTML page. */
  report: string;
  /** The trained adapter. */
  lora: Lora;
}

/** How nano is tuned where nothing else is said: enough for answers that a newcomer enjoys, in well under a minute. */
export const NANO_TRAINING = { steps: 300, learningRate: 3e-3 } as const;

/** Steps between the evaluations that the curve shows: this many in all. */
const EVALUATIONS = 8;

/**
 * Runs the experiment: evaluates the plain model, lets it answer, fine-tunes it, and does both again.
 *
 * @param options Model, data, settings.
 * @returns Figures and answers, and the adapter.
 * @throws {WhetError} As loading, training and generating do.
 *
 * @example
 * ```ts
 * import { study } from "./study.ts";
 *
 * const { result, report } = await study({ training: { steps: 2 }, questions: 1 });
 * console.log(result.lossBase, result.lossTuned, report.length);
 * ```
 */
export async function study(options: StudyOptions = {}): Promise<Study> {
  const begin = performance.now();
  const { questions = 8, maxTokens = 64, temperature = 0, seed = 0, signal } = options;
  const note = options.onNote ?? (() => {});
  if (!Number.isInteger(questions) || questions < 0) {
    throw new WhetError("option", `questions: expected a whole number of at least 0, got ${questions}`);
  }
  const owned = options.model ? null : await GPT2.load("nano");
  try {
    const model = options.model ?? owned!;
    const { data, held, description } = await readData(options);
    const training = owned ? { ...NANO_TRAINING, ...options.training } : options.training ?? {};
    const sequenceLength = training.sequenceLength ?? Math.min(256, model.config.n_positions);
    const lossOn = training.lossOn ?? (options.data ? "all" : "responses");

    note("the plain model: loss and answers");
    model.detach();
    const evaluateHeld = () => evaluateOn(model, held, { sequenceLength, lossOn });
    const before = await evaluateHeld();
    const asked = pickQuestions(model, held, { questions, maxTokens, seed });
    const prompts = asked.map(({ prompt }) => prompt);
    const sampling = { maxTokens, temperature, seed, stop: STOP, signal };
    const plain = await answer(model, prompts, sampling);

    note("fine-tuning");
    const lora = Lora.create(model, { targets: "all-linear", seed, ...options.lora });
    const steps = training.steps ?? (training.epochs ? undefined : 200);
    const settings = {
      seed,
      ...training,
      ...{ steps, sequenceLength, lossOn, lora, signal, evalData: held },
      evalEvery: Math.max(1, Math.round((steps ?? 1000) / EVALUATIONS)),
    };
    const points: StudyResult["points"] = [];
    const evalPoints: StudyResult["points"] = [{ step: 0, loss: before.loss }];
    let tokens = 0, seconds = 0;
    for await (const step of train(model, data, settings)) {
      options.onStep?.(step);
      points.push({ step: step.step, loss: step.loss });
      if (step.evalLoss !== undefined) evalPoints.push({ step: step.step, loss: step.evalLoss });
      tokens += step.tokens;
      seconds += step.tokens / step.tokensPerSecond;
    }

    note("the tuned model: loss and answers");
    const after = await evaluateHeld();
    const tuned = await answer(model, prompts, sampling);
    const answers: StudyAnswer[] = asked.map(({ prompt, reference }, i) => (
      { prompt, reference, base: plain[i], tuned: tuned[i] }
    ));
    const { rank, alpha, targets } = lora.config;
    const result: StudyResult = {
      model: model.name,
      data: description,
      lossBase: before.loss,
      lossTuned: after.loss,
      perplexityBase: before.perplexity,
      perplexityTuned: after.perplexity,
      evalTokens: before.tokens,
      ...{ points, evalPoints, answers },
      settings: {
        ...{ steps: points.length, "batch size": settings.batchSize ?? 4, "sequence length": sequenceLength },
        ...{ "learning rate": settings.learningRate ?? 2e-4, schedule: settings.schedule ?? "linear" },
        ...{ rank, alpha, targets: [targets].flat().join(", "), "loss on": lossOn, weights: model.weights },
        ...{ "answers up to": `${maxTokens} tokens`, temperature, seed },
      },
      parametersTrained: lora.parameterCount,
      parametersTotal: model.parameterCount,
      tokensPerSecond: tokens / seconds,
      seconds: (performance.now() - begin) / 1000,
      environment: {
        whet: VERSION,
        deno: globalThis.Deno?.version.deno ?? "none",
        backend: model.backend.description,
      },
    };
    if (owned) {
      owned.detach();
      await lora.unbind();
    }
    return { result, report: studyReport(result), lora };
  } finally {
    owned?.[Symbol.dispose]();
  }
}

async function readData(
  { data, evalData }: StudyOptions,
): Promise<{ data: Dialogues; held: Dialogues; description: string }> {
  if (!data) {
    const { nanoDialogues } = await import("../nano/nano.ts");
    const { training, held } = await nanoDialogues();
    const description = `${training.length} dialogues that are part of Whet, ${
      (evalData ?? held).length
    } others held out`;
    return { data: training, held: evalData ?? held, description };
  }
  if (evalData) {
    return {
      data,
      held: evalData,
      description: `${data.length} examples, ${evalData.length} others held out`,
    };
  }
  const kept = data.length - Math.max(1, Math.round(data.length / 10));
  if (kept < 1) {
    throw new WhetError(
      "option",
      "data: a single example leaves nothing to hold out; give more, or evalData",
    );
  }
  return {
    data: data.slice(0, kept),
    held: data.slice(kept),
    description: `${kept} examples, the last ${data.length - kept} of the data held out`,
  };
}

async function evaluateOn(
  model: GPT2,
  held: Dialogues,
  { sequenceLength, lossOn }: { sequenceLength: number; lossOn: "all" | "responses" },
): Promise<Evaluation> {
  const batches = new BatchStream(held, model.tokenizer, {
    ...{ sequenceLength, lossOn },
    batchSize: 4,
    shuffle: false,
    epochs: 1,
  });
  return await evaluate(model, batches);
}

/** Held-out dialogues whose last question fits the window with its answer, chosen by seed. */
function pickQuestions(
  model: GPT2,
  held: Dialogues,
  { questions, maxTokens, seed }: { questions: number; maxTokens: number; seed: number },
): { prompt: string; reference: string }[] {
  const order = [...held].map((example, i) => ({ example, key: bits(i, [seed >>> 0, 0x9e57]) }));
  order.sort((a, b) => a.key - b.key);
  const picked: { prompt: string; reference: string }[] = [];
  for (const { example } of order) {
    if (picked.length === questions) break;
    const exchange = exchangeOf(example);
    if (!exchange) continue;
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

async function answer(
  model: GPT2,
  prompts: readonly string[],
  options: Parameters<GPT2["generate"]>[1],
): Promise<string[]> {
  const answers = prompts.map(() => "");
  if (prompts.length === 0) return answers;
  for await (const { text, index } of model.generate(prompts, options)) answers[index] += text;
  return answers.map((text) => text.trim());
}
