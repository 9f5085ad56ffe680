/**
 * The training loop: batches in, steps out; an adapter or all weights, by the same road.
 *
 * @module
 */
import { type Batch, BatchStream, type ExampleSource } from "../data/batches.ts";
import { WhetError } from "../errors.ts";
import type { LanguageModel } from "../model/language_model.ts";
import { evaluate } from "../score/evaluate.ts";
import type { Parameters } from "../tensor/parameters.ts";
import { loadCheckpoint, removeCheckpoint, saveCheckpoint } from "./checkpoint.ts";
import { AdamW } from "./optimizer.ts";
import { checkTrainOptions, fingerprint, type TrainOptions, type TrainSettings } from "./options.ts";
import { scheduleFactor } from "./schedule.ts";
import { runStep } from "./step.ts";

/** What a step came to. */
export interface TrainStep {
  /** The step, from 1. */
  step: number;
  /** Steps in all. */
  steps: number;
  /** Mean cross-entropy of the tokens that count, in nats, before the step. */
  loss: number;
  /** The step's learning rate. */
  learningRate: number;
  /** Norm of the gradients before clipping. */
  gradNorm: number;
  /** Tokens that went through the network. */
  tokens: number;
  /** Those per second. */
  tokensPerSecond: number;
  /** Mean cross-entropy of the held-out data after the step, where it was evaluated. */
  evalLoss?: number;
}

/**
 * Trains an adapter, or all weights, step by step.
 *
 * @param model The model.
 * @param data Dialogues, or any (async) iterable of `{ text }`, `{ prompt, response }`, `{ tokens }`; one
 * that has no length is read as it goes.
 * @param options What to train, how long, how fast; see {@linkcode TrainOptions}.
 * @returns Each step as it is done; training stops when the loop over it does.
 * @throws {WhetError} "option" where a value makes no sense, "format" for data, "diverged" where the loss
 * is no number any more (the last checkpoint stays), "mismatch" for another run's checkpoint.
 *
 * @example
 * ```ts
 * import { GPT2, Lora, train } from "../../mod.ts";
 *
 * using model = await GPT2.load("nano");
 * const lora = Lora.create(model, { rank: 4 });
 * const data = [{ prompt: "\n\nHuman: Hi\n\nAssistant:", response: " Hello!" }];
 * for await (const { step, loss } of train(model, data, { lora, steps: 3 })) console.log(step, loss);
 * ```
 */
export async function* train(
  model: LanguageModel,
  data: ExampleSource,
  options: TrainOptions = {},
): AsyncGenerator<TrainStep, void, undefined> {
  const settings = checkTrainOptions(model, options);
  const { lora, accumulate, checkpoint, evalData, evalEvery, signal } = settings;
  await using batches = new BatchStream(data, model.tokenizer, settings);
  const held = evalData ? heldOut(evalData, model, settings) : null;
  const steps = settings.steps ?? Math.ceil(await batches.total() / accumulate);
  const run = checkpoint ? await fingerprint(model, data, settings) : {};
  if (lora) model.attach(lora);
  else model.detach();
  const parameters = lora ? lora.bind(model.backend) : await model.unfreeze();

  using optimizer = new AdamW(parameters, settings);
  const state = settings.resume ? await loadCheckpoint(checkpoint!.directory, optimizer, run) : null;
  if (state) await batches.restore(state.data);
  else if (checkpoint) await removeCheckpoint(checkpoint.directory);
  const first = (state?.step ?? 0) + 1;
  if (first > steps + 1) {
    throw new WhetError(
      "mismatch",
      `steps: ${steps} are asked for, the checkpoint is at ${first - 1} already`,
    );
  }
  using _training = requireGradients(parameters);
  let saved = first - 1;
  const broken = (step: number, what: string) => diverged(step, what, checkpoint?.directory, saved);
  /** A step's work; where it ends training, the error says what is saved. */
  const doing = async <Result>(step: number, work: Promise<Result>): Promise<Result> => {
    try {
      return await work;
    } catch (error) {
      throw ended(error, step, checkpoint?.directory, saved);
    }
  };
  const keep = async (step: number) => {
    if (!await areFinite(model, parameters)) throw broken(step, "the weights are");
    if (!checkpoint) return;
    await saveCheckpoint(checkpoint.directory, optimizer, { step, data: batches.state, settings: run });
    saved = step;
  };
  for (let step = first; step <= steps; step++) {
    if (signal?.aborted) {
      if (saved < step - 1) await keep(step - 1);
      throw signal.reason;
    }
    const begin = performance.now();
    const parts = await take(batches, accumulate);
    const learningRate = settings.learningRate *
      scheduleFactor(settings.schedule, step - 1, settings.warmupSteps, steps);
    const { seed } = settings;
    const stepped = runStep(model, optimizer, parts, { step, learningRate, seed, adapter: lora });
    const { loss, gradNorm } = await doing(step, stepped);
    const seconds = (performance.now() - begin) / 1000;
    if (!Number.isFinite(loss)) throw broken(step, "the loss is");
    if (!Number.isFinite(gradNorm)) throw broken(step, "the gradients are");
    const tokens = parts.reduce((sum, part) => sum + part.tokens.length, 0);
    const evaluates = held && (step === steps || (evalEvery !== null && step % evalEvery === 0));
    yield {
      ...{ step, steps, loss, learningRate, gradNorm, tokens, tokensPerSecond: tokens / seconds },
      ...(evaluates ? { evalLoss: (await doing(step, evaluate(model, held(), lora))).loss } : {}),
    };
    // After the step was taken in, so that whoever notes the steps down has noted this one.
    if (step === steps || (checkpoint && step % checkpoint.every === 0)) await doing(step, keep(step));
  }
}

