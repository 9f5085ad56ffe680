import { assert, assertEquals } from "@std/assert";
import { GPT2, Lora } from "../mod.ts";
import { type Server, startServer } from "../src/serve/proxy.ts";
import { inTempDir } from "./support/cli.ts";

/** Adapters beside the base; there is room for fewer. */
const ADAPTERS = 12;
const CLIENTS = 60;

/** Adapters that change what nano says. */
async function writeAdapters(directory: string): Promise<void> {
  using model = await GPT2.load("nano", { backend: "wasm", threads: 1 });
  for (let i = 0; i < ADAPTERS; i++) {
    const lora = Lora.create(model, { rank: 2, seed: i, targets: ["c_attn"] });
    for (const { B } of lora.modules.values()) B.forEach((_, j) => B[j] = 0.5 * Math.sin(j * (i + 1)));
    await lora.save(`${directory}/a${i}`);
  }
}

/** What client i asks. */
function question(i: number) {
  const model = i % 4 === 0 ? "nano" : `a${i % ADAPTERS}`;
  const prompt = `\n\nHuman: ${["Hi", "Tell me a story about a dog.", "Why?", "What is blue?"][i % 4]} ${
    i % 7
  }`;
  const ending = `${prompt}\n\nAssistant:`;
  return { model, prompt: ending, seed: i, max_tokens: 8 + 9 * (i % 5), stream: true, temperature: 0.9 };
}

class Site {
  constructor(readonly server: Server) {
    const options = { hostname: "127.0.0.1", port: 0, onListen: () => {} };
    this.http = Deno.serve(options, (request) => server.fetch(request));
  }
  readonly http: Deno.HttpServer<Deno.NetAddr>;
  /** Asks over the network. */
  fetch(path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
    const url = `http://127.0.0.1:${this.http.addr.port}${path}`;
    if (!body) return fetch(url, { signal });
    const headers = { "content-type": "application/json" };
    return fetch(url, { method: "POST", headers, body: JSON.stringify(body), signal });
  }
  async metric(name: string): Promise<number> {
    const text = await (await this.fetch("/metrics")).text();
    return Number(new RegExp(`^${name} (.*)$`, "m").exec(text)![1]);
  }
  async [Symbol.asyncDispose]() {
    await this.server.shutdown(0);
    await this.http.shutdown();
  }
}

function textOf(events: string): string {
  assert(events.endsWith("data: [DONE]\n\n"), `not whole: ${events.slice(-200)}`);
  const chunks = [...events.matchAll(/^data: (\{.*)$/gm)].map(([, json]) => JSON.parse(json));
  return chunks.map(({ choices }) => choices[0].text).join("");
}

/** A client; a tenth goes away after its first piece, a tenth reads slowly. */
async function client(site: Site, i: number): Promise<string | null> {
  for (let tries = 0;; tries++) {
    const response = await site.fetch("/v1/completions", question(i));
    if (response.status === 429) {
      assertEquals(response.headers.get("retry-after"), "1");
      await response.body!.cancel();
      assert(tries < 400, "never let in");
      await new Promise((go) => setTimeout(go, 20 + i));
      continue;
    }
    assertEquals(response.status, 200);
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    let events = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      events += part.value;
      if (i % 10 === 3) {
        await reader.cancel();
        return null;
      }
      if (i % 10 === 7) await new Promise((go) => setTimeout(go, 10));
    }
    return textOf(events);
  }
}

Deno.test("many clients with many adapters, some leaving, some slow: each has its own answer, and nothing is left behind", async () => {
  await inTempDir(async (directory) => {
    await writeAdapters(directory);
    const options = { model: "nano", backend: "wasm" as const, threads: 1, adapters: directory };
    const limits = { slots: 8, queue: 16, cacheBytes: 2 ** 23, adapterBytes: 150_000, manageAdapters: true };
    await using site = new Site(await startServer({ ...options, ...limits }));
    await site.server.ready;

    const alone: (string | null)[] = [];
    for (let i = 0; i < CLIENTS; i++) {
      alone.push(textOf(await (await site.fetch("/v1/completions", question(i))).text()));
    }
    assert(new Set(alone).size > CLIENTS * 0.8, "the answers do not differ");

    let over = false, checks = 0;
    const health = (async () => {
      for (; !over; checks++) {
        const response = await site.fetch("/healthz");
        assertEquals([response.status, await response.text()], [200, "ok\n"]);
        await new Promise((go) => setTimeout(go, 5));
      }
    })();
    for (let round = 0; round < 2; round++) {
      const together = await Promise.all(Array.from({ length: CLIENTS }, (_, i) => client(site, i)));
      for (const [i, text] of together.entries()) {
        if (text !== null) assertEquals(text, alone[i], `client ${i} of round ${round}`);
      }
    }
    over = true;
    await health;
    assert(checks > 3);

    for (let tries = 0; await site.metric("whet_texts_open") > 0; tries++) {
      assert(tries < 100, "work goes on for nobody");
      await new Promise((go) => setTimeout(go, 10));
    }
    assertEquals(await site.metric("whet_texts_running"), 0);
    assertEquals(await site.metric("whet_texts_waiting"), 0);
    assertEquals(await site.metric("whet_cache_blocks_free"), await site.metric("whet_cache_blocks"));
    assert(await site.metric("whet_adapters_bytes") <= limits.adapterBytes);
    assert(await site.metric("whet_adapter_evictions_total") > 0, "there was room for all");
    for (let i = 0; i < ADAPTERS; i++) {
      const { port } = site.http.addr;
      const gone = await fetch(`http://127.0.0.1:${port}/v1/adapters/a${i}`, { method: "DELETE" });
      assertEquals((await gone.json()).deleted, true);
    }
    assertEquals(await site.metric("whet_adapters_bytes"), 0, "somebody holds on to an adapter");
  });
});

Deno.test("more than fit the queue are refused with 429 and Retry-After; those let in get their answers", async () => {
  const options = { model: "nano", backend: "wasm" as const, threads: 1, slots: 2, queue: 3 };
  await using site = new Site(await startServer(options));
  await site.server.ready;
  const ask = { ...question(0), max_tokens: 60, temperature: 0, stream: false };
  const responses = await Promise.all(Array.from({ length: 30 }, () => site.fetch("/v1/completions", ask)));
  const texts = new Set<string>();
  let refused = 0;
  for (const response of responses) {
    const body = await response.json();
    if (response.status === 200) texts.add(body.choices[0].text);
    else {
      assertEquals([response.status, response.headers.get("retry-after")], [429, "1"]);
      assertEquals(body.error.code, "rate_limit_exceeded");
      refused++;
    }
  }
  assert(refused > 0 && refused <= 25, `${refused} refused`);
  assertEquals(texts.size, 1);
});
