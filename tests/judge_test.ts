/**
 * The judge against a server that behaves as badly as real ones do.
 */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import { createJudge, type JudgeOptions, question, readRating } from "../src/score/judge.ts";
import type { ScoredPair } from "../src/score/scorer.ts";
import { rated, standIn } from "./support/judge_server.ts";

const pairs = (n: number): ScoredPair[] =>
  Array.from({ length: n }, (_, i) => ({ prompt: `question ${i}`, response: `answer ${i}` }));
const quick: Partial<JudgeOptions> = { backoff: 5, retries: 3, timeout: 2000 };

Deno.test("a rating is read where there is a clear one, and nowhere else", () => {
  const cases: [string, number | null][] = [
    ["[[7]]", 7],
    ["It is short but right.\n\nRating: [[10]]\n", 10],
    ["[[ 1 ]]", 1],
    ["[[7.5]] of ten", 7.5],
    ["[[7]] I say: [[7.0]]", 7],
    ["In the form [[N]]: [[4]]", 4],
    ["<think>\nMaybe [[3]], maybe [[9]].\n</think>\n\n[[5]]", 5],
    ["", null],
    ["7", null],
    ["Rating: [7]", null],
    ["Rating: [[N]]", null],
    ["[[11]]", null],
    ["[[0]]", null],
    ["[[-3]]", null],
    ["[[0.5]]", null],
    ["[[10.5]]", null],
    ["[[7/10]]", null],
    ["[[7]] or [[8]]", null],
    ["[[7]], no, [[11]]", null],
    ["[[7]] [[8/10]]", null],
    ["[[١]]", null],
    ["[[7", null],
    ["[[1e1]]", null],
    ["<think>[[7]]</think>", null],
  ];
  for (const [reply, rating] of cases) assertEquals(readRating(reply), rating, reply);
});

Deno.test("the question holds prompt and answer, without the marker that asks for one, and no rating", () => {
  const text = question({ prompt: "\n\nHuman: Why?\n\nAssistant:", response: " Because.\n" });
  assertStringIncludes(text, "<asked>\nHuman: Why?\n</asked>");
  assertStringIncludes(text, "<answer>\nBecause.\n</answer>");
  assertEquals(readRating(text), null);
});

