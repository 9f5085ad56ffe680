/**
 * The experiment: a model before and after fine-tuning, by its loss on held-out data and by its answers.
 *
 * @module
 */
import type { Dialogues } from "../data/dialogues.ts";
import { WhetError } from "../errors.ts";
import { GPT2 } from "../gpt2.ts";
import { Lora, type LoraOptions } from "../model/lora.ts";
import { checkTrainOptions, type TrainOptions } from "../train/options.ts";
import type { TrainStep } from "../train/trainer.ts";
import { collectResult } from "./study_collect.ts";
import { readData } from "./study_data.ts";
import { writeStudy } from "./study_files.ts";
import { recordedScores, scoreAnswers, type StudyJudge, summarise, tryJudge } from "./study_judge.ts";
import {
  answerQuestions,
  type AnswerSampling,
  type HeldOut,
  measureLoss,
  pickQuestions,
} from "./study_parts.ts";
import { identifyStudy } from "./study_identity.ts";
import { StudyRecord } from "./study_record.ts";
import { studyReport } from "./study_report.ts";
import type { StudyResult } from "./study_result.ts";
import { fineTune, type Trained } from "./study_training.ts";

/** How far a part of a study is. */
export interface StudyProgress {
  /** The part, in words. */
  part: string;
  /** How much of it is done. */
  done: number;
  /** How much there is. */
  total: number;
}

/** What a study is made of; with nothing given it runs on the model and the dialogues that are part of Whet. */
export interface StudyOptions {
  /** The model to fine-tune; it ends with the adapter attached [nano]. */
  model?: GPT2;
  /** What to fine-tune on [nano's dialogues]. */
  data?: Dialogues;
  /** Held-out data [nano's, or the last tenth of `data`, which is then not trained on]. */
  evalData?: Dialogues;
  /** An adapter to compare the plain model with; nothing is trained then [none]. */
  adapter?: Lora;
  /** The shape of the adapter that is trained [rank 8, alpha 16, all linear layers]. */
  lora?: LoraOptions;
  /** The training's settings. */
  training?: Omit<TrainOptions, "lora" | "evalData" | "checkpoint" | "resume" | "signal">;
  /** Who scores the answers, such as a reward model [nobody]. */
  rewardModel?: StudyJudge;
  /** How many held-out questions both models answer [8]. */
  questions?: number;
  /** The most tokens of an answer [64]. */
  maxTokens?: number;
  /** Temperature of the answers [0, the likeliest token each time]. */
  temperature?: number;
  /** Answers choose among the k likeliest tokens only; 0 for all [0]. */
  topK?: number;
  /** Answers choose among the likeliest tokens of this probability together only [1]. */
  topP?: number;
  /** Seed of everything random [0]. */
  seed?: number;
  /**
   * A directory for report, figures, pictures and adapter, and for each part as soon as it is done: a study that
   * was interrupted goes on there when it is called again, and ends as if it had not been [in memory alone].
   */
  out?: string;
  /** Begins anew, whatever study is in `out` [false]. */
  overwrite?: boolean;
  /** Steps between the checkpoints of the training in `out` [100]. */
  checkpointEvery?: number;
  /** Whether the report sets it beside the study that Whet repeats [false]. */
  compareWithOriginal?: boolean;
  /** Called after each training step. */
  onStep?: (step: TrainStep) => void;
  /** Called as the other parts proceed. */
  onProgress?: (progress: StudyProgress) => void;
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
  /** The adapter. */
  lora: Lora;
}

/** How nano is tuned where nothing else is said: enough for answers that a newcomer enjoys, in well under a minute. */
export const NANO_TRAINING = { steps: 300, learningRate: 3e-3 } as const;

/** Steps between the evaluations that the curve shows: this many in all. */
const EVALUATIONS = 8;

