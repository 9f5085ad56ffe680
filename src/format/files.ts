/**
 * Files that are whole or absent: every output is written beside its place and renamed into it.
 *
 * A rename within one directory is the only step that a reader can see, so it finds the old bytes or
 * the new ones, never a part of either, whenever it looks and whenever the writer dies.
 *
 * @module
 */

import { WhetError } from "../errors.ts";

/** What a file is to hold: text, bytes, or bytes in pieces that are made while it is written. */
export type Content = string | Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/** A temporary that nobody has touched for so long belongs to a writer that died. */
const LEFTOVER_AGE = 3_600_000;

/**
 * Joins a directory and a name within it.
 *
 * @param directory The directory; empty means the current one.
 * @param name The name, as it is.
 * @returns The path.
 */
export function join(directory: string, name: string): string {
  if (directory === "") return name;
  return /[/\\]$/.test(directory) ? directory + name : `${directory}/${name}`;
}

/**
 * Checks that a file name found in untrusted data stays within its directory.
 *
 * @param name The name, such as a shard's in `model.safetensors.index.json`.
 * @param where What says so, for the message.
 * @returns The same name.
 * @throws {WhetError} `format`, if the name is empty, absolute, or steps out of the directory.
 */
export function checkInside(name: string, where: string): string {
  const bad = name === "" || /^[/\\]|[\\\0]|^[A-Za-z][A-Za-z0-9+.-]*:/.test(name) ||
    name.split("/").some((part) => part === "" || part === "." || part === "..");
  if (bad) {
    throw new WhetError(
      "format",
      `${where}: the file name ${JSON.stringify(name.slice(0, 200))} leaves the model's directory; ` +
        "expected a plain relative name such as model-00001-of-00002.safetensors",
    );
  }
  return name;
}

/**
 * Says what a failed file operation means and what to do about it.
 *
 * @param error What the operation threw.
 * @param doing Whether it read or wrote.
 * @param path The file or directory, as the user knows it.
 * @returns A {@linkcode WhetError} (the same one, if it is one already).
 */
export function explainFileError(error: unknown, doing: "read" | "write", path: string): WhetError {
  if (error instanceof WhetError) return error;
  const cannot = `cannot ${doing} ${path}: `;
  const [code, why] = reason(error, doing, path);
  return new WhetError(code, cannot + why, { cause: error });
}

function reason(error: unknown, doing: "read" | "write", path: string): ["resource" | "option", string] {
  if (error instanceof Deno.errors.NotCapable) {
    return ["resource", `Deno was not given the permission; add --allow-${doing}=${path}`];
  }
  const code = (error as { code?: unknown } | null)?.code;
  if (error instanceof Deno.errors.PermissionDenied || code === "EACCES" || code === "EPERM") {
    return ["resource", "the system refuses it; change its permissions or choose another place"];
  }
  switch (code) {
    case "ENOSPC":
    case "EDQUOT":
      return ["resource", "the disk is full; make room or choose another disk"];
    case "EROFS":
      return ["resource", "the disk is read-only; choose another place"];
    case "EFBIG":
      return ["resource", "the file would be larger than is allowed there; choose another place"];
    case "EMFILE":
    case "ENFILE":
      return ["resource", "too many files are open; raise the limit (ulimit -n)"];
    case "ENOENT":
      return ["option", doing === "write" ? "its directory does not exist; create it" : "it does not exist"];
    case "ENOTDIR":
    case "EEXIST":
      return ["option", "a file stands where a directory should be; choose another path"];
    case "EISDIR":
    case "ENOTEMPTY":
      return ["option", "a directory stands where the file should be; choose another path"];
    case "ENAMETOOLONG":
      return ["option", "the name is too long; choose a shorter one"];
  }
  return ["resource", error instanceof Error ? error.message.replaceAll(/\s+/g, " ") : String(error)];
}

