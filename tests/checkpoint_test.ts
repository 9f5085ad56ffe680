import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import { openCheckpoint } from "../src/format/checkpoint.ts";
import { type TensorToWrite, writeSafetensors } from "../src/format/safetensors.ts";
import { openRepository } from "../src/format/source.ts";

async function inTempDir(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    await work(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function open(directory: string) {
  return await openCheckpoint(await openRepository(directory));
}

async function refusal(directory: string): Promise<WhetError> {
  return await assertRejects(() => open(directory), WhetError);
}

function tensor(name: string, shape: number[], first = 0): TensorToWrite {
  const length = shape.reduce((a, b) => a * b, 1);
  return { name, dtype: "F32", shape, data: () => Float32Array.from({ length }, (_, i) => first + i) };
}

/** Two shards and their index, which says what `index` changes in it. */
async function writeShards(directory: string, index: Record<string, unknown> = {}): Promise<void> {
  await writeSafetensors(`${directory}/model-1.safetensors`, [tensor("b", [2, 2]), tensor("z", [1])]);
  await writeSafetensors(`${directory}/model-2.safetensors`, [tensor("a", [3], 10), tensor("extra", [7])]);
  const weight_map = { a: "model-2.safetensors", b: "model-1.safetensors", z: "model-1.safetensors" };
  const json = JSON.stringify({ metadata: { total_size: 32 }, weight_map, ...index });
  await Deno.writeTextFile(`${directory}/model.safetensors.index.json`, json);
}

Deno.test("a single file is a checkpoint, and is taken before shards", () =>
  inTempDir(async (directory) => {
    await writeShards(directory, { weight_map: 1 });
    await writeSafetensors(`${directory}/model.safetensors`, [tensor("b", [2, 3]), tensor("a", [1])], {
      note: "x",
    });
    using checkpoint = await open(directory);
    assertEquals(checkpoint.names(), ["a", "b"]);
    assertEquals([checkpoint.shape("b"), checkpoint.dtype("b"), checkpoint.has("c")], [[2, 3], "F32", false]);
    assertEquals(checkpoint.metadata, { note: "x" });
    assertEquals(await checkpoint.readF32("b"), new Float32Array([0, 1, 2, 3, 4, 5]));
    assertEquals(await checkpoint.readRowsF32("b", 1, 1), new Float32Array([3, 4, 5]));
    assertEquals((await checkpoint.readBytes("a")).length, 4);
    assertThrows(() => checkpoint.shape("c"), WhetError, "no tensor c");
    assertEquals(checkpoint.inFileOrder(["b", "a"]), ["a", "b"]);
  }));

Deno.test("shards are one checkpoint, in the order of their files", () =>
  inTempDir(async (directory) => {
    await writeShards(directory);
    using checkpoint = await open(directory);
    assertEquals(checkpoint.names().sort(), ["a", "b", "z"]);
    assertEquals(await checkpoint.readF32("a"), new Float32Array([10, 11, 12]));
    assertEquals(await checkpoint.readF32("b"), new Float32Array([0, 1, 2, 3]));
    assertEquals(checkpoint.inFileOrder(["z", "a", "b"]), ["a", "b", "z"]);
  }));

Deno.test("an index that is not true is refused", () =>
  inTempDir(async (directory) => {
    const cases: [Record<string, unknown>, RegExp][] = [
      [{ weight_map: {} }, /weight_map: expected an object/],
      [{ weight_map: ["a"] }, /weight_map: expected an object/],
      [{ weight_map: null }, /weight_map: expected an object/],
      [{ weight_map: { a: 1 } }, /expected a file name for tensor a/],
      [
        { weight_map: { a: "../model-2.safetensors" } },
        /"\.\.\/model-2\.safetensors" leaves the model's directory/,
      ],
      [{ weight_map: { a: "/etc/passwd" } }, /leaves the model's directory/],
      [{ weight_map: { a: "model-3.safetensors" } }, /names model-3\.safetensors, which is not there/],
      [{ weight_map: { a: "model-1.safetensors" } }, /tensor a is in model-1\.safetensors, but it is not/],
      [{ weight_map: { a: "model.safetensors.index.json" } }, /index\.json: not a safetensors file/],
      [{ metadata: { total_size: 33 } }, /total_size is 33, the tensors have 32 bytes/],
    ];
    for (const [index, message] of cases) {
      await writeShards(directory, index);
      const error = await refusal(directory);
      assertEquals(error.code, "format");
      assertMatch(error.message, message);
    }
    for (const metadata of [undefined, null, {}, { total_size: 32, total_parameters: 1 }]) {
      await writeShards(directory, { metadata });
      (await open(directory))[Symbol.dispose]();
    }
    await Deno.writeTextFile(`${directory}/model.safetensors.index.json`, "no");
    assertMatch((await refusal(directory)).message, /index\.json: not JSON/);
  }));

Deno.test("without weights in a format that is read, what is read is told", () =>
  inTempDir(async (directory) => {
    await Deno.writeTextFile(`${directory}/tf_model.h5`, "");
    const error = await refusal(directory);
    assertEquals(error.code, "format");
    assertMatch(
      error.message,
      /no model\.safetensors or pytorch_model\.bin \(nor shards .*\) there; give a model's directory/,
    );
  }));

Deno.test("shards are read from a web server in one pass each", () =>
  inTempDir(async (directory) => {
    await writeShards(directory);
    const log: string[] = [];
    const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, async (request) => {
      const name = new URL(request.url).pathname.slice(1);
      log.push(name);
      const bytes = await Deno.readFile(`${directory}/${name}`).catch(() => null);
      if (!bytes) return new Response(null, { status: 404 });
      const start = Number(/^bytes=(\d+)-$/.exec(request.headers.get("range") ?? "")?.[1] ?? 0);
      const headers = { "content-range": `bytes ${start}-${bytes.length - 1}/${bytes.length}` };
      return new Response(bytes.subarray(start), { status: 206, headers });
    });
    try {
      using checkpoint = await open(`http://127.0.0.1:${server.addr.port}`);
      const sums: Record<string, number> = {};
      for (const name of checkpoint.inFileOrder(checkpoint.names())) {
        sums[name] = (await checkpoint.readF32(name)).reduce((a, b) => a + b, 0);
      }
      assertEquals(sums, { a: 33, b: 6, z: 0 });
      assertEquals(log.filter((name) => name === "model-1.safetensors").length, 2);
    } finally {
      await server.shutdown();
    }
  }));
