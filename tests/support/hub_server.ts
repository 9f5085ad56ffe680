/**
 * A stand-in for the Hugging Face Hub: a Hub server and a CDN server on two ports of 127.0.0.1, with the
 * Hub's addresses, headers and redirects, and with faults to be switched on.
 *
 * @module
 */

import { createHash } from "node:crypto";

/** A repository of the stand-in. */
export interface HubRepo {
  /** Default `model`. */
  type?: "model" | "dataset";
  /** `owner/name`. */
  name: string;
  /** The commit that `main` stands for. */
  commit: string;
  /** Content by file name. */
  files: Record<string, Uint8Array>;
  /** Names of files in LFS: served by the CDN, known by their SHA-256. */
  lfs?: string[];
  /** The token without which it does not exist. */
  private?: string;
  /** The listing is open, the files are behind a licence. */
  gated?: boolean;
}

/** Something that goes wrong, `times` times, at the first requests that it fits. */
export interface HubFault {
  /** `api`: the listing; `head`: a file's description; `get`: a file asked of the Hub; `cdn`: of the CDN. */
  on: "api" | "head" | "get" | "cdn";
  /** Default 1. */
  times?: number;
  /** Answer so instead. */
  status?: number;
  /** With these headers. */
  headers?: Record<string, string>;
  /** And this body. */
  body?: string;
  /** Break the connection after so many bytes of the body. */
  cutAfter?: number;
  /** Fall silent after so many bytes of the body. */
  stallAfter?: number;
  /** Pause so many ms before the body. */
  delay?: number;
  /** Send the whole file, whatever range was asked. */
  ignoreRange?: boolean;
  /** Flip a bit in the body. */
  corrupt?: boolean;
  /** Claim another size than the file's (`X-Linked-Size` of a HEAD). */
  size?: number;
}

/** A request that the stand-in saw. */
export interface HubRequest {
  /** Which server, and what was asked of it. */
  on: HubFault["on"];
  /** The path, with its query. */
  path: string;
  /** The `Range` header. */
  range: string | null;
  /** The `Authorization` header. */
  authorization: string | null;
}

/** The SHA-256 of an LFS file: its ETag. */
export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Git's hash of a file's bytes: the ETag of all others. */
export function gitSha1(bytes: Uint8Array): string {
  return createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
}

/** The two servers. */
export class HubServer {
  /** All requests so far. */
  readonly requests: HubRequest[] = [];
  /** Faults yet to come. */
  readonly faults: Required<Pick<HubFault, "on" | "times"> & { fault: HubFault }>[] = [];
  /** Old names of renamed repositories. */
  readonly renamed: Record<string, string> = {};
  readonly #stop = new AbortController();
  readonly #hub: Deno.HttpServer<Deno.NetAddr>;
  readonly #cdn: Deno.HttpServer<Deno.NetAddr>;

  /** @param repos What it holds. */
  constructor(readonly repos: HubRepo[]) {
    const serve = (handler: (request: Request) => Response | Promise<Response>) =>
      Deno.serve({
        port: 0,
        hostname: "127.0.0.1",
        signal: this.#stop.signal,
        onListen() {},
        onError: () => new Response(null, { status: 500 }),
      }, handler);
    this.#hub = serve((request) => this.#answer(request));
    this.#cdn = serve((request) => this.#answerFile(request));
  }

  /** The Hub's address. */
  get endpoint(): string {
    return `http://127.0.0.1:${this.#hub.addr.port}`;
  }

  /** The CDN's host and port. */
  get cdnHost(): string {
    return `127.0.0.1:${this.#cdn.addr.port}`;
  }

  /** Switches a fault on. */
  fail(fault: HubFault): void {
    this.faults.push({ on: fault.on, times: fault.times ?? 1, fault });
  }

  /** The requests of a kind. */
  seen(on: HubRequest["on"]): HubRequest[] {
    return this.requests.filter((request) => request.on === on);
  }

