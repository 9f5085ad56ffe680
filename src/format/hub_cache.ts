/**
 * Hugging Face's cache layout, so that Python's huggingface_hub and Whet share what either downloads.
 *
 * ```text
 * models--owner--name/blobs/ETAG                 the bytes
 * models--owner--name/refs/REVISION              a commit hash
 * models--owner--name/snapshots/COMMIT/FILE      -> ../../blobs/ETAG
 * models--owner--name/trees/COMMIT.json          the names of all files of the commit
 * .locks/models--owner--name/ETAG.lock           held (flock) while a blob is being made
 * ```
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { checkInside, ensureDirectory, explainFileError, join, writeAtomically } from "./files.ts";
import { isCommit, namesInTree, type TreeEntry, treeToJson, type Wanted } from "./hub_api.ts";
import { type Line, pause, type Subject } from "./hub_http.ts";

/** A commit that is in the cache, and which of the wanted files are. */
export interface Kept {
  /** The commit. */
  commit: string;
  /** Its snapshot's directory. */
  directory: string;
  /** `whole`: all wanted files are there; `likely`: some are, and no listing says what else there is. */
  state: "whole" | "likely" | "partial";
  /** A wanted file that is not there. */
  missing?: string;
}

/** One repository's part of the cache. */
export class RepoCache {
  readonly #folder: string;
  readonly #directory: string;

  /**
   * @param cacheDir The cache's directory.
   * @param subject The repository.
   */
  constructor(readonly cacheDir: string, readonly subject: Subject) {
    this.#folder = `${subject.type}s--${subject.name.replaceAll("/", "--")}`;
    this.#directory = join(cacheDir, this.#folder);
  }

