/**
 * What a folder of files and the bytes of one file look like, wherever they are.
 *
 * @module
 */

import { WhetError } from "../errors.ts";

/** How far the reading of one file has come; `total` is its size in bytes. */
export interface Progress {
  /** The file's name within its repository. */
  file: string;
  /** Bytes read so far. */
  loaded: number;
  /** Bytes in all. */
  total: number;
}

/** What {@linkcode openRepository} takes beside the source. */
export interface SourceOptions {
  /** Called as bytes arrive. */
  onProgress?: (progress: Progress) => void;
  /** Takes lines for people: a download tried again, the cache used for want of a network. */
  onNote?: (note: string) => void;
  /** Ends downloads when it is aborted; the reads under way reject with its reason. */
  signal?: AbortSignal;
  /** Stands in for the global `fetch`. */
  fetch?: typeof fetch;
}

/** The bytes of one file, in any order, cheapest in ascending order. */
export interface ByteSource {
  /** What messages call it: a path or an address. */
  readonly name: string;
  /** Its length in bytes. */
  readonly size: number;
  /** Whether to read in another order than the file's costs, a connection each time [no]. */
  readonly sequential?: boolean;
  /**
   * Reads a stretch.
   *
   * @param offset Where it begins.
   * @param length How many bytes.
   * @returns Exactly so many bytes, in a buffer of their own.
   * @throws {WhetError} `format`, if the file ends before; `network`, if the server fails for good.
   */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  /** Lets go of a connection that will not be needed soon; the next read makes a new one. */
  rest(): void;
  /** Frees what it holds; reads then fail. */
  close(): void;
}

/** A folder of files, wherever it is. */
export interface Repository {
  /** What messages call it: the source as the user gave it. */
  readonly name: string;
  /**
   * Opens a file.
   *
   * @param file Its name within the folder.
   * @returns Its bytes, or null where there is no such file.
   * @throws {WhetError} `format`, if the name leaves the folder; `resource` or `network`, if it may not be read.
   */
  open(file: string): Promise<ByteSource | null>;
  /**
   * Reads a whole file.
   *
   * @param file Its name within the folder.
   * @param limit The most bytes it may have.
   * @returns Its bytes, or null where there is no such file.
   * @throws {WhetError} `format`, if it is larger than the limit.
   */
  bytes(file: string, limit: number): Promise<Uint8Array<ArrayBuffer> | null>;
  /**
   * Reads a whole file as UTF-8 text, of at most {@linkcode TEXT_LIMIT} bytes.
   *
   * @param file Its name within the folder.
   * @returns Its text, or null where there is no such file.
   * @throws {WhetError} `format`, if it is too large or not UTF-8.
   */
  text(file: string): Promise<string | null>;
}

/** The most bytes that {@linkcode Repository.text} reads: several times the largest tokenizer.json. */
export const TEXT_LIMIT = 128 * 2 ** 20;

/** What every repository does in the same way, given `open`. */
export abstract class AnyRepository implements Repository {
  /**
   * A folder, wherever its files are.
   *
   * @param name What messages call it.
   */
  constructor(readonly name: string) {}

  abstract open(file: string): Promise<ByteSource | null>;

  async bytes(file: string, limit: number): Promise<Uint8Array<ArrayBuffer> | null> {
    const source = await this.open(file);
    if (!source) return null;
    try {
      if (source.size > limit) {
        throw new WhetError(
          "format",
          `${source.name}: ${source.size} bytes, more than the ${limit} that such a file can need; is it the right file?`,
        );
      }
      return await source.read(0, source.size);
    } finally {
      source.close();
    }
  }

  async text(file: string): Promise<string | null> {
    const bytes = await this.bytes(file, TEXT_LIMIT);
    if (!bytes) return null;
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch (error) {
      throw new WhetError("format", `${this.name}/${file}: not UTF-8 text; save it as UTF-8`, {
        cause: error,
      });
    }
  }
}

/** What every source does in the same way: one read at a time, within its bounds. */
export abstract class AnySource implements ByteSource {
  #last: Promise<unknown> = Promise.resolve();
  #reached = 0;
  #closed = false;

  /**
   * A file, wherever its bytes are.
   *
   * @param name What messages call it.
   * @param file Its name within its repository, for {@linkcode Progress}.
   * @param size Its length in bytes.
   * @param options Progress and abort signal.
   */
  constructor(
    readonly name: string,
    protected readonly file: string,
    readonly size: number,
    protected readonly options: SourceOptions,
  ) {}

  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const turn = this.#last.then(() => {
      if (this.#closed) throw new WhetError("disposed", `${this.name}: already closed`);
      this.options.signal?.throwIfAborted();
      if (!(Number.isSafeInteger(offset) && offset >= 0 && length >= 0 && offset + length <= this.size)) {
        throw new WhetError(
          "format",
          `${this.name}: bytes ${offset} to ${
            offset + length
          } were asked for, but it has only ${this.size}; ` +
            "it is truncated, fetch it again",
        );
      }
      let buffer;
      try {
        buffer = new Uint8Array(length);
      } catch (error) {
        throw new WhetError("resource", `${this.name}: no memory for ${length} bytes of it`, {
          cause: error,
        });
      }
      return this.fill(offset, buffer);
    });
    this.#last = turn.catch(() => {});
    return turn;
  }

  /** Reads into a buffer that lies within the file's bounds, and returns it. */
  protected abstract fill(offset: number, buffer: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>>;

  /** Tells the user how far the file was read. */
  protected reached(position: number): void {
    if (position <= this.#reached) return;
    this.#reached = position;
    this.options.onProgress?.({ file: this.file, loaded: position, total: this.size });
  }

  rest(): void {}

  close(): void {
    this.#closed = true;
  }
}

/** A file that is in memory. */
export class MemorySource extends AnySource {
  readonly #bytes: Uint8Array;

  /**
   * A file of these bytes.
   *
   * @param bytes The bytes; not copied.
   * @param name What messages call it.
   * @param file Its name within its repository.
   * @param options Progress and abort signal.
   */
  constructor(bytes: Uint8Array, name: string, file: string, options: SourceOptions = {}) {
    super(name, file, bytes.length, options);
    this.#bytes = bytes;
  }

  /** Copies a stretch of it. */
  protected fill(offset: number, buffer: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    buffer.set(this.#bytes.subarray(offset, offset + buffer.length));
    this.reached(offset + buffer.length);
    return Promise.resolve(buffer);
  }
}
