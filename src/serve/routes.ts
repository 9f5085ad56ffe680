/**
 * The routes of the server, and the OpenAPI document that says what they are.
 *
 * @module
 */
import { createRoute, OpenAPIHono, z } from "npm:@hono/zod-openapi@1.6.3";
import { VERSION } from "../version.ts";
import { needsKey } from "./access.ts";
import { readJson } from "./body.ts";
import { chatLogProbs, chatsOf, joinChats } from "./chat.ts";
import { CompletionChoices, completionsOf, joinCompletions } from "./completions.ts";
import { ApiError, toApiError } from "./errors.ts";
import { eventStream, SILENCE, within } from "./events.ts";
import type { Metrics } from "./metrics.ts";
import { type Piece, pieces, type Wanted } from "./pieces.ts";
import {
  adapterRequest,
  chatRequest,
  chatResponse,
  completionRequest,
  completionResponse,
  deletedResponse,
  errorResponse,
  modelResponse,
  modelsResponse,
  scoreRequest,
  scoreResponse,
} from "./schemas.ts";
import { scoresOf } from "./score.ts";
import type { Service } from "./service.ts";

/** What the routes work with. */
export interface RoutesOptions {
  /** The model, once it is loaded; rejects with what a client may be told. */
  service: () => Promise<Service>;
  /** Whether the model is there. */
  isReady: () => boolean;
  /** What is counted. */
  metrics: Metrics;
  /** Bytes of a body at most. */
  maxBody: number;
  /** Whether requests need a key. */
  hasKey: boolean;
  /** Whether adapters may be added and removed by requests. */
  manageAdapters: boolean;
  /** Looks for adapters that came since. */
  refresh: () => Promise<void>;
  /** The page at `/`, if there is to be one. */
  page: (() => Promise<string>) | null;
  /** Told about errors that clients are not told about. */
  log: (error: unknown) => void;
}

/** Methods that some route takes; HEAD and OPTIONS come of themselves. */
const METHODS = ["GET", "POST", "DELETE"];

/** How a key is sent, as OpenAPI says it. */
const KEY = { type: "http", scheme: "bearer" } as const;

/** What the document says of a route beside its method, path and purpose. */
interface Documented {
  /** The request's body. */
  body?: z.ZodType;
  /** The answer's body, or the type of one that is no JSON ["text/plain"]. */
  answer?: z.ZodType | "text/plain" | "text/html";
  /** Whether the answer may come as server-sent events [false]. */
  streams?: boolean;
}

