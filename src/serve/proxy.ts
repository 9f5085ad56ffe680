/**
 * The server of `whet serve`: a worker computes, this thread speaks to the clients, and says at any moment that it is
 * alive.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { ApiError } from "./errors.ts";
import { ProxyCall, unavailable } from "./proxy_call.ts";
import { type Hooks, startHandler, unpackError } from "./worker_start.ts";
import type { FromWorker, Ready, ServerOptions, ToWorker } from "./worker_messages.ts";

/** A server that is apart from its HTTP. */
export interface Server {
  /** Answers a request; never rejects. */
  fetch(request: Request): Promise<Response>;
  /** Resolves when the model is loaded; rejects if it cannot be. */
  readonly ready: Promise<Ready>;
  /** Rejects when the server has failed for good. */
  readonly failed: Promise<never>;
  /** Takes no more requests, lets the others finish for some seconds, frees everything. */
  shutdown(seconds: number): Promise<void>;
}

/** How a server is started. */
export interface StartOptions extends Hooks {
  /** Takes lines for the operator [none]. */
  onLog?: (line: string) => void;
  /** Starts the worker [that of this module]. */
  startWorker?: () => Worker;
}

/** Bytes of a body at most, where nothing is said, as in {@linkcode HandlerOptions.maxBody}. */
const MAX_BODY = 2 ** 20;
/** Milliseconds that a worker has to say that it is down, beyond the grace time. */
const LAST_WORDS = 2000;

/**
 * Starts a server in a worker; in this thread, where no worker is to be had.
 *
 * @param options What is served, and how.
 * @param start Who is told what.
 */
export async function startServer(options: ServerOptions, start: StartOptions = {}): Promise<Server> {
  const { onLog = () => {} } = start;
  try {
    const server = new WorkerServer(options, start);
    await server.alive;
    return server;
  } catch (error) {
    onLog(
      `no worker to compute in (${
        (error as Error).message
      }): the server computes where it listens, and answers ` +
        "nobody meanwhile; --allow-read gives it one",
    );
    return serveHere(options, start);
  }
}

/** A worker that answers requests, and its successor if it dies. */
class WorkerServer implements Server {
  /** Resolves when there is a worker; rejects where there can be none. */
  readonly alive: Promise<void>;
  readonly ready: Promise<Ready>;
  readonly failed: Promise<never>;
  readonly #alive = Promise.withResolvers<void>();
  readonly #ready = Promise.withResolvers<Ready>();
  readonly #failed = Promise.withResolvers<never>();
  readonly #down = Promise.withResolvers<void>();
  readonly #calls = new Map<number, ProxyCall>();
  #worker: Worker | null = null;
  #state: "starting" | "loading" | "ready" | "closing" = "starting";
  #deaths = 0;
  #requests = 0;

  constructor(private readonly options: ServerOptions, private readonly start: StartOptions) {
    this.alive = this.#alive.promise;
    this.ready = this.#ready.promise;
    this.failed = this.#failed.promise;
    // Whoever waits hears of it.
    for (const promise of [this.alive, this.ready, this.failed]) promise.catch(() => {});
    try {
      this.#start();
    } catch (error) {
      this.#alive.reject(error);
    }
  }

