import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { createHandler, GPT2 } from "../mod.ts";
import { WhetError } from "../src/errors.ts";
import { servedName } from "../src/serve/names.ts";
import { readChatTemplate } from "../src/serve/chat_template.ts";
import { type Server, type StartOptions, startServer } from "../src/serve/proxy.ts";
import type { ServerOptions } from "../src/serve/worker_messages.ts";

const OPTIONS: ServerOptions = { model: "nano", backend: "wasm", threads: 1 };
const AT = "http://localhost";

type Running = Server & { log: string[]; [Symbol.asyncDispose](): Promise<void> };

/** A server in a worker, ready. */
async function running(options: Partial<ServerOptions> = {}, start: StartOptions = {}): Promise<Running> {
  const log: string[] = [];
  const server = await startServer({ ...OPTIONS, ...options }, { onLog: (line) => log.push(line), ...start });
  await server.ready;
  return Object.assign(server, { log, [Symbol.asyncDispose]: () => server.shutdown(0) });
}

function post(body: unknown, init: RequestInit = {}): Request {
  const headers = { "content-type": "application/json", ...init.headers };
  const text = body instanceof ReadableStream || typeof body === "string" ? body : JSON.stringify(body);
  return new Request(`${AT}/v1/completions`, { method: "POST", body: text, ...init, headers });
}

const LONG = { prompt: "The cat", max_tokens: 200, temperature: 0, stream: true };

async function metric(server: Server, name: string): Promise<number> {
  const text = await (await server.fetch(new Request(`${AT}/metrics`))).text();
  return Number(new RegExp(`^${name} (.*)$`, "m").exec(text)![1]);
}

/** Waits until something holds. */
async function until(holds: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; !await holds(); tries++) {
    assert(tries < 200, "it never came to hold");
    await new Promise((go) => setTimeout(go, 10));
  }
}

Deno.test("a worker answers as the handler would: status, headers, bodies, streams", async () => {
  await using server = await running({ maxBody: 1000, cors: "*" });
  const whole = await (await server.fetch(post({ ...LONG, stream: false, max_tokens: 5 }))).json();
  const streamed = await server.fetch(post({ ...LONG, max_tokens: 5 }));
  assertEquals(streamed.headers.get("content-type"), "text/event-stream; charset=utf-8");
  const events = (await streamed.text()).trim().split("\n\n").map((event) => event.replace("data: ", ""));
  assertEquals(events.pop(), "[DONE]");
  assertEquals(events.map((event) => JSON.parse(event).choices[0].text).join(""), whole.choices[0].text);

  const asked = await server.fetch(post({ prompt: 3 }, { headers: { origin: "http://other.example" } }));
  assertEquals([asked.status, asked.headers.get("access-control-allow-origin")], [400, "*"]);
  assertEquals((await asked.json()).error.param, "prompt");
  const missing = await server.fetch(new Request(`${AT}/nowhere`));
  assertEquals([missing.status, (await missing.json()).error.code], [404, "not_found"]);
});

Deno.test("of a body that is too long no more is read than shows that it is", async () => {
  await using server = await running({ maxBody: 1000 });
  let pulled = 0;
  const endless = new ReadableStream({
    pull(controller) {
      pulled += 100;
      controller.enqueue(new Uint8Array(100).fill(32));
    },
  });
  const response = await server.fetch(post(endless));
  assertEquals([response.status, (await response.json()).error.type], [413, "invalid_request_error"]);
  assert(pulled <= 1300, `${pulled} bytes`);
});

Deno.test("a client that goes away, before or during its answer, ends the work", async () => {
  await using server = await running();
  for (const when of ["first", "during"]) {
    const gone = new AbortController();
    const begun = server.fetch(post({ ...LONG, n: 16, stream: when === "during" }, { signal: gone.signal }));
    if (when === "during") {
      const reader = (await begun).body!.getReader();
      await reader.read();
      await reader.cancel();
    } else {
      await until(async () => await metric(server, "whet_texts_open") > 0);
      gone.abort();
      await begun;
    }
    const before = await metric(server, "whet_generated_tokens_total");
    await until(async () => await metric(server, "whet_texts_open") === 0);
    assert(await metric(server, "whet_generated_tokens_total") - before < 16 * 190, "all was generated");
    assertEquals(await metric(server, "whet_cache_blocks_free"), await metric(server, "whet_cache_blocks"));
  }
});

