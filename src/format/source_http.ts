/**
 * A folder on a web server: each file is one streaming GET whose position moves on while reads ascend,
 * so that a model larger than memory passes through; a cut line is taken up where it broke.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { orAborted } from "./abort.ts";
import { checkInside } from "./files.ts";
import {
  AnyRepository,
  AnySource,
  type ByteSource,
  MemorySource,
  type SourceOptions,
  TEXT_LIMIT,
} from "./repository.ts";

/** How patient a download is; the defaults are for people, tests take less. */
export interface Patience {
  /** Milliseconds before the first retry; each further one waits twice as long. */
  retryDelay?: number;
  /** Milliseconds without a byte after which the line counts as cut. */
  stallTimeout?: number;
}

/** So many failures with less than {@linkcode PROGRESS} bytes between them end a download. */
const FAILURES = 4;
const PROGRESS = 2 ** 20;
/** A gap up to here is read and dropped; beyond it a new request is quicker. */
const SKIP = 2 ** 20;
/** A server that asks for a longer pause than this is reported instead, in seconds. */
const LONGEST_PAUSE = 30;

/** The files below an `http(s)` address; no credentials are ever sent there. */
export class HttpRepository extends AnyRepository {
  readonly #base: URL;

  /**
   * A folder on a web server; nothing is asked of it yet.
   *
   * @param source The folder's address; its query, if any, goes with every file's.
   * @param options Progress, abort signal, a stand-in for `fetch`, patience.
   * @throws {WhetError} `option`, if the address makes no sense.
   */
  constructor(source: string, private readonly options: SourceOptions & Patience = {}) {
    if (!URL.canParse(source)) throw new WhetError("option", `${source}: not a valid URL`);
    const url = new URL(source);
    // A query may hold a signature: messages do without it.
    super(url.origin + url.pathname.replace(/\/+$/, ""));
    if (url.username || url.password) {
      throw new WhetError("option", `${this.name}: a user name or password within a URL is not supported`);
    }
    this.#base = url;
  }

  /** Opens one of its files; see {@linkcode Repository.open}. */
  async open(file: string): Promise<ByteSource | null> {
    const url = new URL(this.#base);
    const path = checkInside(file, this.name).split("/").map(encodeURIComponent).join("/");
    url.pathname = `${url.pathname.replace(/\/+$/, "")}/${path}`;
    url.hash = "";
    return await openHttp(url, `${this.name}/${file}`, file, this.options);
  }
}

/**
 * Opens one file on a web server.
 *
 * @param url Its address.
 * @param name What messages call it.
 * @param file Its name within its repository.
 * @param options Progress, abort signal, a stand-in for `fetch`, patience.
 * @returns Its bytes, or null where the server has no such file.
 * @throws {WhetError} `network`, if the server refuses or fails; `resource`, without the permission.
 */
export async function openHttp(
  url: URL,
  name: string,
  file: string,
  options: SourceOptions & Patience,
): Promise<ByteSource | null> {
  const line = new Line(url, name, options);
  if (!await line.connect(0)) return null;
  if (line.size !== null) return new HttpSource(line, line.size, file, options);
  // A small file, then: one whose size is not told is held whole.
  const bytes = await line.rest(TEXT_LIMIT);
  return new MemorySource(bytes, name, file, options);
}

class HttpSource extends AnySource {
  readonly sequential = true;

  constructor(private readonly line: Line, size: number, file: string, options: SourceOptions) {
    super(line.name, file, size, options);
  }

  protected async fill(offset: number, buffer: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    const { line } = this;
    for (let filled = 0; filled < buffer.length;) {
      const target = offset + filled;
      if (!line.open || line.at > target || (line.ranges && target - line.at > SKIP)) {
        if (!await line.connect(line.ranges ? target : 0)) throw changed(this.name);
      }
      const chunk = await line.next(target - line.at + buffer.length - filled);
      if (!chunk) continue; // Cut: connect again.
      const start = target - (line.at - chunk.length); // What of the chunk lies before the target.
      if (start < chunk.length) {
        buffer.set(chunk.subarray(start), filled);
        filled += chunk.length - start;
      }
      this.reached(line.at);
    }
    if (line.at === this.size) line.drop();
    return buffer;
  }

  override rest(): void {
    this.line.drop();
  }

