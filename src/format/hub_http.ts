/**
 * The line to the Hub: redirects, the token, retries, stalls, and what a refusal means.
 *
 * The token goes to the Hub's own hosts alone. Redirects are therefore walked by hand: `fetch` would
 * tell neither where it ended nor what the Hub's answer to the first request said about the file.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { orAborted } from "./abort.ts";
import { HUB } from "./hub_env.ts";

/** How long to try; times in milliseconds. */
export interface Patience {
  /** Attempts after the first that failed in passing (5xx, 429, a cut line) without getting anywhere. */
  retries: number;
  /** The pause before the first retry; doubled up to eightfold. */
  backoff: number;
  /** The longest wait that a 429 may ask for. */
  longestWait: number;
  /** No byte for so long: the line is dead. */
  stall: number;
  /** How long another process may hold a file's lock without getting anywhere. */
  lock: number;
}

/** The default patience. */
export const PATIENCE: Patience = {
  retries: 5,
  backoff: 1000,
  longestWait: 60_000,
  stall: 30_000,
  lock: 300_000,
};

/** One caller's line to one Hub. */
export interface Line {
  /** The Hub's address, without a slash at its end. */
  endpoint: string;
  /** The token, sent to the Hub's hosts alone. */
  token?: string;
  /** How long to try. */
  patience: Patience;
  /** Ends everything; what was downloaded so far stays for a later resume. */
  signal?: AbortSignal;
  /** Stands in for the global `fetch`. */
  fetch?: typeof fetch;
  /** Takes a line for people: a retry, a wait. */
  note: (text: string) => void;
  /** Whether the Hub has answered at all. Without a network it will not, and one retry tells. */
  reached?: boolean;
}

/** What a request is about, for the messages. */
export interface Subject {
  /** What kind of repository. */
  type: "model" | "dataset";
  /** `owner/name`. */
  name: string;
  /** Branch, tag or commit. */
  revision: string;
  /** A file of it. */
  file?: string;
}

/** A failure of the Hub; `reason` says of which kind, where a caller has to tell. */
export class HubError extends WhetError {
  /**
   * @param reason What failed: `gone` (no such revision or file), `line` (all else).
   * @param message What went wrong, where, and what to do; one line.
   * @param options The underlying error, as `cause`.
   */
  constructor(readonly reason: "gone" | "line", message: string, options?: ErrorOptions) {
    super("network", message, options);
  }
}

/** A failure that another attempt may not meet; `error` is thrown when there is none left. */
export class Passing extends Error {
  /**
   * @param error What to throw in the end.
   * @param wait The pause that the server asked for, in ms.
   */
  constructor(readonly error: WhetError, readonly wait?: number) {
    super(error.message);
  }
}

/** An answer, after the redirects that {@linkcode Attempt.send} followed. */
export interface Answer {
  /** The last response: not a redirect, unless to a host that is not the Hub's and method is HEAD. */
  response: Response;
  /** Where the last response came from. */
  url: URL;
  /** The first value of a header that any of the Hub's own answers on the way had. */
  said(header: string): string | null;
}

/** Whether the URL is the Hub's own: the only place that the token goes to. */
function isHub(line: Line, url: URL): boolean {
  return [new URL(line.endpoint).origin, HUB, "https://hf.co"].includes(url.origin);
}

/** Throws unless the network permission for the host is there; never prompts. */
function requireNet(url: URL): void {
  const host = url.port ? url.host : `${url.hostname}:${url.protocol === "https:" ? 443 : 80}`;
  if (Deno.permissions.querySync({ name: "net", host }).state === "granted") return;
  throw new WhetError("resource", `${url.host}: no permission to reach it: add --allow-net=${url.host}`);
}

/** One attempt at a request: while it waits for the network, silence of `stall` ms ends it. */
export class Attempt {
  readonly #abort = new AbortController();
  readonly #signal: AbortSignal;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param line The line to use. */
  constructor(readonly line: Line) {
    this.#signal = line.signal ? AbortSignal.any([this.#abort.signal, line.signal]) : this.#abort.signal;
  }

