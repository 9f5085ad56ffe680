/**
 * Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).
 *
 * @module
 */

/**
 * Answers with a stream of events. Each is made when the client has room for it: a slow one holds up nobody but itself.
 *
 * @param events What is sent, as JSON each; then `[DONE]`.
 * @param onError Makes the event that is sent where one fails.
 * @param onEnd Called once at the end, whoever ended it.
 */
export function eventStream(
  events: AsyncGenerator<unknown, void, undefined>,
  onError: (error: unknown) => unknown,
  onEnd: () => void,
): Response {
  const encoder = new TextEncoder();
  const encode = (data: string) => encoder.encode(`data: ${data}\n\n`);
  let cancelled = false;
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { value, done } = await events.next();
        if (cancelled) return; // While the event was made.
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