  /** The directory of a commit's files. */
  snapshot(commit: string): string {
    return join(this.#directory, `snapshots/${commit}`);
  }

  /** The path of a blob. */
  blob(etag: string): string {
    return join(this.#directory, `blobs/${etag}`);
  }

  /** Whether a commit's file is there, with its blob. */
  async has(commit: string, file: string): Promise<boolean> {
    return (await statOf(join(this.snapshot(commit), file)))?.isFile ?? false;
  }

  /** The commit that a revision stood for when it was last looked up here. */
  async readRef(revision: string): Promise<string | undefined> {
    if (isCommit(revision)) return revision;
    const text = (await readText(join(this.#directory, `refs/${revision}`)))?.trim();
    return isCommit(text) ? text : undefined;
  }

  /** What the cache holds of a commit. */
  async find(commit: string, wanted: Wanted): Promise<Kept> {
    const directory = this.snapshot(commit);
    const tree = await readText(join(this.#directory, `trees/${commit}.json`));
    const listed = tree === undefined ? undefined : namesInTree(tree);
    if (!listed && typeof wanted === "function") {
      const some = await anyFile(directory, "", (file) => wanted(file, []));
      return { commit, directory, state: some ? "likely" : "partial" };
    }
    const names = typeof wanted === "function" ? listed!.filter((file) => wanted(file, listed!)) : wanted;
    for (const file of names) {
      checkInside(file, `${this.subject.type} ${this.subject.name}`);
      if (!await this.has(commit, file)) return { commit, directory, state: "partial", missing: file };
    }
    if (names.length === 0) return { commit, directory, state: "partial" };
    return { commit, directory, state: "whole" };
  }

  /** Remembers which commit a revision stands for, and what files it has; in vain if the cache is read-only. */
  async remember(revision: string, commit: string, tree?: Record<string, TreeEntry>): Promise<void> {
    if (Deno.permissions.querySync({ name: "write", path: this.#directory }).state !== "granted") return;
    const keep = async (path: string, text: string) => {
      await ensureDirectory(path.slice(0, path.lastIndexOf("/")));
      await writeAtomically(path, text);
    };
    try {
      const trees = join(this.#directory, `trees/${commit}.json`);
      // A commit's listing never changes; huggingface_hub's own may say more than ours.
      if (tree && !await statOf(trees)) await keep(trees, treeToJson(tree));
      if (await this.readRef(revision) !== commit) {
        await keep(join(this.#directory, `refs/${revision}`), commit);
      }
    } catch (error) {
      if (!(error instanceof WhetError)) throw error;
    }
  }

  /**
   * Makes a blob appear as a commit's file: by a symbolic link; where that may not be made, a hard link;
   * where the file system has neither, a copy.
   */
  async link(etag: string, commit: string, file: string): Promise<void> {
    const place = join(this.snapshot(commit), file), blob = this.blob(etag);
    await ensureDirectory(place.slice(0, place.lastIndexOf("/")));
    const up = "../".repeat(file.split("/").length + 1);
    const target = Deno.build.os === "windows"
      ? `${up}blobs/${etag}`.replaceAll("/", "\\")
      : `${up}blobs/${etag}`;
    // Deno makes symbolic links only with unscoped permissions (denoland/deno, "Deno.symlink() requires
    // unscoped --allow-read and --allow-write", 2.9); drop the hard link when scoped ones suffice.
    const free = (["read", "write"] as const).every((name) =>
      Deno.permissions.querySync({ name }).state === "granted"
    );
    const ways = [
      ...(free ? [() => Deno.symlink(target, place, { type: "file" })] : []),
      async () => await Deno.link(await Deno.realPath(blob), place), // huggingface_hub may have blobs that are links.
      () => this.#copy(blob, place),
    ];
    for (const [i, way] of ways.entries()) {
      try {
        return await way();
      } catch (error) {
        if (error instanceof Deno.errors.AlreadyExists) {
          if ((await statOf(place))?.isFile) return; // Another process was quicker.
          await Deno.remove(place); // A link to a blob that was deleted.
          return await this.link(etag, commit, file);
        }
        if (i === ways.length - 1) throw explainFileError(error, "write", place);
      }
    }
  }

  async #copy(blob: string, place: string): Promise<void> {
    const temporary = `${place}.${crypto.randomUUID().slice(0, 8)}.tmp`;
    try {
      await Deno.copyFile(blob, temporary);
      await Deno.rename(temporary, place);
    } finally {
      await Deno.remove(temporary).catch(() => {});
    }
  }

  /**
   * Does something while no other process, Python's included, makes the same blob.
   *
   * The lock only saves double work: correctness rests on the hash check and the rename, since flock is
   * a no-op on some network file systems.
   *
   * @throws {WhetError} `resource`: another process holds the lock and gets nowhere.
   */
  async locked<T>(etag: string, line: Line, work: () => Promise<T>): Promise<T> {
    const path = join(this.cacheDir, `.locks/${this.#folder}/${etag}.lock`);
    await ensureDirectory(path.slice(0, path.lastIndexOf("/")));
    let file: Deno.FsFile;
    try {
      file = await Deno.open(path, { read: true, write: true, create: true, mode: 0o664 });
    } catch (error) {
      throw explainFileError(error, "write", path);
    }
    try {
      await this.#acquire(file, etag, path, line);
      return await work();
    } finally {
      file.close(); // Lets go of the lock; its file stays, as filelock leaves it.
    }
  }

  async #acquire(file: Deno.FsFile, etag: string, path: string, line: Line): Promise<void> {
    let bytes = -1, since = Date.now(), told = false;
    while (!await file.tryLock(true).catch(() => true)) {
      const now = await this.#partialBytes(etag);
      if (now !== bytes) bytes = now, since = Date.now();
      if (Date.now() - since > line.patience.lock) {
        throw new WhetError(
          "resource",
          `${path}: another process holds it and gets nowhere: end that process, then run again`,
        );
      }
      if (!told) line.note(`waiting for another process that downloads the same file (${path})`);
      told = true;
      await pause(100, line.signal);
    }
  }

  async #partialBytes(etag: string): Promise<number> {
    const directory = join(this.#directory, "blobs");
    let bytes = 0;
    try {
      for await (const { name } of Deno.readDir(directory)) {
        if (!name.startsWith(etag) || !name.endsWith(".incomplete")) continue;
        bytes += (await statOf(join(directory, name)))?.size ?? 0;
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw explainFileError(error, "read", directory);
    }
    return bytes;
  }
}

/** What a path leads to; undefined if nothing. */
export async function statOf(path: string): Promise<Deno.FileInfo | undefined> {
  try {
    return await Deno.stat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw explainFileError(error, "read", path);
  }
}

async function readText(path: string): Promise<string | undefined> {
  const info = await statOf(path);
  if (!info?.isFile || info.size > 64 * 2 ** 20) return undefined;
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw explainFileError(error, "read", path);
  }
}

/** Whether any file below the directory is wanted. */
async function anyFile(
  directory: string,
  prefix: string,
  wanted: (name: string) => boolean,
): Promise<boolean> {
  if (!(await statOf(join(directory, prefix)))?.isDirectory) return false;
  for await (const { name, isDirectory } of Deno.readDir(join(directory, prefix))) {
    const path = prefix + name;
    if (isDirectory ? await anyFile(directory, `${path}/`, wanted) : wanted(path)) {
      if (isDirectory || (await statOf(join(directory, path)))?.isFile) return true;
    }
  }
  return false;
}
