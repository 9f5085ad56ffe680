/**
 * Makes the handler of `whet serve` out of options that are plain data, in whichever thread it is to live.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import type { Progress } from "../format/repository.ts";
import { GPT2 } from "../gpt2.ts";
import type { LanguageModel } from "../model/language_model.ts";
import { readChatTemplate } from "./chat_template.ts";
import { createHandler, type Handler } from "./handler.ts";
import { servedName } from "./names.ts";
import type { Ready, SentError, ServerOptions } from "./worker_messages.ts";

/** Told what goes on while a model is loaded. */
export interface Hooks {
  /** Bytes of a file. */
  onProgress?: (progress: Progress) => void;
  /** A line for people. */
  onNote?: (text: string) => void;
}

/** A handler whose model is loaded. */
export interface Started extends AsyncDisposable {
  /** Answers requests. */
  readonly handler: Handler;
  /** What is served. */
  readonly ready: Ready;
}

/**
 * Loads the models and makes the handler.
 *
 * @param options What is served, and how.
 * @param hooks Told about the loading.
 * @param isMain Whether this is the main thread, which WebGPU must not block.
 * @throws {WhetError} Whatever loading throws; "option" for an adapters' directory that is not there.
 */
export async function startHandler(options: ServerOptions, hooks: Hooks, isMain: boolean): Promise<Started> {
  const { model: source, rewardModel, backend, weights, threads, instructionSet, arithmetic, ...rest } =
    options;
  await using owned = new AsyncDisposableStack();
  const loading = { backend, threads, arithmetic, ...hooks, worker: isMain };
  const model = owned.use(await GPT2.load(source, { ...loading, weights, instructionSet }));
  const chatTemplate = rest.chatTemplate ?? await readChatTemplate(source, hooks);
  const reward = rewardModel === undefined ? undefined : owned.use(await loadReward(rewardModel, loading));
  const handler = owned.use(createHandler({ ...rest, model, reward, chatTemplate }));
  await handler.ready;
  const held = owned.move();
  return {
    handler,
    ready: { name: rest.name ?? servedName(model.name), description: describe(model) },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

async function loadReward(source: string, options: Parameters<typeof GPT2.load>[1]) {
  const { RewardModel } = await import("../score/reward.ts");
  return await RewardModel.load(source, options);
}

/** A model in a line. */
function describe({ config, parameterCount, weights, backend }: LanguageModel): string {
  const { n_layer, n_embd, n_head } = config;
  const millions = (parameterCount / 1e6).toPrecision(3);
  return `${millions} M parameters (${n_layer} layers, ${n_embd} wide, ${n_head} heads), ${weights}, on ${backend.description}`;
}

/** An error as it goes to another thread. */
export function packError(error: unknown): SentError {
  const code = error instanceof WhetError ? error.code : null;
  if (!(error instanceof Error)) return { code, name: "Error", message: String(error) };
  return { code, name: error.name, message: error.message, stack: error.stack };
}

/** The error that came from another thread. */
export function unpackError({ code, name, message, stack }: SentError): Error {
  if (code) return new WhetError(code, message);
  const error = name === "RangeError" ? new RangeError(message) : new Error(message);
  return Object.assign(error, { name, stack });
}