Deno.test("each answer is asked about once, and its rating comes back in its place", async () => {
  await using server = standIn(({ text }) =>
    rated(`Rating: [[${1 + Number(/answer (\d+)/.exec(text)![1])}]]`)
  );
  const seen: [number, number | null][] = [], progress: number[] = [];
  const judge = createJudge({ ...quick, url: server.url, model: "m", apiKey: "sk-1" });
  const judgement = await judge.rate(pairs(9), {
    onRating: (index, rating, reply) => {
      assertEquals(reply, `Rating: [[${rating}]]`);
      seen.push([index, rating]);
    },
    onProgress: (done, total) => progress.push(done, total),
  });
  assertEquals(judgement.ratings, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assertEquals([judgement.mean, judgement.n, judgement.unreadable], [5, 9, 0]);
  assertEquals(judgement.standardError, Math.sqrt(60 / 8 / 9));
  assertEquals(seen.sort(([a], [b]) => a - b), judgement.ratings.map((rating, i) => [i, rating]));
  assertEquals(progress.filter((_, i) => i % 2 === 0), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assertEquals(server.requests.length, 9);
  for (const { path, method, headers, body } of server.requests) {
    assertEquals([method, path], ["POST", "/v1/chat/completions"]);
    assertEquals(headers.get("authorization"), "Bearer sk-1");
    assertEquals([body.model, body.temperature, body.max_tokens], ["m", 0, 2048]);
    assertEquals((body.messages as unknown[]).length, 1);
  }
});

Deno.test("without a key none is sent; no pairs are no requests", async () => {
  await using server = standIn(() => rated("[[3]]"));
  const judge = createJudge({ ...quick, url: server.url, model: "m" });
  assertEquals(await judge.rate([]), { ratings: [], mean: NaN, standardError: NaN, n: 0, unreadable: 0 });
  assertEquals(server.requests.length, 0);
  const one = await judge.rate(pairs(1));
  assertEquals([one.mean, one.standardError], [3, NaN]);
  assertEquals(server.requests[0].headers.get("authorization"), null);
});

Deno.test("the address may be the server's, the API's or the endpoint's; a query stays", async () => {
  await using server = standIn(() => rated("[[3]]"));
  for (
    const [end, path] of [
      ["", "/v1/chat/completions"],
      ["/", "/v1/chat/completions"],
      ["/v1", "/v1/chat/completions"],
      ["/v1/", "/v1/chat/completions"],
      ["/api/v3", "/api/v3/chat/completions"],
      ["/v1/chat/completions", "/v1/chat/completions"],
      ["/deep/chat/completions/?v=1#x", "/deep/chat/completions?v=1"],
    ]
  ) {
    await createJudge({ ...quick, url: server.url + end, model: "m" }).rate(pairs(1));
    assertEquals(server.requests.pop()!.path, path);
  }
});

Deno.test("replies without a clear rating are counted and stand as null; the others count", async () => {
  const replies = ["[[7]] in prose", "[[11]]", "[[4]] or [[5]]", "no idea", "[[9]]"];
  await using server = standIn(({ text }) => rated(replies[Number(/answer (\d+)/.exec(text)![1])]));
  const judgement = await createJudge({ ...quick, url: server.url, model: "m" }).rate(pairs(5));
  assertEquals(judgement.ratings, [7, null, null, null, 9]);
  assertEquals([judgement.mean, judgement.n, judgement.unreadable], [8, 2, 3]);
  assertEquals(server.requests.length, 5);
});

Deno.test("a model that refuses, is filtered or answers in parts is heard", async () => {
  const message = (message: unknown) => Response.json({ choices: [{ message }] });
  const answers = [
    message({ role: "assistant", content: null, refusal: "no" }),
    message({ role: "assistant" }),
    message({ content: [{ type: "text", text: "Rating: [[" }, { type: "text", text: "6]]" }] }),
    Response.json({ error: { code: "content_filter", message: "filtered" } }, { status: 400 }),
  ];
  await using server = standIn(({ text }) => answers[Number(/answer (\d+)/.exec(text)![1])]);
  const { ratings } = await createJudge({ ...quick, url: server.url, model: "m" }).rate(pairs(4));
  assertEquals(ratings, [null, null, 6, null]);
});

Deno.test("what passes is tried again: 429, 5xx, a cut line, silence, what is not JSON", async () => {
  const troubles: Record<string, () => Response | Promise<Response> | "cut"> = {
    "429": () => Response.json({ error: { message: "slow down" } }, { status: 429 }),
    "500": () => new Response("oops", { status: 500 }),
    "503": () => new Response("<html>", { status: 503, headers: { "retry-after": "0" } }),
    "408": () => new Response("", { status: 408 }),
    cut: () => "cut",
    cutBody: () =>
      new Response(
        new ReadableStream({
          start(controller) {
            controller.enqueue(new TextEncoder().encode('{"choices":'));
            setTimeout(() => controller.error(new Error("cut")), 5);
          },
        }),
      ),
    slow: () => new Promise<Response>((resolve) => setTimeout(() => resolve(rated("[[1]]")), 400)),
    garbage: () => new Response("<!doctype html>"),
    gateway: () => Response.json({ error: { code: 502, message: "upstream" } }),
  };
  for (const [name, trouble] of Object.entries(troubles)) {
    let calls = 0;
    await using server = standIn(() => ++calls === 2 || calls === 3 ? trouble() : rated("[[7]]"));
    const notes: string[] = [];
    const options = { ...quick, timeout: name === "slow" ? 100 : 2000, concurrency: 1 };
    const judge = createJudge({
      ...options,
      url: server.url,
      model: "m",
      onNote: (note) => notes.push(note),
    });
    const { ratings } = await judge.rate(pairs(2));
    assertEquals([ratings, calls], [[7, 7], 4], name);
    assertEquals(notes.length, 2, name);
    assertStringIncludes(notes[1], "(2 of 3)");
  }
});

Deno.test("Retry-After is waited for, and not when it asks for too much", async () => {
  let calls = 0;
  await using server = standIn(() =>
    ++calls === 1 ? new Response("", { status: 429, headers: { "retry-after": "1" } }) : rated("[[7]]")
  );
  const began = performance.now();
  const judge = createJudge({ ...quick, url: server.url, model: "m" });
  assertEquals((await judge.rate(pairs(1))).ratings, [7]);
  const waited = performance.now() - began;
  assert(waited > 950 && waited < 3000, `${waited} ms`);
  await using patient = standIn(() => new Response("", { status: 429, headers: { "retry-after": "3600" } }));
  const rate = createJudge({ ...quick, url: patient.url, model: "m" }).rate(pairs(1));
  const error = await assertRejects(() => rate, WhetError, "answered 429 for 3600 s: try later");
  assertEquals([error.code, patient.requests.length], ["network", 1]);
});

Deno.test("patience ends with the last failure's words", async () => {
  await using server = standIn(() => Response.json({ error: { message: "no GPU\nleft" } }, { status: 503 }));
  const rate = createJudge({ ...quick, url: server.url, model: "m", concurrency: 1 }).rate(pairs(3));
  const error = await assertRejects(() => rate, WhetError, 'answered 503 ("no GPU left"): try later');
  assertEquals([error.code, server.requests.length], ["network", 4]);
});

Deno.test("a refusal is told at once, with what to do, and never with the key", async () => {
  const key = "sk-very-secret";
  const cases: [Response | (() => Response), string | undefined, string][] = [
    [
      Response.json({ error: { message: `bad key ${key}` } }, { status: 401 }),
      key,
      'answered 401 ("bad key …")',
    ],
    [new Response("", { status: 401 }), undefined, "it wants a key; name the variable"],
    [Response.json({ detail: "no such model" }, { status: 404 }), key, '404 ("no such model"): no /v1/chat'],
    [Response.json({ error: "too long" }, { status: 400 }), key, 'answered 400 ("too long"): check'],
    [Response.json({ error: { message: "no" } }), key, 'answered with an error ("no")'],
    [Response.json({ choices: [] }), key, "has no choices[0].message: is it OpenAI-compatible?"],
    [Response.json({ choices: [{ text: "[[7]]" }] }), key, "has no choices[0].message"],
    [Response.json([7]), key, 'answered "[7]", which has no'],
    [Response.json(null), key, 'answered "null", which has no'],
    [Response.redirect("http://127.0.0.1:1/there"), key, 'which leads to "http://127.0.0.1:1/there": give'],
  ];
  for (const [answer, apiKey, words] of cases) {
    await using server = standIn(() => answer as Response);
    const rate = createJudge({ ...quick, url: server.url, model: "m", apiKey, concurrency: 1 }).rate(
      pairs(3),
    );
    const error = await assertRejects(() => rate, WhetError, words);
    assertEquals([error.code, server.requests.length], ["network", 1], error.message);
    assert(!error.message.includes(key), error.message);
  }
});

Deno.test("a redirect is followed within the origin and never beyond it", async () => {
  await using elsewhere = standIn(() => rated("[[1]]"));
  await using server = standIn(({ path }) => {
    if (path.startsWith("/v1")) return redirect(307, "/v2/chat/completions");
    if (path.startsWith("/v2")) return rated("[[8]]");
    if (path.startsWith("/circle")) return redirect(308, path);
    return redirect(307, `${elsewhere.url}/v1/chat/completions`);
  });
  const rate = (url: string) => createJudge({ ...quick, url, model: "m", apiKey: "sk-1" }).rate(pairs(1));
  assertEquals((await rate(server.url)).ratings, [8]);
  assertEquals(server.requests[1].headers.get("authorization"), "Bearer sk-1");
  assertEquals(server.requests[1].body.model, "m");
  await assertRejects(() => rate(`${server.url}/away`), WhetError, `leads to "${elsewhere.url}/v1/chat`);
  await assertRejects(() => rate(`${server.url}/circle`), WhetError, "redirects in a circle");
  assertEquals(elsewhere.requests, []);
});

function redirect(status: number, location: string): Response {
  return new Response(null, { status, headers: { location } });
}

Deno.test("no more requests are under way at a time than were allowed, and no fewer", async () => {
  for (const concurrency of [1, 3]) {
    let now = 0, most = 0;
    await using server = standIn(async () => {
      most = Math.max(most, ++now);
      await new Promise((resolve) => setTimeout(resolve, 15));
      now--;
      return rated("[[5]]");
    });
    const judge = createJudge({ ...quick, url: server.url, model: "m", concurrency });
    assertEquals((await judge.rate(pairs(10))).n, 10);
    assertEquals(most, concurrency);
  }
});

Deno.test("an abort ends everything at once with its reason, also a pause before a retry", async () => {
  for (const kind of ["silent", "busy"]) {
    await using server = standIn(() =>
      kind === "busy"
        ? new Response("", { status: 429, headers: { "retry-after": "60" } })
        : new Promise((resolve) => setTimeout(() => resolve(rated("[[5]]")), 1500))
    );
    const controller = new AbortController(), reason = new Error("enough");
    const judge = createJudge({ ...quick, url: server.url, model: "m", timeout: 60_000 });
    const began = performance.now();
    setTimeout(() => controller.abort(reason), 80);
    const error = await assertRejects(() => judge.rate(pairs(20), { signal: controller.signal }));
    assertEquals(error, reason);
    assert(performance.now() - began < 1000);
    assertEquals(server.requests.length, 4);
  }
  const judge = createJudge({ ...quick, url: "http://127.0.0.1:1", model: "m" });
  const signal = AbortSignal.abort(new Error("before"));
  await assertRejects(() => judge.rate(pairs(1), { signal }), Error, "before");
});

Deno.test("the first failure ends the requests beside it, and one in a callback too", async () => {
  await using server = standIn(({ text }) =>
    text.includes("answer 1\n")
      ? new Response("", { status: 403 })
      : new Promise((resolve) => setTimeout(() => resolve(rated("[[5]]")), 1500))
  );
  const judge = createJudge({ ...quick, url: server.url, model: "m" });
  const began = performance.now();
  await assertRejects(() => judge.rate(pairs(20)), WhetError, "answered 403");
  assert(performance.now() - began < 1000);
  await using ready = standIn(() => rated("[[5]]"));
  const rate = createJudge({ ...quick, url: ready.url, model: "m", concurrency: 1 }).rate(pairs(9), {
    onRating: () => {
      throw new Error("full disk");
    },
  });
  await assertRejects(() => rate, Error, "full disk");
  assertEquals(ready.requests.length, 1);
});

Deno.test("a server that is not there is told after one retry", async () => {
  const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const { port } = listener.addr as Deno.NetAddr;
  listener.close();
  const notes: string[] = [];
  const judge = createJudge({
    ...quick,
    ...{
      url: `http://127.0.0.1:${port}`,
      model: "m",
      concurrency: 1,
      onNote: (note: string) => notes.push(note),
    },
  });
  const error = await assertRejects(
    () => judge.rate(pairs(2)),
    WhetError,
    `127.0.0.1:${port}: cannot be reached (`,
  );
  assertEquals([error.code, notes.length], ["network", 1]);
  assert(!/secret/.test(error.message + notes), error.message);
});

Deno.test("a reply without end is refused", async () => {
  await using server = standIn(() => new Response(new Uint8Array(5 * 2 ** 20).fill(32)));
  const judge = createJudge({ ...quick, retries: 0, url: server.url, model: "m" });
  await assertRejects(() => judge.rate(pairs(1)), WhetError, "more than 4194304 bytes");
});

Deno.test("options that make no sense are refused by name, and a key is never repeated", () => {
  const base = { url: "http://localhost:1/v1", model: "m" };
  const cases: [Partial<JudgeOptions>, string][] = [
    [{ url: "localhost" }, "url (--judge): expected an http(s) address"],
    [{ url: "ftp://host/v1" }, "url (--judge): expected an http(s) address"],
    [{ url: "http://me:secret@host/v1" }, "url (--judge): a name or password within the address"],
    [{ model: "" }, "model (--judge-model): expected"],
    [{ apiKey: "secret\nkey" }, "apiKey (--judge-key-env): a key holds"],
    [{ concurrency: 0 }, "concurrency (--judge-concurrency): expected a whole number"],
    [{ concurrency: 1.5 }, "concurrency (--judge-concurrency): expected a whole number"],
  ];
  for (const [options, words] of cases) {
    const error = assertThrows(() => createJudge({ ...base, ...options }), WhetError, words);
    assertEquals(error.code, "option");
    assert(!error.message.includes("secret"), error.message);
  }
});
