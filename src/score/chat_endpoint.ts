/**
 * An OpenAI-compatible `chat/completions` endpoint: one question, one reply, with retries.
 *
 * The key goes to the address that was given and nowhere else: redirects are walked by hand and never
 * leave its origin.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { orAborted } from "../format/abort.ts";
import { type Line, oneLine, Passing, PATIENCE, persist, retryAfter } from "../format/hub_http.ts";

/** Where to ask, and how patiently. */
export interface ChatEndpointOptions {
  /** The API's address: with `/chat/completions`, up to `/v1`, or the server alone. */
  url: string | URL;
  /** The model's name there. */
  model: string;
  /** The key, sent as a bearer token; none by default. */
  apiKey?: string;
  /** The most tokens of a reply [2048]. */
  maxTokens?: number;
  /** Milliseconds for a reply, after which the request counts as failed [120,000]. */
  timeout?: number;
  /** Attempts after the first one that failed in passing [6]. */
  retries?: number;
  /** Milliseconds before the first retry, doubled up to eightfold, where the server does not say [1000]. */
  backoff?: number;
  /** Takes lines for people: a request tried again. */
  onNote?: (note: string) => void;
  /** Stands in for the global `fetch`. */
  fetch?: typeof fetch;
}

/** The longest wait that a server may ask for, in ms. */
const LONGEST_WAIT = 120_000;
/** No honest reply is longer, in bytes. */
const REPLY_LIMIT = 2 ** 22;

/** One endpoint and one of its models. */
export class ChatEndpoint {
  /** Where requests go. */
  readonly url: URL;
  /** The model's name. */
  readonly model: string;
  readonly #options: ChatEndpointOptions;
  #reached = false;

  /**
   * Checks the address and the key; nothing is sent yet.
   *
   * @param options Address, model, key, patience.
   * @throws {WhetError} `option`, if one of them makes no sense.
   */
  constructor(options: ChatEndpointOptions) {
    this.url = completions(options.url);
    this.model = options.model;
    this.#options = options;
    if (!options.model) throw new WhetError("option", "model (--judge-model): expected the model's name");
    if (options.apiKey !== undefined && !/^[\x21-\x7e]+$/.test(options.apiKey)) {
      throw new WhetError(
        "option",
        "apiKey (--judge-key-env): a key holds visible ASCII characters only: copy it anew",
      );
    }
  }

  /**
   * Asks a question, at temperature 0.
   *
   * @param question The text.
   * @param signal Ends the waiting when aborted.
   * @returns What the model says; empty if it says nothing.
   * @throws {WhetError} `network`, if the endpoint refuses, does not speak the protocol, or fails more often
   * than there are retries; `resource`, without the permission to reach it.
   */
  async ask(question: string, signal?: AbortSignal): Promise<string> {
    const { timeout = 120_000, retries = 6, backoff = PATIENCE.backoff, maxTokens = 2048 } = this.#options;
    const body = JSON.stringify({
      model: this.model,
      messages: [{ role: "user", content: question }],
      ...{ temperature: 0, max_tokens: maxTokens },
    });
    const line: Line = {
      endpoint: this.url.origin,
      patience: { ...PATIENCE, retries, backoff, longestWait: LONGEST_WAIT },
      signal,
      note: this.#options.onNote ?? (() => {}),
      reached: this.#reached,
    };
    return await persist(line, async () => {
      const limit = new AbortController();
      const late = this.#passing(
        `no reply within ${timeout / 1000} s: ask for less at a time (--judge-concurrency)`,
      );
      const timer = setTimeout(() => limit.abort(late), timeout);
      const either = signal ? AbortSignal.any([limit.signal, signal]) : limit.signal;
      try {
        return await this.#post(body, either, line);
      } catch (error) {
        signal?.throwIfAborted();
        if (error instanceof Passing || error instanceof WhetError) throw error;
        throw this.#passing(`cannot be reached (${this.#quote(reasonOf(error))}): check the address`, error);
      } finally {
        clearTimeout(timer);
        limit.abort(); // Drops a connection whose body was not read to its end.
      }
    });
  }

  async #post(body: string, signal: AbortSignal, line: Line): Promise<string> {
    const { apiKey, fetch: send = fetch } = this.#options;
    let url = this.url;
    for (let hops = 0; hops < 5; hops++) {
      if (!this.#options.fetch) this.#requireNet();
      const headers = new Headers({ "content-type": "application/json", "user-agent": "whet" });
      if (apiKey !== undefined) headers.set("authorization", `Bearer ${apiKey}`);
      const response = await orAborted(
        send(url, { method: "POST", headers, body, redirect: "manual", signal }),
        signal,
      );
      this.#reached = line.reached = true;
      if (response.status < 300 || response.status >= 400) return await this.#read(response, signal);
      await response.body?.cancel();
      url = this.#redirected(response, url);
    }
    throw this.#failure("redirects in a circle: check the address");
  }

  /** Where a 307 or 308 leads within the origin; others would turn the POST into a GET. */
  #redirected(response: Response, from: URL): URL {
    const to = URL.parse(response.headers.get("location") ?? "", from);
    if (to?.origin === this.url.origin && [307, 308].includes(response.status)) return to;
    const where = to ? this.#quote(to.origin + to.pathname) : "nowhere";
    throw this.#failure(`answered ${response.status}, which leads to ${where}: give the address itself`);
  }

  async #read(response: Response, signal: AbortSignal): Promise<string> {
    let text: string;
    try {
      text = await readBody(response, signal);
    } catch (error) {
      if (error instanceof Passing) throw error;
      throw this.#passing(`the line was cut (${this.#quote(reasonOf(error))}): try again`, error);
    }
    const parsed = parse(text);
    // A question that the server will not pass on (Azure): the model has nothing to say to it.
    if ((parsed as { error?: { code?: unknown } } | undefined)?.error?.code === "content_filter") return "";
    if (!response.ok) throw this.#refusal(response.status, messageOf(parsed), response.headers);
    if (parsed === undefined) {
      throw this.#passing(`answered what is not JSON (${this.#quote(text)}): check the address`);
    }
    const { error, choices } = (parsed ?? {}) as { error?: { code?: unknown } | null; choices?: unknown };
    // Some gateways hand on their upstream's error with status 200.
    if (error && !choices) throw this.#refusal(Number(error.code), messageOf(parsed), response.headers);
    const content = contentOf(Array.isArray(choices) ? choices[0]?.message : undefined);
    if (content === undefined) {
      throw this.#failure(
        `answered ${this.#quote(text)}, which has no choices[0].message: is it OpenAI-compatible?`,
      );
    }
    return content;
  }

  #refusal(status: number, message: string, headers: Headers): WhetError | Passing {
    const { apiKey } = this.#options, { model } = this;
    const said = message ? ` (${this.#quote(message)})` : "";
    if (status === 429 || status === 408 || status >= 500) {
      const seconds = retryAfter(headers);
      const wait = seconds === undefined ? undefined : seconds * 1000;
      const asked = wait !== undefined && wait > LONGEST_WAIT ? ` for ${seconds} s` : "";
      return this.#passing(`answered ${status}${asked}${said}: try later`, undefined, wait);
    }
    if (status === 401 || status === 403) {
      return this.#failure(
        `answered ${status}${said}: ${
          apiKey === undefined
            ? "it wants a key; name the variable that holds it, apiKey (--judge-key-env)"
            : "it does not accept the key; check apiKey (--judge-key-env)"
        }`,
      );
    }
    if (status === 404) {
      return this.#failure(`answered 404${said}: no ${this.url.pathname} there, or no model "${model}"`);
    }
    return this.#failure(
      `answered ${Number.isFinite(status) ? status : "with an error"}${said}: check address and model`,
    );
  }

  #failure(words: string, cause?: unknown): WhetError {
    return new WhetError("network", `${this.url.host}: ${words}`, { cause });
  }

  #passing(words: string, cause?: unknown, wait?: number): Passing {
    return new Passing(this.#failure(words, cause), wait);
  }

  /** A server's words, or fetch's, on one line: without the key and the query, which may hold one. */
  #quote(text: string): string {
    for (const secret of [this.#options.apiKey, this.url.search]) {
      if (secret) text = text.replaceAll(secret, "…");
    }
    const line = oneLine(text);
    return JSON.stringify(line.length > 120 ? `${line.slice(0, 119)}…` : line);
  }

  #requireNet(): void {
    const { hostname, port, protocol, host } = this.url;
    const place = port ? host : `${hostname}:${protocol === "https:" ? 443 : 80}`;
    if (Deno.permissions.querySync({ name: "net", host: place }).state === "granted") return;
    throw new WhetError("resource", `${host}: no permission to reach it: add --allow-net=${host}`);
  }
}

