/**
 * What the Hub says: which files a revision holds, and each file's size and hash.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { HubError, type Line, oneLine, persist, refusal, type Subject } from "./hub_http.ts";

/** One file of a listing, with the field names that huggingface_hub stores (`trees/COMMIT.json`). */
export interface TreeEntry {
  /** Bytes. */
  size: number;
  /** Git's SHA-1 of the blob; of the pointer for an LFS file. */
  blob_id: string;
  /** SHA-256 of an LFS file's bytes. */
  lfs_sha256?: string;
  /** Bytes of an LFS file. */
  lfs_size?: number;
  /** Its hash in the Hub's chunk store. */
  xet_hash?: string;
}

/** The files of a commit. */
export interface Listing {
  /** The full commit hash. */
  commit: string;
  /** All file names. */
  names: string[];
  /** Their sizes and hashes; undefined if the Hub did not tell them all. */
  tree?: Record<string, TreeEntry>;
}

/** Where a file is to be had, and how to know it when it has come. */
export interface RemoteFile {
  /** The Hub's address of it, which redirects to a CDN. */
  address: string;
  /** Its name in the cache: the SHA-256 of an LFS file, git's SHA-1 of any other. */
  etag: string;
  /** Bytes, if the Hub tells. */
  size?: number;
}

/** Whether the text is a full git commit hash, as the Hub writes it. */
export function isCommit(text: unknown): text is string {
  return typeof text === "string" && /^[0-9a-f]{40}$/.test(text);
}

/**
 * Asks which commit a revision stands for, and for the files of it.
 *
 * Source: `GET /api/models/NAME/revision/REVISION?blobs=true`.
 *
 * @throws {WhetError} `network`.
 */
export async function listRepo(line: Line, subject: Subject): Promise<Listing> {
  const { type, name, revision } = subject;
  const address = `${line.endpoint}/api/${type}s/${name}/revision/${encodeURIComponent(revision)}`;
  return await persist(line, async (attempt) => {
    let answer = await attempt.send("GET", `${address}?blobs=true`);
    if ([400, 404].includes(answer.response.status) && !answer.said("x-error-code")) {
      await answer.response.body?.cancel();
      answer = await attempt.send("GET", address); // A mirror that knows the bare path only.
    }
    if (!answer.response.ok) throw refusal(line, answer, subject);
    const text = await attempt.text(answer);
    const listing = parseListing(text);
    if (listing && (!isCommit(revision) || listing.commit === revision)) return listing;
    throw new HubError(
      "line",
      `${answer.url.host}: its answer is not a Hub's listing of ${name} ("${oneLine(text).slice(0, 60)}"): ` +
        `check HF_ENDPOINT, or whether a proxy wants a login`,
    );
  });
}

function parseListing(text: string): Listing | undefined {
  interface Sibling {
    rfilename?: unknown;
    size?: unknown;
    blobId?: unknown;
    lfs?: { sha256?: unknown; size?: unknown } | null;
  }
  let info: { sha?: unknown; siblings?: Sibling[] };
  try {
    info = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isCommit(info?.sha) || !Array.isArray(info.siblings)) return undefined;
  const names: string[] = [], tree: Record<string, TreeEntry> = Object.create(null);
  let known = true;
  for (const sibling of info.siblings) {
    if (typeof sibling?.rfilename !== "string") return undefined;
    const { rfilename, size, blobId, lfs } = sibling;
    names.push(rfilename);
    if (typeof size !== "number" || typeof blobId !== "string") {
      known = false;
      continue;
    }
    tree[rfilename] = { size, blob_id: blobId };
    if (typeof lfs?.sha256 === "string" && typeof lfs.size === "number") {
      tree[rfilename].lfs_sha256 = lfs.sha256;
      tree[rfilename].lfs_size = lfs.size;
    }
  }
  return { commit: info.sha, names, tree: known ? tree : undefined };
}

/**
 * Asks for a file's size and hash.
 *
 * Source: `HEAD /NAME/resolve/COMMIT/FILE`, `X-Linked-Etag` and `X-Linked-Size` of an LFS file, `ETag`
 * and `Content-Length` of any other.
 *
 * @throws {WhetError} `network`.
 */
export async function describeFile(line: Line, subject: Subject & { file: string }): Promise<RemoteFile> {
  const { type, name, revision, file } = subject;
  const path = file.split("/").map(encodeURIComponent).join("/");
  const prefix = type === "dataset" ? "datasets/" : "";
  const address = `${line.endpoint}/${prefix}${name}/resolve/${encodeURIComponent(revision)}/${path}`;
  return await persist(line, async (attempt) => {
    const answer = await attempt.send("HEAD", address);
    const { headers, status } = answer.response;
    if (status >= 400) throw refusal(line, answer, subject);
    const tag = answer.said("x-linked-etag") ?? headers.get("etag");
    const etag = tag?.replace(/^W\//, "").replace(/^"|"$/g, "");
    // The name of a file on disk: a hash for the Hub, at the least no path for a mirror.
    if (!etag || !/^[\w-][\w.-]{0,127}$/.test(etag)) {
      throw new HubError(
        "line",
        `${answer.url.host}: names no usable hash (ETag) for ${name}/${file}: check HF_ENDPOINT`,
      );
    }
    const length = answer.said("x-linked-size") ??
      (answer.response.ok ? headers.get("content-length") : null);
    return { address, etag, size: length && /^\d{1,15}$/.test(length) ? Number(length) : undefined };
  });
}

/** The listing in huggingface_hub's form, as text. */
export function treeToJson(tree: Record<string, TreeEntry>): string {
  const files = Object.fromEntries(Object.keys(tree).sort().map((name) => [name, tree[name]]));
  return JSON.stringify({ format_version: 1, files }, null, 1);
}

/** The file names of a listing in huggingface_hub's form; undefined if it is not one. */
export function namesInTree(text: string): string[] | undefined {
  try {
    const { format_version, files } = JSON.parse(text);
    return format_version === 1 && typeof files === "object" && files ? Object.keys(files) : undefined;
  } catch {
    return undefined;
  }
}

/** Which of a commit's files the caller wants: by name, or by a test of a name among all names (if known). */
export type Wanted = string[] | ((name: string, all: readonly string[]) => boolean);

/**
 * Picks the wanted files out of a listing.
 *
 * @throws {WhetError} `network`: a file asked for by name is not there, or none is wanted.
 */
export function pick(names: string[], wanted: Wanted, { type, name, revision }: Subject): string[] {
  if (typeof wanted !== "function") {
    const all = new Set(names), missing = wanted.find((file) => !all.has(file));
    if (missing === undefined) return wanted;
    throw new HubError("gone", `${type} ${name}@${revision}: no file "${missing}": check the name`);
  }
  const picked = names.filter((file) => wanted(file, names));
  if (picked.length > 0) return picked;
  throw new WhetError(
    "format",
    `${type} ${name}@${revision}: none of its ${names.length} files is of use here`,
  );
}