  override close(): void {
    super.close();
    this.line.close();
  }
}

/** The connection to one file: a body that is read on, replaced when it breaks or must go back. */
class Line {
  /** The file's length, once a reply told it. */
  size: number | null = null;
  /** Whether the server serves from the middle. */
  ranges = false;
  /** Where the next byte belongs. */
  at = 0;
  #reader: ReadableStreamDefaultReader<Uint8Array> | null = null;
  #controller = new AbortController();
  /** The request's: its controller's and the user's. */
  #signal = this.#controller.signal;
  #chunk: Uint8Array = new Uint8Array(0);
  #validator: string | null = null;
  #failures = 0;
  #farthestFailure = 0;
  #closed = false;

  constructor(readonly url: URL, readonly name: string, private readonly options: SourceOptions & Patience) {}

  /** Whether there is a body to read on from. */
  get open(): boolean {
    return this.#reader !== null;
  }

  /** Requests the file from an offset on (from 0 where ranges are not served); false where there is none. */
  async connect(offset: number): Promise<boolean> {
    while (true) {
      if (this.#closed) throw new WhetError("disposed", `${this.name}: already closed`);
      this.drop();
      const response = await this.#request(offset);
      if (!response) continue;
      // Hosts of one-page applications answer every address with their page; no model file is HTML.
      if (response.ok && offset === 0 && response.headers.get("content-type")?.startsWith("text/html")) {
        await response.body?.cancel();
        return false;
      }
      if (response.ok) {
        this.#accept(response, offset);
        return true;
      }
      await response.body?.cancel();
      const { status } = response;
      if (status === 404 || status === 410) return false;
      // An empty file has no byte 0 to begin at.
      if (
        status === 416 && offset === 0 && /^bytes \*\/0$/.test(response.headers.get("content-range") ?? "")
      ) {
        this.size = 0;
        return true;
      }
      const pause = retryAfter(response);
      if (![408, 429, 500, 502, 503, 504].includes(status) || pause > LONGEST_PAUSE) {
        throw refused(this.name, status, pause);
      }
      await this.#failed(refused(this.name, status, pause), pause);
    }
  }

  async #request(offset: number): Promise<Response | null> {
    const { signal, fetch = globalThis.fetch } = this.options;
    this.#controller = new AbortController();
    const headers: Record<string, string> = { "accept-encoding": "identity", range: `bytes=${offset}-` };
    if (offset > 0 && this.#validator) headers["if-range"] = this.#validator;
    this.#signal = AbortSignal.any([this.#controller.signal, ...(signal ? [signal] : [])]);
    try {
      return await this.#timed(() => fetch(this.url, { headers, signal: this.#signal }));
    } catch (error) {
      await this.#broke(error);
      return null;
    }
  }

  #accept(response: Response, offset: number): void {
    const { headers, status } = response;
    const body = response.body ?? new ReadableStream({ start: (controller) => controller.close() });
    let size: number | null = null;
    this.at = 0;
    if (status === 206) {
      const [, start, total] = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers.get("content-range") ?? "") ?? [];
      if (Number(start) === offset) {
        size = Number(total);
        this.ranges = true;
        this.at = offset;
      }
    } else if (headers.has("content-length")) {
      size = Number(headers.get("content-length"));
      this.ranges = false;
    }
    this.#reader = body.getReader();
    const validator = strong(headers.get("etag")) ?? headers.get("last-modified");
    const first = this.size === null;
    if ((headers.get("content-encoding") ?? "identity") !== "identity") {
      this.drop();
      throw new WhetError(
        "network",
        `${this.name}: the server sends it compressed although it was asked not to; download it and give its directory`,
      );
    }
    const other = !first && (size !== this.size || differ(validator, this.#validator));
    if (other || (status === 206 && size === null) || (size !== null && !Number.isSafeInteger(size))) {
      this.drop();
      throw first ? confused(this.name) : changed(this.name);
    }
    this.size = size;
    this.#validator ??= validator;
  }

  /** The next bytes, at most so many; null when the line was cut. */
  async next(most: number): Promise<Uint8Array | null> {
    try {
      while (this.#chunk.length === 0) {
        const reader = this.#reader!;
        const { done, value } = await this.#timed(() => reader.read());
        if (done) throw new Error(`the line was cut at byte ${this.at} of ${this.size}`);
        this.#chunk = value;
      }
    } catch (error) {
      this.drop();
      await this.#broke(error);
      return null;
    }
    const bytes = this.#chunk.subarray(0, most);
    this.#chunk = this.#chunk.subarray(bytes.length);
    this.at += bytes.length;
    return bytes;
  }

  /** All that follows, for a file of unknown size. */
  async rest(limit: number): Promise<Uint8Array> {
    const chunks: Uint8Array[] = [];
    let total = 0;
    try {
      while (true) {
        const reader = this.#reader!;
        const { done, value } = await this.#timed(() => reader.read());
        if (done) break;
        chunks.push(value);
        total += value.length;
        if (total > limit) {
          throw new WhetError(
            "network",
            `${this.name}: the server does not say how large it is, and it is larger than ${limit} bytes; ` +
              "use a server that sends Content-Length, or download the files and give their directory",
          );
        }
      }
    } catch (error) {
      this.#rethrow(error);
      throw unreachable(this.name, error);
    } finally {
      this.drop();
    }
    const whole = new Uint8Array(total);
    let at = 0;
    for (const chunk of chunks) {
      whole.set(chunk, at);
      at += chunk.length;
    }
    return whole;
  }

  /** Ends the connection. */
  drop(): void {
    const reader = this.#reader;
    if (!reader) return;
    this.#reader = null;
    this.#chunk = new Uint8Array(0);
    reader.cancel().catch(() => {});
    this.#controller.abort();
  }

  /** Ends the connection for good. */
  close(): void {
    this.#closed = true;
    this.drop();
  }

  async #timed<T>(work: () => Promise<T>): Promise<T> {
    const { stallTimeout = 60_000 } = this.options;
    const controller = this.#controller;
    const timer = setTimeout(
      () => controller.abort(new Error(`nothing came for ${Math.round(stallTimeout / 1000)} s`)),
      stallTimeout,
    );
    try {
      return await orAborted(work(), this.#signal);
    } finally {
      clearTimeout(timer);
    }
  }

  async #broke(error: unknown): Promise<void> {
    this.#rethrow(error);
    await this.#failed(unreachable(this.name, error), 0);
  }

