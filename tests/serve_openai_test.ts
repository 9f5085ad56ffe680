import { assert, assertEquals, assertRejects } from "@std/assert";
import OpenAI from "npm:openai@7.57.0";
import { createHandler, type HandlerOptions } from "../mod.ts";

/** The unmodified client, and the server that it speaks to. */
async function scene(options: HandlerOptions = {}, apiKey = "none") {
  const handler = createHandler({ model: "nano", backend: "wasm", threads: 1, ...options });
  const http = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen: () => {} },
    (request) => handler(request),
  );
  await handler.ready;
  const client = new OpenAI({
    ...{ apiKey, baseURL: `http://127.0.0.1:${http.addr.port}/v1`, maxRetries: 0 },
  });
  return {
    client,
    async [Symbol.asyncDispose]() {
      await handler.shutdown(0);
      await http.shutdown();
    },
  };
}

/** What goes with every question: short, and the same each time. */
const SURE = { model: "nano", seed: 5, max_tokens: 12 };
const ASKED = [{ role: "user" as const, content: "Tell me a story about a cat." }];

Deno.test("completions: text, usage, finish reason; a seed repeats it, n gives several, echo the prompt", async () => {
  await using s = await scene();
  const ask = { ...SURE, prompt: "The cat" };
  const one = await s.client.completions.create(ask);
  assertEquals([one.object, one.model, one.choices.length], ["text_completion", "nano", 1]);
  assertEquals(one.choices[0].finish_reason, "length");
  assertEquals(one.usage!.completion_tokens, 12);
  assertEquals(one.usage!.total_tokens, 12 + one.usage!.prompt_tokens);
  assertEquals((await s.client.completions.create(ask)).choices[0].text, one.choices[0].text);

  const several = await s.client.completions.create({ ...ask, n: 3, echo: true });
  assertEquals(several.choices.map(({ index }) => index), [0, 1, 2]);
  assertEquals(several.choices[0].text, `The cat${one.choices[0].text}`);
  assertEquals(new Set(several.choices.map(({ text }) => text)).size, 3);

  const both = await s.client.completions.create({ ...ask, prompt: ["The cat", "The dog"] });
  assertEquals(both.choices[0].text, one.choices[0].text);
  assertEquals(both.choices.length, 2);
});

Deno.test("completions: stop ends the text before it; logprobs have the client's shape and add up", async () => {
  await using s = await scene();
  const whole = await s.client.completions.create({ ...SURE, prompt: "The cat", logprobs: 2 });
  const { text, logprobs } = whole.choices[0];
  assertEquals(logprobs!.tokens!.join(""), text);
  for (const [i, own] of logprobs!.token_logprobs!.entries()) {
    const top = Object.values(logprobs!.top_logprobs![i]);
    assert(own <= 0 && top.length >= 2 && Math.max(...top) >= own - 1e-6, `${i} ${own} ${top}`);
  }
  assertEquals(logprobs!.text_offset!.length, 12);
  const stop = logprobs!.tokens![4];
  const stopped = await s.client.completions.create({ ...SURE, prompt: "The cat", stop });
  assertEquals(stopped.choices[0].text, text.slice(0, text.indexOf(stop)));
  assertEquals(stopped.choices[0].finish_reason, "stop");
});

Deno.test("a streamed completion is the whole one in pieces, with usage at the end where it is wanted", async () => {
  await using s = await scene();
  const ask = { ...SURE, prompt: "The cat" };
  const whole = await s.client.completions.create(ask);
  let text = "", usage = null, pieces = 0, reason = null;
  const options = { ...ask, stream: true as const, stream_options: { include_usage: true } };
  for await (const chunk of await s.client.completions.create(options)) {
    text += chunk.choices[0]?.text ?? "";
    reason = chunk.choices[0]?.finish_reason ?? reason;
    usage = chunk.usage ?? usage;
    pieces++;
  }
  assertEquals([text, reason, usage], [whole.choices[0].text, "length", whole.usage]);
  assert(pieces > 5);
});

