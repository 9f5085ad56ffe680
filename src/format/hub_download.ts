/**
 * One blob, from the Hub to the disk: streamed, hashed on the way, resumed where an earlier attempt, or
 * an earlier process, was cut.
 *
 * @module
 */

import { createHash, type Hash } from "node:crypto";
import { WhetError } from "../errors.ts";
import { explainFileError } from "./files.ts";
import type { RemoteFile } from "./hub_api.ts";
import { statOf } from "./hub_cache.ts";
import { type Attempt, HubError, type Line, Passing, persist, refusal, type Subject } from "./hub_http.ts";

/** An attempt that brought so many bytes got somewhere: the failures before it are forgotten. */
const PROGRESS = 2 ** 20;

/**
 * Downloads a blob into its place; afterwards it is whole and its hash is right, or it is not there.
 * `BLOB.incomplete` beside it keeps what came, for the next call to go on from.
 *
 * @param line The line to the Hub.
 * @param remote The file, as the Hub describes it.
 * @param blob Its place in the cache.
 * @param subject What it is, for messages.
 * @param onProgress Takes the bytes that are there and the size, if known.
 * @throws {WhetError} `network`: the Hub or the line failed, or the bytes are not what the Hub named (then
 * the partial file is removed); `resource`: no disk space, no permission.
 */
export async function downloadBlob(
  line: Line,
  remote: RemoteFile,
  blob: string,
  subject: Subject,
  onProgress: (loaded: number, total?: number) => void,
): Promise<void> {
  const partial = await Partial.open(`${blob}.incomplete`, remote);
  try {
    // What an earlier process left may be damaged: if the sum is wrong, once more from the start.
    for (let resumed = partial.length > 0;; resumed = false) {
      await fill(line, partial, subject, onProgress);
      if (await partial.verify()) break;
      if (resumed) {
        line.note(`${subject.file}: what an earlier download left is damaged; starting anew`);
        await partial.restart();
        continue;
      }
      throw new Wrong(
        `${subject.name}/${subject.file}: its bytes have not the hash that the Hub names (${remote.etag}): ` +
          "run again; a proxy that changes downloads may be the cause",
      );
    }
    await partial.moveTo(blob);
  } catch (error) {
    partial.close();
    if (error instanceof Wrong || partial.length === 0) await partial.remove();
    throw error;
  }
}

/** The bytes are not those that the Hub described: nothing to resume from. */
class Wrong extends HubError {
  constructor(message: string) {
    super("line", message);
  }
}

/** Fetches what is missing of a partial file. */
async function fill(
  line: Line,
  partial: Partial,
  subject: Subject,
  onProgress: (loaded: number, total?: number) => void,
): Promise<void> {
  onProgress(partial.length, partial.size);
  if (partial.length === partial.size) return;
  let before = partial.length;
  await persist(
    line,
    (attempt) => {
      before = partial.length;
      return pull(attempt, partial, subject, onProgress);
    },
    () => partial.length - before >= PROGRESS,
  );
}

/** One GET, from the partial file's end if it has a beginning. */
async function pull(
  attempt: Attempt,
  partial: Partial,
  subject: Subject,
  onProgress: (loaded: number, total?: number) => void,
): Promise<void> {
  const { line } = attempt;
  const asked = partial.length;
  // Each attempt starts at the Hub: the CDN's signed address may have expired.
  const answer = await attempt.send(
    "GET",
    partial.remote.address,
    asked > 0 ? { range: `bytes=${asked}-` } : {},
  );
  const { response, url } = answer;
  const { status, headers } = response;
  if (status === 416 && asked > 0) {
    await partial.restart();
    throw new Passing(
      new HubError("line", `${url.host}: has no byte ${asked} of ${subject.file}: run again`),
    );
  }
  if (!response.ok) throw refusal(line, answer, subject);

  let total: number | undefined;
  if (status === 206) {
    const [, first, whole] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get("content-range") ?? "") ?? [];
    if (Number(first) !== asked) {
      await partial.restart();
      throw new Passing(
        new HubError("line", `${url.host}: sent other bytes of ${subject.file} than asked: run again`),
      );
    }
    if (whole !== "*") total = Number(whole);
  } else {
    if (asked > 0) await partial.restart(); // A server that knows no ranges sends all of it.
    const length = headers.get("content-length");
    if (length !== null && !headers.has("content-encoding")) total = Number(length);
  }
  partial.size ??= total;
  const wrong = (size: number | string) =>
    new Wrong(
      `${subject.name}/${subject.file}: the Hub names ${partial.size} bytes, ${url.host} sends ${size}: try later`,
    );
  if (total !== undefined && total !== partial.size) throw wrong(total);

  for await (const chunk of attempt.chunks(answer)) {
    if (partial.size !== undefined && partial.length + chunk.length > partial.size) throw wrong("more");
    await partial.append(chunk);
    onProgress(partial.length, partial.size);
  }
  partial.size ??= partial.length;
  if (partial.length < partial.size) {
    const got = `${partial.length} of ${partial.size} bytes`;
    throw new Passing(
      new HubError("line", `${url.host}: cut the line after ${got} of ${subject.file}: run again`),
    );
  }
}

