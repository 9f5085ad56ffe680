/**
 * What can be set of a training run, checked before anything is computed.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import type { ExampleSource } from "../data/batches.ts";
import type { LanguageModel } from "../model/language_model.ts";
import type { Lora } from "../model/lora.ts";
import { identifyData, identifyModel } from "./identity.ts";
import { type Schedule, SCHEDULES } from "./schedule.ts";

/** How {@linkcode train} trains; what is not given has the value in brackets. */
export interface TrainOptions {
  /** The adapter to train; without it all weights are. It is attached, and stays so. */
  lora?: Lora;
  /** Optimizer steps. */
  steps?: number;
  /** Passes over the data, instead of `steps` [1]. */
  epochs?: number;
  /** Rows of a batch [4]. */
  batchSize?: number;
  /** Tokens of a row, at most `n_positions` [256, or `n_positions` if that is less]. */
  sequenceLength?: number;
  /** Batches whose gradients make one step, weighted by their tokens [1]. */
  accumulate?: number;
  /** Peak learning rate [2e-4 for an adapter, 5e-5 for all weights]. */
  learningRate?: number;
  /** What the learning rate does after warm-up: it stays, falls linearly, or along a cosine [`"linear"`]. */
  schedule?: Schedule;
  /** Steps over which the learning rate rises [0]. */
  warmupSteps?: number;
  /** Decoupled weight decay of matrices [0]. */
  weightDecay?: number;
  /** Decay of AdamW's moments [0.9, 0.999]. */
  betas?: readonly [number, number];
  /** AdamW's ε [1e-8]. */
  epsilon?: number;
  /** Gradients are scaled down to this norm; 0 for never [1]. */
  maxGradNorm?: number;
  /** Seed of order and dropout [0]. */
  seed?: number;
  /** Which tokens count: `"all"`, or `"responses"`, the assistant's alone [`"all"`]. */
  lossOn?: "all" | "responses";
  /** Fills rows with several examples, which do not see each other [true]. */
  packing?: boolean;
  /** Whether each epoch has an order of its own [true]. */
  shuffle?: boolean;
  /** Data that is held out, and evaluated every `evalEvery` steps and after the last [none]. */
  evalData?: ExampleSource;
  /** Steps between evaluations [at the end only]. */
  evalEvery?: number;
  /** Where and how often to save the state of the run; a directory alone saves every 100 steps and at the end [never]. */
  checkpoint?: string | { directory: string; every: number };
  /** Goes on from the checkpoint, or begins if there is none yet [false]. */
  resume?: boolean;
  /** Ends training between two steps when aborted; the iterator throws its reason. */
  signal?: AbortSignal;
}

/** Options with every value in place. */
export interface TrainSettings {
  lora: Lora | null;
  steps: number | null;
  epochs: number;
  batchSize: number;
  sequenceLength: number;
  accumulate: number;
  learningRate: number;
  schedule: Schedule;
  warmupSteps: number;
  weightDecay: number;
  betas: readonly [number, number];
  epsilon: number;
  maxGradNorm: number;
  seed: number;
  lossOn: "all" | "responses";
  packing: boolean;
  shuffle: boolean;
  evalData: ExampleSource | null;
  evalEvery: number | null;
  checkpoint: { directory: string; every: number } | null;
  resume: boolean;
  signal: AbortSignal | null;
}

/** The largest whole number: what fits kernels' arguments. */
const MOST = 2 ** 31 - 1;

/**
 * Completes and checks options.
 *
 * @throws {WhetError} "option" naming the one that makes no sense.
 */
