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
import { loadCheckpoint, saveCheckpoint } from "./checkpoint.ts";
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
  const run = fingerprint(model, settings);
  if (lora) model.attach(lora);
  else model.detach();
  const parameters = lora ? lora.bind(model.backend) : await model.unfreeze();

  using optimizer = new AdamW(parameters, settings);
  const state = settings.resume ? await loadCheckpoint(checkpoint!.directory, optimizer, run) : null;
  if (state) await batches.restore(state.data);
  using _training = requireGradients(parameters);
  const save = async (step: number) => {
    if (checkpoint) {
      await saveCheckpoint(checkpoint.directory, optimizer, { step, data: batches.state, settings: run });
    }
  };
  const first = (state?.step ?? 0) + 1;
  for (let step = first; step <= steps; step++) {
    if (signal?.aborted) {
      if (step > first) await save(step - 1);
      throw signal.reason;
    }
    const begin = performance.now();
    const parts = await take(batches, accumulate);
    const learningRate = settings.learningRate *
      scheduleFactor(settings.schedule, step - 1, settings.warmupSteps, steps);
    const { loss, gradNorm } = await runStep(model, optimizer, parts, {
      step,
      learningRate,
      seed: settings.seed,
    });
    const seconds = (performance.now() - begin) / 1000;
    if (!Number.isFinite(loss) || !Number.isFinite(gradNorm)) {
      throw diverged(step, loss, checkpoint?.directory);
    }
    const tokens = parts.reduce((sum, part) => sum + part.tokens.length, 0);
    const evaluates = held && (step === steps || (evalEvery !== null && step % evalEvery === 0));
    yield {
      ...{ step, steps, loss, learningRate, gradNorm, tokens, tokensPerSecond: tokens / seconds },
      ...(evaluates ? { evalLoss: (await evaluate(model, held())).loss } : {}),
    };
    // After the step was taken in, so that whoever notes the steps down has noted this one.
    if (checkpoint && (step % checkpoint.every === 0 || step === steps)) await save(step);
  }
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

function diverged(step: number, loss: number, directory: string | undefined): WhetError {
  const kept = directory ? `; the last checkpoint in ${directory} is from before it` : "";
  return new WhetError(
    "diverged",
    `step ${step}: the ${
      Number.isFinite(loss) ? "gradients are" : "loss is"
    } not a number any more${kept}; ` +
      "try a lower learning rate (--lr) or a warm-up (--warmup-steps)",
  );
}