/**
 * Runs the experiment: evaluates the plain model, lets it answer, fine-tunes it, does both again, and has all
 * answers scored if there is a reward model.
 *
 * With `out`, every part is written there when it is done, answers and scores as they come, the training at its
 * checkpoints. The same call after any interruption does what is left; the result is the same, times aside.
 *
 * @param options Model, data, settings.
 * @returns Figures and answers, and the adapter.
 * @throws {WhetError} As loading, training and generating do; "mismatch" where `out` holds a study with other
 * settings.
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
  const owned = options.model ? null : await GPT2.load("nano");
  try {
    const model = options.model ?? owned!;
    const training = owned ? { ...NANO_TRAINING, ...options.training } : options.training ?? {};
    const found = await run(model, { ...options, training });
    if (owned) {
      owned.detach();
      await found.lora.unbind();
    }
    return found;
  } finally {
    owned?.[Symbol.dispose]();
  }
}

async function run(model: GPT2, options: StudyOptions): Promise<Study> {
  const { rewardModel: judge, out, seed = 0, questions = 8, signal } = options;
  const note = options.onNote ?? (() => {});
  if (!Number.isInteger(questions) || questions < 0) {
    throw new WhetError("option", `questions: expected a whole number of at least 0, got ${questions}`);
  }
  const { maxTokens = 64, temperature = 0, topK = 0, topP = 1 } = options;
  const sampling: AnswerSampling = { maxTokens, temperature, topK, topP };
  const { data, held, description } = await readData(options);
  model.detach();
  const { lora, training, how } = prepare(model, held, options);
  let trained: Trained | null = null;
  try {
    const adapter = options.adapter ?? null;
    using record = out === undefined ? StudyRecord.inMemory() : await StudyRecord.open(
      out,
      await identifyStudy({ model, data, held, adapter, training, how, questions, sampling, seed }),
      { overwrite: options.overwrite },
    );
    if (record.resumed) note(`going on with the study in ${out}`);
    const known = await recordedScores(record, judge);
    if (judge && !known) {
      note(`the reward model ${judge.name}: whether it can be had`);
      await tryJudge(judge, signal);
    }
    if (!judge) note("no reward model was given: answers are not scored, only likelihoods are reported");

    const part = (name: string) => ({
      ...{ record, signal },
      onProgress: (done: number, total: number) => options.onProgress?.({ part: name, done, total }),
    });
    note("the plain model: loss and answers");
    const before = await measureLoss(model, held, how, "loss-base", part("loss, plain"));
    const asked = pickQuestions(model, held, { questions, maxTokens, seed });
    if (asked.length < questions) {
      note(
        `only ${asked.length} of ${questions} questions: the rest of the held-out data has none, or none that fits ` +
          "the window with its answer",
      );
    }
    const prompts = asked.map(({ prompt }) => prompt);
    const ask = (which: "answers-base" | "answers-tuned", name: string) =>
      answerQuestions(model, prompts, { ...sampling, seed }, which, part(name));
    const plain = await ask("answers-base", "answers, plain");

    if (options.adapter) {
      model.attach(lora);
      trained = { lora, lines: [] };
    } else {
      note("fine-tuning");
      const { checkpointEvery = 100, onStep } = options;
      trained = await fineTune(model, data, lora, training, { record, checkpointEvery, onStep });
    }

    note("the tuned model: loss and answers");
    const after = await measureLoss(model, held, how, "loss-tuned", part("loss, fine-tuned"));
    const tuned = await ask("answers-tuned", "answers, fine-tuned");
    const answers = asked.map((question, i) => ({ ...question, base: plain[i].text, tuned: tuned[i].text }));
    if (judge && !known) note("scores of all answers");
    const scores = judge && await scoreAnswers(judge, answers, part("scores"));

    const result = collectResult({
      ...{ model, description, before, after, plain, tuned, answers, scores, seed, sampling, how },
      ...{ lines: trained.lines, lora: trained.lora, training: options.adapter ? null : training },
      summary: scores && summarise(scores, seed),
      comparison: options.compareWithOriginal ?? false,
    });
    const report = studyReport(result);
    if (out !== undefined) await writeStudy(out, { result, report });
    return { result, report, lora: trained.lora };
  } catch (error) {
    model.detach();
    if (!options.adapter) (trained?.lora ?? lora)[Symbol.dispose]();
    throw error;
  }
}

/** The adapter, and all settings of the training, checked before anything is computed. */
function prepare(
  model: GPT2,
  held: Dialogues,
  { adapter, training: given = {}, seed = 0, data, lora: shape, signal }: StudyOptions,
): { lora: Lora; training: TrainOptions; how: HeldOut } {
  const lora = adapter ?? Lora.create(model, { targets: "all-linear", seed, ...shape });
  const steps = given.steps ?? (given.epochs ? undefined : 200);
  const training: TrainOptions = {
    ...{ seed, ...given, steps, lora, signal, evalData: held },
    sequenceLength: given.sequenceLength ?? Math.min(256, model.config.n_positions),
    lossOn: given.lossOn ?? (data ? "all" : "responses"),
    evalEvery: given.evalEvery ?? Math.max(1, Math.round((steps ?? 1000) / EVALUATIONS)),
  };
  const { batchSize, sequenceLength, lossOn, packing } = checkTrainOptions(model, training);
  return { lora, training, how: { batchSize, sequenceLength, lossOn, packing } };
}
