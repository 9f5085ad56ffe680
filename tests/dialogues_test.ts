import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { Dialogues, type DialoguesOptions } from "../src/data/dialogues.ts";
import { type Example, lastExchange, turns } from "../src/data/example.ts";
import { LINE_LIMIT, readLines, unpack } from "../src/data/lines.ts";
import { WhetError } from "../src/errors.ts";
import type { HubOptions } from "../src/format/hub.ts";
import { HubServer, sha256 } from "./support/hub_server.ts";

const PAIR = {
  chosen: "\n\nHuman: Hi\n\nAssistant: Hello",
  rejected: "\n\nHuman: Hi\n\nAssistant: Go away",
};

function bytes(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

function joined(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

async function gzip(content: string | Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([content]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Pieces of a few bytes, so that every border falls inside something. */
async function* pieces(content: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < content.length; at += size) yield content.subarray(at, at + size);
}

/** The error that parsing ends with; checked to be one line that names the file. */
async function failure(content: string | Uint8Array, name = "chats.jsonl"): Promise<string> {
  const error = await assertRejects(() => Dialogues.parse(content, name), WhetError);
  assertEquals(error.code, "format");
  assert(error.message.startsWith(name) && !error.message.includes("\n"), error.message);
  return error.message;
}

async function inDirectory(test: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "whet-data-" });
  try {
    await test(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("the three shapes of lines are read, mixed, with CRLF, a BOM, blank lines, no last newline", async () => {
  const text = "\ufeff" + JSON.stringify(PAIR) + "\r\n\r\n   \n" + '{"text": "a\u2028b", "id": 1}\n' +
    '{"prompt": "1+1=", "response": "2", "text": "other"}\n' + '{"chosen": "\\n\\nHuman: ?"}';
  const data = await Dialogues.parse(text);
  const expected: Example[] = [
    PAIR,
    { text: "a\u2028b" },
    { prompt: "1+1=", response: "2" },
    { chosen: "\n\nHuman: ?" },
  ];
  assertEquals([...data], expected);
  assertEquals(data.length, 4);
  assertEquals(data.at(-1), expected[3]);
  assertEquals(data.at(4), undefined);
  assertEquals(data.where(1), "the data, line 4");
  assertEquals([...data.slice(1, -1)], expected.slice(1, -1));
  assertEquals(data.slice(2).where(0), "the data, line 5");
});

Deno.test("lines are the same however the bytes are cut into pieces", async () => {
  const content = bytes('{"text": "é😀"}\r\n\n{"text": "two"}\nthree\n\n');
  const expected = [
    { number: 1, text: '{"text": "é😀"}\r' },
    { number: 2, text: "" },
    { number: 3, text: '{"text": "two"}' },
    { number: 4, text: "three" },
    { number: 5, text: "" },
  ];
  const packed = await gzip(content);
  for (const size of [1, 2, 3, 7, 1000]) {
    assertEquals(await Array.fromAsync(readLines(pieces(content, size), "x")), expected);
    assertEquals(await Array.fromAsync(readLines(unpack(pieces(packed, size), "x"), "x")), expected);
  }
});

Deno.test("gzip is known by its first bytes, not by its name, and may have several members", async () => {
  const one = JSON.stringify(PAIR) + "\n", two = '{"text": "two"}\n';
  const packed = joined(await gzip(one), await gzip(two));
  assertEquals((await Dialogues.parse(packed, "chats.jsonl")).length, 2);
  assertEquals((await Dialogues.parse(one, "chats.jsonl.gz")).length, 1);
  assertEquals((await Dialogues.parse(joined(await gzip(one), new Uint8Array(512)))).length, 1);
});

Deno.test("damaged gzip is refused: cut anywhere, wrong checksum or length, other bytes behind it", async () => {
  const lines = Array.from({ length: 300 }, (_, i) => JSON.stringify({ text: `number ${i * i}` })).join("\n");
  const whole = await gzip(lines);
  assertEquals((await Dialogues.parse(whole)).length, 300);
  for (const length of [2, 5, 12, whole.length >> 1, whole.length - 8, whole.length - 1]) {
    assert((await failure(whole.subarray(0, length), "a.gz")).includes("cut short"), `${length}`);
  }
  for (const at of [whole.length - 7, whole.length - 2, whole.length >> 1]) {
    const changed = whole.slice();
    changed[at] ^= 0x55;
    assert((await failure(changed, "a.gz")).includes("damaged"), `${at}`);
  }
  assert((await failure(joined(whole, bytes("and more")), "a.gz")).includes("other bytes follow"));
});

Deno.test("a bad line is refused with file, line number and field", async () => {
  const after = (line: string) => failure('{"text": "fine"}\n\n' + line + "\n");
  const cases: [line: string, ...said: string[]][] = [
    ['{"text": "a" "b"}', "line 3", 'broken JSON near "{\\"text\\"'],
    ['{"text": "a', "line 3", "broken JSON"],
    ["hello", "line 3", 'near "hello"'],
    ["[1, 2]", "line 3", "got a list"],
    ["null", "line 3", "got null"],
    ["3", "line 3", "got a number"],
    ["{}", "line 3", "found no field"],
    ['{"instruction": "x", "output": "y"}', "line 3", 'the fields "instruction", "output"'],
    ['{"text": null}', "line 3", '"text" (null)'],
    ['{"text": 5}', 'line 3, field "text"', "expected a text, got a number"],
    ['{"text": ""}', 'line 3, field "text"', "empty"],
    ['{"prompt": "x"}', 'line 3, field "response"', "got nothing"],
    ['{"response": "x"}', 'line 3, field "prompt"', "got nothing"],
    ['{"prompt": ["x"], "response": "y"}', 'line 3, field "prompt"', "got a list"],
    ['{"rejected": "\\n\\nHuman: x"}', 'line 3, field "chosen"', "got nothing"],
    ['{"chosen": "just text"}', 'line 3, field "chosen"', 'no turn in "just text"'],
    ['{"chosen": "\\n\\nHuman: x", "rejected": true}', 'line 3, field "rejected"', "got a boolean"],
    ['{"tokens": [1, 2.5]}', 'line 3, field "tokens"', "at index 1, got 2.5"],
    ['{"tokens": [-1]}', 'line 3, field "tokens"', "got -1"],
    ['{"tokens": []}', 'line 3, field "tokens"', "empty"],
    ['{"tokens": "12"}', 'line 3, field "tokens"', "got a string"],
  ];
  for (const [line, ...said] of cases) {
    const message = await after(line);
    for (const part of said) assert(message.includes(part), `${line}: ${message}`);
  }
  const long = await after(`{"text": ${"9".repeat(10_000)}x}`);
  assert(long.length < 400, long);
});

Deno.test("what is no text, or none at all, is refused", async () => {
  for (const content of ["", "\n\r\n  \n", "\ufeff"]) assert((await failure(content)).includes("empty"));
  assert((await failure(await gzip(""))).includes("empty"));
  const latin1 = joined(bytes('{"text": "a"}\n{"text": "'), Uint8Array.of(0xe9), bytes('"}\n'));
  assert((await failure(latin1)).includes("line 2: not UTF-8"));
  assert((await failure(Uint8Array.of(0xff, 0xfe, 0x7b, 0))).includes("UTF-16"));
  assert((await failure(bytes("PAR1....PAR1"), "train.parquet")).includes("Parquet"));
  assert((await failure(Uint8Array.of(0x50, 0x4b, 3, 4, 0, 0))).includes("zip archive"));
  assertThrows(() => Dialogues.from([]), WhetError, "empty");
});

Deno.test("a line without end is refused before it fills the memory, in gzip too", async () => {
  let given = 0, closed = false;
  const endless = async function* () {
    const piece = new Uint8Array(2 ** 20).fill(0x61);
    try {
      for (;; given += piece.length) yield piece;
    } finally {
      closed = true;
    }
  };
  const read = async (content: AsyncIterable<Uint8Array>) => {
    for await (const _ of readLines(unpack(content, "x"), "x"));
  };
  await assertRejects(() => read(endless()), WhetError, "x, line 1: longer than 64 MB");
  assert(given < LINE_LIMIT + 2 ** 22, `${given}`);
  assert(closed);
  const bomb = new Blob(Array.from({ length: 70 }, () => new Uint8Array(1_000_000)));
  const packed = bomb.stream().pipeThrough(new CompressionStream("gzip"));
  await assertRejects(() => read(packed), WhetError, "longer than 64 MB");
});

Deno.test("a file of plain text is one example", async () => {
  assertEquals([...await Dialogues.parse("Once\n\nupon {\n", "a/tale.txt")], [{ text: "Once\n\nupon {\n" }]);
  assertEquals([...await Dialogues.parse(await gzip("Once"), "tale.TXT.gz")], [{ text: "Once" }]);
  assert((await failure(" \n", "tale.txt")).includes("empty"));
  assert((await failure(Uint8Array.of(0x61, 0xff), "tale.txt")).includes("not UTF-8"));
});

Deno.test("examples that are there already are checked as well", () => {
  const data = Dialogues.from([PAIR, { tokens: [1, 2] }]);
  assertEquals(data.at(1), { tokens: Uint32Array.of(1, 2) });
  assertEquals(data.where(1), "example 2");
  assertThrows(() => Dialogues.from([PAIR, { text: "" }]), WhetError, 'example 2, field "text"');
  assertThrows(
    () => Dialogues.from("ab" as unknown as Example[]),
    WhetError,
    "example 1: expected an object",
  );
});

Deno.test("files are loaded by path and by file URL, with progress, and let go of when they are bad", async () => {
  await inDirectory(async (directory) => {
    const path = `${directory}/chats.jsonl.gz`;
    const content = await gzip((JSON.stringify(PAIR) + "\n").repeat(5));
    await Deno.writeFile(path, content);
    const seen: number[] = [];
    const options: DialoguesOptions = {
      onProgress: ({ file, loaded, total }) => {
        assertEquals([file, total], [path, content.length]);
        seen.push(loaded);
      },
    };
    assertEquals((await Dialogues.load(path, options)).length, 5);
    assertEquals(seen.at(-1), content.length);
    assertEquals((await Dialogues.load(new URL(`file://${path}`))).length, 5);
    await Deno.writeTextFile(path, '{"text": "a"}\n{"txt": "b"}\n' + '{"text": "c"}\n'.repeat(100_000));
    // The sanitizer of tests would see the open file.
    await assertRejects(() => Dialogues.load(path), WhetError, `${path}, line 2: expected an object`);
  });
});

Deno.test("loading stops when it is told to", async () => {
  await inDirectory(async (directory) => {
    const path = `${directory}/chats.jsonl`;
    await Deno.writeTextFile(path, '{"text": "a"}\n'.repeat(100_000));
    const controller = new AbortController(), reason = new Error("enough");
    const options = { signal: controller.signal, onProgress: () => controller.abort(reason) };
    assertEquals(await assertRejects(() => Dialogues.load(path, options)), reason);
    assertEquals(await assertRejects(() => Dialogues.load(path, options)), reason);
  });
});

Deno.test("a source that cannot be opened is named with what to do", async () => {
  await inDirectory(async (directory) => {
    const fails = async (source: string | URL) =>
      (await assertRejects(() => Dialogues.load(source), WhetError)).message;
    assert((await fails(`${directory}/none.jsonl`)).includes("none.jsonl: there is no such file"));
    assert((await fails("no-such-folder/chats.jsonl.gz")).includes("there is no such file"));
    assert((await fails("chats.jsonl")).includes("there is no such file"));
    assert((await fails("")).includes("there is no such file"));
    assert((await fails(directory)).includes(`${directory}: a directory`));
    assert((await fails("ftp://example.com/chats.jsonl")).includes("expected a file, an http(s) URL"));
  });
});

Deno.test({
  name: "without the permission to read, the flag is named",
  permissions: { read: false },
  async fn() {
    const error = await assertRejects(() => Dialogues.load("/chats.jsonl"), WhetError, "--allow-read=");
    assertEquals(error.code, "resource");
  },
});

/** A server that answers with one body, and what fails. */
async function serving(
  handler: (request: Request) => Response,
  test: (origin: string) => Promise<void>,
): Promise<void> {
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, handler);
  try {
    await test(`http://127.0.0.1:${server.addr.port}`);
  } finally {
    await server.shutdown();
  }
}

Deno.test("a file is loaded from an address, and the server's refusal is told", async () => {
  const content = await gzip(JSON.stringify(PAIR));
  const handler = (request: Request) =>
    new URL(request.url).pathname === "/a/chats.jsonl.gz"
      ? new Response(content, { headers: { "content-length": `${content.length}` } })
      : new Response("no", { status: request.url.includes("secret") ? 403 : 404 });
  await serving(handler, async (origin) => {
    assertEquals([...await Dialogues.load(`${origin}/a/chats.jsonl.gz?signature=x`)], [PAIR]);
    assertEquals((await Dialogues.load(new URL(`${origin}/a/chats.jsonl.gz`))).length, 1);
    const load = (path: string) => assertRejects(() => Dialogues.load(origin + path), WhetError);
    assertEquals((await load("/b")).code, "network");
    assert((await load("/b")).message.startsWith(`${origin}/b: the server answers 404`));
    assert((await load("/secret")).message.includes("403"));
  });
});

Deno.test("a Hub data set gives the file that is named, or a split's files below a folder", async () => {
  const line = (text: string) => bytes(JSON.stringify({ text }) + "\n");
  const files = {
    "README.md": bytes("# data"),
    "red-team/red_team.jsonl": line("red"),
    "helpful/train.jsonl.gz": await gzip(line("helpful train")),
    "helpful/test.jsonl.gz": await gzip(line("helpful test")),
    "harmless/train-00000-of-00001.jsonl": line("harmless train"),
    "harmless/training.jsonl": line("of no split"),
  };
  const commit = sha256(bytes("commit")).slice(0, 40);
  const cacheDir = await Deno.makeTempDir({ prefix: "whet-hub-" });
  const lfs = ["helpful/train.jsonl.gz"];
  const hub = new HubServer([{ type: "dataset", name: "owner/set", commit, files, lfs }]);
  try {
    const base: HubOptions & DialoguesOptions = {
      endpoint: hub.endpoint,
      cacheDir,
      token: "",
      offline: false,
      patience: { retries: 0, backoff: 1, stall: 5000 },
    };
    const load = async (source: string, options: DialoguesOptions = {}) =>
      Array.from(
        await Dialogues.load(source, { ...base, ...options }),
        (one) => (one as { text: string }).text,
      );
    assertEquals(await load("owner/set/helpful/test.jsonl.gz"), ["helpful test"]);
    assertEquals(await load("owner/set@main/red-team/red_team.jsonl"), ["red"]);
    assertEquals(await load("owner/set"), ["harmless train", "helpful train"]);
    assertEquals(await load("owner/set/helpful/"), ["helpful train"]);
    assertEquals(await load("owner/set/helpful", { split: "test" }), ["helpful test"]);
    assertEquals(await load("https://huggingface.co/datasets/owner/set/tree/main/helpful"), [
      "helpful train",
    ]);
    assertEquals(await load("https://huggingface.co/datasets/owner/set"), [
      "harmless train",
      "helpful train",
    ]);
    const fails = (source: string) => assertRejects(() => Dialogues.load(source, base), WhetError);
    const none = (await fails("owner/set/red-team")).message;
    assert(none.startsWith("owner/set/red-team: there is no such file here, and as a Hub data set:"), none);
    assert(none.includes("no red-team/train.jsonl or the like"), none);
    assert((await fails("owner/set/missing.jsonl")).message.includes('no file "missing.jsonl"'));
    assertEquals((await fails("owner/nothing")).code, "network");
  } finally {
    await hub[Symbol.asyncDispose]();
    await Deno.remove(cacheDir, { recursive: true });
  }
});

Deno.test("a transcript falls into what the assistant says and what leads to it", () => {
  const cases: [text: string, ...segments: [text: string, response: boolean][]][] = [
    ["\n\nHuman: a\n\nAssistant: b", ["\n\nHuman: a\n\nAssistant:", false], [" b", true]],
    [
      "Be kind.\n\nHuman: a\n\nAssistant: b\n\nc\n\nHuman: d\n\nAssistant:",
      ["Be kind.\n\nHuman: a\n\nAssistant:", false],
      [" b\n\nc", true],
      ["\n\nHuman: d\n\nAssistant:", false],
      ["", true],
    ],
    [
      "\n\nHuman: a\n\nHuman: b\n\nAssistant: c\n\nAssistant: d\n\nHuman: e",
      ["\n\nHuman: a\n\nHuman: b\n\nAssistant:", false],
      [" c", true],
      ["\n\nAssistant:", false],
      [" d", true],
      ["\n\nHuman: e", false],
    ],
    ["no turn, Assistant: or\nAssistant: so", ["no turn, Assistant: or\nAssistant: so", false]],
  ];
  for (const [text, ...segments] of cases) {
    assertEquals(turns(text).map(({ text, response }) => [text, response]), segments);
    assertEquals(turns(text).map((segment) => segment.text).join(""), text);
  }
});

Deno.test("the last exchange is a prompt that ends with Assistant: and the response behind it", () => {
  const transcript = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d\n\ne";
  const expected = { prompt: "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", response: " d\n\ne" };
  assertEquals(lastExchange(transcript), expected);
  assertEquals(lastExchange({ text: transcript }), expected);
  assertEquals(lastExchange({ chosen: transcript, rejected: PAIR.rejected }), expected);
  assertEquals(lastExchange({ prompt: "p", response: "r" }), { prompt: "p", response: "r" });
  for (const bad of ["\n\nHuman: a", { tokens: [1] }]) assertThrows(() => lastExchange(bad), WhetError, "no");
});