/** What a device that failed leaves behind: other errors say themselves what to do. */
function ended(error: unknown, step: number, directory: string | undefined, saved: number): unknown {
  const failed = error instanceof WhetError && (error.code === "backend" || error.code === "resource");
  if (!failed || !directory) return error;
  const rest = saved > 0
    ? `the checkpoint of step ${saved} in ${directory} is whole, and resume (--resume) goes on from there, on ` +
      "another backend too"
    : "no checkpoint was written yet, so that resume (--resume) begins anew";
  return new WhetError(error.code, `step ${step}: ${error.message}; ${rest}`, { cause: error });
}

/** The next micro-batches; fewer at the end of the last epoch. */
async function take(batches: BatchStream, count: number): Promise<Batch[]> {
  const parts: Batch[] = [];
  while (parts.length < count) {
    const batch = await batches.next();
    if (!batch) break;
    parts.push(batch);
  }
  return parts;
}

/** Held-out data, the same batches at every evaluation. */
function heldOut(data: ExampleSource, model: LanguageModel, settings: TrainSettings): () => BatchStream {
  const { batchSize, sequenceLength, lossOn, packing } = settings;
  const stream = new BatchStream(data, model.tokenizer, {
    ...{ batchSize, sequenceLength, lossOn, packing },
    shuffle: false,
    epochs: 1,
  });
  return () => {
    stream.rewind();
    return stream;
  };
}

/** Marks parameters as trained until disposed. */
function requireGradients(parameters: Parameters): Disposable {
  const mark = (requires: boolean) => {
    for (const tensor of parameters.tensors.values()) tensor.requiresGradient = requires;
  };
  mark(true);
  return { [Symbol.dispose]: () => mark(false) };
}

/** Whether all weights, and their norm, are finite. */
async function areFinite({ arena, backend }: LanguageModel, { slabs }: Parameters): Promise<boolean> {
  const [sum] = await arena.scope(() => {
    const out = arena.temporary([1]);
    for (const [slab, x] of slabs.entries()) backend.sumOfSquares({ x, out, accumulate: slab > 0 });
    return backend.read(out);
  });
  return Number.isFinite(sum);
}

function diverged(step: number, what: string, directory: string | undefined, saved: number): WhetError {
  const kept = directory && saved > 0 ? `the checkpoint of step ${saved} in ${directory} is whole; ` : "";
  const advice = step === 1 && !what.startsWith("the weights")
    ? "the model's own weights are broken, or its adapter's"
    : "try a lower learning rate (--lr) or a warm-up (--warmup-steps)";
  return new WhetError("diverged", `step ${step}: ${what} not a number any more; ${kept}${advice}`);
}
