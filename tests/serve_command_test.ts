import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { inTempDir, refused, whet } from "./support/cli.ts";

const PROGRAM = new URL("../mod.ts", import.meta.url).pathname;

/** `whet serve` on a free port, and what it said. */
async function serve(...args: string[]) {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      "-A",
      PROGRAM,
      "serve",
      "--port",
      "0",
      "--json",
      "--backend",
      "wasm",
      ...args,
    ],
    ...{ stdin: "null", stdout: "piped", stderr: "piped" },
    env: { NO_COLOR: "1", WHET_TEST_KEY: "sesame" },
  }).spawn();
  const stderr = new Response(child.stderr).text();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let line = "";
  while (!line.includes("\n")) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`it ended: ${await stderr}`);
    line += value;
  }
  const { url, model } = JSON.parse(line) as { url: string; model: string };
  return {
    ...{ url, model, stderr, child },
    /** Ends it; gives the exit status. */
    async stop(...signals: Deno.Signal[]): Promise<number> {
      for (const signal of signals) {
        child.kill(signal);
        await new Promise((go) => setTimeout(go, 50));
      }
      const { code } = await child.status;
      await reader.cancel();
      return code;
    },
    async [Symbol.asyncDispose]() {
      try {
        child.kill("SIGKILL");
      } catch {
        // It has ended.
      }
      await child.status;
      await Promise.all([stderr, reader.cancel()]);
    },
  };
}

function complete(url: string, body: Record<string, unknown>, headers = {}): Promise<Response> {
  return fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify({ prompt: "The cat", temperature: 0, ...body }),
  });
}

/** Sends bytes as they are; gives what comes back. */
async function raw(url: string, text: string): Promise<string> {
  const { hostname, port } = new URL(url);
  using connection = await Deno.connect({ hostname, port: Number(port) });
  const bytes = new TextEncoder().encode(text);
  try {
    for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
    return await new Response(connection.readable).text();
  } catch {
    return ""; // It was cut off.
  }
}

Deno.test("serve listens on 127.0.0.1, serves, and ends with 0 on SIGTERM when its streams have ended", async () => {
  await using server = await serve();
  assertMatch(server.url, /^http:\/\/127\.0\.0\.1:\d+$/);
  assertEquals(server.model, "nano");
  for (const path of ["healthz", "readyz"]) {
    const response = await fetch(`${server.url}/${path}`);
    assertEquals([response.status, (await response.text()).length > 0], [200, true]);
  }
  const stream = await complete(server.url, { max_tokens: 250, stream: true });
  const text = stream.text();
  assertEquals(await server.stop("SIGTERM"), 0);
  assertMatch(await text, /data: \[DONE\]\n\n$/);
  const said = await server.stderr;
  assertStringIncludes(said, `whet: nano at ${server.url}: 0.7`);
  assertStringIncludes(said, "whet: stopping");
  assert(!said.includes("legacy"), said);
});

Deno.test("serve: a stream that nobody reads holds it up for its grace time only; a second Ctrl-C not at all", async () => {
  await using patient = await serve("--quiet", "--grace", "0.3");
  await using hasty = await serve("--quiet", "--grace", "1000");
  for (const server of [patient, hasty]) {
    // A connection whose answer is never read, and more of it than the system keeps.
    const { hostname, port } = new URL(server.url);
    const connection = await Deno.connect({ hostname, port: Number(port) });
    const body = JSON.stringify({
      prompt: Array(32).fill("The cat"),
      max_tokens: 240,
      logprobs: 20,
      stream: true,
    });
    const head = `POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n`;
    await connection.write(
      new TextEncoder().encode(`${head}content-length: ${body.length}\r\n\r\n${body}`),
    );
    await connection.read(new Uint8Array(10));
    const begin = performance.now();
    const signals: Deno.Signal[] = server === patient ? ["SIGTERM"] : ["SIGINT", "SIGINT"];
    assertEquals(await server.stop(...signals), server === patient ? 0 : 130);
    assert(performance.now() - begin < 8000);
    connection.close();
  }
  assertEquals(await patient.stderr, "");
  assertMatch(await hasty.stderr, /^whet: stopped at once\n$/);
});

