/**
 * Models and datasets from the Hugging Face Hub, through the cache that Python's huggingface_hub uses too.
 *
 * The download is Whet's own: `npm:@huggingface/hub` 2.17 writes the same layout, but its
 * `downloadFileToCacheDir` starts over after every cut, takes a body of any length and hash, tries once,
 * has no time-outs, no offline mode and no locks, and prints to standard output.
 *
 * Permissions: `--allow-net` for the Hub's host and its CDN's, `--allow-read` and `--allow-write` for the
 * cache (reading alone is enough offline), `--allow-env` for the variables in `hub_env.ts` that are to count.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { checkInside, ensureDirectory } from "./files.ts";
import { describeFile, isCommit, type Listing, listRepo, pick, type Wanted } from "./hub_api.ts";
import { type Kept, RepoCache, statOf } from "./hub_cache.ts";
import { downloadBlob } from "./hub_download.ts";
import { hubCacheDir, hubEndpoint, hubOffline, hubToken } from "./hub_env.ts";
import { HubError, type Line, PATIENCE, type Patience, type Subject } from "./hub_http.ts";
import type { Progress } from "./repository.ts";

export type { Patience } from "./hub_http.ts";
export type { Wanted } from "./hub_api.ts";
export type { Progress } from "./repository.ts";

/** What {@linkcode resolveHub} takes beside the id. */
export interface HubOptions {
  /**
   * The files wanted: names that must all be there, or a test of names. Without it: of a model what Whet
   * reads ({@linkcode isModelFile}), of a dataset everything.
   */
  files?: Wanted;
  /** Branch, tag or commit; default `main`. The id may carry it instead: `owner/name@revision`. */
  revision?: string;
  /** Default `model`. */
  repoType?: "model" | "dataset";
  /** Called as bytes of a file arrive, ten times a second at most and at its end. */
  onProgress?: (progress: Progress) => void;
  /** Takes lines for people: a retry, a wait, the cache used for want of a network. */
  onNote?: (note: string) => void;
  /** Ends the download with the signal's reason; what came stays, to be resumed. */
  signal?: AbortSignal;
  /** The Hub's address instead of `HF_ENDPOINT`. */
  endpoint?: string;
  /** The token instead of `HF_TOKEN` or the stored one; empty: none. */
  token?: string;
  /** The cache's directory instead of `HF_HUB_CACHE` or its defaults. */
  cacheDir?: string;
  /** Whether to do without the network, instead of `HF_HUB_OFFLINE`. */
  offline?: boolean;
  /** Stands in for the global `fetch`. */
  fetch?: typeof fetch;
  /** How long to try. */
  patience?: Partial<Patience>;
}

const SAFETENSORS = /^model(-\d+-of-\d+)?\.safetensors$/;

/**
 * Whether a model or adapter repository's file is one that Whet reads: configuration, tokenizer, weights
 * in safetensors, or else PyTorch's; not the same weights in other formats or precisions, nor anything in
 * subfolders.
 *
 * @param name The file's name.
 * @param all The names of all files of the repository, as far as they are known.
 * @returns Whether it is.
 */
export function isModelFile(name: string, all: readonly string[] = []): boolean {
  if (/^[^/]+\.(json|txt|model)$/.test(name)) return true;
  if (SAFETENSORS.test(name.replace(/^adapter_/, ""))) return true;
  return /^pytorch_model(-\d+-of-\d+)?\.bin$/.test(name) && !all.some((other) => SAFETENSORS.test(other));
}

/**
 * Brings the wanted files of a repository into the local cache, as far as they are not there yet.
 *
 * A branch or tag costs one small request even if all is there, since it may have moved; a full commit
 * hash costs none. If the Hub cannot be reached and the cache holds what is wanted, the cache is used.
 *
 * @param id `owner/name` or `name`, either with `@revision` behind it.
 * @param options Which files, from where, how.
 * @returns The directory that holds them, under their names in the repository.
 * @throws {WhetError} `option`: not an id; `network`: the Hub refused (no such repository, revision or
 * file; a licence to accept; a token missing), failed, or sent bytes that are not what it named; `resource`:
 * a permission or disk space is missing; `format`: no file of the repository is wanted.
 *
 * @example
 * ```ts ignore
 * import { resolveHub } from "./hub.ts";
 *
 * const directory = await resolveHub("openai-community/gpt2", {
 *   files: ["config.json", "model.safetensors"],
 *   onProgress: ({ file, loaded, total }) => console.error(file, loaded, total),
 * });
 * console.log(JSON.parse(await Deno.readTextFile(`${directory}/config.json`)).n_layer); // 12
 * ```
 */
