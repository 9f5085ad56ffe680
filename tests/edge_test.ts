import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { GPT2 } from "../mod.ts";
import { Sandbox } from "./support/sandbox.ts";

const MODULE = new URL("../mod.ts", import.meta.url).href;
const EDGE = new URL("../examples/edge.ts", import.meta.url);

/** The example with a fixed seed, a question whose answer has no end, and counters at `/state`. */
const OBSERVED = `
import { GPT2 } from ${JSON.stringify(MODULE)};
import edge from ${JSON.stringify(EDGE.href)};

const state = { running: 0 };
const generate = GPT2.prototype.generate;
GPT2.prototype.generate = async function* (prompt, options) {
  const endless = this.tokenizer.decode(prompt).includes("forever");
  state.running++;
  try {
    do yield* generate.call(this, prompt, { ...options, seed: 1 }); while (endless);
  } finally {
    state.running--;
  }
};

export default {
  fetch: (request) => new URL(request.url).pathname === "/state" ? Response.json(state) : edge.fetch(request),
};
`;

function ask(url: string, question: string): Promise<Response> {
  return fetch(`${url}?${new URLSearchParams({ prompt: question })}`);
}

/** What the example's model says with the seed above. */
async function expected(model: GPT2, question: string): Promise<string> {
  let text = "";
  const options = { maxTokens: 100, stop: "\n\nHuman:", seed: 1 };
  for await (const chunk of model.generate(`\n\nHuman: ${question}\n\nAssistant:`, options)) {
    text += chunk.text;
  }
  return text;
}

Deno.test("the edge function has fewer than 20 lines of code", async () => {
  const source = await Deno.readTextFile(EDGE);
  const code = source.split("\n").filter((line) => line.trim() !== "" && !/^ ?[/*]/.test(line));
  assert(code.length < 20, `${code.length} lines`);
});

Deno.test("under deno serve, with no permission, an answer comes in pieces and bad requests get a clean status", async () => {
  await using sandbox = new Sandbox();
  await using server = await sandbox.serve(EDGE.href);

  const response = await fetch(server.url);
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("content-type"), "text/plain; charset=utf-8");
  const pieces = await Array.fromAsync(response.body!.pipeThrough(new TextDecoderStream()));
  assert(pieces.length > 1, `all in one piece: ${pieces}`);

  const posted = await fetch(server.url, { method: "POST", body: "Hi" });
  assertEquals([posted.status, posted.headers.get("allow")], [405, "GET"]);
  assertStringIncludes(await posted.text(), "GET only");

  const long = await ask(server.url, "why ".repeat(2000));
  assertEquals(long.status, 413);
  assertStringIncludes(await long.text(), "too long");

  for (const odd of ["", "<|endoftext|>", "\ud83d", "e\u0301🙂".repeat(10)]) {
    const answer = await ask(server.url, odd);
    assertEquals(answer.status, 200, odd);
    await answer.text();
  }
});

Deno.test("concurrent requests get whole answers of their own; one whose client goes away is generated no further", async () => {
  await using sandbox = new Sandbox();
  await using server = await sandbox.serve(sandbox.write("observed.js", OBSERVED));
  using model = await GPT2.load("nano", { backend: "wasm" });

  const questions = [
    "Tell me a story about a dog.",
    "What does a cat say?",
    "How are you?",
    "Why is it dark?",
  ];
  const answers = await Promise.all(
    questions.map(async (question) => await (await ask(server.url, question)).text()),
  );
  for (const [i, question] of questions.entries()) assertEquals(answers[i], await expected(model, question));

  const running = async () => (await (await fetch(`${server.url}state`)).json()).running;
  assertEquals(await running(), 0);
  const leaving = (await ask(server.url, "Will you talk forever?")).body!.getReader();
  await leaving.read();
  assertEquals(await running(), 1);
  await leaving.cancel();
  for (let tries = 0; tries < 500 && await running() > 0; tries++) {
    await new Promise((go) => setTimeout(go, 10));
  }
  assertEquals(await running(), 0);
});
