/**
 * What serving costs: 16 streams against one, 64 adapters against none, health checks meanwhile, the edge function's cold
 * start, and with --stress SECONDS a crowd of clients.
 *
 * `deno run -A benchmarks/serve.ts MODEL [--stress 60] [--tokens 32]`; MODEL is a directory, or nano.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { GPT2, Lora } from "../mod.ts";
import { type Server, startServer } from "../src/serve/proxy.ts";
import type { ServerOptions } from "../src/serve/worker_messages.ts";

const { positionals: [model = "nano"], values } = parseArgs({
  allowPositionals: true,
  options: { stress: { type: "string" }, tokens: { type: "string" } },
});
const TOKENS = Number(values.tokens ?? 32);
const ADAPTERS = 64;
const AT = "http://localhost";

interface Question {
  model?: string;
  seed?: number;
  max_tokens?: number;
}

function ask(question: Question, at = AT): Request {
  const prompt = `\n\nHuman: Tell me story ${question.seed ?? 0}.\n\nAssistant:`;
  return new Request(`${at}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt, max_tokens: TOKENS, stream: true, ...question }),
  });
}

/** Events as text; how many tokens there are in them. */
function tokensOf(events: string): number {
  if (!events.endsWith("data: [DONE]\n\n")) throw new Error(`an answer is not whole: ${events.slice(-200)}`);
  return events.split("data: {").length - 1;
}

/** Tokens per second of some streams together. */
async function pace(server: Server, questions: readonly Question[]): Promise<number> {
  const begin = performance.now();
  const counts = await Promise.all(questions.map(async (question) => {
    const response = await server.fetch(ask(question));
    if (response.status !== 200) throw new Error(await response.text());
    return tokensOf(await response.text());
  }));
  return counts.reduce((a, b) => a + b) / ((performance.now() - begin) / 1000);
}

/** The best of three, for the machine has other things to do. */
async function best(measure: () => Promise<number>): Promise<number> {
  const values = [await measure(), await measure(), await measure()];
  console.error(values.map((value) => value.toFixed(1)).join(" "));
  return Math.max(...values);
}

/** The longest that a health check took while something went on, in milliseconds. */
async function longestHealthCheck(server: Server, work: Promise<unknown>): Promise<number> {
  let longest = 0, over = false;
  const end = work.finally(() => over = true);
  while (!over) {
    const begin = performance.now();
    await server.fetch(new Request(`${AT}/healthz`));
    await new Promise((go) => setTimeout(go, 0)); // A turn of the event loop, as a connection would take it.
    longest = Math.max(longest, performance.now() - begin);
  }
  await end;
  return longest;
}

async function writeAdapters(directory: string): Promise<void> {
  using base = await GPT2.load(model, { backend: "wasm" });
  for (let i = 0; i < ADAPTERS; i++) {
    using lora = Lora.create(base, { rank: 8, seed: i });
    for (const { B } of lora.modules.values()) B.forEach((_, j) => B[j] = 0.02 * Math.sin(j * (i + 1)));
    await lora.save(`${directory}/a${i}`);
  }
}

const many = (count: number, question: (i: number) => Question) =>
  Array.from({ length: count }, (_, i) => ({ seed: i, ...question(i) }));

async function throughput(directory: string) {
  const options: ServerOptions = { model, backend: "wasm", adapters: directory, slots: ADAPTERS };
  const server = await startServer({ ...options, cacheBytes: 2 ** 30, adapterBytes: 2 ** 28 });
  await server.ready;
  await pace(server, many(ADAPTERS, (i) => ({ model: `a${i}`, max_tokens: 2 }))); // Loads them.
  const one = await best(() => pace(server, many(1, () => ({}))));
  const sixteen = await best(() => pace(server, many(16, () => ({}))));
  const base = await best(() => pace(server, many(ADAPTERS, () => ({}))));
  const adapted = await best(() => pace(server, many(ADAPTERS, (i) => ({ model: `a${i}` }))));
  const health = await longestHealthCheck(server, pace(server, many(ADAPTERS, (i) => ({ model: `a${i}` }))));
  await server.shutdown(0);
  return {
    ...{ one_stream: one, sixteen_streams: sixteen, ratio_16: sixteen / one },
    ...{
      base_64: base,
      adapters_64: adapted,
      ratio_adapters: adapted / base,
      longest_health_check_ms: health,
    },
  };
}