  #start(): void {
    const worker = (this.start.startWorker ?? startWorker)();
    this.#worker = worker;
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#take(data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.#bury(event.message || "for no reason that it told");
    };
    worker.onmessageerror = () => this.#bury("it sent what cannot be read");
    this.#send({ kind: "start", options: this.options });
  }

  #send(message: ToWorker): void {
    this.#worker?.postMessage(message);
  }

  #take(message: FromWorker): void {
    switch (message.kind) {
      case "alive":
        if (this.#state === "starting") this.#state = "loading";
        return this.#alive.resolve();
      case "progress":
        return this.start.onProgress?.(message.progress);
      case "note":
        return this.start.onNote?.(message.text);
      case "ready":
        if (this.#state === "loading") this.#state = "ready";
        return this.#ready.resolve(message.ready);
      case "failed":
        return this.#giveUp(unpackError(message.error));
      case "down":
        return this.#down.resolve();
      default:
        this.#calls.get(message.id)?.take(message, this.options.maxBody ?? MAX_BODY);
    }
  }

  /** The worker has died. */
  #bury(reason: string): void {
    this.#end();
    if (this.#state === "starting") return this.#alive.reject(new Error(reason));
    if (this.#state === "closing") return this.#down.resolve();
    if (this.#deaths++ > 0) {
      return this.#giveUp(new WhetError("backend", `the server's worker died again: ${reason}`));
    }
    this.start.onLog?.(`the server's worker died (${reason}); it is started again`);
    this.#state = "loading";
    this.#start();
  }

  #giveUp(error: Error): void {
    this.#end();
    this.#ready.reject(error);
    this.#failed.reject(error);
  }

  /** Ends the worker and all that waits for it. */
  #end(): void {
    this.#worker?.terminate();
    this.#worker = null;
    for (const call of [...this.#calls.values()]) call.fail();
  }

  fetch(request: Request): Promise<Response> {
    const url = URL.parse(request.url);
    if (url && (request.method === "GET" || request.method === "HEAD")) {
      const health = this.#health(url.pathname);
      if (health) return Promise.resolve(health);
    }
    const { method } = request;
    if (!url) return refuse(400, "the request's address is not a URL");
    // No Request can be made with them.
    if (/^(CONNECT|TRACE|TRACK)$/i.test(method)) return refuse(405, `${method} is not supported`);
    if (!this.#worker) return Promise.resolve(unavailable("the server is not there; try again later"));
    if (request.signal.aborted) return Promise.resolve(unavailable("the client went away"));
    const id = this.#requests++;
    const call = new ProxyCall(id, request, (message) => this.#send(message), () => this.#calls.delete(id));
    this.#calls.set(id, call);
    return call.response;
  }

  /** What can be said without asking the worker, which may be busy. */
  #health(path: string): Response | null {
    if (path === "/healthz") return new Response("ok\n");
    if (path !== "/readyz") return null;
    if (this.#state === "ready" && this.#worker) return new Response("ready\n");
    return new Response(this.#state === "closing" ? "shutting down\n" : "loading\n", { status: 503 });
  }

  async shutdown(seconds: number): Promise<void> {
    const wasReady = this.#state === "ready" && this.#worker !== null;
    this.#state = "closing";
    if (wasReady) {
      this.#send({ kind: "shutdown", seconds });
      const timer = setTimeout(() => this.#down.resolve(), seconds * 1000 + LAST_WORDS);
      await this.#down.promise;
      clearTimeout(timer);
    }
    this.#end();
  }
}

function startWorker(): Worker {
  const url = new URL("./worker.ts", import.meta.url);
  // Deno tells a worker's failure on standard error, whoever handles it: better not to begin.
  if (url.protocol === "file:") Deno.statSync(url);
  return new Worker(url, { type: "module", name: "whet serve" });
}

function refuse(status: number, message: string): Promise<Response> {
  return Promise.resolve(new ApiError(status, message).response());
}

/** A server in this thread. */
function serveHere(options: ServerOptions, hooks: Hooks): Server {
  const starting = startHandler(options, hooks, true);
  const failed = new Promise<never>((_, reject) => starting.catch(reject));
  failed.catch(() => {}); // Whoever waits hears of it.
  let isReady = false;
  const ready = starting.then(({ ready }) => {
    isReady = true;
    return ready;
  });
  ready.catch(() => {});
  return {
    ready,
    failed,
    async fetch(request) {
      const path = URL.parse(request.url)?.pathname;
      if (path === "/healthz" && request.method === "GET") return new Response("ok\n");
      if (path === "/readyz" && !isReady) return new Response("loading\n", { status: 503 });
      try {
        return await (await starting).handler(request);
      } catch {
        return unavailable("the server is not there; try again later");
      }
    },
    async shutdown(seconds) {
      if (!isReady) return;
      const started = await starting;
      await started.handler.shutdown(seconds);
      await started[Symbol.asyncDispose]();
    },
  };
}