  /**
   * Sends a request and follows its redirects; a HEAD stops at one that leaves the Hub.
   *
   * @throws {Passing} The line was cut, or stayed silent.
   */
  async send(method: "GET" | "HEAD", address: string, headers: Record<string, string> = {}): Promise<Answer> {
    const seen: Headers[] = [];
    const said = (header: string) => seen.find((one) => one.has(header))?.get(header) ?? null;
    let url = new URL(address);
    for (let hops = 0; hops < 20; hops++) {
      if (!this.line.fetch) requireNet(url);
      const own = isHub(this.line, url);
      const sent = new Headers({ ...headers, "accept-encoding": "identity", "user-agent": "whet" });
      if (own && this.line.token) sent.set("authorization", `Bearer ${this.line.token}`);
      const response = await this.#awaiting(
        url,
        "cannot be reached",
        (this.line.fetch ?? fetch)(url, { method, headers: sent, redirect: "manual", signal: this.#signal }),
      );
      this.line.reached = true;
      if (own) seen.push(response.headers);
      const location = response.headers.get("location");
      if (![301, 302, 303, 307, 308].includes(response.status) || !location) return { response, url, said };
      const next = URL.parse(location, url);
      if (
        !next || !/^https?:$/.test(next.protocol) || (next.protocol === "http:" && url.protocol === "https:")
      ) {
        throw new HubError("line", `${url.host}: redirects to what is not https: refused`);
      }
      if (method === "HEAD" && !isHub(this.line, next)) return { response, url, said };
      await response.body?.cancel();
      url = next;
    }
    throw new HubError("line", `${url.host}: more than 20 redirects: check HF_ENDPOINT`);
  }

  /**
   * The body, chunk by chunk.
   *
   * @throws {Passing} The line was cut, or stayed silent.
   */
  async *chunks({ response, url }: Answer): AsyncGenerator<Uint8Array> {
    if (!response.body) return;
    const reader = response.body.getReader();
    while (true) {
      const { done, value } = await this.#awaiting(url, "the line was cut", reader.read());
      if (done) return;
      yield value;
    }
  }

  /** The body as text, of at most `limit` bytes. */
  async text(answer: Answer, limit = 64 * 2 ** 20): Promise<string> {
    const decoder = new TextDecoder();
    let text = "", length = 0;
    for await (const chunk of this.chunks(answer)) {
      if ((length += chunk.length) > limit) {
        throw new HubError("line", `${answer.url.host}: an answer of more than ${limit} bytes: refused`);
      }
      text += decoder.decode(chunk, { stream: true });
    }
    return text + decoder.decode();
  }

  async #awaiting<T>({ host }: URL, failed: string, promise: Promise<T>): Promise<T> {
    const { stall } = this.line.patience;
    const silence = new Passing(
      new HubError("line", `${host}: no answer for ${stall / 1000} s: check the connection and run again`),
    );
    this.#timer = setTimeout(() => this.#abort.abort(silence), stall);
    try {
      return await orAborted(promise, this.#signal);
    } catch (error) {
      this.line.signal?.throwIfAborted();
      if (error === silence) throw error;
      throw new Passing(
        new HubError("line", `${host}: ${failed} (${reasonOf(error)}): check the connection and run again`, {
          cause: error,
        }),
      );
    } finally {
      clearTimeout(this.#timer);
    }
  }

  /** Drops the connection if its body was not read to the end. */
  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#abort.abort();
  }
}

/** The innermost words of a fetch error: "dns error: …", "Connection refused …". */
function reasonOf(error: unknown): string {
  const cause = (error as { cause?: unknown })?.cause ?? error;
  const text = cause instanceof Error ? cause.message : String(cause);
  return oneLine(text.replace(/^.*client error \([^)]*\): /, ""));
}

/**
 * Tries until it works, or fails for good, or patience ends.
 *
 * @param line The line to use.
 * @param work One attempt.
 * @param moved Whether the attempt that just failed got somewhere: then the count starts anew.
 */
export async function persist<T>(
  line: Line,
  work: (attempt: Attempt) => Promise<T>,
  moved: () => boolean = () => false,
): Promise<T> {
  const { backoff, longestWait } = line.patience;
  for (let failures = 0;;) {
    line.signal?.throwIfAborted();
    try {
      using attempt = new Attempt(line);
      return await work(attempt);
    } catch (error) {
      if (!(error instanceof Passing)) throw error;
      if (moved()) failures = 0;
      const retries = Math.min(line.patience.retries, line.reached ? Infinity : 1);
      const wait = error.wait ?? backoff * Math.min(2 ** failures, 8);
      if (failures++ >= retries || wait > longestWait) throw error.error;
      const fact = error.message.replace(/: [^:]*$/, ""); // Without the advice for when all is lost.
      line.note(`${fact}; trying again in ${Math.ceil(wait / 1000)} s (${failures} of ${retries})`);
      await pause(wait, line.signal);
    }
  }
}