  /** Throws what no retry mends. */
  #rethrow(error: unknown): void {
    this.options.signal?.throwIfAborted();
    if (error instanceof WhetError) throw error;
    if (error instanceof Deno.errors.NotCapable) {
      throw new WhetError(
        "resource",
        `cannot fetch ${this.name}: Deno was not given the permission; add --allow-net=${this.url.host}`,
        { cause: error },
      );
    }
  }

  /** Counts a failure and waits before the next try, or throws it if there were too many. */
  async #failed(error: WhetError, pause: number): Promise<void> {
    if (this.at >= this.#farthestFailure + PROGRESS) this.#failures = 0;
    this.#farthestFailure = Math.max(this.#farthestFailure, this.at);
    const { retryDelay = 250, signal } = this.options;
    if (++this.#failures > FAILURES) throw error;
    await sleep(Math.max(pause * 1000, retryDelay * 2 ** (this.#failures - 1)), signal);
  }
}

function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const stop = () => reject(signal!.reason);
  const timer = setTimeout(resolve, milliseconds);
  signal?.addEventListener("abort", stop);
  return promise.finally(() => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  });
}

/** An ETag that promises the same bytes; a weak one (`W/"…"`) does not. */
function strong(etag: string | null): string | null {
  return etag?.startsWith('"') ? etag : null;
}

/** Whether two validators of the same kind (ETag or date) deny that the bytes are the same. */
function differ(one: string | null, other: string | null): boolean {
  if (one === null || other === null || one.startsWith('"') !== other.startsWith('"')) return false;
  return one !== other;
}

/** The pause that a reply asks for, in seconds. */
function retryAfter(response: Response): number {
  const value = response.headers.get("retry-after") ?? "";
  const seconds = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return seconds > 0 ? Math.ceil(seconds) : 0;
}

function refused(name: string, status: number, pause: number): WhetError {
  const what = status === 401 || status === 403
    ? "it wants credentials, which are never sent to such an address; download the files and give their directory"
    : status === 429
    ? `it is asked too often; try again ${pause > 0 ? `in ${pause} s` : "later"}`
    : status >= 500
    ? `it fails; try again ${pause > 0 ? `in ${pause} s` : "later"}`
    : "expected 200; check the address";
  return new WhetError("network", `${name}: the server answers ${status}: ${what}`);
}

function unreachable(name: string, error: unknown): WhetError {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const why = (cause instanceof Error ? cause.message : String(cause)).replaceAll(/\s+/g, " ")
    .replace(/ for url \([^)]*\)/, "");
  return new WhetError("network", `${name}: ${why}; check the address and the connection, then try again`, {
    cause: error,
  });
}

function confused(name: string): WhetError {
  return new WhetError("network", `${name}: the server's reply to a Range request makes no sense`);
}

function changed(name: string): WhetError {
  return new WhetError("network", `${name}: it changed on the server while it was read; start again`);
}