Deno.test("chat: a message; streamed by the client's own helper it is the same; logprobs of every token", async () => {
  await using s = await scene();
  const ask = { ...SURE, messages: ASKED, logprobs: true, top_logprobs: 3 };
  const whole = await s.client.chat.completions.create(ask);
  const [{ message, logprobs, finish_reason }] = whole.choices;
  assertEquals([whole.object, message.role, finish_reason], ["chat.completion", "assistant", "length"]);
  assertEquals(whole.usage!.completion_tokens, 12);
  assertEquals(logprobs!.content!.length, 12);
  for (const { top_logprobs, bytes, token } of logprobs!.content!) {
    assertEquals(top_logprobs.length, 3);
    assertEquals(new TextDecoder().decode(Uint8Array.from(bytes!)), token);
  }

  const stream = s.client.chat.completions.stream(ask);
  let seen = "";
  stream.on("content", (delta) => seen += delta);
  const final = await stream.finalChatCompletion();
  assertEquals(final.choices[0].message.content, message.content);
  assertEquals(final.choices[0].logprobs!.content!.length, 12);
  assertEquals(seen, message.content);

  const many = await s.client.chat.completions.create({ ...SURE, messages: ASKED, n: 2, temperature: 0 });
  assertEquals(many.choices[0].message.content, many.choices[1].message.content);
});

Deno.test("chat: a stream that the client breaks off is worked on no more", async () => {
  await using s = await scene({ slots: 1, queue: 0 });
  const ask = { ...SURE, messages: ASKED, max_tokens: 200, stop: undefined };
  const stream = await s.client.chat.completions.create({ ...ask, stream: true });
  for await (const _ of stream) break;
  // The only place is free again at once: else this is refused.
  for (let tries = 0;; tries++) {
    try {
      await s.client.chat.completions.create({ ...SURE, messages: ASKED, max_tokens: 1 });
      break;
    } catch (error) {
      assert(error instanceof OpenAI.RateLimitError && tries < 50, String(error));
      await new Promise((go) => setTimeout(go, 20));
    }
  }
});

Deno.test("models: the list and one of them", async () => {
  await using s = await scene({ name: "house" });
  const models = await Array.fromAsync(s.client.models.list());
  assertEquals(models.map(({ id, object }) => [id, object]), [["house", "model"]]);
  assertEquals((await s.client.models.retrieve("house")).id, "house");
  await assertRejects(() => s.client.models.retrieve("mouse"), OpenAI.NotFoundError);
});

Deno.test("errors are of the client's own classes, with param and code", async () => {
  await using s = await scene({ slots: 1, queue: 0 });
  const { completions, chat } = s.client;
  const unknown = await assertRejects(
    () => completions.create({ ...SURE, model: "gpt-9", prompt: "x" }),
    OpenAI.NotFoundError,
  );
  assertEquals([unknown.status, unknown.code, unknown.param], [404, "model_not_found", "model"]);
  const hot = await assertRejects(
    () => completions.create({ ...SURE, prompt: "x", temperature: 3 }),
    OpenAI.BadRequestError,
  );
  assertEquals([hot.status, hot.param, hot.type], [400, "temperature", "invalid_request_error"]);
  const long = await assertRejects(
    () =>
      chat.completions.create({ model: "nano", messages: [{ role: "user", content: "why ".repeat(3000) }] }),
    OpenAI.BadRequestError,
  );
  assertEquals(long.code, "context_length_exceeded");

  const crowd = Array.from(
    { length: 6 },
    () => completions.create({ ...SURE, prompt: "The", max_tokens: 60 }),
  );
  const refused = (await Promise.allSettled(crowd)).filter(({ status }) => status === "rejected");
  assert(refused.length > 0 && refused.length < 6);
  for (const { reason } of refused as PromiseRejectedResult[]) {
    assert(reason instanceof OpenAI.RateLimitError, String(reason));
    assertEquals([reason.status, reason.headers!.get("retry-after")], [429, "1"]);
  }
});

Deno.test("a wrong key is an AuthenticationError; the right one gets in", async () => {
  await using wrong = await scene({ apiKey: "sesame" }, "simsim");
  const error = await assertRejects(() => wrong.client.models.list(), OpenAI.AuthenticationError);
  assertEquals([error.status, error.code], [401, "invalid_api_key"]);
  await using right = await scene({ apiKey: "sesame" }, "sesame");
  assertEquals((await right.client.completions.create({ ...SURE, prompt: "x" })).choices.length, 1);
});
