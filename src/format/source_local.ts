/**
 * A folder on this machine.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { checkInside, explainFileError, join, readFully } from "./files.ts";
import { AnyRepository, AnySource, type ByteSource, type SourceOptions } from "./repository.ts";

/** Read in pieces of so many bytes, so that progress shows and an abort is heard. */
const PIECE = 16 * 2 ** 20;

/**
 * A file of so many bytes at most is read as a whole. Each read waits for a turn of the event loop, which a server that
 * computes where it reads gives once a token: an adapter's tensors one by one would take dozens of them.
 */
const SMALL = 4 * 2 ** 20;

/** The files of a local directory. */
export class LocalRepository extends AnyRepository {
  private constructor(name: string, readonly directory: string, private readonly options: SourceOptions) {
    super(name);
  }

  /**
   * Opens a directory.
   *
   * @param directory Its path.
   * @param options Progress and abort signal.
   * @param name What messages call it; its path unless told.
   * @returns The repository, or null where nothing of that name exists.
   * @throws {WhetError} `option`, if it is a file; `resource`, if it may not be read.
   */
  static async open(
    directory: string,
    options: SourceOptions,
    name = directory.replace(/(?<=.)[/\\]+$/, ""),
  ): Promise<LocalRepository | null> {
    const there = await info(directory);
    if (!there) return null;
    if (!there.isDirectory) {
      throw new WhetError("option", `${directory}: a file; give the directory that holds the model's files`);
    }
    return new LocalRepository(name, directory, options);
  }

  /** Opens one of its files; see {@linkcode Repository.open}. */
  async open(file: string): Promise<ByteSource | null> {
    const path = join(this.directory, checkInside(file, this.name));
    const label = `${this.name}/${file}`;
    const there = await info(path);
    if (!there) return null;
    // Opening a pipe would wait for its writer forever.
    if (!there.isFile) throw new WhetError("format", `${label}: not a regular file; expected a file`);
    try {
      const handle = await Deno.open(path);
      return new LocalSource(handle, (await handle.stat()).size, label, file, this.options);
    } catch (error) {
      throw explainFileError(error, "read", label);
    }
  }
}

class LocalSource extends AnySource {
  /** Where the handle stands; NaN after a read that failed. */
  #at = 0;
  #loaded = 0;
  /** A small file's bytes. */
  #whole: Uint8Array<ArrayBuffer> | null = null;

  constructor(
    private readonly handle: Deno.FsFile,
    size: number,
    name: string,
    file: string,
    options: SourceOptions,
  ) {
    super(name, file, size, options);
  }

  protected async fill(offset: number, buffer: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    if (this.size > SMALL) return await this.#fill(offset, buffer);
    this.#whole ??= await this.#fill(0, new Uint8Array(this.size));
    buffer.set(this.#whole.subarray(offset, offset + buffer.length));
    return buffer;
  }

  async #fill(offset: number, buffer: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    try {
      // Reads mostly follow one another, and a seek takes as long as a small read: a millisecond while all cores compute.
      if (offset !== this.#at) await this.handle.seek(offset, Deno.SeekMode.Start);
      this.#at = NaN;
      for (let at = 0; at < buffer.length; at += PIECE) {
        this.options.signal?.throwIfAborted();
        const piece = buffer.subarray(at, at + PIECE);
        const n = await readFully(this.handle, piece);
        if (n < piece.length) {
          throw new WhetError(
            "format",
            `${this.name}: it ends at byte ${
              offset + at + n
            }, though it had ${this.size} when it was opened; ` +
              "do not change it while it is read",
          );
        }
        this.reached(Math.min(this.size, this.#loaded += n));
      }
      this.#at = offset + buffer.length;
    } catch (error) {
      if (this.options.signal?.aborted) throw error;
      throw explainFileError(error, "read", this.name);
    }
    return buffer;
  }

  override close(): void {
    super.close();
    this.#whole = null;
    try {
      this.handle.close();
    } catch {
      // Closed before.
    }
  }
}

async function info(path: string): Promise<Deno.FileInfo | null> {
  try {
    return await Deno.stat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return null;
    throw explainFileError(error, "read", path);
  }
}
