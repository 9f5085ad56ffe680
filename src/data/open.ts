/**
 * Where data come from: a file, an address, or a data set of the Hugging Face Hub.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { explainFileError } from "../format/files.ts";
import type { HubOptions } from "../format/hub.ts";
import type { SourceOptions } from "../format/repository.ts";

/** A file to be read once, from its beginning. */
export interface DataFile {
  /** What messages call it: its path or address. */
  name: string;
  /** Its bytes, in pieces; it is opened by the first one and closed behind the last. */
  bytes: AsyncIterable<Uint8Array>;
}

/** What {@linkcode openData} takes beside the source. */
export type DataOptions = HubOptions & {
  /** Which part of a Hub data set whose files are not named; `"train"` by default. */
  split?: string;
};

const PIECE = 2 ** 18;
const DATA_NAME = /\.(jsonl|json|ndjson|txt)(\.gz)?$/i;
/** `owner/name`, `@revision`, `/path/within/it`. */
const HUB_PATH = /^([A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*)(?:@([\w.-]+))?(?:\/(.+))?$/;
const HUB_PAGE =
  /^https:\/\/(?:huggingface\.co|hf\.co)\/datasets\/([\w.-]+\/[\w.-]+)(?:\/(?:tree|blob|resolve|raw)\/([^/?#]+))?(?:\/([^?#]+))?\/?$/;

/**
 * Finds the files that a source names.
 *
 * @param source A path, a `file:` or `http(s):` URL, or a Hub data set with or without a path in it.
 * @param options Split, progress, abort signal, a stand-in for `fetch`.
 * @returns The files, in order; at least one.
 * @throws {WhetError} `option`, if there is no such place; `network` or `resource`, if it is out of reach.
 */
export async function openData(
  source: string | URL,
  options: DataOptions,
): Promise<DataFile[]> {
  options.signal?.throwIfAborted();
  const text = String(source);
  const page = HUB_PAGE.exec(text);
  if (page) return await openHub(page[1], page[2], page[3], options);
  // Two letters at least: `C:` is a drive.
  const url = /^[a-z][a-z0-9+.-]+:/i.test(text) && URL.canParse(text) ? new URL(text) : null;
  if (url && /^https?:$/.test(url.protocol)) return [openAddress(url, options)];
  if (url && url.protocol !== "file:") {
    throw new WhetError("option", `${text}: expected a file, an http(s) URL or a Hub data set`);
  }
  const local = await openLocal(url ?? text, options);
  if (local) return [local];
  const [, id, revision, path] = HUB_PATH.exec(text) ?? [];
  if (url || !id || (!path && DATA_NAME.test(id))) {
    throw new WhetError("option", `${text || "data"}: there is no such file; check the path`);
  }
  try {
    return await openHub(id, revision, path, options);
  } catch (error) {
    if (!(error instanceof WhetError)) throw error;
    throw new WhetError(
      error.code,
      `${text}: there is no such file here, and as a Hub data set: ${error.message}`,
      {
        cause: error,
      },
    );
  }
}

/** Files of a Hub data set, by way of the Hub's cache: the one at `path`, or a split's below it. */
async function openHub(
  id: string,
  revision: string | undefined,
  path = "",
  options: DataOptions,
): Promise<DataFile[]> {
  const { resolveHub } = await import("../format/hub.ts");
  const folder = path.replace(/\/*$/, path === "" ? "" : "/"), { split = "train", ...rest } = options;
  const inSplit = (name: string) => {
    const file = name.slice(name.lastIndexOf("/") + 1);
    return name.startsWith(folder) && DATA_NAME.test(file) && new RegExp(`^${escape(split)}[.-]`).test(file);
  };
  const files = DATA_NAME.test(path) ? [path] : inSplit;
  let directory: string;
  try {
    directory = await resolveHub(id, { ...rest, files, revision, repoType: "dataset" });
  } catch (error) {
    if (!(error instanceof WhetError && error.code === "format")) throw error;
    throw new WhetError(
      "format",
      `${error.message}: no ${folder}${split}.jsonl or the like; give a file's path behind the id, as in ` +
        "Anthropic/hh-rlhf/helpful-base/train.jsonl.gz",
      { cause: error },
    );
  }
  const names = Array.isArray(files) ? files : (await listing(directory)).filter(files).sort();
  return await Promise.all(names.map(async (name) => {
    const file = await openLocal(`${directory}/${name}`, options, `${id}/${name}`);
    if (!file) throw new WhetError("resource", `${id}/${name}: its file in the Hub cache is gone; try again`);
    return file;
  }));
}

/** All files below a directory, by their paths from it. */
async function listing(directory: string, below = ""): Promise<string[]> {
  const names: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(`${directory}/${below}`)) {
    names.push(...isDirectory ? await listing(directory, `${below}${name}/`) : [below + name]);
  }
  return names;
}

function escape(text: string): string {
  return text.replace(/[^\w]/g, "\\$&");
}

/** A file of this machine, a pipe too; null if there is nothing of that name. */
async function openLocal(
  path: string | URL,
  options: SourceOptions,
  name = String(path),
): Promise<DataFile | null> {
  let total: number;
  try {
    const info = await Deno.stat(path);
    if (info.isDirectory) {
      throw new WhetError("option", `${name}: a directory; give the file in it that holds the data`);
    }
    total = info.size;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return null;
    throw explainFileError(error, "read", name);
  }
  const { signal, onProgress } = options;
  const bytes = async function* () {
    try {
      using file = await Deno.open(path);
      for (let loaded = 0;;) {
        signal?.throwIfAborted();
        const piece = new Uint8Array(PIECE);
        const n = await file.read(piece);
        if (n === null) break;
        loaded += n;
        onProgress?.({ file: name, loaded, total: Math.max(total, loaded) });
        yield piece.subarray(0, n);
      }
    } catch (error) {
      throw signal?.aborted ? signal.reason : explainFileError(error, "read", name);
    }
  };
  return { name, bytes: bytes() };
}

/** A file on a web server, with retries, in ascending pieces of one request. */
function openAddress(url: URL, options: SourceOptions): DataFile {
  // A query may hold a signature: messages do without it.
  const name = url.origin + url.pathname;
  const bytes = async function* () {
    const { openHttp } = await import("../format/source_http.ts");
    const source = await openHttp(url, name, url.pathname.slice(url.pathname.lastIndexOf("/") + 1), options);
    if (!source) {
      throw new WhetError("network", `${name}: the server answers 404: no such file; check the address`);
    }
    try {
      for (let at = 0; at < source.size; at += PIECE) {
        yield await source.read(at, Math.min(PIECE, source.size - at));
      }
    } finally {
      source.close();
    }
  };
  return { name, bytes: bytes() };
}