/** Makes the application. */
export function routes(options: RoutesOptions): OpenAPIHono {
  const { metrics, log } = options;
  const app = new OpenAPIHono();
  const security = options.hasKey ? [{ key: [] }] : [];
  if (options.hasKey) app.openAPIRegistry.registerComponent("securitySchemes", "key", KEY);
  const document = (
    method: "get" | "post" | "delete",
    path: string,
    summary: string,
    { body, answer = "text/plain", streams = false }: Documented,
  ) => {
    const json = (schema: z.ZodType) => ({ "application/json": { schema } });
    const content = typeof answer === "string" ? { [answer]: { schema: z.string() } } : json(answer);
    const events = streams ? { "text/event-stream": { schema: z.string() } } : {};
    app.openAPIRegistry.registerPath(createRoute({
      ...{ method, path, summary, security: needsKey(path) ? security : [] },
      request: {
        ...(body ? { body: { content: json(body), required: true } } : {}),
        ...(path.endsWith("{id}") ? { params: z.object({ id: z.string() }) } : {}),
      },
      responses: {
        200: { description: "The answer", content: { ...content, ...events } },
        default: { description: "An error", content: json(errorResponse) },
      },
    }));
  };
  const read = async <T>(request: Request, schema: z.ZodType<T>): Promise<T> => {
    const { data, error } = schema.safeParse(await readJson(request, options.maxBody));
    if (!error) return data;
    const { path, message } = deepest(error.issues[0]);
    throw new ApiError(400, path.length > 0 ? `${path.join(".")}: ${message}` : message, {
      param: path.length > 0 ? String(path[0]) : null,
    });
  };
  /** A signal that ends a request's work: the client went away, or it took too long. */
  const limited = (request: Request, service: Service) => {
    const controller = new AbortController();
    const end = (reason: unknown) => controller.abort(reason);
    const gone = () => end(request.signal.reason);
    if (request.signal.aborted) gone();
    request.signal.addEventListener("abort", gone, { once: true });
    const timer = setTimeout(
      () => end(new DOMException("the request took too long", "TimeoutError")),
      service.timeout * 1000,
    );
    const done = () => {
      clearTimeout(timer);
      // Deno aborts the signal of a request that was answered, too, and warns those who listen.
      request.signal.removeEventListener("abort", gone);
      controller.abort(); // What nobody waits for any more, such as a stream that was left before it began.
    };
    return { signal: controller.signal, done };
  };
  const begin = async (model: string | undefined): Promise<Service> => {
    const service = await options.service();
    if (model !== undefined && model !== service.name && !service.adapters.has(model)) {
      await options.refresh();
    }
    return service;
  };
  /** Tells how long the first token and all took. */
  async function* timed(
    pieces: AsyncGenerator<Piece, void, undefined>,
  ): AsyncGenerator<Piece, void, undefined> {
    const begun = performance.now();
    const seconds = () => (performance.now() - begun) / 1000;
    let first = true;
    for await (const piece of pieces) {
      if (first && !piece.isPrompt) metrics.firstToken.add(seconds()), first = false;
      yield piece;
    }
    metrics.duration.add(seconds());
  }

  /** Answers with all pieces at once, or one after the other. */
  const answer = async (
    request: Request,
    service: Service,
    { wanted, stream }: { wanted: Wanted[]; stream: boolean },
    whole: (all: Piece[]) => unknown,
    events: (pieces: AsyncGenerator<Piece, void, undefined>) => AsyncGenerator<unknown, void, undefined>,
  ): Promise<Response> => {
    const { signal, done } = limited(request, service);
    const coming = timed(pieces(service, wanted, signal));
    if (stream) {
      // What fails before the first token is answered with a status, as without a stream, if it fails soon.
      const first = coming.next();
      await within(SILENCE, first).catch((error) => {
        done();
        throw error;
      });
      const all = async function* (): AsyncGenerator<Piece, void, undefined> {
        try {
          const { value, done } = await first;
          if (!done) yield value;
          yield* coming;
        } finally {
          await coming.return();
        }
      };
      return eventStream(events(all()), (error) => toApiError(error, log).body, done);
    }
    try {
      return Response.json(whole(await Array.fromAsync(coming)));
    } finally {
      done();
    }
  };

  document("post", "/v1/completions", "Continues texts", {
    ...{ body: completionRequest, answer: completionResponse, streams: true },
  });
  app.post("/v1/completions", async ({ req: { raw } }) => {
    const request = await read(raw, completionRequest);
    const service = await begin(request.model);
    const { wanted, promptTokens } = completionsOf(service, request);
    const choices = new CompletionChoices(service.model.tokenizer, request, wanted.length);
    const frame = frameOf("cmpl", "text_completion", request.model ?? service.name);
    const usage = () => usageOf(promptTokens, choices.tokens);
    return await answer(
      raw,
      service,
      { wanted, stream: request.stream ?? false },
      (all) => ({
        ...frame,
        choices: joinCompletions(all.map((piece) => choices.choice(piece)), wanted.length),
        usage: usage(),
      }),
      async function* (pieces) {
        const told = request.stream_options?.include_usage ? { usage: null } : {};
        for await (const piece of pieces) yield { ...frame, choices: [choices.choice(piece)], ...told };
        if (request.stream_options?.include_usage) yield { ...frame, choices: [], usage: usage() };
      },
    );
  });

  document("post", "/v1/chat/completions", "Answers in a dialogue", {
    ...{ body: chatRequest, answer: chatResponse, streams: true },
  });
  app.post("/v1/chat/completions", async ({ req: { raw } }) => {
    const request = await read(raw, chatRequest);
    const service = await begin(request.model);
    const { wanted, promptTokens } = await chatsOf(service, request);
    const { tokenizer } = service.model;
    const frame = (object: string) => frameOf("chatcmpl", object, request.model ?? service.name);
    return await answer(
      raw,
      service,
      { wanted, stream: request.stream ?? false },
      (all) => ({
        ...frame("chat.completion"),
        choices: joinChats(tokenizer, all, request, wanted.length),
        usage: usageOf(promptTokens, all.length),
      }),
      async function* (pieces) {
        const chunk = frame("chat.completion.chunk");
        const told = request.stream_options?.include_usage ? { usage: null } : {};
        const begun = new Array<boolean>(wanted.length).fill(false);
        let tokens = 0;
        for (let index = 0; index < wanted.length; index++) {
          const delta = { role: "assistant", content: "", refusal: null };
          yield { ...chunk, choices: [{ index, delta, logprobs: null, finish_reason: null }], ...told };
        }
        for await (const { index, text, scored, finishReason } of pieces) {
          tokens++;
          // The template has no space after its colon: the answer begins with it.
          const content = begun[index] ? text : text.replace(/^ /, "");
          begun[index] ||= text !== "";
          const logprobs = request.logprobs ? chatLogProbs(tokenizer, scored) : null;
          if (content !== "" || logprobs) {
            yield {
              ...chunk,
              choices: [{ index, delta: { content }, logprobs, finish_reason: null }],
              ...told,
            };
          }
          if (finishReason) {
            yield {
              ...chunk,
              choices: [{ index, delta: {}, logprobs: null, finish_reason: finishReason }],
              ...told,
            };
          }
        }
        if (request.stream_options?.include_usage) {
          yield { ...chunk, choices: [], usage: usageOf(promptTokens, tokens) };
        }
      },
    );
  });

  document(
    "post",
    "/v1/score",
    "Scores texts by their likelihood, and answers by the reward model",
    { body: scoreRequest, answer: scoreResponse },
  );
  app.post("/v1/score", async ({ req: { raw } }) => {
    const request = await read(raw, scoreRequest);
    const service = await begin(request.model);
    const { signal, done } = limited(raw, service);
    try {
      return Response.json(await scoresOf(service, request, signal));
    } finally {
      done();
    }
  });

  const modelOf = (service: Service, id: string) => ({
    ...{ id, object: "model", created: service.created, owned_by: "whet" },
    ...(id === service.name ? {} : { parent: service.name }),
  });
  document("get", "/v1/models", "The base model and its adapters", { answer: modelsResponse });
  app.get("/v1/models", async () => {
    const service = await begin("");
    const names = [service.name, ...service.adapters.names];
    return Response.json({ object: "list", data: names.map((name) => modelOf(service, name)) });
  });
  document("get", "/v1/models/{id}", "One of them", { answer: modelResponse });
  app.get("/v1/models/:id{.+}", async ({ req }) => {
    const id = req.param("id");
    const service = await begin(id);
    return Response.json(modelOf(service, service.admit(id, 0)));
  });

  document("post", "/v1/adapters", "Adds an adapter", { body: adapterRequest, answer: modelResponse });
  document("delete", "/v1/adapters/{id}", "Removes an adapter; requests that have it keep it", {
    answer: deletedResponse,
  });
  const mayManage = () => {
    if (options.manageAdapters) return;
    throw new ApiError(403, "this server's adapters are not managed by requests", { code: "forbidden" });
  };
  app.post("/v1/adapters", async ({ req: { raw } }) => {
    mayManage();
    const { id, source } = await read(raw, adapterRequest);
    const service = await options.service();
    if (id === service.name) {
      throw new ApiError(409, `${id} is the base model's name; take another`, { param: "id" });
    }
    service.adapters.add(id, source);
    return Response.json(modelOf(service, id));
  });
  app.delete("/v1/adapters/:id{.+}", async ({ req }) => {
    mayManage();
    const service = await options.service();
    const id = req.param("id");
    service.admit(id, 0);
    if (!service.adapters.delete(id)) throw new ApiError(400, `${id} is the base model`, { param: "id" });
    return Response.json({ id, object: "model", deleted: true });
  });

  document("get", "/healthz", "Whether the server is alive", {});
  app.get("/healthz", () => new Response("ok\n"));
  document("get", "/readyz", "Whether the model is loaded", {});
  app.get(
    "/readyz",
    () => options.isReady() ? new Response("ready\n") : new Response("loading\n", { status: 503 }),
  );
  document("get", "/metrics", "What was counted, for Prometheus", {});
  app.get("/metrics", async () => {
    const service = options.isReady() ? await options.service() : null;
    const values: Record<string, number> = { whet_ready: Number(service !== null) };
    if (service) {
      const { running, waiting, freeBlocks, blocks, promptTokens, generatedTokens, steps } =
        service.scheduler.state;
      const { known, loaded, bytes, loads, evictions } = service.adapters.state;
      Object.assign(values, {
        ...{ whet_texts_running: running, whet_texts_waiting: waiting, whet_texts_open: service.open },
        ...{ whet_cache_blocks: blocks, whet_cache_blocks_free: freeBlocks, whet_steps_total: steps },
        ...{ whet_prompt_tokens_total: promptTokens, whet_generated_tokens_total: generatedTokens },
        ...{ whet_adapters_known: known, whet_adapters_loaded: loaded, whet_adapters_bytes: bytes },
        ...{ whet_adapter_loads_total: loads, whet_adapter_evictions_total: evictions },
      });
    }
    return new Response(metrics.text(values), {
      headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8" },
    });
  });
  document("get", "/openapi.json", "This document", { answer: z.looseObject({}) });
  app.doc31("/openapi.json", {
    openapi: "3.1.0",
    info: {
      title: "Whet",
      version: VERSION,
      description: "GPT-2 and its adapters, by the API that OpenAI's clients speak.",
    },
  });
  const { page } = options;
  if (page) {
    document("get", "/", "A page to try it", { answer: "text/html" });
    app.get("/", async () =>
      new Response(await page(), {
        headers: {
          "content-type": "text/html; charset=utf-8",
          "content-security-policy":
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:",
        },
      }));
  }

  app.notFound(({ req }) => {
    const methods = METHODS.filter((method) => app.router.match(method, req.path)[0].length > 0);
    if (methods.length === 0) {
      const message = `there is no ${req.method} ${req.path}; GET /openapi.json says what there is`;
      return new ApiError(404, message, { code: "not_found" }).response();
    }
    const allow = [...methods, ...(methods.includes("GET") ? ["HEAD"] : []), "OPTIONS"].join(", ");
    if (req.method === "OPTIONS") return new Response(null, { status: 204, headers: { allow } });
    return new ApiError(405, `there is no ${req.method} ${req.path}; it takes ${allow}`, {
      code: "method_not_supported",
      headers: { allow },
    }).response();
  });
  app.onError((error) => toApiError(error, log).response());
  return app;
}

/** What of a union's issues is most to the point: that of the branch that came furthest. */
function deepest(issue: z.core.$ZodIssue): { path: PropertyKey[]; message: string } {
  if (issue.code !== "invalid_union" || issue.errors.length === 0) {
    return { path: issue.path, message: issue.message };
  }
  const inner = issue.errors.map((issues) => issues[0]).filter(Boolean).map(deepest);
  const best = inner.sort((a, b) => b.path.length - a.path.length)[0];
  if (!best || best.path.length === 0) return { path: issue.path, message: "is of the wrong type" };
  return { path: [...issue.path, ...best.path], message: best.message };
}

function frameOf(prefix: string, object: string, model: string) {
  return {
    ...{ id: `${prefix}-${crypto.randomUUID().replaceAll("-", "")}`, object },
    ...{ created: Math.floor(Date.now() / 1000), model, system_fingerprint: `whet-${VERSION}` },
  };
}

function usageOf(prompt_tokens: number, completion_tokens: number) {
  return { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
}
