/**
 * The line to a worker that a GPU lives in. Calls are collected and go over in batches; questions are answered in
 * their time.
 *
 * @module
 */
import type { Worker } from "node:worker_threads";
import { WhetError } from "../../errors.ts";
import type { BackendStats } from "../../tensor/backend.ts";
import type { GpuOptions } from "./gpu.ts";
import { WGSL } from "./kernels.gen.ts";
import type { Call, Failure, FromWorker, Method, Numbers, Opened, ToWorker } from "./messages.ts";
import { watch } from "./worker_end.ts";

/** Bytes of data that go over at once, about: what the worker has not got yet lies in memory twice. */
const MOST_BYTES = 8 << 20;
/** Calls that go over at once, at most. */
const MOST_CALLS = 4096;
/** Bytes of a buffer that is handed over rather than copied. */
const WORTH_TRANSFER = 1 << 14;

/** A question that the worker has not answered yet. */
interface Question {
  resolve(value: unknown): void;
  reject(error: WhetError): void;
}

/**
 * Starts a worker and opens its backend, on the adapter that is found there.
 *
 * @param options Limits lower than the adapter's, for tests.
 * @returns The line, and what the backend says of itself.
 * @throws {WhetError} `backend` if this runtime has no such workers, or WebGPU no adapter or device.
 */
export async function openLink(options: GpuOptions): Promise<[Link, Opened]> {
  const worker = await startWorker();
  const state = new Int32Array(new SharedArrayBuffer(8));
  watch(worker, state);
  try {
    const opened = await new Promise<Opened>((resolve, reject) => {
      worker.on("error", (error) => reject(crashed(error)));
      worker.on("exit", () => reject(crashed("it ended")));
      worker.once("message", (message: FromWorker) => {
        if ("opened" in message) resolve(message.opened);
        else if ("failed" in message) reject(errorOf(message.failed));
      });
      post(worker, { open: options, sources: WGSL, state });
    });
    return [new Link(worker), opened];
  } catch (error) {
    worker.unref();
    post(worker, { close: true });
    throw error;
  }
}

/**
 * From a data URL a worker needs no permission, wherever this module came from, be it a bundle; and Node's workers can
 * be told not to keep a process alive, which Deno's own cannot.
 */
async function startWorker(): Promise<Worker> {
  try {
    const [{ Worker }, { WORKER }] = await Promise.all([
      import("node:worker_threads"),
      import("./worker.gen.ts"),
    ]);
    return new Worker(new URL(`data:text/javascript,${encodeURIComponent(WORKER)}`));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new WhetError("backend", `this runtime starts no worker for the GPU: ${reason}`, { cause: error });
  }
}

/** One worker. */
export class Link implements Disposable {
  /** What the worker's backend has done, as of its last word. */
  stats: BackendStats = {
    ...{ allocatedBytes: 0, allocations: 0, dispatches: 0, submissions: 0, creations: 0, readbacks: 0 },
  };
  readonly #worker: Worker;
  #calls: Call[] = [];
  #transfer: ArrayBuffer[] = [];
  #bytes = 0;
  readonly #questions = new Map<number, Question>();
  #lastQuestion = 0;
  #fault?: WhetError;
  #disposed = false;

  /** @param worker One whose backend is open. */
  constructor(worker: Worker) {
    this.#worker = worker;
    worker.on("message", (message: FromWorker) => this.#heard(message));
    worker.on("error", (error) => this.#failed(crashed(error)));
    worker.on("exit", () => this.#failed(crashed("it ended")));
    worker.unref();
  }

  /** Whether it was disposed. */
  get disposed(): boolean {
    return this.#disposed;
  }

  /** Throws what went wrong so far, and after disposal. */
  check(): void {
    if (this.#disposed) throw new WhetError("disposed", "this WebGPU backend was disposed");
    if (this.#fault) throw this.#fault;
  }

  /** Records a call; it goes over at the end of this turn at the latest. */
  call(call: Call): void {
    if (this.#calls.push(call) === 1) queueMicrotask(() => this.send());
    if (this.#calls.length >= MOST_CALLS || this.#bytes >= MOST_BYTES) this.send();
  }

  /** Records a call and waits for what comes of it; meanwhile the process lives. */
  ask<Answer>(name: Method, ...args: unknown[]): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.check();
      const asks = ++this.#lastQuestion;
      if (this.#questions.size === 0) this.#worker.ref();
      this.#questions.set(asks, { resolve: resolve as (value: unknown) => void, reject });
      this.call({ name, args, asks });
    });
  }

  /** A copy for the next call to hand over, for the caller may change his own. */
  copy(data: Float32Array | Uint32Array | Uint8Array): Numbers {
    const { buffer } = data.slice();
    if (buffer.byteLength >= WORTH_TRANSFER) this.#transfer.push(buffer);
    this.#bytes += buffer.byteLength;
    const numbers = data instanceof Float32Array ? "f32" : data instanceof Uint32Array ? "u32" : "u8";
    return { numbers, buffer };
  }

  /** Hands over what is recorded. */
  send(): void {
    if (this.#disposed || this.#calls.length === 0) return;
    const [calls, transfer] = [this.#calls, this.#transfer];
    this.#calls = [];
    this.#transfer = [];
    this.#bytes = 0;
    post(this.#worker, { calls }, transfer);
  }

  #heard(message: FromWorker): void {
    if ("stats" in message) this.stats = message.stats;
    if ("failed" in message) this.#fault ??= errorOf(message.failed);
    if (!("answers" in message)) return;
    const question = this.#questions.get(message.answers);
    this.#questions.delete(message.answers);
    if (this.#questions.size === 0) this.#worker.unref();
    if (message.failure) question?.reject(errorOf(message.failure));
    else question?.resolve(message.value);
  }

  /** The worker is gone, and with it the answers. */
  #failed(error: WhetError): void {
    this.#fault ??= error;
    for (const { reject } of this.#questions.values()) reject(error);
    this.#questions.clear();
  }

  /** Frees the device and its memory once what was called is done; the worker ends by itself. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#failed(new WhetError("disposed", "this WebGPU backend was disposed"));
    this.#calls = [];
    this.#transfer = [];
    this.#worker.unref();
    post(this.#worker, { close: true });
  }
}

function post(worker: Worker, message: ToWorker, transfer: ArrayBuffer[] = []): void {
  worker.postMessage(message, transfer);
}

function crashed(reason: unknown): WhetError {
  const words = reason instanceof Error ? reason.message : String(reason);
  return new WhetError(
    "backend",
    `the GPU's worker is gone (${words}): start again from the last checkpoint`,
  );
}

function errorOf({ code, message }: Failure): WhetError {
  return new WhetError(code, message);
}