/** The file that grows into a blob, and the hash of what is in it. */
class Partial {
  /** Bytes in it; the next one goes there. */
  length = 0;
  /** Bytes that it will have; undefined until someone tells. */
  size: number | undefined;
  #file: Deno.FsFile | undefined;
  #hash: Hash | undefined;

  private constructor(readonly path: string, readonly remote: RemoteFile) {
    this.size = remote.size;
  }

  /** Opens what an earlier download left, or a new file. */
  static async open(path: string, remote: RemoteFile): Promise<Partial> {
    const partial = new Partial(path, remote);
    try {
      partial.#file = await partial.#do(() => Deno.open(path, { read: true, write: true, create: true }));
      const { size } = await partial.#do(() => partial.#file!.stat());
      if (remote.size !== undefined && size > remote.size) await partial.restart();
      else await partial.#rehash(size);
      return partial;
    } catch (error) {
      partial.close();
      throw error;
    }
  }

  /**
   * Starts over with a new file. The old one is not truncated: on a file system without working locks
   * another process may be at it, and writes the same bytes to the same places.
   */
  async restart(): Promise<void> {
    this.close();
    await this.remove();
    this.#file = await this.#do(() => Deno.open(this.path, { read: true, write: true, createNew: true }));
    await this.#rehash(0);
  }

  /** Adds bytes at the end. */
  async append(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.length;) {
      at += await this.#do(() => this.#file!.write(chunk.subarray(at)));
    }
    this.#hash?.update(chunk);
    this.length += chunk.length;
  }

  /** Whether all bytes are there and their hash is the one that the Hub names, if its ETag is a hash. */
  async verify(): Promise<boolean> {
    if (!this.#hash) await this.#rehash(this.length); // The size, part of git's hash, came to be known late.
    if ((await this.#do(() => this.#file!.stat())).size !== this.size) return false;
    return !this.#hash || this.#hash.copy().digest("hex") === this.remote.etag;
  }

  /** Makes it the blob, in one step. */
  async moveTo(blob: string): Promise<void> {
    await this.#do(() => this.#file!.syncData()); // The name must not reach the disk before the bytes do.
    this.close();
    await this.#do(() => Deno.rename(this.path, blob)).catch(async (error) => {
      // Where locks do not work, another process may have finished the very same file.
      if ((await statOf(blob))?.size !== this.size) throw error;
    });
  }

  /** Closes the file. */
  close(): void {
    this.#file?.close();
    this.#file = undefined;
  }

  /** Deletes the file. */
  async remove(): Promise<void> {
    await this.#do(() => Deno.remove(this.path)).catch((error) => {
      if (!(error.cause instanceof Deno.errors.NotFound)) throw error;
    });
  }

  /** Hashes the first bytes of the file, from the disk, and stands behind them. */
  async #rehash(length: number): Promise<void> {
    this.#hash = newHash(this.remote.etag, this.size);
    this.length = length;
    await this.#do(() => this.#file!.seek(0, Deno.SeekMode.Start));
    const buffer = new Uint8Array(2 ** 20);
    for (let left = this.#hash ? length : 0; left > 0;) {
      const n = await this.#do(() => this.#file!.read(buffer.subarray(0, Math.min(left, buffer.length))));
      if (n === null) {
        throw new WhetError("resource", `${this.path}: became shorter while it was read: run again`);
      }
      this.#hash!.update(buffer.subarray(0, n));
      left -= n;
    }
    await this.#do(() => this.#file!.seek(length, Deno.SeekMode.Start));
  }

  async #do<T>(operation: () => Promise<T>): Promise<T> {
    try {
      return await operation();
    } catch (error) {
      throw explainFileError(error, "write", this.path);
    }
  }
}

/**
 * The hash that an ETag of the Hub is: SHA-256 of an LFS file, SHA-1 of a git blob with its header;
 * undefined if it is neither, or if git's header lacks the size.
 */
function newHash(etag: string, size: number | undefined): Hash | undefined {
  if (/^[0-9a-f]{64}$/.test(etag)) return createHash("sha256");
  if (!/^[0-9a-f]{40}$/.test(etag) || size === undefined) return undefined;
  return createHash("sha1").update(`blob ${size}\0`);
}
