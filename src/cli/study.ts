/**
 * `whet study`.
 *
 * @module
 */
import { Dialogues } from "../data/dialogues.ts";
import { ensureDirectory, join, writeAtomically } from "../format/files.ts";
import { lossCurve } from "../report/loss_curve.ts";
import { Progress } from "../report/progress.ts";
import { NANO_TRAINING, type Study, study } from "../report/study.ts";
import type { STUDY } from "./command_flags.ts";
import type { Values } from "./flags.ts";
import { interruptible } from "./interrupt.ts";
import { given, openModel, readTargets, showLoading } from "./model.ts";
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

const DEFAULT_OUT = "whet-study";

/** Runs the experiment; see `STUDY` for the flags. */
export async function runStudy(values: Values<typeof STUDY>): Promise<StudyOutcome> {
  const { quiet } = values;
  const source = values.model ?? "nano";
  const out = values.out ?? (mayWrite(DEFAULT_OUT) ? DEFAULT_OUT : null);
  if (out !== null) await ensureDirectory(out);
  const loading = showLoading(quiet);
  const read = (from: string | undefined) => from === undefined ? undefined : Dialogues.load(from, loading);
  const data = await read(values.data);
  const evalData = await read(values["eval-data"]);
  loading.finish();
  using model = await openModel(source, values);
  const { result, report: page, lora } = await interruptible((signal) => {
    let bar: Progress | null = null;
    return study({
      ...{ model, signal },
      ...given({
        data,
        evalData,
        seed: values.seed,
        questions: values.questions,
        maxTokens: values["max-tokens"],
        temperature: values.temperature,
      }),
      lora: {
        ...given({ rank: values.rank, alpha: values.alpha }),
        ...(values.targets === undefined ? {} : { targets: readTargets(values.targets) }),
      },
      training: {
        ...(source === "nano" ? NANO_TRAINING : {}),
        ...given({
          steps: values.steps,
          batchSize: values["batch-size"],
          sequenceLength: values["seq-len"],
          learningRate: values.lr,
          lossOn: values["loss-on"] as "all" | "responses" | undefined,
        }),
      },
      onStep: (step) => {
        bar ??= new Progress({ total: step.steps, label: "train", quiet });
        bar.update({
          done: step.step,
          fields: { loss: step.loss.toFixed(4), "tokens/s": Math.round(step.tokensPerSecond) },
        });
        if (step.step === step.steps) bar.finish();
      },
      onNote: (text) => quiet || note(text),
    });
  }, () => "interrupted; nothing of the study was kept");
  using _ = lora;
  if (!values.json) showAnswers(result);
  const report = out === null ? null : await save(out, result, page, lora);
  if (!quiet) {
    note(
      report
        ? `the report is ${report}; beside it the figures as JSON, the pictures, the adapter`
        : "no report was written: it needs --allow-write",
    );
  }
  return {
    loss_base: result.lossBase,
    loss_tuned: result.lossTuned,
    score_base: null,
    score_tuned: null,
    ...{ report, seconds: result.seconds },
  };
}

/** Report, figures, pictures and adapter. */
async function save(
  out: string,
  result: Study["result"],
  page: string,
  lora: Study["lora"],
): Promise<string> {
  const { points, evalPoints } = result;
  await lora.save(join(out, "adapter"));
  await writeAtomically(
    join(out, "loss.svg"),
    lossCurve(points, { title: "Loss of every step", show: "steps" }),
  );
  await writeAtomically(
    join(out, "loss-means.svg"),
    lossCurve(points, { title: "Mean loss", show: "means", evalPoints }),
  );
  await writeAtomically(join(out, "study.json"), `${JSON.stringify(result, null, 2)}\n`);
  const report = join(out, "report.html");
  await writeAtomically(report, page);
  return report;
}

/** A look at what changed, before the report is opened. */
function showAnswers({ answers, lossBase, lossTuned }: Study["result"]): void {
  for (const { prompt, base, tuned } of answers) {
    const question = prompt.split("\n\nHuman:").at(-1)!.replace("\n\nAssistant:", "").trim();
    printLine(`\n${question}\n  before: ${short(base)}\n  after:  ${short(tuned)}`);
  }
  printLine(`\nheld-out loss ${lossBase.toFixed(4)} before, ${lossTuned.toFixed(4)} after`);
}

function short(text: string): string {
  const line = text.replaceAll(/\s+/g, " ").trim();
  return line === "" ? "(nothing)" : line.length > 160 ? `${line.slice(0, 157)}…` : line;
}

/** Whether writing there needs no question to the person; asks nothing. */
function mayWrite(path: string): boolean {
  return Deno.permissions.querySync({ name: "write", path }).state === "granted";
}
