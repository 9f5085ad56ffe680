/**
 * `whet train`.
 *
 * @module
 */
import { Dialogues } from "../data/dialogues.ts";
import { WhetError } from "../errors.ts";
import { ensureDirectory, join, writeAtomically } from "../format/files.ts";
import { Lora } from "../model/lora.ts";
import { lossCurve } from "../report/loss_curve.ts";
import { Progress } from "../report/progress.ts";
import { Metrics } from "../train/metrics.ts";
import type { TrainOptions } from "../train/options.ts";
import { train } from "../train/trainer.ts";
import type { TRAIN } from "./command_flags.ts";
import { UsageError, type Values } from "./flags.ts";
import { interruptible } from "./interrupt.ts";
import { given, openModel, readTargets, showLoading } from "./model.ts";
import { note } from "./output.ts";

/** What `--json` prints. */
export interface TrainResult {
  /** Steps in all. */
  steps: number;
  /** Loss of the first step, in nats. */
  loss_first: number;
  /** Loss of the last. */
  loss_last: number;
  /** Loss of the held-out data at the end, if there is any. */
  eval_loss?: number;
  /** Tokens per second of this run. */
  tokens_per_second: number;
  /** Parameters that were trained. */
  parameters: number;
  /** Where everything went. */
  out: string;
}

/** Fine-tunes; see `TRAIN` for the flags. */
export async function runTrain(values: Values<typeof TRAIN>): Promise<TrainResult> {
  const { out, resume, quiet } = values;
  const method = values.method ?? "lora";
  checkTogether(values);
  const loading = showLoading(quiet);
  const data = await Dialogues.load(values.data, loading);
  const evalData = values["eval-data"] ? await Dialogues.load(values["eval-data"], loading) : undefined;
  loading.finish();
  using model = await openModel(values.model, values);
  using lora = method === "full" ? null : Lora.create(model, {
    ...given({ rank: values.rank, alpha: values.alpha, dropout: values.dropout, seed: values.seed }),
    ...(values.targets === undefined ? {} : { targets: readTargets(values.targets) }),
    rsLora: values.rslora,
  });
  const parameters = lora?.parameterCount ?? model.parameterCount;
  if (!quiet) note(`training ${parameters.toLocaleString("en")} parameters on ${data.length} examples`);

  const directory = join(out, "checkpoint"), every = values["checkpoint-every"] ?? 100;
  await ensureDirectory(out);
  using metrics = await Metrics.open(join(out, "metrics.jsonl"), resume);
  let tokens = 0, seconds = 0;
  const interrupted = () =>
    `interrupted after step ${metrics.lines.at(-1)?.step ?? 0}; the same command with --resume goes on`;
  await interruptible(async (signal) => {
    const options: TrainOptions = {
      ...given({
        lora: lora ?? undefined,
        steps: values.steps,
        epochs: values.epochs,
        batchSize: values["batch-size"],
        sequenceLength: values["seq-len"],
        accumulate: values.accumulate,
        learningRate: values.lr,
        schedule: values.schedule as TrainOptions["schedule"],
        warmupSteps: values["warmup-steps"],
        weightDecay: values["weight-decay"],
        maxGradNorm: values["max-grad-norm"],
        seed: values.seed,
        lossOn: values["loss-on"] as TrainOptions["lossOn"],
        evalData,
        evalEvery: values["eval-every"],
      }),
      packing: !values["no-packing"],
      shuffle: !values["no-shuffle"],
      checkpoint: { directory, every },
      ...{ resume, signal },
    };
    let bar: Progress | null = null;
    try {
      for await (const step of train(model, data, options)) {
        await metrics.add(step, step.step % every === 0 || step.step === step.steps || signal.aborted);
        tokens += step.tokens;
        seconds += step.tokens / step.tokensPerSecond;
        bar ??= new Progress({ total: step.steps, label: "train", quiet });
        bar.update({
          done: step.step,
          fields: { loss: step.loss.toFixed(4), "tokens/s": Math.round(tokens / seconds) },
        });
      }
    } finally {
      bar?.finish();
    }
  }, interrupted);

  const { lines } = metrics;
  if (lines.length === 0) {
    throw new WhetError("format", `${out}/metrics.jsonl: no step to report; remove ${out} and begin anew`);
  }
  if (lora) await lora.save(out);
  else await model.save(out);
  await writeAtomically(join(out, "loss.svg"), drawLoss(lines));
  const final = lines.at(-1)!;
  if (!quiet) {
    note(
      `loss ${lines[0].loss.toFixed(4)} → ${final.loss.toFixed(4)}${
        final.eval_loss === undefined ? "" : `, of held-out data ${final.eval_loss.toFixed(4)}`
      }; ${lora ? "adapter" : "model"}, metrics.jsonl and loss.svg are in ${out}`,
    );
  }
  return {
    steps: final.step,
    loss_first: lines[0].loss,
    loss_last: final.loss,
    ...(final.eval_loss === undefined ? {} : { eval_loss: final.eval_loss }),
    tokens_per_second: seconds > 0 ? tokens / seconds : final.tokens_per_second,
    parameters,
    out,
  };
}

/** Flags that exclude each other, or are of no use alone. */
function checkTogether(values: Values<typeof TRAIN>): void {
  if (values.steps !== undefined && values.epochs !== undefined) {
    throw new UsageError("--steps, --epochs: give one of them, not both");
  }
  if (values["eval-every"] !== undefined && values["eval-data"] === undefined) {
    throw new UsageError("--eval-every: say by --eval-data what to evaluate on");
  }
  if (values.method === "full" && values.weights !== undefined && values.weights !== "f32") {
    throw new UsageError(`--weights ${values.weights}: --method full trains f32 weights only`);
  }
}

function drawLoss(lines: Metrics["lines"]): string {
  return lossCurve(lines, {
    title: "Training loss",
    evalPoints: lines.filter(({ eval_loss }) => eval_loss !== undefined)
      .map(({ step, eval_loss }) => ({ step, loss: eval_loss! })),
  });
}
