import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import { openCheckpoint } from "../src/format/checkpoint.ts";
import { PyTorchFile } from "../src/format/pytorch.ts";
import { Safetensors } from "../src/format/safetensors.ts";
import { openRepository } from "../src/format/source.ts";
import { gather } from "../src/format/strided.ts";
import { GPT2 } from "../src/gpt2.ts";
import { inTempDir } from "./support/models.ts";
import {
  archive,
  bytesOf,
  code,
  Memory,
  pickle,
  storageCode,
  tensorCode,
  type Zip,
  zip,
} from "./support/pytorch.ts";

const FIXTURES = new URL("./fixtures/pytorch/", import.meta.url).pathname;
const ODD = ["odd-zip.bin", "odd-protocol5.bin", "odd-legacy.bin", "odd-big.bin"];
const { text, int, tuple, list, dict, global, call } = code;
const MAGIC = int(0x1950a86a20f9469cfc6cn);

async function openFixture(name: string): Promise<PyTorchFile> {
  return await PyTorchFile.open(new Memory(await Deno.readFile(FIXTURES + name)));
}

/** The error that opening ends with: one line, naming the file, which is closed. */
async function refusal(content: Uint8Array | Zip): Promise<WhetError> {
  const source = new Memory(content);
  const error = await assertRejects(() => PyTorchFile.open(source), WhetError);
  assert(source.closed);
  assertEquals(error.code, "format");
  assertMatch(error.message, /^x\.bin: [\x20-\x7e…]{1,400}$/);
  return error;
}

/** The error of an archive with this value pickled. */
async function refusalOf(value: number[], storages?: (Uint8Array | number)[]): Promise<string> {
  return (await refusal(bytesOf(archive(pickle(value), storages)))).message;
}

/** Reads all of a file; the values as bytes, so that NaNs count. */
async function readAll(file: PyTorchFile | Safetensors): Promise<Map<string, Uint8Array>> {
  const values = new Map<string, Uint8Array>();
  for (const name of file.names()) {
    const { dtype, shape } = file.info(name);
    values.set(name, await file.readBytes(name));
    if (!["F32", "F16", "BF16"].includes(dtype)) continue;
    values.set(`${name} as F32`, new Uint8Array((await file.readF32(name)).buffer));
    for (let first = 0; first < (shape[0] ?? 0); first++) {
      for (let rows = 0; first + rows <= shape[0]; rows++) {
        const part = await file.readRowsF32(name, first, rows);
        values.set(`${name} rows ${first} + ${rows}`, new Uint8Array(part.buffer));
      }
    }
  }
  return values;
}