/**
 * Makes sure that a directory, and those above it, exist.
 *
 * @param path The directory.
 * @throws {WhetError} `option`, if a file is in the way; `resource`, if it cannot be created.
 */
export async function ensureDirectory(path: string): Promise<void> {
  if (path === "") return;
  try {
    await Deno.mkdir(path, { recursive: true });
  } catch (error) {
    throw explainFileError(error, "write", path);
  }
}

/**
 * Writes a file so that its place holds either all of it or what was there before.
 *
 * @param path The file; its directory must exist.
 * @param content What it is to hold. If producing it fails, nothing changes and that error is thrown.
 * @throws {WhetError} `resource` (disk full, no permission) or `option` (no such directory, a directory
 * in the way); the temporary is removed.
 *
 * @example
 * ```ts
 * import { writeAtomically } from "./files.ts";
 *
 * const directory = await Deno.makeTempDir();
 * await writeAtomically(`${directory}/config.json`, "{}\n");
 * await Deno.remove(directory, { recursive: true });
 * ```
 */
export async function writeAtomically(path: string, content: Content): Promise<void> {
  const staged = await stage(path, content);
  try {
    await staged.commit();
  } finally {
    await staged.discard();
  }
}

/** How {@linkcode writeDirectory} keeps a set of files together. */
export interface DirectoryOptions {
  /** The file without which readers do not take the directory for a whole one. */
  marker: string;
  /** Files of an earlier save that the new one replaces, to be removed where they exist. */
  obsolete?: readonly string[];
}

/**
 * Writes files that belong together, such that no reader takes a mixture of old and new for a whole set.
 *
 * All are written beside their places first; a failure up to there leaves the directory as it was. Then
 * the old marker goes, the new files are renamed into place, and the new marker comes last: between,
 * the set is visibly incomplete. Where a single file differs from what is there (the usual case when a
 * training run saves again), one rename does it all and there is no between.
 *
 * @param directory The directory; created if need be. Other files in it are left alone.
 * @param files What to write, by name.
 * @param options Which file marks the set as whole, and which old ones go.
 * @throws {WhetError} As {@linkcode writeAtomically}.
 */
export async function writeDirectory(
  directory: string,
  files: Readonly<Record<string, Content>>,
  options: DirectoryOptions,
): Promise<void> {
  await ensureDirectory(directory);
  const staged: Staged[] = [];
  try {
    for (const [name, content] of Object.entries(files)) {
      staged.push(await stage(join(directory, name), content));
    }
    const markerPath = join(directory, options.marker);
    const marker = staged.find(({ path }) => path === markerPath);
    if (!marker) throw new TypeError(`the marker ${options.marker} is not among the files`);
    for (const { path } of staged) await refuseDirectory(path);

    const obsolete: string[] = [];
    for (const name of options.obsolete ?? []) {
      if (await exists(join(directory, name))) obsolete.push(join(directory, name));
    }
    const changed: Staged[] = [];
    for (const file of staged) if (!await file.unchanged()) changed.push(file);
    if (obsolete.length === 0 && changed.length <= 1) {
      await changed[0]?.commit();
      return;
    }
    await remove(markerPath);
    for (const path of obsolete) await remove(path);
    for (const file of changed) if (file !== marker) await file.commit();
    await marker.commit();
  } finally {
    for (const file of staged) await file.discard();
  }
}

/** A complete temporary, waiting beside its place. */
interface Staged {
  /** Its place. */
  readonly path: string;
  /** Renames it into its place. */
  commit(): Promise<void>;
  /** Removes it, unless it was renamed; never throws. */
  discard(): Promise<void>;
  /** Whether the very same bytes stand in its place already. */
  unchanged(): Promise<boolean>;
}

