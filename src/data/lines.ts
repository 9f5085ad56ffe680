/**
 * Bytes to lines: gunzips if need be, splits, decodes; in pieces, so that no file is too long.
 *
 * @module
 */

import { WhetError } from "../errors.ts";

/** A line of a file. */
export interface Line {
  /** Its number, from 1. */
  number: number;
  /** Its text, without the newline; a byte order mark at its beginning is gone. */
  text: string;
}

/** The most bytes that a line, or a file of plain text, may have: 64 MB. */
export const LINE_LIMIT = 64_000_000;

/** How a file begins that holds no text, and what to do with it. */
const FOREIGN: readonly [bytes: readonly number[], what: string][] = [
  [[0xff, 0xfe], "UTF-16 text; save it as UTF-8"],
  [[0xfe, 0xff], "UTF-16 text; save it as UTF-8"],
  [[0x50, 0x4b, 0x03, 0x04], "a zip archive; unpack it"],
  [[0x28, 0xb5, 0x2f, 0xfd], "zstd-compressed; unpack it (unzstd), or use gzip"],
  [[0x42, 0x5a, 0x68], "bzip2-compressed; unpack it (bunzip2), or use gzip"],
  [[0xfd, 0x37, 0x7a, 0x58, 0x5a], "xz-compressed; unpack it (unxz), or use gzip"],
  [[0x50, 0x41, 0x52, 0x31], "a Parquet file; export it as JSON lines"],
];
const GZIP = [0x1f, 0x8b];

/**
 * Unpacks what begins with gzip's magic bytes (RFC 1952), whatever its name, and passes on the rest.
 *
 * @param bytes A file's bytes, in pieces.
 * @param name What messages call the file.
 * @returns The content's bytes, in pieces.
 * @throws {WhetError} `format`, if the gzip is cut short or damaged, if other bytes follow it, or if the
 * file is one of another well-known format.
 */
export async function* unpack(bytes: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<Uint8Array> {
  const iterator = bytes[Symbol.asyncIterator]();
  try {
    const pieces: Uint8Array[] = [];
    for (let size = 0; size < 8; size += pieces.at(-1)!.length) {
      const { done, value } = await iterator.next();
      if (done) break;
      pieces.push(value);
    }
    const head = joined(pieces);
    const begins = (magic: readonly number[]) => magic.every((byte, i) => head[i] === byte);
    for (const [magic, what] of FOREIGN) {
      if (begins(magic)) {
        throw new WhetError("format", `${name}: this is ${what}; expected JSON lines, plain or gzip`);
      }
    }
    const whole = async function* () {
      yield head;
      yield* { [Symbol.asyncIterator]: () => iterator };
    }();
    yield* begins(GZIP) ? gunzip(whole, name) : whole;
  } finally {
    await iterator.return?.();
  }
}

/**
 * Not by DecompressionStream: that refuses a second member (Deno 2.9.6: "failed to write whole
 * buffer"), which RFC 1952 allows and `cat a.gz b.gz` makes, and cannot say how a file is damaged.
 */
async function* gunzip(bytes: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<Uint8Array> {
  const { createGunzip } = await import("node:zlib");
  const { pipeline, Readable } = await import("node:stream");
  const unpacked = createGunzip();
  // What goes wrong, here or upstream, ends `unpacked` and is thrown where it is read.
  pipeline(Readable.from(bytes, { objectMode: false }), unpacked, () => {});
  try {
    yield* unpacked as AsyncIterable<Uint8Array>;
  } catch (error) {
    const { code, message } = error as { code?: unknown; message: string };
    if (!String(code).startsWith("Z_")) throw error;
    const what = code === "Z_BUF_ERROR"
      ? "the file is cut short"
      : message === "incorrect header check"
      ? "other bytes follow the compressed data"
      : `the file is damaged (${message})`;
    throw new WhetError("format", `${name}: broken gzip: ${what}; copy or download it again`, {
      cause: error,
    });
  } finally {
    unpacked.destroy();
  }
}

/**
 * Splits a file into lines at `\n`; a `\r` stays, the newline of the last line may be missing.
 *
 * @param bytes The file's bytes, in pieces.
 * @param name What messages call the file.
 * @returns Its lines, one after the other; only the one under way is held.
 * @throws {WhetError} `format`, if a line is not UTF-8 or longer than {@linkcode LINE_LIMIT}.
 */
export async function* readLines(bytes: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<Line> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let number = 1, parts: Uint8Array[] = [], size = 0;
  const add = (part: Uint8Array) => {
    parts.push(part);
    size += part.length;
    if (size > LINE_LIMIT) throw tooLong(`${name}, line ${number}`, "is it JSON lines, one object a line?");
  };
  const line = (): Line => {
    const text = decode(decoder, joined(parts), `${name}, line ${number}`);
    parts = [];
    size = 0;
    return { number: number++, text };
  };
  for await (const piece of bytes) {
    let begin = 0;
    for (let end; (end = piece.indexOf(0x0a, begin)) >= 0; begin = end + 1) {
      add(piece.subarray(begin, end));
      yield line();
    }
    add(piece.subarray(begin));
  }
  if (size > 0) yield line();
}

/**
 * Reads a file of plain text.
 *
 * @param bytes The file's bytes, in pieces.
 * @param name What messages call the file.
 * @returns Its text.
 * @throws {WhetError} `format`, if it is not UTF-8 or longer than {@linkcode LINE_LIMIT}.
 */
export async function readText(bytes: AsyncIterable<Uint8Array>, name: string): Promise<string> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const piece of bytes) {
    parts.push(piece);
    size += piece.length;
    if (size > LINE_LIMIT) throw tooLong(name, 'split it, or make it JSON lines of {"text": "…"}');
  }
  return decode(new TextDecoder("utf-8", { fatal: true }), joined(parts), name);
}

function decode(decoder: TextDecoder, bytes: Uint8Array, where: string): string {
  try {
    return decoder.decode(bytes);
  } catch (error) {
    throw new WhetError("format", `${where}: not UTF-8 text; save the file as UTF-8`, { cause: error });
  }
}

function tooLong(where: string, hint: string): WhetError {
  return new WhetError("format", `${where}: longer than ${LINE_LIMIT / 1e6} MB; ${hint}`);
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0];
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