/** Numbers in [0, 1), the same in every run. */
function generator(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

for (const name of ODD) {
  Deno.test(`${name}: types, views and tied tensors are read as PyTorch reads them, whole and by rows`, async () => {
    using expected = await Safetensors.open(new Memory(await Deno.readFile(`${FIXTURES}odd.safetensors`)));
    using file = await openFixture(name);
    assertEquals(file.names().sort(), expected.names().sort());
    for (const tensor of expected.names()) {
      const { dtype, shape, bytes } = file.info(tensor);
      assertEquals(
        { dtype, shape, bytes },
        (({ offset: _, ...rest }) => rest)(expected.info(tensor)),
        tensor,
      );
    }
    const values = await readAll(file), wanted = await readAll(expected);
    assertEquals(values.size, wanted.size);
    for (const [what, bytes] of wanted) assertEquals(values.get(what), bytes, what);
    const offsets = file.names().map((tensor) => file.info(tensor).offset);
    assertEquals(offsets, [...offsets].sort((a, b) => a - b));
    assertEquals(file.info("tied").offset, file.info("base").offset);
    assert(!file.has("none"));
    assertMatch(
      (await assertRejects(() => file.readF32("none"), WhetError)).message,
      /there is no tensor none/,
    );
    assertMatch(
      (await assertRejects(() => file.readF32("double"), WhetError)).message,
      /tensor double is of type F64; expected F32, F16 or BF16/,
    );
    for (const [first, rows] of [[0, 4], [-1, 2], [3, 1], [0.5, 1]]) {
      const error = await assertRejects(() => file.readRowsF32("base", first, rows), WhetError);
      assertMatch(error.message, /tensor base has 3 rows, not/);
    }
    await assertRejects(() => file.readRowsF32("scalar", 0, 1), WhetError, "has 0 rows");
  });
}

/** The ways in which the fixture's GPT-2 is stored: what to copy, and as what. */
const STORED: Record<string, Record<string, string>> = {
  "pytorch_model.bin": { "pytorch_model.bin": "pytorch_model.bin" },
  "the format before PyTorch 1.6": { "legacy.bin": "pytorch_model.bin" },
  "shards with an index": Object.fromEntries(
    ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
      .map((name) => [name, name]),
  ),
};

const SEQUENCES = [[1, 5, 30, 7, 7], [9]];

async function logitsOf(source: string): Promise<Float32Array[]> {
  using model = await GPT2.load(source, { backend: "wasm", instructionSet: "strict", threads: 1 });
  return await model.logits(SEQUENCES);
}

async function copyModel(directory: string, files: Record<string, string>): Promise<void> {
  for (const [from, to] of Object.entries({ "config.json": "config.json", ...files })) {
    await Deno.copyFile(`${FIXTURES}gpt2/${from}`, `${directory}/${to}`);
  }
}

for (const [what, files] of Object.entries(STORED)) {
  Deno.test(`a GPT-2 in ${what} has the logits of its safetensors twin`, async () => {
    await inTempDir(async (directory) => {
      await copyModel(directory, { "model.safetensors": "model.safetensors" });
      const expected = await logitsOf(directory);
      await Deno.remove(`${directory}/model.safetensors`);
      await copyModel(directory, files);
      assertEquals(await logitsOf(directory), expected);
    });
  });
}

Deno.test("safetensors is taken before PyTorch's files, and one file before shards", () =>
  inTempDir(async (directory) => {
    const names = async () => {
      using checkpoint = await openCheckpoint(await openRepository(directory));
      return [checkpoint.names().length, checkpoint.has("lm_head.weight")];
    };
    await copyModel(directory, STORED["shards with an index"]);
    assertEquals(await names(), [29, true]);
    await Deno.writeFile(
      `${directory}/pytorch_model.bin`,
      bytesOf(archive(pickle(dict(text("w"), tensorCode())))),
    );
    assertEquals(await names(), [1, false]);
    await copyModel(directory, { "model.safetensors": "model.safetensors" });
    assertEquals(await names(), [28, false]);
  }));

Deno.test("an index of PyTorch's files that is not true is refused", () =>
  inTempDir(async (directory) => {
    await copyModel(directory, STORED["shards with an index"]);
    const path = `${directory}/pytorch_model.bin.index.json`;
    const index = JSON.parse(await Deno.readTextFile(path));
    const cases: [Record<string, unknown>, RegExp][] = [
      [{ weight_map: [] }, /pytorch_model\.bin\.index\.json: weight_map: expected an object/],
      [{ weight_map: { w: "../x.bin" } }, /leaves the model's directory/],
      [
        { weight_map: { w: "pytorch_model-00003-of-00003.bin" } },
        /which is not there; the download is not complete/,
      ],
      [
        { weight_map: { w: "pytorch_model-00001-of-00002.bin" } },
        /tensor w is in pytorch_model-00001.*, but it is not/,
      ],
      [{ weight_map: { w: "config.json" } }, /config\.json: not a PyTorch file/],
    ];
    for (const [change, message] of cases) {
      await Deno.writeTextFile(path, JSON.stringify({ ...index, ...change }));
      const error = await assertRejects(
        async () => openCheckpoint(await openRepository(directory)),
        WhetError,
      );
      assertMatch(error.message, message);
    }
    await Deno.writeTextFile(path, JSON.stringify({ ...index, metadata: { total_size: 1.125 } }));
    (await openCheckpoint(await openRepository(directory)))[Symbol.dispose]();
  }));

for (const what of ["pytorch_model.bin", "the format before PyTorch 1.6"]) {
  Deno.test(`over HTTP ${what} is read in one pass behind its directory`, async () => {
    const log: string[] = [];
    const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, async (request) => {
      const name = new URL(request.url).pathname.slice(1);
      const path = Object.entries(STORED[what]).find(([, to]) => to === name)?.[0];
      const stored = path ?? (name === "config.json" ? name : null);
      const bytes = stored && await Deno.readFile(`${FIXTURES}gpt2/${stored}`);
      if (!bytes) return new Response(null, { status: 404 });
      const range = request.headers.get("range") ?? "";
      log.push(`${name} ${range}`);
      const start = Number(/^bytes=(\d+)-$/.exec(range)?.[1] ?? 0);
      const headers = { "content-range": `bytes ${start}-${bytes.length - 1}/${bytes.length}` };
      return new Response(bytes.subarray(start), { status: 206, headers });
    });
    try {
      const url = `http://127.0.0.1:${server.addr.port}`;
      assertEquals(await logitsOf(url), await logitsOf(`${FIXTURES}gpt2`));
      const requests = log.filter((line) => line.startsWith("pytorch_model.bin")).length;
      assert(requests <= 4, log.join("\n"));
    } finally {
      await server.shutdown();
    }
  });
}

Deno.test("what Python pickles beside tensors is refused by name, and nothing is run", async () => {
  const expected: Record<string, RegExp> = {
    "os-system": /pickle asks for (posix|nt)\.system, which Python would run on loading it\. Nothing was run/,
    "os-system-legacy": /pickle asks for (posix|nt)\.system, .* do not open this file elsewhere/,
    "eval-raw": /pickle asks for builtins\.eval, which Python would run/,
    "exec-protocol0": /pickle asks for (builtins|__builtin__)\.exec, which Python would run/,
    "module": /asks for torch\.nn\.modules\.linear\.Linear, which is no plain tensor; .*state_dict\(\)/,
    "object":
      /asks for __main__\.Package, which Python would import, and which is no tensor; nothing was run/,
    "numpy": /asks for numpy\.\S+\.scalar, which Python would import/,
    "bytes": /asks for _codecs\.encode/,
    "nested": /its entry "state_dict" is a dict: it is a training checkpoint, .*torch\.save\(torch\.load/,
    "number": /its entry "step" is a number, not a tensor/,
    "tensor": /it holds a tensor, not a dict of tensors by name; save model\.state_dict\(\)/,
    "list": /it holds a list, not a dict/,
    "sparse": /asks for torch\._utils\._rebuild_sparse_tensor, which is no plain tensor/,
    "expanded": /tensor weight: its elements overlap in its storage .*\.clone\(\)/,
    "negative": /conjugate or negative view, .*\.clone\(\)/,
    "torchscript": /a TorchScript program, not a model's weights/,
    "compressed": /"archive\/data\.pkl" in this zip archive is compressed/,
  };
  const files = [...Deno.readDirSync(`${FIXTURES}refused`)].map(({ name }) => name.replace(".bin", ""));
  assertEquals(files.sort(), Object.keys(expected).sort());
  for (const [name, message] of Object.entries(expected)) {
    assertMatch((await refusal(await Deno.readFile(`${FIXTURES}refused/${name}.bin`))).message, message);
  }
});

Deno.test("a function that is not a tensor's is refused however a pickle comes to it", async () => {
  const shell = text("echo this must never run");
  const names = ["os", "system"].map(text).flat();
  const cases: number[][] = [
    call(global("os", "system"), shell),
    call([...names, 0x93], shell), // STACK_GLOBAL
    [...names, 0x93],
    global("torch._utils._rebuild_tensor_v2.__globals__", "os"),
    global("torch._utils", "_rebuild_tensor_v2.__class__"),
    global("torch.storage", "_load_from_bytes"),
    global("torch", "load"),
    global("torch.hub", "load"),
    global("torch", "__proto__"),
    global("", "constructor"),
    global("collections", "defaultdict"),
    global("collections", "OrderedDict\u0000"),
    global("x".repeat(256), "y\u001b[2J"),
    call(global("builtins", "getattr"), global("torch", "Size"), text("mro")),
    [...dict(text("w"), tensorCode()), ...global("os", "system"), 0x30], // even if dropped again
    [0x28, ...global("subprocess", "Popen"), ...shell, 0x6f], // OBJ
  ];
  for (const value of cases) {
    assertMatch(await refusalOf(value), /its pickle asks for \S+, which .*othing was run/);
  }
  for (
    const [value, message] of [
      [global("x".repeat(257), "y"), /a name that is too long/],
      [[0x63, 0xff, 0x0a, 0x0a], /not UTF-8/],
      [[...int(1), ...text("a"), 0x93], /a global whose name is no text/],
      [[0x28, 0x69, ...global("os", "system").slice(1)], /asks for os\.system, which Python would run/],
      [[0x28, 0x69, ...global("torch", "Size").slice(1)], /opcode INST \(calls a class\).* is refused/],
      [[...global("torch", "Size"), ...tuple(), 0x81], /opcode NEWOBJ/],
      [[0x82, 1], /opcode EXT1/],
      [[0x50, 0x31, 0x0a], /opcode PERSID/],
      [[0x00], /opcode 0x00, which PyTorch does not write for tensors, is refused/],
      [[...text("os"), 0x28, 0x52], /a value is missing/],
      [call(text("os.system"), shell), /REDUCE of something that is no function/],
      [call(tensorCode(), shell), /REDUCE of something that is no function/],
      [[...global("torch", "Size"), ...list(), 0x52], /REDUCE of something that is no function/],
      [call(global("torch", "FloatStorage"), int(10 ** 9)), /REDUCE of something that is no function/],
      [call(global("collections", "OrderedDict"), list()), /an OrderedDict made of other data/],
      [code.build(tensorCode(), dict(text("__class__"), text("x"))), /BUILD of something else/],
      [code.build(dict(), text("x")), /BUILD of something else/],
      [code.build(global("torch", "Size"), dict()), /BUILD of something else/],
    ] as [number[], RegExp][]
  ) assertMatch(await refusalOf(value), message);
});

Deno.test("a pickle that is no program is refused, wherever it goes wrong", async () => {
  const w = dict(text("w"), tensorCode());
  const cases: [number[], RegExp][] = [
    [[], /at byte 3: a value is missing/],
    [[0x68, 7], /memo 7 was never set/],
    [[0x6a, 0, 0, 0, 0x80], /memo 2147483648 was never set/],
    [[0x71, 0], /a value is missing/],
    [[0x28, 0x71, 0], /a value is missing/],
    [[0x94], /a value is missing/],
    [[0x74], /a mark is missing/],
    [[...int(1), 0x28, 0x85], /a value is missing/], // TUPLE1 across a mark
    [[...int(1), ...w], /STOP with values left over/],
    [[0x28, ...w], /STOP with values left over/],
    [[...w, 0x61], /a value is missing/],
    [[...tuple(), ...int(1), 0x61], /APPEND to something that is no list/],
    [[...text("x"), 0x28, ...int(1), 0x65], /APPEND to something that is no list/],
    [[...list(), ...text("a"), ...int(1), 0x73], /SETITEMS of something that is no dict/],
    [[0x7d, 0x28, ...text("a"), 0x75], /SETITEMS of something that is no dict/],
    [dict(tuple(), int(1)), /keys are neither texts nor numbers/],
    [dict(text("w"), tensorCode(), text("w"), tensorCode()), /key "w" twice/],
    [dict(int(1), tensorCode()), /"1" is no name for a tensor/],
    [dict(text("x".repeat(501)), tensorCode()), /"x{100}…" is no name for a tensor/],
    [dict(text("a\nb"), tensorCode()), /"a\\nb" is no name for a tensor/],
    [dict(text("w"), code.none), /its entry "w" is None, not a tensor/],
    [dict(text("w"), global("torch", "float32")), /is an object, not a tensor/],
    [dict(text("w"), int(2n ** 64n)), /is a number, not a tensor/],
    [[0x58, 0xff, 0xff, 0xff, 0xff], /its pickle breaks off/],
    [[0x8d, ...new Array(8).fill(0xff)], /its pickle breaks off/],
    [[0x8a, 17, ...new Array(17).fill(1)], /an integer of 17 bytes/],
    [[0x58, 1, 0, 0, 0, 0xff], /not UTF-8/],
    [[...new Array(1001).fill(0x28)], /nested deeper/],
    [text("x"), /it holds a text, not a dict/],
    [code.true, /it holds True or False/],
  ];
  for (const [value, message] of cases) assertMatch(await refusalOf(value), message);
  const whole = (bytes: number[]) => bytesOf(archive(new Uint8Array(bytes)));
  for (const protocol of [0, 1, 6, 255]) {
    assertMatch((await refusal(whole([0x80, protocol, ...w, 0x2e]))).message, /expected 2 to 5/);
  }
  assertMatch(
    (await refusal(whole([...w, 0x2e]))).message,
    /does not begin as a pickle of protocol 2 to 5 does/,
  );
  assertMatch((await refusal(whole([0x80, 2, ...w, 0x2e, 0]))).message, /bytes behind the end of its pickle/);
});

Deno.test("a pickle that is all work and no end takes neither memory nor time", async () => {
  const endless = new Uint8Array(3_000_000);
  for (const op of [0x7d, 0x5d, 0x4e, 0x29]) { // dicts, lists, None, tuples
    endless.fill(op);
    endless.set([0x80, 2]);
    assertMatch((await refusal(bytesOf(archive(endless)))).message, /more than 500000 instructions/);
  }
  endless.fill(0x85).set([0x80, 2, 0x4e]); // a tuple of a tuple of a tuple…
  assertMatch((await refusal(bytesOf(archive(endless)))).message, /more than 500000 instructions/);
  const huge = zip([["x/data.pkl", 2 ** 25 + 1]]);
  assertMatch((await refusal(huge)).message, /"x\/data\.pkl" has 33554433 bytes, more than the 33554432/);
  assertMatch((await refusal(bytesOf(archive(new Uint8Array(0))))).message, /its pickle breaks off/);
  const axes = tuple(...new Array(70).fill(int(1)));
  assertMatch(
    await refusalOf(dict(text("w"), tensorCode({ shape: axes, strides: axes }))),
    /tensor w: its shape/,
  );
});

Deno.test("a tensor that does not lie within its storage, or not within the file, is refused by name", async () => {
  const one = (tensor: Parameters<typeof tensorCode>[0]) => dict(text("w"), tensorCode(tensor));
  const cases: [number[], RegExp][] = [
    [one({ shape: tuple(int(3), int(3)) }), /tensor w: it reaches beyond the 24 bytes of its storage/],
    [one({ start: int(1) }), /it reaches beyond/],
    [one({ strides: tuple(int(4), int(1)) }), /it reaches beyond/],
    [one({ start: int(2 ** 53 - 1) }), /it reaches beyond/],
    [one({ shape: tuple(int(2 ** 53 - 1), int(2 ** 53 - 1)) }), /it reaches beyond/],
    [one({ strides: tuple(int(-3), int(1)), start: int(3) }), /not whole numbers of at least 0/],
    [one({ start: int(-1) }), /not whole numbers/],
    [one({ start: int(2n ** 53n) }), /not whole numbers/],
    [one({ start: code.true }), /not whole numbers/],
    [one({ shape: tuple(int(-2), int(3)) }), /not whole numbers/],
    [one({ shape: list(int(2), int(3)) }), /not whole numbers/],
    [one({ shape: tuple(int(6)) }), /as many strides as extents/],
    [one({ shape: text("ab") }), /not whole numbers/],
    [one({ strides: tuple(int(1), int(1)) }), /its elements overlap/],
    [one({ strides: tuple(int(0), int(1)) }), /its elements overlap/],
    [one({ shape: tuple(int(2), int(2)), strides: tuple(int(2), int(2)) }), /its elements overlap/],
    [one({ elements: int(7) }), /storage "0" should have 28 bytes, it has 24/],
    [one({ elements: int(5) }), /it reaches beyond/],
    [one({ elements: int(-6) }), /a storage is not described/],
    [one({ elements: int(2n ** 62n) }), /a storage is not described/],
    [one({ elements: int(2 ** 53 - 1) }), /storage "0" should have 3.* bytes, it has 24/],
    [one({ key: text("1") }), /storage "1" should have 24 bytes, it is not there/],
    [one({ key: text("../data/0") }), /storage "..\/data\/0" .* it is not there/],
    [one({ key: int(0) }), /a storage is not described/],
    [one({ type: global("torch", "float32") }), /a storage is not described/],
    [one({ type: text("FloatStorage") }), /a storage is not described/],
    [one({ type: global("torch", "DoubleStorage") }), /storage "0" should have 48 bytes/],
    [one({ more: [dict(text("neg"), code.true)] }), /conjugate or negative view/],
    [one({ more: [text("neg")] }), /conjugate or negative view/],
    [[...tuple(text("module"), text("x")), 0x51], /refers to something else than a storage/],
    [[...text("storage"), 0x51], /refers to something else than a storage/],
    [dict(text("w"), call(global("torch._utils", "_rebuild_tensor_v2"))), /a tensor is not described/],
    [
      dict(text("w"), call(global("torch._utils", "_rebuild_tensor_v3"), int(1))),
      /a tensor is not described/,
    ],
    [dict(text("w"), call(global("torch._utils", "_rebuild_parameter"))), /is an object, not a tensor/],
    [
      dict(text("v"), tensorCode(), text("w"), tensorCode({ type: global("torch", "IntStorage") })),
      /storage "0" is described in two ways/,
    ],
  ];
  for (const [value, message] of cases) assertMatch(await refusalOf(value), message);
});

Deno.test("odd but valid pickles are read", async () => {
  const values = new Float32Array([0, 1, 2, 3, 4, 5]);
  const open = (value: number[], storage = new Uint8Array(values.buffer)) =>
    PyTorchFile.open(new Memory(archive(pickle(value), [storage])));
  const size = call(global("torch", "Size"), tuple(int(3), int(2)));
  using file = await open(dict(
    text("sized"),
    tensorCode({ shape: size, strides: tuple(int(1), int(3)), more: [dict()] }),
    text("__proto__"),
    tensorCode({ shape: tuple(), strides: tuple(), start: int(5), more: [code.none] }),
    text("none"),
    tensorCode({ shape: tuple(int(0), int(2 ** 53 - 1)), start: int(99) }),
    text("ones"),
    tensorCode({
      shape: tuple(...new Array(64).fill(int(1))),
      strides: tuple(...new Array(64).fill(int(7))),
    }),
  ));
  assertEquals(await file.readF32("sized"), new Float32Array([0, 3, 1, 4, 2, 5]));
  assertEquals(await file.readF32("__proto__"), new Float32Array([5]));
  assertEquals(await file.readF32("none"), new Float32Array(0));
  assertEquals(await file.readF32("ones"), new Float32Array([0]));
  assertEquals((await open(dict())).names(), []);
  assertEquals((await open(code.build(dict(), dict(text("_metadata"), list())))).names(), []);
  // One tensor under three names, by both kinds of memo.
  using tied = await open(dict(
    ...[text("a"), [...tensorCode(), 0x94, 0x72, 0, 0, 1, 0]],
    ...[text("b"), [0x68, 0], text("c"), [0x6a, 0, 0, 1, 0]],
  ));
  for (const name of ["a", "b", "c"]) assertEquals(await tied.readF32(name), values);
  const untyped = storageCode({ type: global("torch", "UntypedStorage"), elements: int(24) });
  const view = [int(2), tuple(int(2)), tuple(int(1)), code.true, dict(), global("torch", "int32")];
  const typed = call(global("torch._utils", "_rebuild_tensor_v3"), untyped, ...view);
  using other = await open(dict(text("w"), typed));
  assertEquals([other.info("w").dtype, other.info("w").bytes], ["I32", 8]);
  assertEquals(new Float32Array((await other.readBytes("w")).buffer), new Float32Array([2, 3]));
});

Deno.test("an archive beyond 4 GiB is read by range, and nothing else of it", async () => {
  const big = 5 * 2 ** 30, tail = new Float32Array([7, 8, 9, 10, 11, 12]);
  const value = dict(
    text("last"),
    tensorCode({ elements: int(big / 4), start: int(big / 4 - 6) }),
    text("far"),
    tensorCode({
      elements: int(big / 4),
      shape: tuple(int(2), int(2)),
      strides: tuple(int(1), int(2 ** 30)),
    }),
    text("small"),
    tensorCode({ key: text("1") }),
  );
  const whole = archive(pickle(value), [big, new Uint8Array(tail.buffer)], { zip64: true, padding: 40 });
  const memory = new Memory(whole);
  using file = await PyTorchFile.open(memory);
  assertEquals(file.names(), ["far", "last", "small"]);
  assert(file.info("small").offset > big);
  assertEquals(await file.readF32("small"), tail);
  assertEquals(await file.readF32("last"), new Float32Array(6));
  assertEquals(await file.readF32("far"), new Float32Array(4));
  assert(memory.asked < 4 * 2 ** 20 && memory.largest <= 2 ** 20, `${memory.asked}`);
});

Deno.test("an archive that is not true is refused", async () => {
  const value = pickle(dict(text("w"), tensorCode()));
  const changes: [(bytes: Uint8Array, view: DataView, at: Zip) => Uint8Array | void, RegExp, boolean?][] = [
    [(bytes) => bytes.slice(0, -1), /a zip archive without its end: it is cut short/],
    [(bytes) => new Uint8Array([...bytes, 0]), /without its end/],
    [(_, view, { end }) => view.setUint16(end + 20, 1, true), /without its end/],
    [(_, view, { end }) => view.setUint16(end + 4, 1, true), /in several/],
    [(_, view, { end }) => view.setUint16(end + 10, 4, true), /lists 3 files and not 4/],
    [(_, view, { end }) => view.setUint32(end + 12, 1, true), /not true in the place of its directory/],
    [(_, view, { end }) => view.setUint32(end + 16, 0, true), /not true in the place of its directory/],
    [(_, view, { central }) => view.setUint32(central[1], 0, true), /not true in its directory/],
    [(_, view, { central }) => view.setUint16(central[2] + 28, 9999, true), /not true in its directory/],
    [(_, view, { central }) => view.setUint16(central[0] + 8, 1, true), /"x\/data\.pkl" .* is encrypted/],
    [(_, view, { central }) => view.setUint16(central[0] + 8, 0x2000, true), /is encrypted/],
    [(_, view, { central }) => view.setUint16(central[2] + 10, 8, true), /"x\/data\/0" .* is compressed/],
    [(_, view, { central }) => view.setUint32(central[2] + 20, 23, true), /the size of "x\/data\/0"/],
    [(_, view, { central }) => view.setUint32(central[0] + 24, 0xffffffff, true), /the size or place of/],
    [(_, view, { central }) => view.setUint32(central[2] + 42, 0, true), /which overlaps what follows it/],
    [(_, view, { central }) => view.setUint32(central[2] + 42, 0xfffffffe, true), /which overlaps/],
    [(bytes, _, { central }) => bytes.set([0xff], central[2] + 46), /the name of one of its files/],
    [
      (bytes, _, { central }) => bytes.set(bytes.slice(central[2] + 54, central[2] + 55), central[2] + 52),
      /./,
    ],
    [(bytes, _, { local }) => bytes.set([0x79], local[0] + 30), /"x\/data\.pkl", which has another name/],
    [(_, view, { local }) => view.setUint16(local[0] + 26, 9, true), /the header of "x\/data\.pkl"/],
    [(_, view, { local }) => view.setUint32(local[1], 0, true), /the header of "x\/byteorder"/],
    [(_, view, { local }) => view.setUint16(local[0] + 28, 0xffff, true), /which has another size/],
    [(_, view, { local }) => view.setUint32(local[0] + 18, 9, true), /which has another size/],
    [(_, view, { local }) => view.setUint16(local[0] + 8, 8, true), /is compressed/],
    [(_, view, { end }) => view.setUint32(end - 16, 1, true), /its ZIP64 end/, true],
    [(_, view, { end }) => view.setBigUint64(end - 12, 2n ** 63n, true), /its ZIP64 end/, true],
    [(_, view, { end }) => view.setBigUint64(end - 12, 0n, true), /its ZIP64 end/, true],
    [(_, view, { end }) => view.setUint16(end + 10, 2, true), /its end, which says two things/, true],
    [
      (_, view, { central }) => view.setUint16(central[0] + 46 + 10 + 2, 8, true),
      /the size or place of/,
      true,
    ],
    [
      (_, view, { central }) => view.setBigUint64(central[2] + 46 + 8 + 20, 2n ** 63n, true),
      /overlaps/,
      true,
    ],
    [
      (_, view, { central }) => view.setBigUint64(central[2] + 46 + 8 + 4, 2n ** 62n, true),
      /the size of/,
      true,
    ],
  ];
  for (const [change, message, zip64] of changes) {
    const at = archive(value, undefined, { zip64 });
    const bytes = bytesOf(at);
    const error = await refusal(change(bytes, new DataView(bytes.buffer), at) ?? bytes);
    assertMatch(error.message, message, `${change}`);
  }
  const files = (...names: string[]) => bytesOf(zip(names.map((name) => [name, value])));
  assertMatch(
    (await refusal(files("x/data.pkl", "x/data.pkl"))).message,
    /"x\/data\.pkl", which is there twice/,
  );
  assertMatch((await refusal(files("x/data.pkl", "y/data.pkl"))).message, /with 2 files data\.pkl/);
  assertMatch((await refusal(files("data.pkl"))).message, /with 0 files data\.pkl/);
  assertMatch(
    (await refusal(files("x/data.pkl", "x/byteorder"))).message,
    /more than the 16 that it can need/,
  );
  assertMatch((await refusal(files())).message, /not a PyTorch file/);
  const middle = zip([["x/data.pkl", value], ["x/byteorder", new TextEncoder().encode("middle")]]);
  assertMatch((await refusal(bytesOf(middle))).message, /its byte order is "middle"/);
});

Deno.test("a storage's own header is checked when it is read", async () => {
  const at = archive(pickle(dict(text("w"), tensorCode())));
  const bytes = bytesOf(at);
  bytes[at.local[2] + 30] = 0x79;
  using file = await PyTorchFile.open(new Memory(bytes));
  const error = await assertRejects(() => file.readF32("w"), WhetError);
  assertMatch(error.message, /"x\/data\/0", which has another name/);

  const old = await Deno.readFile(`${FIXTURES}gpt2/legacy.bin`);
  using legacy = await PyTorchFile.open(new Memory(old));
  const last = legacy.names().at(-1)!;
  old[legacy.info(last).offset]++;
  using damaged = await PyTorchFile.open(new Memory(old));
  assertMatch(
    (await assertRejects(() => damaged.readF32(last), WhetError)).message,
    /has another length than/,
  );
});

Deno.test("what is there instead of weights is told", async () => {
  const cases: [string, RegExp][] = [
    ["", /an empty file/],
    ["version https://git-lfs.github.com/spec/v1\n", /Git LFS pointer .* git lfs pull/],
    ["<!DOCTYPE html><html>", /a web page instead/],
    ["\x08\0\0\0\0\0\0\0{}      ", /looks like a safetensors file; name it model\.safetensors/],
    ["storages".padEnd(257, "\0") + "ustar".padEnd(300, "\0"), /a tar archive, as PyTorch wrote before/],
    ["PK\x03\x04", /a zip archive without its end/],
    ["PK\x05\x06".padEnd(22, "\0"), /not a PyTorch file/],
    ["(dp0\n.", /not a PyTorch file/],
  ];
  for (const [content, message] of cases) {
    assertMatch((await refusal(new TextEncoder().encode(content))).message, message);
  }
  const old = (...parts: Uint8Array[]) => new Uint8Array(parts.flatMap((part) => [...part]));
  const magic = pickle(MAGIC);
  const head = [magic, pickle(int(1001)), pickle(dict())];
  const legacy: [Uint8Array[], RegExp][] = [
    [[pickle(int(1))], /a Python pickle, but not one of PyTorch's/],
    [[pickle(dict(text("w"), list()))], /not one of PyTorch's/],
    [[magic, pickle(int(1002))], /a version of PyTorch's format that is not 1001/],
    [[...head, pickle(dict(text("w"), tensorCode())), pickle(list())], /its list of storages is damaged/],
    [[...head, pickle(dict(text("w"), tensorCode())), pickle(text("0"))], /its list of storages is damaged/],
    [
      [...head, pickle(dict(text("w"), tensorCode())), pickle(list(text("0")))],
      /truncated: storage "0" ends/,
    ],
    [[...head, pickle(dict()), pickle(list(text("0")))], /its list of storages is damaged/],
    [
      [
        ...head,
        pickle(dict(text("w"), tensorCode())),
        pickle(list(text("0"), text("0"))),
        new Uint8Array(99),
      ],
      /its list of storages is damaged/,
    ],
  ];
  for (const [parts, message] of legacy) assertMatch((await refusal(old(...parts))).message, message);
});

Deno.test("a pickle of the old format that is longer than the first read is read on", async () => {
  const items = Array.from({ length: 3000 }, (_, i) => [text(`layer.${i}.weight`), tensorCode()]).flat();
  const values = new Float32Array([1, 2, 3, 4, 5, 6]);
  const parts = [
    pickle(MAGIC),
    ...[pickle(int(1001)), pickle(dict()), pickle(dict(...items)), pickle(list(text("0")))],
    ...[new Uint8Array([6, 0, 0, 0, 0, 0, 0, 0]), new Uint8Array(values.buffer)],
  ];
  const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
  assert(bytes.length > 2 ** 18);
  using file = await PyTorchFile.open(new Memory(bytes));
  assertEquals(file.names().length, 3000);
  assertEquals(await file.readF32("layer.2999.weight"), values);
});

Deno.test("a file that is cut short at any byte is refused", async () => {
  for (const name of ["odd-zip.bin", "odd-legacy.bin"]) {
    const bytes = await Deno.readFile(FIXTURES + name);
    for (let length = 0; length < bytes.length; length++) await refusal(bytes.slice(0, length));
  }
  const value = pickle(dict(text("v"), tensorCode(), text("w"), tensorCode()));
  for (let length = 0; length < value.length; length++) {
    const { message } = await refusal(bytesOf(archive(value.slice(0, length))));
    assertMatch(message, /its pickle breaks off/);
  }
});

Deno.test("a damaged file is read or refused, never worse", async () => {
  const random = generator(1);
  let read = 0, refused = 0;
  const originals = await Promise.all(ODD.map((name) => Deno.readFile(FIXTURES + name)));
  for (let round = 0; round < 2000; round++) {
    const bytes = originals[round % originals.length].slice();
    for (let flips = 1 + random() * 3; flips > 0; flips--) {
      // Where the pickle is, mostly.
      const at = Math.floor(random() * Math.min(bytes.length, random() < 0.8 ? 3000 : Infinity));
      bytes[at] = random() < 0.5 ? bytes[at] ^ (1 << (random() * 8)) : random() * 256;
    }
    const source = new Memory(bytes);
    try {
      using file = await PyTorchFile.open(source);
      for (const name of file.names()) await file.readBytes(name);
      read++;
    } catch (error) {
      if (!(error instanceof WhetError)) throw error;
      assertMatch(error.message, /^x\.bin: [^\n]{1,700}$/);
      refused++;
    }
    assert(source.asked < 20 * bytes.length);
  }
  assert(read > 100 && refused > 1000, `${read} read, ${refused} refused`);
});

Deno.test("random instructions do nothing but fail", async () => {
  const random = generator(2);
  const ops = [...new Array(256).keys()].filter((op) => op >= 0x28);
  const likely = [
    0x28,
    0x29,
    0x4b,
    0x5d,
    0x7d,
    0x71,
    0x68,
    0x74,
    0x75,
    0x73,
    0x65,
    0x61,
    0x85,
    0x86,
    0x94,
    0x52,
    0x51,
  ];
  for (let round = 0; round < 3000; round++) {
    const value = Array.from({ length: random() * 60 }, () => {
      const from = random() < 0.8 ? likely : ops;
      return from[Math.floor(random() * from.length)];
    });
    if (random() < 0.3) value.splice(random() * value.length, 0, ...tensorCode());
    const whole = bytesOf(archive(pickle(value)));
    try {
      (await PyTorchFile.open(new Memory(whole)))[Symbol.dispose]();
    } catch (error) {
      if (!(error instanceof WhetError)) throw error;
      assertMatch(error.message, /^x\.bin: [^\n]{1,700}$/);
    }
  }
});

Deno.test("any view is gathered as its strides say, each byte read once, ascending", async () => {
  const random = generator(3);
  for (let round = 0; round < 60; round++) {
    const itemSize = [1, 2, 4, 8][round % 4];
    const rank = Math.floor(random() * 4);
    // Some reach over several of the windows that are read at a time.
    const shape = Array.from({ length: rank }, () => 1 + Math.floor(random() * (round % 10 === 0 ? 90 : 7)));
    const order = shape.map((_, i) => [random(), i]).sort(([a], [b]) => a - b).map(([, i]) => i);
    const strides = new Array(rank).fill(0);
    let span = 1;
    for (const axis of order) {
      strides[axis] = span + Math.floor(random() * (round % 10 === 0 ? 3 : 5));
      span += (shape[axis] - 1) * strides[axis];
    }
    if (span > 4e6) continue;
    const storage = Uint8Array.from({ length: span * itemSize }, (_, i) => (i * 2654435761) >>> 24);
    const count = shape.reduce((a, b) => a * b, 1);
    const out = new Uint8Array(count * itemSize);
    let end = 0;
    await gather({ shape, strides, itemSize }, (begin, length) => {
      assert(begin >= end && length > 0 && begin + length <= storage.length, `${begin} ${length} ${end}`);
      end = begin + length;
      return Promise.resolve(storage.slice(begin, end));
    }, out);
    const index = new Array(rank).fill(0);
    for (let i = 0; i < count; i++) {
      const at = itemSize * index.reduce((sum, n, axis) => sum + n * strides[axis], 0);
      for (let k = 0; k < itemSize; k++) {
        assert(out[i * itemSize + k] === storage[at + k], `${shape} ${strides}`);
      }
      for (let axis = rank - 1; axis >= 0 && ++index[axis] === shape[axis]; axis--) index[axis] = 0;
    }
  }
});