/** Waits; ends at once with the signal's reason when it is aborted. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const end = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", end);
      resolve();
    }, ms);
    signal?.addEventListener("abort", end, { once: true });
  });
}

/**
 * What an answer that is neither 2xx nor a redirect means, as the error to throw.
 *
 * Source: the Hub's `X-Error-Code` and `X-Error-Message`; a 401 without a token also stands for a
 * repository that does not exist.
 */
export function refusal(line: Line, { response, url, said }: Answer, subject: Subject): WhetError | Passing {
  const { status } = response;
  const code = said("x-error-code"), message = oneLine(said("x-error-message") ?? "");
  const quoted = message ? ` ("${message}")` : "";
  const { type, name, revision, file } = subject;
  const page = `${line.endpoint}/${type === "dataset" ? "datasets/" : ""}${name}`;
  const tokens = `${line.endpoint}/settings/tokens`;
  const fail = (reason: "gone" | "line", text: string) => new HubError(reason, text);

  if (status === 429) {
    const seconds = retryAfter(response.headers);
    const wait = seconds === undefined ? "" : `, to be tried again in ${seconds} s`;
    return new Passing(
      fail(
        "line",
        `${url.host}: too many requests (429)${wait}: try later; with a token (HF_TOKEN) the limit is higher`,
      ),
      seconds === undefined ? undefined : seconds * 1000,
    );
  }
  if (status === 408 || status >= 500) {
    return new Passing(
      fail("line", `${url.host}: answered ${status}${quoted}: the server's fault, try later`),
    );
  }
  // A CDN's signed address can expire; the next attempt gets a fresh one from the Hub.
  if (!isHub(line, url)) {
    return new Passing(fail("line", `${url.host}: answered ${status} for ${file ?? name}: run again`));
  }
  if (code === "RevisionNotFound") {
    return fail(
      "gone",
      `${type} ${name}: no revision "${revision}": expected a branch, a tag or a commit of ${page}`,
    );
  }
  if (code === "EntryNotFound") {
    return fail("gone", `${type} ${name}@${revision}: no file "${file}": see ${page}/tree/${revision}`);
  }
  if (code === "GatedRepo") {
    return fail(
      "line",
      `${type} ${name} is gated: accept its licence at ${page}, then set HF_TOKEN (${tokens})`,
    );
  }
  if (status === 401 && line.token && (code === null || /credential|token|expired/i.test(message))) {
    return fail(
      "line",
      `${url.host}: does not accept the token${quoted}: set HF_TOKEN to a valid one (${tokens})`,
    );
  }
  if (status === 401 || code === "RepoNotFound") {
    return fail(
      "line",
      `no ${type} "${name}" at ${line.endpoint}, or it is private: check the name, or set HF_TOKEN to a token that may read it`,
    );
  }
  if (status === 403) {
    return fail(
      "line",
      `${type} ${name}: access denied (403)${quoted}: set HF_TOKEN to a token that may read ${page}`,
    );
  }
  return fail("line", `${url.host}: answered ${status}${quoted} for ${url.pathname}: check HF_ENDPOINT`);
}

/** The seconds that a 429 asks to wait: `Retry-After` (seconds or a date), else the Hub's `RateLimit`. */
export function retryAfter(headers: Headers): number | undefined {
  const value = headers.get("retry-after")?.trim();
  if (value && /^\d+$/.test(value)) return Number(value);
  const date = Date.parse(value ?? "");
  if (Number.isFinite(date)) return Math.max(0, Math.ceil((date - Date.now()) / 1000));
  const reset = /(?:^|;)\s*t=(\d+)/.exec(headers.get("ratelimit") ?? "");
  return reset ? Number(reset[1]) : undefined;
}

/** Text of a server, fit for one line of a message. */
export function oneLine(text: string): string {
  // deno-lint-ignore no-control-regex
  const line = text.replace(/[\x00-\x1f\x7f-\x9f\s]+/g, " ").trim();
  return line.length > 200 ? `${line.slice(0, 199)}…` : line;
}