  /** Stops both servers, cutting every line. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all([this.#hub.finished, this.#cdn.finished]);
  }

  /** Notes the request; gives the fault that it meets. */
  #meet(on: HubRequest["on"], request: Request): HubFault | undefined {
    const url = new URL(request.url);
    const [range, authorization] = [request.headers.get("range"), request.headers.get("authorization")];
    this.requests.push({ on, path: url.pathname + url.search, range, authorization });
    const met = this.faults.find((one) => one.on === on && one.times > 0);
    if (met) met.times--;
    return met?.fault;
  }

  #answer(request: Request): Response | Promise<Response> {
    const url = new URL(request.url);
    const api = /^\/api\/(model|dataset)s\/(.+)\/revision\/([^/]+)$/.exec(url.pathname);
    if (api) return this.#answerListing(request, api[1], api[2], decodeURIComponent(api[3]));
    const cached = /^\/api\/resolve-cache\/(\d+)\/(.+)$/.exec(url.pathname);
    if (cached) {
      return this.#serveBytes(request, this.repos[Number(cached[1])], decodeURIComponent(cached[2]));
    }
    const resolve = /^\/(datasets\/)?(.+)\/resolve\/([^/]+)\/(.+)$/.exec(url.pathname);
    if (resolve) {
      const [, type, name, revision, file] = resolve;
      return this.#resolve(request, type ? "dataset" : "model", name, revision, decodeURIComponent(file));
    }
    return new Response("<html>no such page</html>", { status: 404 });
  }

  #find(request: Request, type: string, name: string): HubRepo | Response {
    const url = new URL(request.url), now = this.renamed[name];
    if (now) {
      return new Response(null, {
        status: 307,
        headers: { location: url.pathname.replace(name, now) + url.search },
      });
    }
    const repo = this.repos.find((one) => (one.type ?? "model") === type && one.name === name);
    const shown = request.headers.get("authorization");
    if (shown && shown !== `Bearer ${repo?.private ?? "good"}`) {
      return refuse(401, "", "Invalid credentials in Authorization header");
    }
    if (repo && (!repo.private || shown)) return repo;
    return shown
      ? refuse(404, "RepoNotFound", "Repository not found")
      : refuse(401, "RepoNotFound", "Invalid username or password.");
  }

  #answerListing(request: Request, type: string, name: string, revision: string): Response {
    const fault = this.#meet("api", request);
    if (fault?.status) {
      return new Response(fault.body ?? "", { status: fault.status, headers: fault.headers });
    }
    const repo = this.#find(request, type, name);
    if (repo instanceof Response) return repo;
    if (revision !== "main" && revision !== repo.commit) {
      return refuse(404, "RevisionNotFound", "Invalid rev id: " + revision);
    }
    const blobs = new URL(request.url).searchParams.get("blobs") === "true";
    const siblings = Object.entries(repo.files).map(([rfilename, bytes]) => ({
      rfilename,
      ...(blobs && {
        size: bytes.length,
        blobId: gitSha1(bytes),
        ...(repo.lfs?.includes(rfilename) && {
          lfs: { sha256: sha256(bytes), size: bytes.length, pointerSize: 130 },
        }),
      }),
    }));
    return Response.json({ id: repo.name, sha: repo.commit, siblings });
  }

  #resolve(request: Request, type: string, name: string, revision: string, file: string): Response {
    const fault = this.#meet(request.method === "HEAD" ? "head" : "get", request);
    if (fault?.status) {
      return new Response(fault.body ?? null, { status: fault.status, headers: fault.headers });
    }
    const repo = this.#find(request, type, name);
    if (repo instanceof Response) return repo;
    if (repo.gated) {
      return refuse(request.headers.has("authorization") ? 403 : 401, "GatedRepo", "Access is restricted");
    }
    if (revision !== "main" && revision !== repo.commit) {
      return refuse(404, "RevisionNotFound", "Invalid rev id: " + revision);
    }
    const bytes = repo.files[file];
    if (!bytes) return refuse(404, "EntryNotFound", "Entry not found");
    const index = this.repos.indexOf(repo), path = `${index}/${encodeURIComponent(file)}`;
    const headers = { "x-repo-commit": repo.commit, etag: `"${gitSha1(bytes)}"` };
    if (!repo.lfs?.includes(file)) {
      return new Response(null, {
        status: 307,
        headers: { ...headers, location: `/api/resolve-cache/${path}?etag=x` },
      });
    }
    return new Response(null, {
      status: 302,
      headers: {
        ...headers,
        "x-linked-etag": `"${sha256(bytes)}"`,
        "x-linked-size": String(fault?.size ?? bytes.length),
        location: `http://${this.cdnHost}/${path}?X-Amz-Signature=secret`,
      },
    });
  }

  #answerFile(request: Request): Response | Promise<Response> {
    const [, index, file] = /^\/(\d+)\/(.+)$/.exec(new URL(request.url).pathname)!;
    return this.#serveBytes(request, this.repos[Number(index)], decodeURIComponent(file), "cdn");
  }

  async #serveBytes(request: Request, repo: HubRepo, file: string, on?: "cdn"): Promise<Response> {
    const fault = this.#meet(on ?? (request.method === "HEAD" ? "head" : "get"), request);
    if (fault?.status) {
      return new Response(fault.body ?? null, { status: fault.status, headers: fault.headers });
    }
    if (fault?.delay) await new Promise((done) => setTimeout(done, fault.delay));
    const whole = repo.files[file];
    const headers = new Headers({ "x-repo-commit": repo.commit, etag: `W/"${gitSha1(whole)}"` });
    const range = fault?.ignoreRange ? null : /^bytes=(\d+)-$/.exec(request.headers.get("range") ?? "");
    const from = range ? Number(range[1]) : 0;
    if (range && from >= whole.length) {
      return new Response(null, { status: 416, headers: { "content-range": `bytes */${whole.length}` } });
    }
    if (range) headers.set("content-range", `bytes ${from}-${whole.length - 1}/${whole.length}`);
    const bytes = whole.slice(from);
    if (fault?.corrupt) bytes[bytes.length - 1] ^= 1;
    headers.set("content-length", String(bytes.length));
    const body = request.method === "HEAD" ? null : bodyOf(bytes, fault);
    return new Response(body, { status: range ? 206 : 200, headers });
  }
}

function bodyOf(bytes: Uint8Array, fault?: HubFault): ReadableStream<Uint8Array> | Uint8Array<ArrayBuffer> {
  const stop = fault?.cutAfter ?? fault?.stallAfter;
  if (stop === undefined) return new Uint8Array(bytes);
  let sent = false;
  return new ReadableStream({
    async pull(controller) {
      if (!sent) {
        sent = true;
        return controller.enqueue(bytes.slice(0, stop));
      }
      if (fault?.stallAfter !== undefined) return await new Promise(() => {});
      // The bytes have to be on their way before the connection breaks.
      await new Promise((done) => setTimeout(done, 20));
      controller.error(new Error("cut"));
    },
  });
}

function refuse(status: number, code: string, message: string): Response {
  const headers = new Headers({ "x-error-message": message });
  if (code) headers.set("x-error-code", code);
  return new Response(null, { status, headers });
}