async function stage(path: string, content: Content): Promise<Staged> {
  const cut = Math.max(path.lastIndexOf("/"), Deno.build.os === "windows" ? path.lastIndexOf("\\") : -1) + 1;
  const parent = path.slice(0, cut), name = path.slice(cut);
  if (name === "") {
    throw new WhetError("option", `cannot write ${path}: expected a file's name, got a directory`);
  }
  // A name may have 255 bytes at most; the temporary's must not be what breaks the limit.
  const stem = `.${[...name].slice(0, 50).join("")}.`;
  await sweep(parent || ".", stem);
  const temporary = `${parent}${stem}${crypto.randomUUID().slice(0, 8)}.partial`;
  let waiting = true;
  const discard = async () => {
    if (!waiting) return;
    waiting = false;
    await Deno.remove(temporary).catch(() => {});
  };
  try {
    await fill(temporary, path, content);
  } catch (error) {
    await discard();
    throw error;
  }
  return {
    path,
    discard,
    async commit() {
      await refuseDirectory(path);
      try {
        await Deno.rename(temporary, path);
      } catch (error) {
        throw explainFileError(error, "write", path);
      }
      waiting = false;
    },
    unchanged: () => sameBytes(temporary, path),
  };
}

async function fill(temporary: string, path: string, content: Content): Promise<void> {
  const attempt = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      throw explainFileError(error, "write", path);
    }
  };
  const chunks = typeof content === "string"
    ? [new TextEncoder().encode(content)]
    : content instanceof Uint8Array
    ? [content]
    : content;
  using file = await attempt(() => Deno.open(temporary, { write: true, createNew: true }));
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length;) at += await attempt(() => file.write(chunk.subarray(at)));
  }
  // The name must not reach the disk before the bytes do.
  await attempt(() => file.syncData());
}

/** Removes temporaries of the same file that a killed process left behind. */
async function sweep(parent: string, stem: string): Promise<void> {
  try {
    for await (const { name, isFile } of Deno.readDir(parent)) {
      if (!isFile || !name.startsWith(stem) || !/^[0-9a-f]{8}\.partial$/.test(name.slice(stem.length))) {
        continue;
      }
      const path = join(parent, name);
      const { mtime } = await Deno.lstat(path);
      if (mtime && Date.now() - mtime.getTime() > LEFTOVER_AGE) await Deno.remove(path);
    }
  } catch {
    // Tidying needs more permissions than writing; without them the leftovers stay.
  }
}

async function refuseDirectory(path: string): Promise<void> {
  const there = await Deno.lstat(path).catch(() => null);
  if (there?.isDirectory) {
    throw new WhetError(
      "option",
      `cannot write ${path}: a directory stands where the file should be; choose another path`,
    );
  }
}

async function exists(path: string): Promise<boolean> {
  return await Deno.lstat(path).then((info) => !info.isDirectory, () => false);
}

async function remove(path: string): Promise<void> {
  try {
    await Deno.remove(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw explainFileError(error, "write", path);
  }
}

async function sameBytes(one: string, other: string): Promise<boolean> {
  try {
    using a = await Deno.open(one);
    using b = await Deno.open(other);
    const { size } = await a.stat(), there = await b.stat();
    if (!there.isFile || there.size !== size) return false;
    const x = new Uint8Array(65536), y = new Uint8Array(65536);
    for (let left = size; left > 0;) {
      const n = Math.min(left, x.length);
      await readFully(a, x.subarray(0, n));
      await readFully(b, y.subarray(0, n));
      for (let i = 0; i < n; i++) if (x[i] !== y[i]) return false;
      left -= n;
    }
    return true;
  } catch {
    return false; // Not readable: written anew.
  }
}

/**
 * Fills a buffer from an open file's position.
 *
 * @param file The file.
 * @param into The buffer.
 * @returns How many bytes there were; fewer than the buffer holds only at the file's end.
 */
export async function readFully(file: Deno.FsFile, into: Uint8Array): Promise<number> {
  let at = 0;
  while (at < into.length) {
    const n = await file.read(into.subarray(at));
    if (n === null) break;
    at += n;
  }
  return at;
}
