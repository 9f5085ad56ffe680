/**
 * The server as a function from a request to its answer: for `Deno.serve`, `deno serve` and edge runtimes.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { explainFileError, join } from "../format/files.ts";
import { GPT2 } from "../gpt2.ts";
import type { LanguageModel } from "../model/language_model.ts";
import type { LoadOptions } from "../model/load.ts";
import { corsHeaders, keyCheck, needsKey } from "./access.ts";
import { readChatTemplate } from "./chat_template.ts";
import { ApiError, toApiError } from "./errors.ts";
import { Metrics } from "./metrics.ts";
import { Service, type ServiceOptions } from "./service.ts";

/** What is served, to whom, and how much; what is not given has the value in brackets. */
export interface HandlerOptions
  extends
    ServiceOptions,
    Pick<LoadOptions, "backend" | "weights" | "threads" | "instructionSet" | "arithmetic"> {
  /** The base model: a directory, URL or Hub id, `"nano"`, or one that is loaded and stays the caller's ["nano"]. */
  model?: string | LanguageModel;
  /** Adapters: a directory with a directory for each, which may come and go, or their sources by name [none]. */
  adapters?: string | Readonly<Record<string, string>>;
  /** Bytes that adapters take in memory at most [128 MiB]. */
  adapterBytes?: number;
  /** Whether requests may add and remove adapters: with it, who may ask may have any file loaded [false]. */
  manageAdapters?: boolean;
  /** Which key requests must bring [none is needed]. */
  apiKey?: string;
  /** Sites whose pages may ask, or `"*"` [none]. */
  cors?: readonly string[] | "*";
  /** Bytes of a request's body at most [1 MiB]. */
  maxBody?: number;
  /** Whether there is a page at `/` [true]. */
  page?: boolean;
  /** Told about errors that clients are not told about [console.error, one line]. */
  log?: (error: unknown) => void;
}

/** The server; see {@linkcode createHandler}. */
export interface Handler extends AsyncDisposable {
  /** Answers a request. */
  (request: Request): Promise<Response>;
  /** Resolves when the model is loaded; rejects if it cannot be. */
  readonly ready: Promise<void>;
  /**
   * Takes no more requests, lets those that are under way finish, then frees everything.
   *
   * @param seconds How long they have; what is left then is cut off.
   */
  shutdown(seconds?: number): Promise<void>;
}

/**
 * Makes a server of a model and its adapters, speaking the API of OpenAI's clients: `/v1/completions`,
 * `/v1/chat/completions`, `/v1/models`, `/v1/score`, `/healthz`, `/readyz`, `/metrics`, `/openapi.json`, and a page at `/`.
 *
 * The model begins to load at once, and stays between requests. No worker, thread or file system is needed where the
 * runtime has none.
 *
 * @param options Model, adapters, limits.
 * @returns The function that answers requests.
 * @throws {WhetError} "option" where a value makes no sense.
 *
 * @example
 * ```ts
 * import { createHandler } from "./handler.ts";
 *
 * await using handler = createHandler({ model: "nano" });
 * const response = await handler(new Request("http://localhost/v1/models"));
 * console.log(await response.json());
 * ```
 */
export function createHandler(options: HandlerOptions = {}): Handler {
  const { apiKey, cors, maxBody = 2 ** 20, page = true, manageAdapters = false } = options;
  if (apiKey === "") throw new WhetError("option", "apiKey: it is empty; leave it out to let everybody in");
  if (!(Number.isSafeInteger(maxBody) && maxBody > 0)) {
    throw new WhetError("option", `maxBody: expected a whole number of bytes above 0, got ${maxBody}`);
  }
  const log = options.log ?? ((error) => console.error(`whet serve: ${messageOf(error)}`));
  const metrics = new Metrics();
  const check = keyCheck(apiKey);
  const served = new Served(options);
  const app = import("./routes.ts").then(({ routes }) =>
    routes({
      ...{ metrics, maxBody, manageAdapters, log, hasKey: apiKey !== undefined },
      service: () => served.service(log),
      isReady: () => served.isReady,
      refresh: () => served.refresh(),
      page: page ? async () => (await import("./page.ts")).PAGE : null,
    })
  );
  app.catch(() => {}); // The first request hears of it.
  let closing = false;
  let underway = 0;
  let rest: (() => void) | null = null;

  const answer = async (request: Request, path: string): Promise<Response> => {
    if (closing) {
      return new ApiError(503, "the server is shutting down", {
        code: "shutting_down",
        headers: { "retry-after": "5" },
      })
        .response();
    }
    try {
      if (needsKey(path)) await check(request);
      return await (await app).fetch(request);
    } catch (error) {
      return toApiError(error, log).response();
    }
  };
  const handler = async (request: Request): Promise<Response> => {
    const path = URL.parse(request.url)?.pathname; // A Host header may be anything.
    if (path === undefined) return new ApiError(400, "the request's address is not a URL").response();
    const headers = corsHeaders(request.headers.get("origin"), cors);
    if (request.method === "OPTIONS" && cors && request.headers.has("access-control-request-method")) {
      return new Response(null, {
        status: 204,
        headers: {
          ...headers,
          "access-control-allow-methods": "GET, POST, DELETE",
          "access-control-allow-headers": request.headers.get("access-control-request-headers") ?? "",
          "access-control-max-age": "86400",
        },
      });
    }
    underway++;
    const leave = () => {
      if (--underway === 0) rest?.();
    };
    const response = await answer(request, path);
    metrics.count(
      KNOWN.has(path) ? path : path.startsWith("/v1/models/") ? "/v1/models" : "other",
      response.status,
    );
    for (const [name, value] of Object.entries(headers)) response.headers.set(name, value);
    if (!response.body) {
      leave();
      return response;
    }
    // Until its last byte is sent, or nobody wants it any more, a request is under way.
    return new Response(watched(response.body, leave), response);
  };
  const shutdown = async (seconds = 30) => {
    closing = true;
    if (underway > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, seconds * 1000);
      rest = resolve;
      await promise;
      clearTimeout(timer);
    }
    await served[Symbol.asyncDispose]();
  };
  const ready = served.loaded().then(() => {});
  ready.catch(() => {}); // Requests hear of it, and whoever waits.
  return Object.assign(handler, { ready, shutdown, [Symbol.asyncDispose]: () => shutdown(0) });
}