/** The address of the completions, from that of the API or the server. */
function completions(given: string | URL): URL {
  const url = URL.parse(String(given));
  if (!url || !/^https?:$/.test(url.protocol)) {
    throw new WhetError(
      "option",
      `url (--judge): expected an http(s) address such as http://localhost:8000/v1, got "${given}"`,
    );
  }
  if (url.username || url.password) {
    throw new WhetError(
      "option",
      "url (--judge): a name or password within the address is not supported; use apiKey (--judge-key-env)",
    );
  }
  const path = url.pathname.replace(/\/+$/, "");
  url.pathname = path.endsWith("/chat/completions") ? path : `${path || "/v1"}/chat/completions`;
  url.hash = "";
  return url;
}

/** A body as text, unless it is beyond all measure. */
async function readBody(response: Response, signal: AbortSignal): Promise<string> {
  const reader = response.body?.getReader();
  const decoder = new TextDecoder();
  let text = "", size = 0;
  while (reader) {
    const { done, value } = await orAborted(reader.read(), signal);
    if (done) break;
    if ((size += value.length) > REPLY_LIMIT) throw new Error(`more than ${REPLY_LIMIT} bytes`);
    text += decoder.decode(value, { stream: true });
  }
  return text + decoder.decode();
}

/** Parsed JSON, or undefined where it is none. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** What a message says: a text, its parts, or nothing (a refusal, a filter); undefined where it is no message. */
function contentOf(message: unknown): string | undefined {
  if (typeof message !== "object" || message === null) return undefined;
  const { content } = message as { content?: unknown };
  if (Array.isArray(content)) return content.map((part) => part?.text ?? "").join("");
  return typeof content === "string" ? content : "";
}

/** What an error's body says: `{"error": {"message"}}`, `{"error"}`, `{"message"}` or `{"detail"}`. */
function messageOf(body: unknown): string {
  const { error, message, detail } = (body ?? {}) as Record<string, unknown>;
  const said = [(error as { message?: unknown } | undefined)?.message, error, message, detail];
  return said.find((one): one is string => typeof one === "string") ?? "";
}

/** The innermost words of a fetch error. */
function reasonOf(error: unknown): string {
  const cause = (error as { cause?: unknown })?.cause ?? error;
  const text = cause instanceof Error ? cause.message : String(cause);
  return text.replace(/^.*client error \([^)]*\): /, "");
}
