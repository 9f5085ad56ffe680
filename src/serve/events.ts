/**
 * Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).
 *
 * @module
 */

/**
 * Milliseconds without an event after which a comment is sent, which clients pass over. It keeps the connection open on
 * its way; and only by writing does a server notice that a client went away whose request was longer than a kilobyte:
 * Deno (2.8.3 to 2.9.6) does not abort such a request's signal (https://github.com/denoland/deno/issues/36657 has the
 * cause).
 */
export const SILENCE = 1000;

/**
 * Answers with a stream of events. Each is made when the client has room for it: a slow one holds up nobody but itself.
 *
 * @param events What is sent, as JSON each; then `[DONE]`.
 * @param onError Makes the event that is sent where one fails.
 * @param onEnd Called once at the end, whoever ended it.
 * @param silence Milliseconds without an event after which a comment is sent.
 */
export function eventStream(
  events: AsyncGenerator<unknown, void, undefined>,
  onError: (error: unknown) => unknown,
  onEnd: () => void,
  silence = SILENCE,
): Response {
  const encoder = new TextEncoder();
  const encode = (data: string) => encoder.encode(`data: ${data}\n\n`);
  let cancelled = false;
  let coming: Promise<IteratorResult<unknown, void>> | null = null;
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        coming ??= events.next();
        const result = await within(silence, coming);
        if (cancelled) return; // While the event was made.
        if (!result) return controller.enqueue(encoder.encode(": working\n\n"));
        coming = null;
        const { value, done } = result;
        controller.enqueue(encode(done ? "[DONE]" : JSON.stringify(value)));
        if (!done) return;
      } catch (error) {
        if (cancelled) return;
        controller.enqueue(encode(JSON.stringify(onError(error))));
      }
      onEnd();
      controller.close();
    },
    async cancel() {
      cancelled = true;
      onEnd();
      await events.return();
    },
  }, { highWaterMark: 0 });
  return new Response(body, {
    headers: {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache",
      "x-accel-buffering": "no",
    },
  });
}

/**
 * What a promise brings, if it does so in time.
 *
 * @param ms How many milliseconds it has.
 * @param promise The promise; it goes on.
 * @returns Its value; undefined where it came to nothing in that time.
 */
export async function within<T>(ms: number, promise: Promise<T>): Promise<T | undefined> {
  const late = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => late.resolve(undefined), ms);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
