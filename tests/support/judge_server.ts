/**
 * A stand-in for an OpenAI-compatible endpoint, as badly behaved as a test wants it.
 *
 * @module
 */

/** A request that arrived. */
export interface Asked {
  method: string;
  /** Path and query. */
  path: string;
  headers: Headers;
  body: Record<string, unknown>;
  /** The first message's text. */
  text: string;
}

/** What it does with a request: answers, or cuts the line. */
export type Behaviour = (asked: Asked) => Response | "cut" | Promise<Response | "cut">;

/** A running stand-in. */
export interface StandIn extends AsyncDisposable {
  /** Its address, without a slash at its end. */
  url: string;
  /** What arrived so far. */
  requests: Asked[];
}

/** Starts one on a port of its own. */
export function standIn(behave: Behaviour): StandIn {
  const requests: Asked[] = [];
  const controller = new AbortController();
  const server = Deno.serve({
    ...{ hostname: "127.0.0.1", port: 0, signal: controller.signal, onListen: () => {} },
    onError: () => new Response("the stand-in failed", { status: 418 }),
  }, async (request) => {
    const { pathname, search } = new URL(request.url);
    const body = await request.json();
    const asked: Asked = {
      ...{ method: request.method, path: pathname + search, headers: request.headers, body },
      text: body.messages?.[0]?.content ?? "",
    };
    requests.push(asked);
    const response = await behave(asked);
    if (response !== "cut") return response;
    // A length that is never reached: the connection is closed before it.
    const stream = new ReadableStream({ start: (controller) => controller.error(new Error("cut")) });
    return new Response(stream, { headers: { "content-length": "100" } });
  });
  return {
    url: `http://127.0.0.1:${server.addr.port}`,
    requests,
    async [Symbol.asyncDispose]() {
      controller.abort();
      await server.finished;
    },
  };
}

/** A completion that says something. */
export function rated(content: string): Response {
  return Response.json({
    ...{ id: "x", object: "chat.completion", model: "m" },
    choices: [{ index: 0, finish_reason: "stop", message: { role: "assistant", content } }],
  });
}
