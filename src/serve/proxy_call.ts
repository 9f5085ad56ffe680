/**
 * One request on the main thread's side: its answer comes from a worker, piece by piece.
 *
 * @module
 */
import { ApiError } from "./errors.ts";
import type { FromWorker, ToWorker } from "./worker_messages.ts";

/** A request that a worker answers. */
export class ProxyCall {
  /** Resolves when the answer begins; never rejects. */
  readonly response: Promise<Response>;
  readonly #head = Promise.withResolvers<Response>();
  /** Chunks that the client has not asked for yet: as many as its credit at most. */
  #chunks: Uint8Array<ArrayBuffer>[] = [];
  #state: "open" | "ended" | "broken" = "open";
  #wake = () => {};

  /**
   * @param id Its number.
   * @param request The request.
   * @param send Says something to the worker.
   * @param done Called once when nothing more is to come.
   */
  constructor(
    readonly id: number,
    private readonly request: Request,
    private readonly send: (message: ToWorker) => void,
    private readonly done: () => void,
  ) {
    this.response = this.#head.promise;
    const { method, url, headers, body, signal } = request;
    send({ kind: "request", id, method, url, headers: [...headers], hasBody: body !== null });
    signal.addEventListener("abort", this.#leave, { once: true });
  }

  /**
   * Takes what the worker says about this request.
   *
   * @param message It.
   * @param maxBody Bytes of a body that the worker may want to see.
   */
  take(message: FromWorker & { id: number }, maxBody: number): void {
    switch (message.kind) {
      case "wants body":
        this.#sendBody(maxBody);
        return;
      case "head": {
        const { status, headers, hasBody } = message;
        if (!hasBody) this.#end("ended");
        this.#answered();
        return this.#head.resolve(new Response(hasBody ? this.#stream() : null, { status, headers }));
      }
      case "chunk":
        this.#chunks.push(message.bytes);
        return this.#wake();
      case "end":
        return this.#end("ended");
      case "broken":
        return this.fail();
    }
  }

  /** The worker will say nothing more. */
  fail(): void {
    this.#end("broken");
    this.#head.resolve(unavailable("the server could not answer; try again"));
  }

  /**
   * From now on the body's stream is cancelled if the client goes away. Deno aborts the signal of a request that was
   * answered, too, and warns those who listen (https://docs.deno.com/go/unstable-no-legacy-abort).
   */
  #answered(): void {
    this.request.signal.removeEventListener("abort", this.#leave);
  }

  #end(state: "ended" | "broken"): void {
    if (this.#state !== "open") return;
    this.#state = state;
    this.#answered();
    this.#wake();
    this.done();
  }

  /** The client went away. */
  readonly #leave = (): void => {
    if (this.#state !== "open") return;
    this.send({ kind: "cancel", id: this.id });
    this.#end("broken");
    this.#head.resolve(unavailable("the client went away"));
  };

  /** The response's body: what has come, when the client has room for it. */
  #stream(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return new ReadableStream({
      pull: async (controller) => {
        while (this.#chunks.length === 0 && this.#state === "open") {
          const { promise, resolve } = Promise.withResolvers<void>();
          this.#wake = resolve;
          await promise;
        }
        const chunks = this.#chunks;
        this.#chunks = [];
        for (const chunk of chunks) controller.enqueue(chunk);
        if (this.#state === "open") return this.send({ kind: "credit", id: this.id, chunks: chunks.length });
        this.#state === "ended" ? controller.close() : controller.error(new Error("the answer was cut off"));
      },
      cancel: () => this.#leave(),
    }, { highWaterMark: 0 });
  }

  /** Sends the body: a little more than the limit at most, from which the worker sees that it is too long. */
  async #sendBody(maxBody: number): Promise<void> {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    let length = 0;
    let bytes: Uint8Array<ArrayBuffer> | null = null;
    try {
      for await (const part of this.request.body!) {
        parts.push(part.subarray(0, maxBody + 1 - length));
        length += parts.at(-1)!.length;
        if (length > maxBody) break;
      }
      bytes = new Uint8Array(length);
      for (let at = 0, i = 0; i < parts.length; at += parts[i++].length) bytes.set(parts[i], at);
    } catch {
      bytes = null; // The client went away before it had sent all.
    }
    if (this.#state === "open") this.send({ kind: "body", id: this.id, bytes });
  }
}

/** What is answered where nobody can. */
export function unavailable(message: string): Response {
  return new ApiError(503, message, { code: "unavailable", headers: { "retry-after": "1" } }).response();
}
