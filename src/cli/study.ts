/**
 * `whet study`.
 *
 * @module
 */
import { Dialogues } from "../data/dialogues.ts";
import { WhetError } from "../errors.ts";
import { join } from "../format/files.ts";
import { Lora } from "../model/lora.ts";
import { Progress } from "../report/progress.ts";
import { NANO_TRAINING, type Study, study } from "../report/study.ts";
import type { LazyScorer } from "../report/study_judge.ts";
import { STUDY_PRESET } from "../report/study_preset.ts";
import { plain } from "../report/text.ts";
import type { TrainStep } from "../train/trainer.ts";
import type { STUDY } from "./command_flags.ts";
import { UsageError, type Values } from "./flags.ts";
import { interruptible } from "./interrupt.ts";
import { given, openModel, openRewardModel, readTargets, showLoading } from "./model.ts";
import { note, printLine } from "./output.ts";

/** What `--json` prints. */
export interface StudyOutcome {
  /** Held-out loss of the plain model, in nats per token. */
  loss_base: number;
  /** Held-out loss of the tuned model. */
  loss_tuned: number;
  /** Mean reward of the plain model's answers; null without a reward model. */
  score_base: number | null;
  /** Mean reward of the tuned model's answers; null without a reward model. */
  score_tuned: number | null;
  /** The report's file; null where it could not be written for want of permission. */
  report: string | null;
  /** How long it took. */
  seconds: number;
}

type StudyValues = Values<typeof STUDY>;

const DEFAULT_OUT = "whet-study";
/** What `--reward-model` says where a preset's is not wanted. */
const NO_JUDGE = "none";
/** Flags that say how to train, of no use with an adapter that is trained already. */
const TRAINING = ["steps", "rank", "alpha", "targets", "lr", "checkpoint-every"] as const;

/** Runs the experiment; see `STUDY` for the flags. */
export async function runStudy(values: StudyValues): Promise<StudyOutcome> {
  const { quiet } = values;
  checkTogether(values);
  const preset = values.preset === "study" ? STUDY_PRESET : null;
  const source = values.model ?? preset?.model ?? "nano";
  const out = values.out ?? (mayUse(DEFAULT_OUT) ? DEFAULT_OUT : undefined);
  const loading = showLoading(quiet);
  const read = (from: string | undefined) => from === undefined ? undefined : Dialogues.load(from, loading);
  const [trainOn, testOn] = sources(values);
  const evalData = await read(testOn);
  const data = values.adapter !== undefined && evalData ? undefined : await read(trainOn);
  loading.finish();
  using model = await openModel(source, { ...values, adapter: undefined });
  using adapter = values.adapter === undefined ? null : await Lora.load(values.adapter, loading);
  const show = new Shown(quiet);
  const interrupted = () =>
    out === undefined
      ? "interrupted; nothing of the study was kept"
      : "interrupted; the same command goes on from here";
  const found = await interruptible((signal) =>
    study({
      ...{ model, signal, overwrite: values.overwrite, compareWithOriginal: preset !== null },
      ...given({
        ...{ data, evalData, out, adapter: adapter ?? undefined, seed: values.seed },
        ...{ rewardModel: rewardModel(values), checkpointEvery: values["checkpoint-every"] },
        questions: values.questions ?? preset?.questions,
        maxTokens: values["max-tokens"] ?? preset?.sampling.maxTokens,
        temperature: values.temperature ?? preset?.sampling.temperature,
        topK: values["top-k"],
        topP: values["top-p"] ?? preset?.sampling.topP,
      }),
      lora: {
        ...preset?.lora,
        ...given({ rank: values.rank, alpha: values.alpha }),
        ...(values.targets === undefined ? {} : { targets: readTargets(values.targets) }),
      },
      training: {
        ...preset?.training,
        ...(source === "nano" && !preset ? NANO_TRAINING : {}),
        ...given({
          steps: values.steps,
          batchSize: values["batch-size"],
          sequenceLength: values["seq-len"],
          learningRate: values.lr,
          lossOn: values["loss-on"] as "all" | "responses" | undefined,
        }),
      },
      onStep: (step) => show.step(step),
      onProgress: ({ part, done, total }) => show.part(part, done, total),
      onNote: (text) => show.note(text),
    }), interrupted).finally(() => show.finish());
  using _lora = adapter ? null : found.lora;
  const { result } = found;
  if (!values.json) showAnswers(result);
  const report = out === undefined ? null : join(out, "report.html");
  if (!quiet) {
    note(
      report
        ? `the report is ${report}; beside it the figures as JSON, the pictures${
          adapter ? "" : ", the adapter"
        }`
        : `no report was written: it needs --allow-write=${DEFAULT_OUT} and --allow-read=${DEFAULT_OUT}`,
    );
  }
  return {
    loss_base: result.lossBase,
    loss_tuned: result.lossTuned,
    score_base: result.scores?.meanBase ?? null,
    score_tuned: result.scores?.meanTuned ?? null,
    ...{ report, seconds: result.seconds },
  };
}