export async function resolveHub(id: string, options: HubOptions = {}): Promise<string> {
  const subject = parseId(id, options);
  const wanted = options.files ?? (subject.type === "model" ? isModelFile : () => true);
  options.signal?.throwIfAborted();
  const cacheDir = hubCacheDir(options.cacheDir);
  needPermission("read", cacheDir);
  const cache = new RepoCache(cacheDir, subject);

  const commit = await cache.readRef(subject.revision);
  const kept = commit ? await cache.find(commit, wanted) : undefined;
  if (kept?.state === "whole" && isCommit(subject.revision)) return kept.directory;
  if (options.offline ?? hubOffline()) return offline(subject, kept, cacheDir);

  const line: Line = {
    endpoint: hubEndpoint(options.endpoint),
    token: hubToken(options.token),
    patience: { ...PATIENCE, ...options.patience },
    signal: options.signal,
    fetch: options.fetch,
    note: options.onNote ?? (() => {}),
  };
  const usable = kept && kept.state !== "partial";
  let listing: Listing;
  try {
    listing = await listRepo(usable ? hasty(line) : line, subject);
  } catch (error) {
    const gone = !(error instanceof WhetError) || (error instanceof HubError && error.reason === "gone");
    if (!usable || gone) throw error;
    line.note(`${error.message}; using ${subject.name} from the cache, commit ${kept.commit.slice(0, 7)}`);
    return kept.directory;
  }
  const fixed = { ...subject, revision: listing.commit };
  for (const file of pick(listing.names, wanted, subject)) {
    checkInside(file, `${subject.type} ${subject.name}`);
    if (await cache.has(listing.commit, file)) continue;
    needPermission("write", cacheDir);
    await obtain(line, cache, { ...fixed, file }, options.onProgress);
  }
  await cache.remember(subject.revision, listing.commit, listing.tree);
  return cache.snapshot(listing.commit);
}

/** Brings one file into a commit's snapshot. */
async function obtain(
  line: Line,
  cache: RepoCache,
  subject: Subject & { file: string },
  onProgress?: (progress: Progress) => void,
): Promise<void> {
  const { file, revision } = subject;
  const remote = await describeFile(line, subject);
  const blob = cache.blob(remote.etag);
  const isThere = async () => {
    const info = await statOf(blob);
    return info !== undefined && (remote.size === undefined || info.size === remote.size);
  };
  await ensureDirectory(cache.blob(".").slice(0, -2));
  await cache.locked(remote.etag, line, async () => {
    if (!await isThere()) await downloadBlob(line, remote, blob, subject, gently(file, onProgress));
    await cache.link(remote.etag, revision, file);
  });
}

/** What the cache has to give when the network is not to be used. */
function offline(subject: Subject, kept: Kept | undefined, cacheDir: string): string {
  if (kept && kept.state !== "partial") return kept.directory;
  const { type, name, revision } = subject;
  const what = kept?.missing
    ? `file "${kept.missing}" of ${name}@${revision}`
    : `${type} ${name}@${revision}`;
  throw new HubError(
    "line",
    `offline, and ${what} is not in the cache (${cacheDir}): unset HF_HUB_OFFLINE once`,
  );
}

/** The same line for when the cache will do instead: one attempt, and a short wait for it. */
function hasty(line: Line): Line {
  return {
    ...line,
    patience: { ...line.patience, retries: 0, stall: Math.min(line.patience.stall, 10_000) },
  };
}

/** Progress without its flood: 10 calls a second at most, and the last one. */
function gently(file: string, onProgress?: (progress: Progress) => void) {
  let next = 0;
  return (loaded: number, total = loaded) => {
    const now = performance.now();
    if (now < next && loaded < total) return;
    next = now + 100;
    onProgress?.({ file, loaded, total });
  };
}

function parseId(id: string, options: HubOptions): Subject {
  const [, name, revision] = /^([^@]*)(?:@(.+))?$/.exec(id.trim()) ?? [];
  const part = /^[A-Za-z0-9_]([\w.-]{0,94}[A-Za-z0-9_])?$/;
  const parts = name?.split("/") ?? [];
  if (parts.length < 1 || parts.length > 2 || !parts.every((one) => part.test(one) && !/--|\.\./.test(one))) {
    throw new WhetError(
      "option",
      `"${id}": expected a Hub id such as openai-community/gpt2, or owner/name@revision`,
    );
  }
  if (revision && options.revision && revision !== options.revision) {
    throw new WhetError("option", `"${id}" and the option revision "${options.revision}" disagree: give one`);
  }
  const chosen = revision ?? options.revision ?? "main";
  // A revision is a file's name in the cache, too.
  if (
    !/^[\w.\/+-]{1,200}$/.test(chosen) ||
    chosen.split("/").some((one) => !one || /^\.|\.\.|\.lock$/.test(one))
  ) {
    throw new WhetError("option", `"${chosen}": expected a revision: a branch, a tag or a commit hash`);
  }
  return { type: options.repoType ?? "model", name, revision: chosen };
}

/** Throws unless the permission is there; never prompts. */
function needPermission(name: "read" | "write", path: string): void {
  if (Deno.permissions.querySync({ name, path }).state === "granted") return;
  throw new WhetError(
    "resource",
    `the Hub's cache ${path}: no permission to ${name} it: add --allow-${name}=${path}`,
  );
}