/** Seconds from the start of the process to the first token that is streamed, and MiB that it held at most. */
async function coldStart() {
  const port = 20000 + Math.floor(Math.random() * 20000);
  const edge = new URL("../examples/edge.ts", import.meta.url).href;
  const begin = performance.now();
  const child = new Deno.Command(Deno.execPath(), {
    args: ["serve", "--no-check", "-A", "--host", "127.0.0.1", "--port", `${port}`, edge],
    ...{ env: { WHET_MODEL: model }, stdin: "null", stdout: "null", stderr: "null" },
  }).spawn();
  try {
    let response: Response | null = null;
    while (!response) {
      response = await fetch(ask({}, `http://127.0.0.1:${port}`)).catch(() => null);
      if (!response) await new Promise((go) => setTimeout(go, 5));
    }
    const reader = response.body!.getReader();
    await reader.read();
    const seconds = (performance.now() - begin) / 1000;
    while (!(await reader.read()).done);
    const status = await Deno.readTextFile(`/proc/${child.pid}/status`).catch(() => "");
    return { cold_start_s: seconds, peak_mib: Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? NaN) / 1024 };
  } finally {
    child.kill("SIGKILL");
    await child.status;
  }
}

/** 200 clients for some seconds: a tenth leaves in the middle, a tenth reads a byte a second. */
async function stress(directory: string, seconds: number) {
  const server = await startServer({ model, backend: "wasm", adapters: directory, timeout: seconds + 60 });
  await server.ready;
  const http = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, (r) => server.fetch(r));
  const at = `http://127.0.0.1:${http.addr.port}`;
  const questions = many(40, (i) => ({ model: i % 3 ? `a${i}` : undefined, max_tokens: 4 + i % 12 }));
  const said = (events: string) => events.match(/"text":"(?:[^"\\]|\\.)*"/g)?.join("");
  const alone: unknown[] = [];
  for (const question of questions) alone.push(said(await (await server.fetch(ask(question))).text()));
  const counts = { answers: 0, wrong: 0, refused: 0, left: 0, slow: 0, failed_health_checks: 0 };
  const before = Deno.memoryUsage().rss;
  const end = performance.now() + seconds * 1000;
  const patience = new AbortController();
  const client = async (n: number) => {
    for (let round = 0; performance.now() < end; round++) {
      const i = (n * 7 + round) % questions.length;
      const response = await fetch(ask(questions[i], at));
      if (response.status === 429) {
        counts.refused++;
        await response.body!.cancel();
        await new Promise((go) => setTimeout(go, 1000));
      } else if (n % 10 === 3) {
        const reader = response.body!.getReader();
        await reader.read();
        await reader.cancel();
        counts.left++;
      } else {
        const text = said(await response.text());
        counts.answers++;
        if (text !== alone[i]) counts.wrong++;
      }
    }
  };
  const dawdler = async (n: number) => {
    using connection = await Deno.connect({ hostname: "127.0.0.1", port: http.addr.port });
    const body = JSON.stringify({ prompt: `Slow ${n}`, stream: true });
    const head = `POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n`;
    await connection.write(new TextEncoder().encode(`${head}content-length: ${body.length}\r\n\r\n${body}`));
    while (performance.now() < end && await connection.read(new Uint8Array(1)) !== null) {
      await new Promise((go) => setTimeout(go, 1000));
    }
    counts.slow++;
  };
  const health = (async () => {
    while (!patience.signal.aborted) {
      const begin = performance.now();
      const { status, body } = await fetch(`${at}/healthz`);
      await body!.cancel();
      if (status !== 200 || performance.now() - begin > 1000) counts.failed_health_checks++;
      await new Promise((go) => setTimeout(go, 100));
    }
  })();
  await Promise.all(Array.from({ length: 200 }, (_, n) => n % 10 === 7 ? dawdler(n) : client(n)));
  patience.abort();
  await health;
  const grown_mib = (Deno.memoryUsage().rss - before) / 2 ** 20;
  const metrics = await (await server.fetch(new Request(`${AT}/metrics`))).text();
  const open = Number(/^whet_texts_open (.*)$/m.exec(metrics)?.[1]);
  await server.shutdown(0);
  await http.shutdown();
  return { ...counts, open_after: open, grown_mib };
}

const directory = await Deno.makeTempDir();
try {
  await writeAdapters(directory);
  const result = {
    ...await coldStart(),
    ...await throughput(directory),
    ...(values.stress ? { stress: await stress(directory, Number(values.stress)) } : {}),
  };
  console.log(JSON.stringify(result, null, 2));
} finally {
  await Deno.remove(directory, { recursive: true });
}
