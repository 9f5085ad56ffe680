/**
 * Where data come from: a file, an address, or a data set of the Hugging Face Hub.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { explainFileError } from "../format/files.ts";
import type { SourceOptions } from "../format/repository.ts";

/** A file to be read once, from its beginning. */
export interface DataFile {
  /** What messages call it: its path or address. */
  name: string;
  /** Its bytes, in pieces; it is opened by the first one and closed behind the last. */
  bytes: AsyncIterable<Uint8Array>;
}

const PIECE = 2 ** 18;

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
  options: SourceOptions & { split?: string },
): Promise<DataFile[]> {
  options.signal?.throwIfAborted();
  const text = String(source);
  // Two letters at least: `C:` is a drive.
  const url = /^[a-z][a-z0-9+.-]+:/i.test(text) && URL.canParse(text) ? new URL(text) : null;
  if (url && /^https?:$/.test(url.protocol)) return [openAddress(url, options)];
  if (url && url.protocol !== "file:") {
    throw new WhetError("option", `${text}: expected a file, an http(s) URL or a Hub data set`);
  }
  const local = await openLocal(url ?? text, options);
  if (local) return [local];
  throw new WhetError("option", `${text}: there is no such file; check the path`);
}

/** A file of this machine, a pipe too; null if there is nothing of that name. */
async function openLocal(path: string | URL, options: SourceOptions): Promise<DataFile | null> {
  const name = path instanceof URL ? decodeURIComponent(path.pathname) : path;
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
