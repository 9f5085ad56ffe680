import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { GPT2 } from "../mod.ts";
import { Sandbox } from "./support/sandbox.ts";

const EDGE = new URL("../examples/edge.ts", import.meta.url);

function complete(url: string, body: Record<string, unknown>, signal?: AbortSignal): Promise<Response> {
  return fetch(`${url}v1/completions`, {
    ...{ method: "POST", signal, headers: { "content-type": "application/json" } },
    body: JSON.stringify({ seed: 1, temperature: 0, max_tokens: 40, ...body }),
  });
}

async function metric(url: string, name: string): Promise<number> {
  const text = await (await fetch(`${url}metrics`)).text();
  return Number(new RegExp(`^${name} (.*)$`, "m").exec(text)![1]);
}

Deno.test("the edge function has fewer than 20 lines of code", async () => {
  const source = await Deno.readTextFile(EDGE);
  const code = source.split("\n").filter((line) => line.trim() !== "" && !/^ ?[/*]/.test(line));
  assert(code.length < 20, `${code.length} lines`);
});

Deno.test("under deno serve, with no permission, it streams, has a page, and bad requests get a clean status", async () => {
  await using sandbox = new Sandbox({ packages: true });
  await using server = await sandbox.serve("--no-check", EDGE.href);

  const response = await complete(server.url, { prompt: "The cat", stream: true });
  assertEquals(response.headers.get("content-type"), "text/event-stream; charset=utf-8");
  const pieces = await Array.fromAsync(response.body!.pipeThrough(new TextDecoderStream()));
  assert(pieces.length > 1, `all in one piece: ${pieces}`);
  assertStringIncludes(pieces.at(-1)!, "data: [DONE]");

  const { data } = await (await fetch(`${server.url}v1/models`)).json();
  assertEquals(data.map(({ id }: { id: string }) => id), ["nano"]);
  const page = await fetch(server.url);
  assertEquals([page.status, page.headers.get("content-type")], [200, "text/html; charset=utf-8"]);
  assertStringIncludes(await page.text(), "<html");

  const long = await complete(server.url, { prompt: "why ".repeat(2000) });
  assertEquals([long.status, (await long.json()).error.code], [400, "context_length_exceeded"]);
  const adapter = await fetch(`${server.url}v1/adapters`, {
    ...{ method: "POST", headers: { "content-type": "application/json" } },
    body: JSON.stringify({ id: "x", source: "/etc" }),
  });
  assertEquals([adapter.status, (await adapter.json()).error.code], [403, "forbidden"]);
  for (const odd of ["", "<|endoftext|>", "\ud83d", "e\u0301🙂".repeat(10)]) {
    const answer = await complete(server.url, { prompt: odd });
    assertEquals(answer.status, 200, odd);
    await answer.body!.cancel();
  }
});

Deno.test("concurrent requests get whole answers of their own; one whose client goes away is worked on no more", async () => {
  await using sandbox = new Sandbox({ packages: true });
  await using server = await sandbox.serve("--no-check", EDGE.href);
  using model = await GPT2.load("nano", { backend: "wasm", threads: 1 });

  const prompts = ["Tell me a story about a dog.", "What does a cat say?", "How are you?", "Why is it dark?"]
    .map((question) => `\n\nHuman: ${question}\n\nAssistant:`);
  const answers = await Promise.all(
    prompts.map(async (prompt) => (await (await complete(server.url, { prompt })).json()).choices[0].text),
  );
  for (const [i, prompt] of prompts.entries()) {
    let text = "";
    for await (const chunk of model.generate(prompt, { temperature: 0, maxTokens: 40 })) text += chunk.text;
    assertEquals(answers[i], text);
  }

  const leaving = new AbortController();
  const stream = await complete(
    server.url,
    { prompt: prompts[0], n: 16, max_tokens: 200, stream: true },
    leaving.signal,
  );
  await stream.body!.getReader().read();
  leaving.abort();
  for (let tries = 0; await metric(server.url, "whet_texts_open") > 0; tries++) {
    assert(tries < 500, "it goes on");
    await new Promise((go) => setTimeout(go, 10));
  }
  assert(await metric(server.url, "whet_generated_tokens_total") < 16 * 200, "all of it was made");
});
