/**
 * A model that serves requests, apart from HTTP: which adapter, how many at once, how long.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import {
  type ScheduledChunk,
  type ScheduledRequest,
  Scheduler,
  type SchedulerOptions,
} from "../generate/scheduler.ts";
import type { LanguageModel } from "../model/language_model.ts";
import type { Scorer } from "../score/scorer.ts";
import { type AdapterLease, AdapterStore, type AdapterStoreOptions } from "./adapters.ts";
import { ApiError } from "./errors.ts";
import { servedName } from "./names.ts";

/** Limits of a service; what is not given has the value in brackets. */
export interface ServiceOptions extends SchedulerOptions {
  /** The base model's name in requests [its own; of a path or an address the last part]. */
  name?: string;
  /** Texts that wait for their turn at most; more are refused [64]. */
  queue?: number;
  /** Seconds that a request may take [300]. */
  timeout?: number;
  /** Scores answers, where a reward model is loaded. */
  reward?: Scorer;
  /** The model's own chat template (Jinja), if it has one. */
  chatTemplate?: string;
}

/** One text that is wanted. */
export type Order = Omit<ScheduledRequest, "adapter" | "signal"> & {
  /** The base model's name or an adapter's. */
  model: string;
};

/** A model, its adapters and its scheduler. */
export class Service implements Disposable {
  /** The base model's name. */
  readonly name: string;
  /** What does the work. */
  readonly scheduler: Scheduler;
  /** The adapters by name. */
  readonly adapters: AdapterStore;
  /** Seconds since 1970 when it began. */
  readonly created: number = Math.floor(Date.now() / 1000);
  /** Seconds that a request may take. */
  readonly timeout: number;
  readonly #queue: number;
  /** Texts that were taken in and are not done. */
  #open = 0;

  /**
   * @param model The base model; it is the caller's to dispose of, after this.
   * @param options Limits.
   * @param adapters How adapters are kept.
   */
  constructor(
    readonly model: LanguageModel,
    readonly options: ServiceOptions = {},
    adapters: AdapterStoreOptions = {},
  ) {
    this.name = options.name ?? servedName(model.name);
    this.scheduler = new Scheduler(model, options);
    this.adapters = new AdapterStore(model, this.scheduler.bank, adapters);
    this.#queue = options.queue ?? 64;
    this.timeout = options.timeout ?? 300;
  }

  /** Texts that were taken in and are not done. */
  get open(): number {
    return this.#open;
  }

  /**
   * Refuses what the service cannot take now, or does not have.
   *
   * @param model The name that was asked for; the base's where there is none.
   * @param texts How many texts are wanted.
   * @returns The model's name.
   * @throws {ApiError} 404 or 429.
   */
  admit(model: string | undefined, texts: number): string {
    const name = model ?? this.name;
    if (name !== this.name && !this.adapters.has(name)) {
      throw new ApiError(
        404,
        `the model ${JSON.stringify(name)} does not exist; GET /v1/models lists those that do`,
        {
          param: "model",
          code: "model_not_found",
        },
      );
    }
    const slots = this.options.slots ?? 16;
    if (texts > slots + this.#queue) {
      throw new ApiError(
        400,
        `${texts} texts in one request are more than the ${
          slots + this.#queue
        } that this server takes; ask for fewer`,
      );
    }
    if (this.#open + texts > slots + this.#queue) {
      throw new ApiError(429, "too many requests are waiting; try again later", {
        type: "rate_limit_error",
        code: "rate_limit_exceeded",
        headers: { "retry-after": "1" },
      });
    }
    return name;
  }

  /**
   * Works on a text.
   *
   * @param order What is wanted, of a model that {@linkcode Service.admit} has let in.
   * @param signal Ends it.
   */
  async *run(
    { model, ...request }: Order,
    signal: AbortSignal,
  ): AsyncGenerator<ScheduledChunk, void, undefined> {
    this.#open++;
    try {
      const lease = model === this.name ? null : await this.#lease(model, signal);
      try {
        yield* this.scheduler.submit({ ...request, adapter: lease?.adapter ?? null, signal });
      } finally {
        lease?.release();
      }
    } finally {
      this.#open--;
    }
  }

  /** An adapter. Where it lies is in what loading throws, and none of the client's business. */
  async #lease(model: string, signal: AbortSignal): Promise<AdapterLease> {
    try {
      return await this.adapters.acquire(model, signal);
    } catch (error) {
      if (!(error instanceof WhetError) || error.code === "resource") throw error;
      throw new WhetError("format", `adapter ${JSON.stringify(model)}: ${error.message}`, { cause: error });
    }
  }

  /**
   * Tokens of a text, or those that were given, as a prompt.
   *
   * @param prompt Text or tokens; nothing is the beginning of a text.
   * @param most Tokens that are to come.
   * @param param The field that it came in, for errors.
   * @throws {ApiError} Where they do not fit the window, or are none of the vocabulary.
   */
  tokensOf(prompt: string | readonly number[], most: number, param: string): number[] {
    const { tokenizer, config: { n_positions } } = this.model;
    const tooLong = (length: string) => {
      const message = `this model's window is ${n_positions} tokens; the prompt has ${length}, and ${most} ` +
        "more were asked for; shorten one of them";
      return new ApiError(400, message, { param, code: "context_length_exceeded" });
    };
    // Nobody is to wait while a megabyte is split into tokens for nothing.
    const least = typeof prompt === "string" ? Math.ceil(prompt.length / this.#longestToken()) : 0;
    if (least > n_positions) throw tooLong(`${least} at least`);
    const given = typeof prompt === "string" ? tokenizer.encode(prompt) : [...prompt];
    const tokens = given.length > 0 ? given : [tokenizer.endOfText];
    if (tokens.length + most > n_positions) throw tooLong(`${tokens.length}`);
    try {
      this.model.checkTokens(tokens, param);
    } catch (error) {
      if (error instanceof WhetError) throw new ApiError(400, error.message, { param });
      throw error;
    }
    return tokens;
  }

  #longest = 0;

  /** Bytes of the longest token: of no token has a text more characters. */
  #longestToken(): number {
    if (this.#longest === 0) {
      const { tokenizer } = this.model;
      for (let id = 0; id < tokenizer.vocabSize; id++) {
        this.#longest = Math.max(this.#longest, tokenizer.bytes(id).length);
      }
      this.#longest ||= Infinity; // A model without a vocabulary takes no text at all, and says so itself.
    }
    return this.#longest;
  }

  /** Ends all that goes on. */
  [Symbol.dispose](): void {
    this.scheduler[Symbol.dispose]();
  }
}
