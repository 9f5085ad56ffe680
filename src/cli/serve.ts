/**
 * `whet serve`.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { type Server, startServer } from "../serve/proxy.ts";
import type { ServerOptions } from "../serve/worker_messages.ts";
import type { SERVE } from "./command_flags.ts";
import { UsageError, type Values } from "./flags.ts";
import { Interrupted } from "./interrupt.ts";
import { given, loadOptions, showLoading } from "./model.ts";
import { note, printLine } from "./output.ts";

/** Milliseconds after the grace time in which connections may close. */
const CLOSING = 1000;

/** Serves until it is told to stop; see `SERVE` for the flags. */
export async function runServe(values: Values<typeof SERVE>): Promise<void> {
  const { host: hostname = "127.0.0.1", port = 8000, grace = 30, quiet } = values;
  const options = readOptions(values);
  const loading = showLoading(quiet);
  const serving = Promise.withResolvers<Server>();
  serving.promise.catch(() => {}); // Whoever asked hears of it.
  using _ = quietAboutSignals();
  using stop = stopSignal(quiet ? null : grace);
  const http = listen({ hostname, port }, async (request) => {
    return await (await serving.promise).fetch(request);
  });
  const { addr } = http;
  const shown = addr.hostname.includes(":") ? `[${addr.hostname}]` : addr.hostname;
  const url = `http://${shown}:${addr.port}`;
  let server: Server | null = null;
  try {
    server = await startServer(options, { ...loading, onLog: (line) => note(`whet: ${line}`) });
    serving.resolve(server);
    const ready = await Promise.race([server.ready, stop.first]);
    loading.finish();
    if (ready) {
      if (values.json) printLine(JSON.stringify({ url, model: ready.name }));
      if (!quiet) note(introduction(url, ready, options));
      await Promise.race([stop.first, server.failed]);
    }
    await Promise.race([close(http, server, grace), stop.second]);
  } catch (error) {
    serving.reject(error);
    throw error;
  } finally {
    loading.finish();
  }
}

/** Lets requests finish; connections that are still open after that end with the process. */
async function close(http: Deno.HttpServer, server: Server, grace: number): Promise<void> {
  const closed = http.shutdown(); // No new connections from now on.
  await server.shutdown(grace);
  // Its signal would cut them off, but throws after shutdown() in Deno 2.9.6 (BadResource).
  let timer;
  await Promise.race([closed, new Promise((resolve) => timer = setTimeout(resolve, CLOSING))]);
  clearTimeout(timer);
}

/** Listens; what is in the way is told in one line. */
function listen(
  options: { hostname: string; port: number },
  handler: (request: Request) => Promise<Response>,
): Deno.HttpServer<Deno.NetAddr> {
  const { hostname, port } = options;
  try {
    return Deno.serve({ ...options, onListen: () => {}, onError: answerFailure }, handler);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    const why = error instanceof Deno.errors.AddrInUse
      ? "another server has it; choose another port"
      : error instanceof Deno.errors.PermissionDenied
      ? "the system refuses it; choose a port above 1023"
      : `${(error as Error).message}; is the address this machine's?`;
    throw new WhetError("option", `--port ${port}, --host ${hostname}: ${why}`, { cause: error });
  }
}

/**
 * Deno warns, once, that it aborts the signals of requests that were answered, too; the proxy knows.
 * https://github.com/denoland/deno/issues/29111: to be deleted when that is over.
 */
function quietAboutSignals(): Disposable {
  const { warn } = console;
  console.warn = (...args: unknown[]) => {
    if (!String(args[0]).startsWith("Deno.serve: request.signal aborts")) warn(...args);
  };
  return { [Symbol.dispose]: () => void (console.warn = warn) };
}

/** What nobody caught is told to the operator alone. */
function answerFailure(error: unknown): Response {
  note(`whet: ${error instanceof Error ? error.message : error}`);
  return Response.json(
    {
      error: { message: "something went wrong in the server", type: "server_error", param: null, code: null },
    },
    { status: 503 },
  );
}

/** The flags as the server takes them. */
function readOptions(values: Values<typeof SERVE>): ServerOptions {
  const MIB = 2 ** 20;
  const { cors, "cache-mb": cache, "adapter-mb": adapterMemory } = values;
  return {
    model: values.model ?? "nano",
    ...given({
      ...loadOptions(values),
      name: values.name,
      adapters: readAdapters(values),
      manageAdapters: values["manage-adapters"],
      adapterBytes: adapterMemory === undefined ? undefined : adapterMemory * MIB,
      rewardModel: values["reward-model"],
      slots: values.slots,
      queue: values.queue,
      cacheBytes: cache === undefined ? undefined : cache * MIB,
      timeout: values.timeout,
      maxBody: values["max-body"],
      apiKey: readKey(values["api-key-env"]),
      cors: cors?.includes("*") ? "*" as const : cors,
    }),
  };
}

function readAdapters({ adapters, adapter }: Values<typeof SERVE>): ServerOptions["adapters"] {
  if (adapter === undefined) return adapters;
  if (adapters !== undefined) throw new UsageError("--adapters and --adapter: give one of them");
  return Object.fromEntries(adapter.map((text) => {
    const [, name, source] = /^([\w.:/-]+)=(.+)$/.exec(text) ?? [];
    if (!name) throw new UsageError(`--adapter: expected NAME=SOURCE, got ${JSON.stringify(text)}`);
    return [name, source];
  }));
}

function readKey(variable: string | undefined): string | undefined {
  if (variable === undefined) return undefined;
  const key = Deno.env.get(variable);
  if (key) return key;
  throw new WhetError(
    "option",
    `--api-key-env: the environment variable ${variable} is not set; set it to the key`,
  );
}

/** What people are told when the server is ready. */
function introduction(
  url: string,
  { name, description }: { name: string; description: string },
  { apiKey }: ServerOptions,
): string {
  const key = apiKey === undefined ? "" : " -H 'authorization: Bearer KEY'";
  const body = JSON.stringify({ messages: [{ role: "user", content: "Hi" }], stream: true });
  const lines = [
    `whet: ${name} at ${url}: ${description}`,
    `  curl -N ${url}/v1/chat/completions${key} -H 'content-type: application/json' -d '${body}'`,
    `  for OpenAI's clients OPENAI_BASE_URL=${url}/v1; for people a page at ${url}/`,
  ];
  if (apiKey === undefined && !/\/\/(127\.|\[::1\]|localhost)/.test(url)) {
    lines.push("  everybody who reaches this address may ask; --api-key-env lets in only who has a key");
  }
  return lines.join("\n");
}

/** Ctrl-C and SIGTERM: the first lets requests finish, the second ends the process. On Windows there is no SIGTERM. */
function stopSignal(grace: number | null): Disposable & { first: Promise<void>; second: Promise<never> } {
  const first = Promise.withResolvers<void>(), second = Promise.withResolvers<never>();
  second.promise.catch(() => {}); // Whoever waits hears of it.
  const names: Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM"];
  let count = 0;
  const stop = () => {
    if (count++ > 0) return second.reject(new Interrupted("stopped at once"));
    if (grace !== null) {
      note(`whet: stopping; requests have ${grace} s to finish, Ctrl-C again stops at once`);
    }
    first.resolve();
  };
  for (const name of names) Deno.addSignalListener(name, stop);
  return {
    first: first.promise,
    second: second.promise,
    [Symbol.dispose]: () => names.forEach((name) => Deno.removeSignalListener(name, stop)),
  };
}