/** Flags that exclude each other. */
function checkTogether(values: StudyValues): void {
  const trains = TRAINING.find((name) => values[name] !== undefined);
  if (values.adapter !== undefined && trains) {
    throw new UsageError(`--adapter, --${trains}: with an adapter nothing is trained; leave one of them out`);
  }
  if (values["reward-weights"] !== undefined && !judgeOf(values)) {
    throw new UsageError("--reward-weights: say by --reward-model whose weights");
  }
}

/** What to train on and what to test on; the preset's test data belong to its training data alone. */
function sources(values: StudyValues): [data: string | undefined, evalData: string | undefined] {
  const preset = values.preset === "study" ? STUDY_PRESET : null;
  return [
    values.data ?? preset?.data,
    values["eval-data"] ?? (values.data === undefined ? preset?.evalData : undefined),
  ];
}

/** The reward model's source, if one is wanted. */
function judgeOf(values: StudyValues): string | null {
  const source = values["reward-model"] ?? (values.preset === "study" ? STUDY_PRESET.rewardModel : NO_JUDGE);
  return source === NO_JUDGE ? null : source;
}

/** The reward model, loaded when answers are there to be scored. */
function rewardModel(values: StudyValues): LazyScorer | undefined {
  const source = judgeOf(values);
  if (source === null) return undefined;
  const weights = values["reward-weights"];
  return {
    name: weights ? `${source} (${weights})` : source,
    async load(signal) {
      try {
        return await openRewardModel(source, { ...values, weights }, signal);
      } catch (error) {
        if (!(error instanceof WhetError) || values["reward-model"] !== undefined) throw error;
        // The preset asked for it, not the person: who cannot have it may do without.
        const without = `${error.message}; or leave the scores out: --reward-model ${NO_JUDGE}`;
        throw new WhetError(error.code, without, { cause: error });
      }
    },
  };
}

/** What is shown of a study on its way: a bar for each part, notes between them. */
class Shown {
  #bar: { label: string; bar: Progress } | null = null;

  constructor(readonly quiet: boolean) {}

  step({ step, steps, loss, tokensPerSecond }: TrainStep): void {
    const fields = { loss: loss.toFixed(4), "tokens/s": Math.round(tokensPerSecond) };
    this.#update("train", { done: step, total: steps, fields });
  }

  part(part: string, done: number, total: number): void {
    this.#update(part, { done, total });
  }

  note(text: string): void {
    this.finish();
    if (!this.quiet) note(text);
  }

  finish(): void {
    this.#bar?.bar.finish();
    this.#bar = null;
  }

  #update(
    label: string,
    { total, ...update }: { done: number; total: number; fields?: Record<string, string | number> },
  ): void {
    if (this.#bar?.label !== label) {
      this.finish();
      this.#bar = { label, bar: new Progress({ total, label, quiet: this.quiet }) };
    }
    this.#bar!.bar.update(update);
    if (update.done === total) this.finish();
  }
}

/** A look at what changed, before the report is opened. */
function showAnswers({ answers, lossBase, lossTuned, scores }: Study["result"]): void {
  for (const { prompt, base, tuned } of answers.slice(0, 8)) {
    const question = prompt.split("\n\nHuman:").at(-1)!.replace("\n\nAssistant:", "");
    printLine(`\n${short(question)}\n  before: ${short(base)}\n  after:  ${short(tuned)}`);
  }
  if (answers.length > 8) printLine(`\n(${answers.length - 8} more answers are in the report)`);
  printLine(`\nheld-out loss ${lossBase.toFixed(4)} before, ${lossTuned.toFixed(4)} after`);
  if (!scores) return;
  const { meanBase, meanTuned, difference, interval: [low, high], wins, ties, losses } = scores;
  printLine(
    `mean reward ${meanBase.toFixed(4)} before, ${meanTuned.toFixed(4)} after; difference ${
      difference.toFixed(4)
    } ` +
      `(95 % interval ${low.toFixed(4)} to ${
        high.toFixed(4)
      }); ${wins} better, ${ties} equal, ${losses} worse`,
  );
}

/** Somebody's text on one line, without what would steer the terminal. */
function short(text: string): string {
  const letters = [...plain(text.replaceAll(/\s+/g, " ")).trim()];
  return letters.length === 0
    ? "(nothing)"
    : letters.length > 160
    ? `${letters.slice(0, 157).join("")}…`
    : letters.join("");
}

/** Whether files there may be read and written without a question to the person; asks nothing. */
function mayUse(path: string): boolean {
  return (["read", "write"] as const).every((name) =>
    Deno.permissions.querySync({ name, path }).state === "granted"
  );
}
