import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import {
  checkInside,
  ensureDirectory,
  explainFileError,
  writeAtomically,
  writeDirectory,
} from "../src/format/files.ts";

async function inTempDir(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    await work(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

function names(directory: string): string[] {
  return [...Deno.readDirSync(directory)].map(({ name }) => name).sort();
}

async function rejection(work: () => Promise<unknown>): Promise<WhetError> {
  return await assertRejects(work, WhetError);
}

Deno.test("writes text, bytes and pieces, over what was there", () =>
  inTempDir(async (directory) => {
    const path = `${directory}/a`;
    await writeAtomically(path, "one ✓");
    assertEquals(await Deno.readTextFile(path), "one ✓");
    await writeAtomically(path, new Uint8Array([1, 2]));
    assertEquals(await Deno.readFile(path), new Uint8Array([1, 2]));
    await writeAtomically(path, [new Uint8Array([3]), new Uint8Array(0), new Uint8Array([4, 5])]);
    assertEquals(await Deno.readFile(path), new Uint8Array([3, 4, 5]));
    async function* pieces() {
      for (let i = 0; i < 3; i++) yield await Promise.resolve(new Uint8Array(70_000).fill(i));
    }
    await writeAtomically(path, pieces());
    assertEquals((await Deno.readFile(path)).length, 210_000);
    assertEquals(names(directory), ["a"]);
  }));

Deno.test("content that fails leaves the old file and no temporary", () =>
  inTempDir(async (directory) => {
    const path = `${directory}/a`;
    await writeAtomically(path, "old");
    const failure = await assertRejects(() =>
      writeAtomically(
        path,
        (function* () {
          yield new Uint8Array(100);
          assertEquals(Deno.readTextFileSync(path), "old");
          throw new RangeError("no more");
        })(),
      ), RangeError);
    assertEquals(failure.message, "no more");
    assertEquals(await Deno.readTextFile(path), "old");
    assertEquals(names(directory), ["a"]);
  }));

Deno.test("a missing parent, a directory in the way and a directory's name are told apart", () =>
  inTempDir(async (directory) => {
    const missing = await rejection(() => writeAtomically(`${directory}/no/a`, ""));
    assertEquals(missing.code, "option");
    assertMatch(missing.message, /no\/a: its directory does not exist; create it/);
    await Deno.mkdir(`${directory}/b`);
    const inTheWay = await rejection(() => writeAtomically(`${directory}/b`, ""));
    assertMatch(inTheWay.message, /\/b: a directory stands where the file should be/);
    assertMatch(
      (await rejection(() => writeAtomically(`${directory}/b/`, ""))).message,
      /expected a file's name/,
    );
    assertEquals(names(directory), ["b"]);
    await writeAtomically(`${directory}/file`, "");
    assertMatch(
      (await rejection(() => ensureDirectory(`${directory}/file/c`))).message,
      /a file stands where/,
    );
    assertMatch(
      (await rejection(() => writeAtomically(`${directory}/file/c`, ""))).message,
      /a file stands where/,
    );
    await ensureDirectory(`${directory}/b/c/d`);
    await ensureDirectory(`${directory}/b/c/d`);
    assertEquals(names(`${directory}/b`), ["c"]);
  }));

Deno.test("a name of 255 bytes can be written", () =>
  inTempDir(async (directory) => {
    const name = "é".repeat(127);
    await writeAtomically(`${directory}/${name}`, "x");
    assertEquals(names(directory), [name]);
    assertMatch(
      (await rejection(() => writeAtomically(`${directory}/${name}é`, "x"))).message,
      /name is too long/,
    );
    assertEquals(names(directory), [name]);
  }));

Deno.test({
  name: "a full disk is said to be full",
  ignore: Deno.build.os !== "linux",
  fn: () => {
    using full = Deno.openSync("/dev/full", { write: true });
    let cause: unknown;
    try {
      full.writeSync(new Uint8Array(1));
    } catch (error) {
      cause = error;
    }
    const error = explainFileError(cause, "write", "out/model.safetensors");
    assertEquals(error.code, "resource");
    assertMatch(error.message, /cannot write out\/model\.safetensors: the disk is full; make room/);
  },
});

Deno.test({
  name: "without Deno's permission the flag is named",
  permissions: { write: false, read: false },
  fn: async () => {
    const error = await rejection(() => writeAtomically("somewhere/a", ""));
    assertEquals(error.code, "resource");
    assertMatch(error.message, /add --allow-write=somewhere\/a/);
    assertMatch((await rejection(() => ensureDirectory("somewhere"))).message, /add --allow-write=somewhere/);
  },
});

Deno.test("old leftovers of a killed writer go, fresh ones and strangers stay", () =>
  inTempDir(async (directory) => {
    const old = new Date(Date.now() - 2 * 3_600_000);
    for (const name of [".a.0123abcd.partial", ".a.txt.partial", ".b.0123abcd.partial"]) {
      await Deno.writeTextFile(`${directory}/${name}`, "");
      await Deno.utime(`${directory}/${name}`, old, old);
    }
    await Deno.writeTextFile(`${directory}/.a.89abcdef.partial`, "");
    await writeAtomically(`${directory}/a`, "x");
    assertEquals(names(directory), [".a.89abcdef.partial", ".a.txt.partial", ".b.0123abcd.partial", "a"]);
  }));

Deno.test("names that leave the model's directory are refused", () => {
  const bad = [
    "",
    ".",
    "..",
    "../x",
    "a/../../x",
    "/etc/passwd",
    "a//b",
    "C:\\x",
    "C:/x",
    "a\\..\\x",
    "a\0b",
    "https://e/x",
    "a/",
  ];
  for (const name of bad) {
    const error = assertThrows(() => checkInside(name, "index.json"), WhetError);
    assertEquals(error.code, "format");
    assertMatch(error.message, /^index\.json: .*leaves the model's directory/);
  }
  for (const name of ["model.safetensors", "a/b.json", "..a", "...", "a b%"]) {
    assertEquals(checkInside(name, "x"), name);
  }
});

/** What a reader that looks between any two steps of a directory's writing would see. */
async function observing(directory: string, work: () => Promise<void>): Promise<Record<string, string>[]> {
  const seen: Record<string, string>[] = [];
  const look = () => {
    const files: Record<string, string> = {};
    for (const name of names(directory)) {
      if (!name.startsWith(".")) files[name] = Deno.readTextFileSync(`${directory}/${name}`);
    }
    seen.push(files);
  };
  const { rename, remove } = Deno;
  try {
    Deno.rename = async (...args) => (await rename(...args), look());
    Deno.remove = async (...args) => (await remove(...args), look());
    look();
    await work();
  } finally {
    Object.assign(Deno, { rename, remove });
  }
  return seen;
}

Deno.test("a set of files is never a mixture of old and new while its marker is there", () =>
  inTempDir(async (directory) => {
    const save = (weights: string, config: string) =>
      writeDirectory(directory, { weights, config, more: weights }, {
        marker: "config",
        obsolete: ["old.bin"],
      });
    await Deno.writeTextFile(`${directory}/notes`, "mine");
    await Deno.writeTextFile(`${directory}/old.bin`, "stale");
    for (const [weights, config] of [["w1", "c1"], ["w2", "c2"], ["w3", "c2"]]) {
      const before = names(directory).includes("config")
        ? Deno.readTextFileSync(`${directory}/weights`)
        : null;
      const seen = await observing(directory, () => save(weights, config));
      for (const files of seen) {
        assertEquals(files.notes, "mine");
        if (!files.config) continue;
        assert(files.weights === files.more && (files.weights === before || files.weights === weights));
        if (files.weights === weights) assertEquals(files.config, config);
      }
      assertEquals(names(directory), ["config", "more", "notes", "weights"]);
    }
  }));

Deno.test("when one file of a set changes, one rename does it", () =>
  inTempDir(async (directory) => {
    const save = (weights: string) =>
      writeDirectory(directory, { weights, config: "c" }, { marker: "config" });
    await save("w1");
    const seen = await observing(directory, () => save("w2"));
    assertEquals(seen, [{ config: "c", weights: "w1" }, { config: "c", weights: "w2" }, {
      config: "c",
      weights: "w2",
    }]);
  }));

Deno.test("a set that cannot be written leaves the old one", () =>
  inTempDir(async (directory) => {
    await writeDirectory(directory, { weights: "w", config: "c" }, { marker: "config" });
    await assertRejects(
      () =>
        writeDirectory(directory, {
          config: "c2",
          weights: (function* () {
            yield new Uint8Array(1);
            throw new RangeError("lost");
          })(),
        }, { marker: "config" }),
      RangeError,
    );
    await Deno.mkdir(`${directory}/tokenizer.json`);
    await rejection(() =>
      writeDirectory(directory, { config: "c2", weights: "w2", "tokenizer.json": "t" }, { marker: "config" })
    );
    assertEquals(await Deno.readTextFile(`${directory}/config`), "c");
    assertEquals(await Deno.readTextFile(`${directory}/weights`), "w");
    assertEquals(names(directory), ["config", "tokenizer.json", "weights"]);
  }));