Deno.test("a slow reader holds a few chunks; others pass it by, and it gets the whole answer", async () => {
  await using server = await running();
  const slow = (await server.fetch(post(LONG))).body!.getReader();
  const first = await slow.read();
  const texts = await Promise.all([1, 2, 3].map(async () => await (await server.fetch(post(LONG))).text()));
  let text = new TextDecoder().decode(first.value);
  for (let part = await slow.read(); !part.done; part = await slow.read()) {
    text += new TextDecoder().decode(part.value);
  }
  const said = (text: string) =>
    [...text.matchAll(/^data: (\{.*)$/gm)].map(([, json]) => JSON.parse(json).choices[0].text).join("");
  for (const other of texts) assertEquals(said(other), said(text));
});

Deno.test("the main thread is free while the worker computes: health checks are answered within 50 ms", async () => {
  await using server = await running();
  const work = Promise.all(
    Array.from(
      { length: 16 },
      async () => await (await server.fetch(post({ ...LONG, max_tokens: 250 }))).text(),
    ),
  );
  let over = false;
  work.then(() => over = true);
  const times: number[] = [];
  while (!over) {
    const begin = performance.now();
    const response = await server.fetch(new Request(`${AT}/healthz`));
    assertEquals(response.status, 200);
    await new Promise((go) => setTimeout(go, 0)); // A turn of the event loop, which all else has to pass.
    times.push(performance.now() - begin);
  }
  times.sort((a, b) => a - b);
  assert(times[Math.floor(times.length * 0.9)] < 50, `${times}`);
});

/** A worker that is whet's own, but dies when it is asked for /die. */
function mortal(): Worker {
  const own = new URL("../src/serve/worker.ts", import.meta.url).href;
  const code = `await import(${JSON.stringify(own)});
    const answer = globalThis.onmessage;
    globalThis.onmessage = (event) => {
      if (event.data.url?.endsWith("/die")) throw new Error("as was asked");
      answer(event);
    };`;
  return new Worker(`data:text/javascript,${encodeURIComponent(code)}`, { type: "module" });
}

Deno.test("a worker that dies is started again, once; who waited for it gets a 503", async () => {
  const server = await running({}, { startWorker: mortal });
  const stream = (await server.fetch(post(LONG))).body!.getReader();
  await stream.read();
  const [died, waiting] = await Promise.all([
    server.fetch(new Request(`${AT}/die`)),
    server.fetch(post({ ...LONG, stream: false })),
  ]);
  assertEquals([died.status, waiting.status], [503, 503]);
  assertEquals((await died.json()).error.type, "server_error");
  await assertRejects(async () => {
    while (!(await stream.read()).done);
  }, Error);
  assertEquals(server.log.length, 1);
  assertMatch(server.log[0], /as was asked.*started again/);

  assertEquals((await server.fetch(post({ prompt: "x", max_tokens: 1 }))).status, 200);
  assertEquals((await server.fetch(new Request(`${AT}/readyz`))).status, 200);
  await server.fetch(new Request(`${AT}/die`));
  await assertRejects(() => server.failed, WhetError, "died again");
  assertEquals((await server.fetch(new Request(`${AT}/v1/models`))).status, 503);
  assertEquals((await server.fetch(new Request(`${AT}/readyz`))).status, 503);
  assertEquals((await server.fetch(new Request(`${AT}/healthz`))).status, 200);
  await server.shutdown(1);
});

Deno.test("what cannot be loaded rejects with the loader's own error", async () => {
  const nowhere = await startServer({ ...OPTIONS, model: "./nowhere" });
  await assertRejects(() => nowhere.ready, WhetError, "nowhere: there is no such directory");
  const adapters = await startServer({ ...OPTIONS, adapters: "./nowhere" });
  await assertRejects(() => adapters.ready, WhetError, "cannot read ./nowhere");
  const slots = await startServer({ ...OPTIONS, cacheBytes: -1 });
  await assertRejects(() => slots.ready, WhetError, "cacheBytes");
});

Deno.test("where there is no worker the server computes in the thread that listens, and says so", async () => {
  const startWorker = () => {
    throw new Error("not today");
  };
  await using server = await running({}, { startWorker });
  assertMatch(server.log[0], /^no worker to compute in \(not today\)/);
  const { choices } = await (await server.fetch(post({ prompt: "x", max_tokens: 3 }))).json();
  assertEquals(choices.length, 1);
});

Deno.test("a shutdown lets streams finish, and cuts off what is left after its time", async () => {
  const server = await running();
  const response = await server.fetch(post(LONG));
  const text = response.text();
  const closing = server.shutdown(30);
  assertEquals((await server.fetch(new Request(`${AT}/readyz`))).status, 503);
  assertEquals((await server.fetch(post(LONG))).status, 503);
  assertMatch(await text, /data: \[DONE\]\n\n$/);
  await closing;

  const hasty = await running();
  const reader = (await hasty.fetch(post(LONG))).body!.getReader();
  await reader.read();
  const begin = performance.now();
  await hasty.shutdown(0.1); // Nobody reads on: it would never finish.
  assert(performance.now() - begin < 2000);
});

Deno.test("a model's name says nothing of where its files are", () => {
  const cases = {
    ...{ "nano": "nano", "openai-community/gpt2": "openai-community/gpt2", "random GPT-2 (seed 0)": "" },
    ...{ "/srv/secret/my-gpt2/": "my-gpt2", "./": "model", "../x": "x", "https://u:p@host/a/b?t=1": "b" },
    ...{ "file:///home/me/gpt": "gpt", "C:\\models\\gpt": "gpt" },
  };
  for (const [source, name] of Object.entries(cases)) assertEquals(servedName(source), name || source);
});

Deno.test("a chat template is read from its file, or from the tokenizer's configuration", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const write = (entry: unknown) =>
      Deno.writeTextFile(`${directory}/tokenizer_config.json`, JSON.stringify({ chat_template: entry }));
    assertEquals(await readChatTemplate(directory), undefined);
    await write("{{ messages }}");
    assertEquals(await readChatTemplate(directory), "{{ messages }}");
    await write([{ name: "tool_use", template: "t" }, { name: "default", template: "d" }]);
    assertEquals(await readChatTemplate(directory), "d");
    await write(3);
    await assertRejects(() => readChatTemplate(directory), WhetError, "chat_template: expected");
    await Deno.writeTextFile(`${directory}/chat_template.jinja`, "file");
    assertEquals(await readChatTemplate(directory), "file");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("a model with a chat template of its own is asked by it, in a worker and in createHandler alike", async () => {
  const directory = await Deno.makeTempDir();
  try {
    using nano = await GPT2.load("nano", { backend: "wasm", threads: 1 });
    await nano.save(directory);
    await Deno.writeTextFile(
      `${directory}/chat_template.jinja`,
      "{% for m in messages %}Q: {{ m.content }}\nA:{% endfor %}",
    );
    await using handler = createHandler({ ...OPTIONS, model: directory });
    await using server = await running({ model: directory });
    const headers = { "content-type": "application/json" };
    const send = (path: string, body: unknown) =>
      new Request(`${AT}/v1/${path}`, { method: "POST", headers, body: JSON.stringify(body) });
    const sure = { temperature: 0, max_tokens: 6 };
    const whole = await (await handler(send("completions", { ...sure, prompt: "Q: Hi\nA:" }))).json();
    const chat = { ...sure, messages: [{ role: "user", content: "Hi" }] };
    for (const fetch of [handler, (request: Request) => server.fetch(request)]) {
      const { choices, model } = await (await fetch(send("chat/completions", chat))).json();
      assertEquals(choices[0].message.content, whole.choices[0].text.replace(/^ /, ""));
      assert(!model.includes("/"), model);
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