const KNOWN: ReadonlySet<string> = new Set([
  ...["/v1/completions", "/v1/chat/completions", "/v1/models", "/v1/score", "/v1/adapters"],
  ...["/healthz", "/readyz", "/metrics", "/openapi.json", "/"],
]);

/** The model and what belongs to it, from when it is loaded. */
class Served implements AsyncDisposable {
  /** Whether it is loaded. */
  isReady = false;
  #loading: Promise<Service> | null = null;
  /** Names of adapters that the directory had when it was last looked into. */
  #found: ReadonlySet<string> = new Set();
  #disposed = false;

  constructor(private readonly options: HandlerOptions) {
    this.#begin();
  }

  /** The service; where loading failed, it is tried again by whoever comes next. */
  loaded(): Promise<Service> {
    return this.#loading ?? this.#begin();
  }

  /** The service, for a client, who is not told why there is none. */
  async service(log: (error: unknown) => void): Promise<Service> {
    try {
      return await this.loaded();
    } catch (error) {
      log(error);
      throw new ApiError(503, "the model could not be loaded; the server's log says why", {
        code: "model_not_loaded",
        headers: { "retry-after": "10" },
      });
    }
  }

  #begin(): Promise<Service> {
    const loading = this.#load();
    this.#loading = loading;
    loading.then(() => this.isReady = true, () => this.#loading = null);
    return loading;
  }

  async #load(): Promise<Service> {
    if (this.#disposed) throw new WhetError("disposed", "the server was shut down");
    const { model = "nano", adapterBytes, backend, weights, threads, instructionSet, arithmetic, ...limits } =
      this.options;
    const own = typeof model === "string";
    // With a worker the event loop never waits for a GPU; where there is none, it starts none.
    const loading = { backend, weights, threads, instructionSet, arithmetic, worker: true };
    const loaded = own ? await GPT2.load(model, loading) : model;
    try {
      const chatTemplate = limits.chatTemplate ?? (own ? await readChatTemplate(model) : undefined);
      const service = new Service(loaded, { ...limits, chatTemplate }, { bytes: adapterBytes });
      const sources = await this.#sources();
      for (const [name, source] of Object.entries(sources)) service.adapters.add(name, source);
      this.#found = new Set(Object.keys(sources));
      return service;
    } catch (error) {
      if (own) loaded[Symbol.dispose]();
      throw error;
    }
  }

  async #sources(): Promise<Readonly<Record<string, string>>> {
    const { adapters = {} } = this.options;
    if (typeof adapters !== "string") return adapters;
    const found: [name: string, source: string][] = [];
    try {
      for await (const { name } of Deno.readDir(adapters)) {
        const place = join(adapters, name);
        if (await Deno.stat(join(place, "adapter_config.json")).catch(() => null)) found.push([name, place]);
      }
    } catch (error) {
      throw explainFileError(error, "read", adapters);
    }
    const { compare } = new Intl.Collator("en", { numeric: true }); // A directory is in no order.
    return Object.fromEntries(found.sort(([a], [b]) => compare(a, b)));
  }

  /**
   * Looks into the adapters' directory again: what came is known from now on, what went no longer. What a request removed
   * does not come back by that.
   */
  async refresh(): Promise<void> {
    if (typeof this.options.adapters !== "string") return;
    const { adapters } = await this.service(() => {});
    const sources = await this.#sources();
    for (const [name, source] of Object.entries(sources)) {
      if (!adapters.has(name) && !this.#found.has(name)) adapters.add(name, source);
    }
    for (const name of this.#found) if (!Object.hasOwn(sources, name)) adapters.delete(name);
    this.#found = new Set(Object.keys(sources));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
    const service = await this.#loading?.catch(() => null);
    service?.[Symbol.dispose]();
    if (service && typeof (this.options.model ?? "nano") === "string") service.model[Symbol.dispose]();
  }
}

/** A body that tells when it is over. */
function watched(body: ReadableStream<Uint8Array>, onEnd: () => void): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  let over = false;
  const end = () => {
    if (!over) onEnd();
    over = true;
  };
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { value, done } = await reader.read();
        if (!done) return controller.enqueue(value);
        controller.close();
      } catch (error) {
        controller.error(error);
      }
      end();
    },
    async cancel(reason) {
      end();
      await reader.cancel(reason);
    },
  }, { highWaterMark: 0 });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}