Deno.test("serve: a key, sites, a name and adapters by flags", async () => {
  await using server = await serve(
    ...["--api-key-env", "WHET_TEST_KEY", "--cors", "http://a.example", "--cors", "http://b.example"],
    ...["--name", "house", "--adapter", "none=./nowhere", "--max-body", "2000"],
  );
  assertEquals((await complete(server.url, {})).status, 401);
  const key = { authorization: "Bearer sesame", origin: "http://b.example" };
  const response = await complete(server.url, { model: "house", max_tokens: 2 }, key);
  assertEquals(response.status, 200);
  assertEquals(response.headers.get("access-control-allow-origin"), "http://b.example");
  const broken = await complete(server.url, { model: "none" }, key);
  assert(broken.status >= 400 && !(await broken.text()).includes("nowhere"), "the adapter's place is told");
  const large = await complete(server.url, { prompt: "x".repeat(3000) }, key);
  assertEquals(large.status, 413);
  const { data } = await (await fetch(`${server.url}/v1/models`, { headers: key })).json();
  assertEquals(data.map(({ id }: { id: string }) => id), ["house", "none"]);
});

Deno.test("serve: odd HTTP takes nothing down", async () => {
  await using server = await serve("--quiet");
  const flood = Array.from({ length: 5000 }, (_, i) => `x-${i}: ${"y".repeat(100)}\r\n`).join("");
  const answers = await Promise.all([
    raw(server.url, `GET /v1/models HTTP/1.1\r\nhost: x\r\n${flood}\r\n`),
    raw(server.url, `GET /v1/models HTTP/1.1\r\nhost: [[[\r\nconnection: close\r\n\r\n`),
    raw(server.url, `TRACE / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`),
    raw(server.url, "\x16\x03\x01\x02\x00not http at all\r\n\r\n"),
    raw(
      server.url,
      "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /readyz HTTP/1.1\r\nhost: x\r\n\r\n" +
        "GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ),
    raw(
      server.url,
      "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n" +
        "connection: close\r\n\r\n0\r\n\r\n",
    ),
  ]);
  assert(!/ 200 /.test(answers[0].slice(0, 20)), "5,000 headers were taken");
  assertMatch(answers[1], /^HTTP\/1\.1 400 /);
  assertMatch(answers[2], /^HTTP\/1\.1 405 /);
  assertMatch(answers[4], /ok\n[^]*ready\n[^]*"object":"list"/);
  assert(!answers.join("").includes("    at "), "a stack was told");
  assertEquals((await complete(server.url, { max_tokens: 1 })).status, 200);
  assertEquals(await server.stop("SIGTERM"), 0);
});

Deno.test("serve: what is wrong is told in one line, with status 1 or 2", async () => {
  await inTempDir(async (directory) => {
    using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = taken.addr as Deno.NetAddr;
    const quiet = ["serve", "--quiet", "--backend", "wasm", "--port", "0"];
    await Promise.all([
      refused(["serve", "--port", `${port}`], { code: 1, message: /^whet: --port \d+, .*another port/ }),
      refused([...quiet, "--model", directory], { code: 1, message: /no config\.json there/ }),
      refused([...quiet, "--adapters", "./nowhere"], { code: 1, message: /cannot read \.\/nowhere/ }),
      refused([...quiet, "--api-key-env", "NOT_SET"], { code: 1, message: /NOT_SET is not set/ }),
      refused([...quiet, "--adapter", "x"], { code: 2, message: /expected NAME=SOURCE/ }),
      refused(["serve", "--host", "203.0.113.1", "--port", "0"], { code: 1, message: /this machine's\?/ }),
      refused(["serve"], { code: 1, message: /allow-net/, permissions: [] }),
    ]);
    const { code, stdout } = await whet(["serve", "--help"]);
    assertEquals(code, 0);
    assertStringIncludes(stdout, "--api-key-env VAR");
  });
});
