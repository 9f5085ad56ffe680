import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import type { HubOptions } from "../src/format/hub.ts";
import { openRepository, type Progress } from "../src/format/source.ts";
import { HttpRepository } from "../src/format/source_http.ts";

async function inTempDir(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    await work(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function rejection(work: () => Promise<unknown>): Promise<WhetError> {
  return await assertRejects(work, WhetError);
}

const BYTES = Uint8Array.from({ length: 5_000_000 }, (_, i) => (i * 2654435761) >>> 24);

/** How a stand-in for a web server answers; `log` collects the Range headers that it was sent. */
type Answer = (request: Request, path: string) => Response | Promise<Response>;

async function serving(
  answer: Answer,
  work: (url: string, log: (string | null)[], requests: Request[]) => Promise<void>,
): Promise<void> {
  const log: (string | null)[] = [], requests: Request[] = [];
  const server = Deno.serve({
    port: 0,
    hostname: "127.0.0.1",
    onListen: () => {},
    onError: () => new Response(),
  }, (request) => {
    log.push(request.headers.get("range"));
    requests.push(request);
    return answer(request, new URL(request.url).pathname);
  });
  try {
    await work(`http://127.0.0.1:${server.addr.port}/models/gpt2`, log, requests);
  } finally {
    await server.shutdown();
  }
}

interface Ways {
  /** Whether Range is honoured. */
  ranges?: boolean;
  /** How many bytes a reply has before the line is cut. */
  cutAfter?: number;
  etag?: string;
}

/** A reply as a file server gives it. */
function serve(
  bytes: Uint8Array,
  request: Request,
  { ranges = true, cutAfter = Infinity, etag }: Ways = {},
): Response {
  const start = ranges ? Number(/^bytes=(\d+)-$/.exec(request.headers.get("range") ?? "")?.[1] ?? 0) : 0;
  const headers = new Headers({ "content-length": `${bytes.length - start}` });
  if (etag) headers.set("etag", etag);
  if (ranges) headers.set("content-range", `bytes ${start}-${bytes.length - 1}/${bytes.length}`);
  let at = start;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (at >= bytes.length) return controller.close();
      if (at - start >= cutAfter) return controller.error(new Error("cut"));
      const end = Math.min(at + 65_536, start + cutAfter, bytes.length);
      controller.enqueue(bytes.slice(at, end));
      at = end;
    },
  });
  return new Response(body, { status: ranges ? 206 : 200, headers });
}

const quick = { retryDelay: 1 };

