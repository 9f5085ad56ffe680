/**
 * A study's fine-tuning, which goes on from its checkpoint after any interruption and ends with the same adapter.
 *
 * @module
 */
import type { Dialogues } from "../data/dialogues.ts";
import { WhetError } from "../errors.ts";
import { join } from "../format/files.ts";
import type { GPT2 } from "../gpt2.ts";
import { Lora } from "../model/lora.ts";
import { removeCheckpoint } from "../train/checkpoint.ts";
import { Metrics, type MetricsLine } from "../train/metrics.ts";
import type { TrainOptions } from "../train/options.ts";
import { train, type TrainStep } from "../train/trainer.ts";
import { digestAdapter } from "./study_identity.ts";
import type { StudyRecord } from "./study_record.ts";

/** What is left of a training when it is done. */
export interface Trained {
  /** Every step. */
  lines: readonly MetricsLine[];
  /** The adapter, attached. */
  lora: Lora;
}

/** What the record says of a training that is done. */
interface TrainingPart {
  steps: number;
  adapter: string;
}

/**
 * Trains the adapter, or takes what the record holds of it.
 *
 * @param model The model.
 * @param data What it learns.
 * @param lora The adapter, new; disposed if another takes its place.
 * @param training The trainer's options.
 * @param options The record, steps between checkpoints, who is told of each step.
 * @returns Steps and adapter, from all processes that had a part in it.
 * @throws {WhetError} As {@linkcode train} does; "mismatch" where the adapter is not the one that was trained.
 */
export async function fineTune(
  model: GPT2,
  data: Dialogues,
  lora: Lora,
  training: TrainOptions,
  { record, checkpointEvery, onStep }: {
    record: StudyRecord;
    checkpointEvery: number;
    onStep?: (step: TrainStep) => void;
  },
): Promise<Trained> {
  const { out, checkpoint } = record;
  const path = out === null ? null : join(out, "metrics.jsonl");
  const done = await record.read<TrainingPart>(
    "training",
    ({ steps, adapter }) => Number.isSafeInteger(steps) && typeof adapter === "string",
  );
  using metrics = await Metrics.open(path, true);
  if (done) {
    checkSteps(metrics.lines, done.steps, path!);
    lora[Symbol.dispose]();
    if (checkpoint) await removeCheckpoint(checkpoint);
    return { lines: metrics.lines, lora: await reopen(model, join(out!, "adapter"), done.adapter) };
  }
  const keeping = checkpoint === null
    ? {}
    : { checkpoint: { directory: checkpoint, every: checkpointEvery }, resume: true };
  let before = performance.now(), steps = 0;
  for await (const step of train(model, data, { ...training, lora, ...keeping })) {
    if (steps === 0) checkSteps(metrics.lines.slice(0, step.step - 1), step.step - 1, path ?? "the steps");
    onStep?.(step);
    const now = performance.now();
    const lasting = step.step % checkpointEvery === 0 || step.step === step.steps ||
      !!training.signal?.aborted;
    await metrics.add(step, lasting, (now - before) / 1000);
    before = now;
    steps = step.steps;
  }
  // A process that finds the last step's checkpoint has no step left to take.
  checkSteps(metrics.lines, steps || (training.steps ?? metrics.lines.length), path ?? "the steps");
  if (out !== null) {
    await lora.save(join(out, "adapter"));
    const part: TrainingPart = { steps: metrics.lines.length, adapter: await digestAdapter(model, lora) };
    await record.write("training", part);
    await removeCheckpoint(checkpoint!);
  }
  return { lines: metrics.lines, lora };
}

function checkSteps(lines: readonly MetricsLine[], steps: number, where: string): void {
  if (lines.length === steps && lines.every(({ step }, i) => step === i + 1)) return;
  throw new WhetError(
    "format",
    `${where}: not the ${steps} steps of this study's training; begin anew with --overwrite`,
  );
}

/** The adapter as it was saved, attached. */
async function reopen(model: GPT2, directory: string, expected: string): Promise<Lora> {
  const lora = await Lora.load(directory);
  try {
    if (await digestAdapter(model, lora) !== expected) {
      throw new WhetError(
        "mismatch",
        `${directory} is not the adapter that this study trained; put that one back, or begin anew with --overwrite`,
      );
    }
    model.attach(lora);
    return lora;
  } catch (error) {
    lora[Symbol.dispose]();
    throw error;
  }
}