export function checkTrainOptions(model: LanguageModel, options: TrainOptions): TrainSettings {
  const { n_positions } = model.config;
  const fail = (name: string, expected: string, value: unknown): never => {
    throw new WhetError(
      "option",
      `${name}: expected ${expected}, got ${JSON.stringify(value) ?? String(value)}`,
    );
  };
  const whole = (name: string, value: number, least: number): number =>
    Number.isInteger(value) && value >= least && value <= MOST
      ? value
      : fail(name, `a whole number from ${least} to ${MOST}`, value);
  const within = (name: string, value: number, ok: boolean, expected: string): number =>
    ok && Number.isFinite(value) ? value : fail(name, expected, value);

  if (options.steps !== undefined && options.epochs !== undefined) {
    throw new WhetError("option", "steps, epochs: give one of them, not both");
  }
  const steps = options.steps === undefined ? null : whole("steps", options.steps, 1);
  const epochs = steps !== null ? Infinity : whole("epochs", options.epochs ?? 1, 1);
  const sequenceLength = whole("sequenceLength", options.sequenceLength ?? Math.min(256, n_positions), 2);
  if (sequenceLength > n_positions) {
    throw new WhetError(
      "option",
      `sequenceLength (--seq-len): ${sequenceLength} is beyond ${model.name}'s window of ${n_positions}`,
    );
  }
  const { schedule = "linear", lossOn = "all", betas = [0.9, 0.999], checkpoint } = options;
  if (!SCHEDULES.includes(schedule)) fail("schedule", `one of ${SCHEDULES.join(", ")}`, schedule);
  if (lossOn !== "all" && lossOn !== "responses") fail("lossOn", '"all" or "responses"', lossOn);
  if (betas.length !== 2 || !betas.every((beta) => beta >= 0 && beta < 1)) {
    fail("betas", "two numbers from 0 to below 1", betas);
  }
  if (options.resume && !checkpoint) {
    throw new WhetError("option", "resume: say by checkpoint which directory to go on from");
  }
  const learningRate = options.learningRate ?? (options.lora ? 2e-4 : 5e-5);
  const weightDecay = options.weightDecay ?? 0;
  const epsilon = options.epsilon ?? 1e-8;
  const maxGradNorm = options.maxGradNorm ?? 1;
  const seed = options.seed ?? 0;
  return {
    lora: options.lora ?? null,
    steps,
    epochs,
    batchSize: whole("batchSize", options.batchSize ?? 4, 1),
    sequenceLength,
    accumulate: whole("accumulate", options.accumulate ?? 1, 1),
    learningRate: within("learningRate", learningRate, learningRate > 0, "a number above 0"),
    schedule,
    warmupSteps: whole("warmupSteps", options.warmupSteps ?? 0, 0),
    weightDecay: within("weightDecay", weightDecay, weightDecay >= 0, "a number of at least 0"),
    betas,
    epsilon: within("epsilon", epsilon, epsilon > 0, "a number above 0"),
    maxGradNorm: within("maxGradNorm", maxGradNorm, maxGradNorm >= 0, "a number of at least 0 (0 for none)"),
    seed: within("seed", seed, Number.isSafeInteger(seed) && seed >= 0, "a whole number of at least 0"),
    lossOn,
    packing: options.packing ?? true,
    shuffle: options.shuffle ?? true,
    evalData: options.evalData ?? null,
    evalEvery: options.evalEvery === undefined ? null : whole("evalEvery", options.evalEvery, 1),
    checkpoint: typeof checkpoint === "string"
      ? { directory: checkpoint, every: 100 }
      : checkpoint
      ? { directory: checkpoint.directory, every: whole("checkpoint.every", checkpoint.every, 1) }
      : null,
    resume: options.resume ?? false,
    signal: options.signal ?? null,
  };
}

/**
 * All that decides what the steps do: a checkpoint of a run with something else is not this run's.
 *
 * @param model The model, before it is trained.
 * @param data The data.
 * @param settings The settings.
 */
export async function fingerprint(
  model: LanguageModel,
  data: ExampleSource,
  settings: TrainSettings,
): Promise<Record<string, unknown>> {
  const { lora, batchSize, sequenceLength, accumulate, learningRate, schedule, warmupSteps } = settings;
  const { weightDecay, betas, epsilon, maxGradNorm, seed, lossOn, packing, shuffle, steps, epochs } =
    settings;
  const length = schedule === "constant" ? {} : { steps, epochs: steps === null ? epochs : null };
  return {
    method: lora ? "lora" : "full",
    config: model.config,
    weights: model.weights,
    // All weights that are trained are in the checkpoint, so that it does not matter what they were.
    ...(lora ? { model: await identifyModel(model) } : {}),
    data: identifyData(data),
    lora: lora && { ...lora.config, baseModel: undefined },
    ...{ batchSize, sequenceLength, accumulate, learningRate, schedule, warmupSteps, ...length },
    ...{ weightDecay, betas, epsilon, maxGradNorm, seed, lossOn, packing, shuffle },
  };
}
