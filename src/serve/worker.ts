/**
 * The worker in which `whet serve` computes: it answers requests that come as messages, so that the main thread is
 * always free to say that the server is alive.
 *
 * @module
 */
import { CREDIT, type FromWorker, type ToWorker } from "./worker_messages.ts";
import { packError, type Started, startHandler } from "./worker_start.ts";

/** The worker's own scope, which TypeScript knows only in files of another library. */
const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<ToWorker>) => void;
  postMessage: (message: FromWorker) => void;
  close: () => void;
};

/** A request that is under way. */
class Call {
  /** Ends its work. */
  readonly controller: AbortController = new AbortController();
  /** Takes its body. */
  readonly body: PromiseWithResolvers<Uint8Array<ArrayBuffer> | null> = Promise.withResolvers();
  #credit = CREDIT;
  #wake = () => {};

  /** Lets more chunks go. */
  allow(chunks: number): void {
    this.#credit += chunks;
    this.#wake();
  }

  /** Waits until a chunk may go. */
  async turn(): Promise<void> {
    while (this.#credit === 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await promise;
    }
    this.#credit--;
  }

  /** Nobody wants it any more. */
  cancel(): void {
    this.controller.abort(new DOMException("the client went away", "AbortError"));
    this.body.resolve(null);
    this.allow(1);
  }
}

const calls = new Map<number, Call>();
let starting: Promise<Started>;

scope.onmessage = ({ data: message }) => {
  switch (message.kind) {
    case "start": {
      const send = scope.postMessage;
      starting = startHandler(message.options, {
        onProgress: (progress) => send({ kind: "progress", progress }),
        onNote: (text) => send({ kind: "note", text }),
      }, false);
      starting.then(
        ({ ready }) => send({ kind: "ready", ready }),
        (error) => send({ kind: "failed", error: packError(error) }),
      );
      return;
    }
    case "request":
      answer(message);
      return;
    case "body":
      return calls.get(message.id)?.body.resolve(message.bytes);
    case "credit":
      return calls.get(message.id)?.allow(message.chunks);
    case "cancel":
      return calls.get(message.id)?.cancel();
    case "shutdown":
      shutDown(message.seconds);
  }
};

/** Answers a request, as fast as its client takes the answer. */
async function answer({ id, method, url, headers, hasBody }: ToWorker & { kind: "request" }): Promise<void> {
  const call = new Call();
  calls.set(id, call);
  const { signal } = call.controller;
  try {
    const { handler } = await starting;
    signal.throwIfAborted();
    const body = hasBody ? lazyBody(id, call) : null;
    const response = await handler(new Request(url, { method, headers, body, signal }));
    scope.postMessage({
      ...{ kind: "head", id, status: response.status, headers: [...response.headers] },
      hasBody: response.body !== null,
    });
    if (!response.body) return;
    const reader = response.body.getReader();
    // A cancelled stream ends every read that waits, and with it the work behind it.
    const cancel = () => reader.cancel(signal.reason).catch(() => {});
    signal.aborted ? cancel() : signal.addEventListener("abort", cancel, { once: true });
    for (;;) {
      await call.turn();
      const { value, done } = await reader.read();
      if (done || signal.aborted) break;
      scope.postMessage({ kind: "chunk", id, bytes: value });
    }
    scope.postMessage({ kind: "end", id });
  } catch {
    scope.postMessage({ kind: "broken", id }); // Loading failed, or the client went away; the handler told its log.
  } finally {
    calls.delete(id);
  }
}

/** A body that is asked for when it is read: who has no key does not get that far. */
function lazyBody(id: number, { body }: Call): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new ReadableStream({
    async pull(controller) {
      scope.postMessage({ kind: "wants body", id });
      const bytes = await body.promise;
      if (!bytes) return controller.error(new DOMException("the client went away", "AbortError"));
      if (bytes.length > 0) controller.enqueue(bytes);
      controller.close();
    },
  }, { highWaterMark: 0 });
}

async function shutDown(seconds: number): Promise<void> {
  try {
    const started = await starting;
    await started.handler.shutdown(seconds);
    await new Promise((go) => setTimeout(go, 20)); // Streams that were cut off say so.
    await started[Symbol.asyncDispose]();
  } catch {
    // It never started, which was told.
  }
  scope.postMessage({ kind: "down" });
}

scope.postMessage({ kind: "alive" });