Deno.test("a directory's files are read from anywhere, in any order", () =>
  inTempDir(async (directory) => {
    await Deno.writeFile(`${directory}/a.bin`, BYTES);
    await Deno.writeTextFile(`${directory}/a.json`, "\ufeff{}");
    await Deno.mkdir(`${directory}/sub`);
    await Deno.writeTextFile(`${directory}/sub/b`, "");
    const progress: Progress[] = [];
    const repository = await openRepository(`${directory}/`, { onProgress: (step) => progress.push(step) });
    assertEquals(repository.name, directory);
    const source = (await repository.open("a.bin"))!;
    assertEquals(source.size, BYTES.length);
    const parts = await Promise.all([[4_999_990, 10], [0, 3], [5, 0], [2_000_000, 1_000_000]].map(([o, n]) =>
      source.read(o, n).then((bytes) => assertEquals(bytes, BYTES.slice(o, o + n)))
    ));
    assertEquals(parts.length, 4);
    assertEquals(progress.at(-1), { file: "a.bin", loaded: 1_000_013, total: BYTES.length }); // read, in whatever order
    assertMatch(
      (await rejection(() =>
        source.read(4_999_990, 11)
      )).message,
      /a\.bin: .* only 5000000; it is truncated/,
    );
    assertMatch(
      (await rejection(() => source.read(-1, 1))).message,
      /a\.bin/,
    );
    await Deno.truncate(`${directory}/a.bin`, 100);
    assertMatch((await rejection(() => source.read(90, 20))).message, /ends at byte 100/);
    source.close();
    source.close();
    assertEquals((await rejection(() => source.read(0, 1))).code, "disposed");

    await Deno.writeFile(`${directory}/small`, BYTES.subarray(0, 1000));
    const small = (await repository.open("small"))!;
    for (const [o, n] of [[990, 10], [0, 3], [0, 1000], [5, 0]]) {
      assertEquals(await small.read(o, n), BYTES.slice(o, o + n));
    }
    (await small.read(0, 3)).fill(0); // What was read is the reader's own.
    assertEquals(await small.read(0, 3), BYTES.slice(0, 3));
    assertEquals((await rejection(() => small.read(999, 2))).code, "format");
    small.close();

    assertEquals(await repository.text("a.json"), "{}");
    assertEquals(await repository.text("sub/b"), "");
    assertEquals(await repository.open("none"), null);
    assertEquals(await repository.text("a.json/none"), null);
    assertMatch(
      (await rejection(() => repository.bytes("a.bin", 99))).message,
      /100 bytes, more than the 99/,
    );
    assertMatch((await rejection(() => repository.text("sub"))).message, /sub: not a regular file/);
    assertMatch((await rejection(() => repository.open("../x"))).message, /leaves the model's directory/);
    await Deno.writeFile(`${directory}/bad`, new Uint8Array([0xff, 0xfe]));
    assertMatch((await rejection(() => repository.text("bad"))).message, /bad: not UTF-8/);
    assertMatch(
      (await rejection(() => openRepository(`${directory}/bad`))).message,
      /a file; give the directory/,
    );
    assertEquals(await (await openRepository(new URL(`file://${directory}/`).href)).text("a.json"), "{}");
  }));

Deno.test("a source that is neither a directory nor a Hub id says so", async () => {
  for (const source of ["./no/such/dir", "/no/such", "a/b/c", "no such", "", "a..b/c", "http://"]) {
    const error = await rejection(() => openRepository(source));
    assertEquals(error.code, "option");
    assertMatch(
      error.message,
      source === "" ? /empty source/ : source === "http://" ? /not a valid URL/ : /no such directory/,
    );
  }
});

Deno.test("a pipe in a model's directory is refused, not waited for", () =>
  inTempDir(async (directory) => {
    if (Deno.build.os === "windows") return;
    await new Deno.Command("mkfifo", { args: [`${directory}/config.json`] }).output();
    const repository = await openRepository(directory);
    assertMatch((await rejection(() => repository.text("config.json"))).message, /not a regular file/);
  }));

Deno.test({
  name: "without Deno's permissions the flags are named",
  permissions: { read: false, net: false },
  fn: async () => {
    assertMatch((await rejection(() => openRepository("some/dir"))).message, /add --allow-read=some\/dir/);
    const repository = await openRepository("http://127.0.0.1:8000/m");
    const error = await rejection(() => repository.text("config.json"));
    assertEquals(error.code, "resource");
    assertMatch(error.message, /add --allow-net=127\.0\.0\.1:8000/);
  },
});

Deno.test("ascending reads of a web file share one request", () =>
  serving((request) => serve(BYTES, request), async (url, log, requests) => {
    const progress: number[] = [];
    const repository = await openRepository(`${url}/?key=1#x`, {
      onProgress: ({ loaded }) => progress.push(loaded),
    });
    const source = (await repository.open("a b.bin"))!;
    assertEquals(source.size, BYTES.length);
    for (const [offset, length] of [[0, 8], [8, 1000], [500_000, 2_000_000], [2_500_000, 1]]) {
      assertEquals(await source.read(offset, length), BYTES.slice(offset, offset + length));
    }
    assertEquals(log, ["bytes=0-"]);
    assertEquals(
      new URL(requests[0].url).pathname + new URL(requests[0].url).search,
      "/models/gpt2/a%20b.bin?key=1",
    );
    assertEquals(requests[0].headers.get("authorization"), null);
    assertEquals(await source.read(100, 50), BYTES.slice(100, 150));
    assertEquals(await source.read(4_000_000, 50), BYTES.slice(4_000_000, 4_000_050));
    source.rest();
    assertEquals(await source.read(4_999_999, 1), BYTES.slice(4_999_999));
    assertEquals(log, ["bytes=0-", "bytes=100-", "bytes=4000000-", "bytes=4999999-"]);
    assert(progress.every((loaded, i) => i === 0 || loaded > progress[i - 1]));
    assertEquals(progress.at(-1), BYTES.length);
    source.close();
    assertEquals((await rejection(() => source.read(0, 1))).code, "disposed");
  }));

Deno.test("a server without ranges is read from the start again", () =>
  serving((request) => serve(BYTES, request, { ranges: false }), async (url, log) => {
    const source = (await (await openRepository(url)).open("a"))!;
    assertEquals(await source.read(3_000_000, 9), BYTES.slice(3_000_000, 3_000_009));
    assertEquals(log.length, 1);
    assertEquals(await source.read(7, 9), BYTES.slice(7, 16));
    assertEquals(log.length, 2);
    source.close();
  }));

for (const ranges of [true, false]) {
  Deno.test(`a cut line is taken up where it broke, ${ranges ? "with" : "without"} ranges`, () => {
    let cuts = ranges ? 8 : 3;
    return serving(
      (request) =>
        serve(BYTES, request, { ranges, cutAfter: cuts-- > 0 ? 1_500_001 : Infinity, etag: '"a"' }),
      async (url, log) => {
        const repository = new HttpRepository(url, quick);
        const source = (await repository.open("a"))!;
        assertEquals(await source.read(0, BYTES.length), BYTES);
        assertEquals(log.length, 4);
        if (ranges) assertEquals(log[1], "bytes=1500001-");
        source.close();
      },
    );
  });
}

Deno.test("a line that is cut again and again is given up, with the reason", () =>
  serving((request) => serve(BYTES, request, { cutAfter: 1000 }), async (url, log) => {
    const source = (await new HttpRepository(url, quick).open("a"))!;
    const error = await rejection(() => source.read(0, BYTES.length));
    assertEquals(error.code, "network");
    assertMatch(error.message, /models\/gpt2\/a: .*check the address and the connection/);
    assertEquals(log.length, 5);
    source.close();
  }));

Deno.test("a silent line is cut and retried, then given up", () =>
  serving(
    () => new Response(new ReadableStream({}), { headers: { "content-length": "10" } }),
    async (url, log) => {
      const source = (await new HttpRepository(url, { ...quick, stallTimeout: 30 }).open("a"))!;
      assertMatch((await rejection(() => source.read(0, 10))).message, /nothing came for/);
      assertEquals(log.length, 5);
      source.close();
    },
  ));

Deno.test("a file that changes on the server while it is read is an error, not a mixture", async () => {
  let version = 0;
  await serving((request) => serve(BYTES, request, { etag: `"${version++}"` }), async (url) => {
    const source = (await new HttpRepository(url, quick).open("a"))!;
    await source.read(1000, 10);
    assertMatch(
      (await rejection(() => source.read(0, 10))).message,
      /changed on the server while it was read/,
    );
    source.close();
  });
  version = 0;
  await serving((request) => serve(BYTES.subarray(0, 2000 + version++), request), async (url) => {
    const source = (await new HttpRepository(url, quick).open("a"))!;
    await source.read(1000, 10);
    assertMatch(
      (await rejection(() => source.read(0, 10))).message,
      /changed on the server while it was read/,
    );
    source.close();
  });
});

Deno.test("each refusal of a server has its words", async () => {
  const expected: [number, RegExp | null, Record<string, string>?][] = [
    [401, /answers 401: it wants credentials/],
    [403, /answers 403: it wants credentials/],
    [404, null],
    [410, null],
    [429, /answers 429: it is asked too often; try again later/],
    [429, /answers 429: it is asked too often; try again in 3600 s/, { "retry-after": "3600" }],
    [500, /answers 500: it fails; try again later/],
    [503, /answers 503: it fails/],
    [418, /answers 418: expected 200; check the address/],
    [206, /reply to a Range request makes no sense/],
    [206, /reply to a Range request makes no sense/, { "content-range": "bytes 5-9/10" }],
  ];
  for (const [status, message, headers] of expected) {
    await serving(() => new Response("no", { status, headers }), async (url, log) => {
      const open = () => new HttpRepository(`${url}?secret=1`, quick).open("a");
      if (!message) return assertEquals(await open(), null);
      const error = await rejection(open);
      assertEquals(error.code, "network");
      assertMatch(error.message, message);
      assert(!error.message.includes("secret"));
      assertEquals(log.length, /later|it fails/.test(error.message) ? 5 : 1);
    });
  }
});

Deno.test("a server that fails once, or asks for a pause, is asked again", async () => {
  let failures = 1;
  await serving(
    (request) => failures-- > 0 ? new Response(null, { status: 503 }) : serve(BYTES, request),
    async (url) => {
      const source = (await new HttpRepository(url, quick).open("a"))!;
      assertEquals(await source.read(0, 4), BYTES.slice(0, 4));
      source.close();
    },
  );
});

Deno.test("a page of HTML is no model file", () =>
  serving(
    () => new Response("<!doctype html>", { headers: { "content-type": "text/html; charset=utf-8" } }),
    async (url) => {
      assertEquals(await (await openRepository(url)).text("config.json"), null);
    },
  ));

Deno.test("a small file is read without its size being told, redirected or empty; a compressed one is refused", async () => {
  const gzip = (text: string) => new Response(text).body!.pipeThrough(new CompressionStream("gzip"));
  const text = "é".repeat(5000);
  const answers: Record<string, (request: Request) => Response> = {
    chunked: () => new Response(new Response(text).body!.pipeThrough(new TransformStream())),
    gzip: () => new Response(gzip(text), { headers: { "content-encoding": "gzip" } }),
    empty: () => new Response(null, { status: 416, headers: { "content-range": "bytes */0" } }),
    nothing: () => new Response(""),
    redirect: (request) => Response.redirect(new URL("/elsewhere", request.url)),
  };
  await serving((request, path) => {
    if (path === "/elsewhere") return new Response(text);
    return answers[path.split("/").at(-1)!](request);
  }, async (url) => {
    const repository = await openRepository(url);
    for (const name of ["chunked", "redirect"]) assertEquals(await repository.text(name), text, name);
    for (const name of ["empty", "nothing"]) assertEquals(await repository.text(name), "", name);
    assertMatch(
      (await rejection(() => repository.text("gzip"))).message,
      /compressed although it was asked not to/,
    );
  });
});

Deno.test("an unreachable server is an error that names it, not its query", async () => {
  const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const { port } = listener.addr;
  listener.close();
  const error = await rejection(() =>
    new HttpRepository(`http://127.0.0.1:${port}/m?secret=1`, quick).open("a")
  );
  assertEquals(error.code, "network");
  assertMatch(error.message, new RegExp(`^http://127\\.0\\.0\\.1:${port}/m/a: .*refused`));
  assert(!error.message.includes("secret"));
  const withUser = await rejection(() => openRepository("http://me:word@host/m"));
  assertMatch(withUser.message, /^http:\/\/host\/m: a user name or password/);
});

Deno.test("aborting ends a download with the reason given", () =>
  serving(
    () => new Response(new ReadableStream({}), { headers: { "content-length": "10" } }),
    async (url) => {
      const controller = new AbortController();
      const source = (await (await openRepository(url, { signal: controller.signal })).open("a"))!;
      const reading = source.read(0, 10);
      setTimeout(() => controller.abort(new RangeError("enough")), 20);
      assertEquals((await assertRejects(() => reading, RangeError)).message, "enough");
      await assertRejects(() => source.read(0, 1), RangeError);
      source.close();
    },
  ));

Deno.test("aborts, closing and silence end a read even where fetch does not hear of them", async () => {
  const deaf = () =>
    Promise.resolve(new Response(new ReadableStream({}), { headers: { "content-length": "10" } }));
  const open = async (options: { signal?: AbortSignal; stallTimeout?: number }) =>
    (await new HttpRepository("http://example.test/m", { ...quick, ...options, fetch: deaf }).open("a"))!;
  const controller = new AbortController();
  const aborted = (await open({ signal: controller.signal })).read(0, 10);
  controller.abort(new RangeError("enough"));
  assertEquals((await assertRejects(() => aborted, RangeError)).message, "enough");
  const closed = await open({});
  const reading = closed.read(0, 10);
  setTimeout(() => closed.close(), 1);
  assertEquals((await rejection(() => reading)).code, "disposed");
  const silent = await open({ stallTimeout: 5 });
  assertMatch((await rejection(() => silent.read(0, 10))).message, /nothing came for/);
  silent.close();
});

Deno.test("closing during a read ends the read", () =>
  serving(
    () => new Response(new ReadableStream({}), { headers: { "content-length": "10" } }),
    async (url) => {
      const source = (await new HttpRepository(url, quick).open("a"))!;
      const reading = source.read(0, 10);
      setTimeout(() => source.close(), 20);
      assertEquals((await rejection(() => reading)).code, "disposed");
    },
  ));

Deno.test("what is no directory but a Hub id comes from the Hub, and when that fails both are said", () =>
  inTempDir(async (cacheDir) => {
    const sha = "0123456789abcdef0123456789abcdef01234567";
    await serving((_, path) => {
      const of = (name: string) => path.endsWith(name);
      if (of("/api/models/owner/name/revision/main")) {
        return Response.json({ sha, siblings: [{ rfilename: "config.json" }] });
      }
      if (of(`/owner/name/resolve/${sha}/config.json`)) {
        return new Response("{}", { headers: { etag: '"9e26dfeeb6e641a33dae4961196235bdb965b21b"' } });
      }
      return new Response(null, { status: 404, headers: { "x-error-code": "RepoNotFound" } });
    }, async (url) => {
      const options: HubOptions = { endpoint: new URL(url).origin, cacheDir, token: "", offline: false };
      for (const source of ["owner/name", "https://huggingface.co/owner/name/tree/main"]) {
        const repository = await openRepository(source, options);
        assertEquals(repository.name, "owner/name");
        assertEquals(await repository.text("config.json"), "{}");
        assertEquals(await repository.text("model.safetensors"), null);
      }
      const error = await rejection(() => openRepository("owner/none", options));
      assertEquals(error.code, "network");
      assertMatch(
        error.message,
        /^owner\/none: there is no such directory here, and as a Hub id: .*owner\/none/,
      );
    });
  }));
