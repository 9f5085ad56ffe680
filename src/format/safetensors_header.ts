/**
 * The header of a safetensors file, believed in nothing before it is checked.
 *
 * Source: https://github.com/huggingface/safetensors, "Format", and its reference implementation.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { bitsOf, isStoredDType } from "./dtype.ts";
import { quotedValue as quote } from "./quote.ts";
import type { ByteSource } from "./repository.ts";
import type { TensorInfo } from "./tensor_file.ts";

/** A checked header. */
export interface Header {
  /** The tensors, in the order of their bytes. */
  tensors: Map<string, TensorInfo>;
  /** Free notes, such as `format: "pt"`. */
  metadata: Readonly<Record<string, string>>;
}

/** The largest header that the reference implementation reads, in bytes. */
export const HEADER_LIMIT = 100_000_000;
/**
 * The most colons, commas, braces and brackets in a header: some 200,000 tensors, hundreds of times what
 * the largest model's shard has. It bounds the memory that parsing takes to about 100 MB.
 */
const STRUCTURE_LIMIT = 2_000_000;
/** Read in pieces, so that only bytes that really come take memory. */
const PIECE = 2 ** 20;

/**
 * Reads and checks a file's header.
 *
 * @param source The file.
 * @returns What it holds.
 * @throws {WhetError} `format`, if anything in it is not true of the file.
 */
export async function readHeader(source: ByteSource): Promise<Header> {
  const fail = (why: string, cause?: unknown) => new WhetError("format", `${source.name}: ${why}`, { cause });
  if (source.size < 8) {
    throw fail(`not a safetensors file: ${source.size} bytes, fewer than a header takes; fetch it again`);
  }
  const first = await source.read(0, 8);
  const length = Number(new DataView(first.buffer).getBigUint64(0, true));
  if (length > HEADER_LIMIT) {
    throw fail(
      otherKind(first) ??
        `not a safetensors file: its header would have ${length} bytes, more than ${HEADER_LIMIT}`,
    );
  }
  if (8 + length > source.size) {
    throw fail(`truncated: its header has ${length} bytes, the file ${source.size}; fetch it again`);
  }

  const text = await readText(source, length).catch((error) => {
    throw error instanceof TypeError
      ? fail("its header is not UTF-8; the file is damaged, fetch it again", error)
      : error;
  });
  if (!text.startsWith("{")) throw fail("not a safetensors file: its header does not begin with {");
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw fail("its header is not JSON; the file is damaged, fetch it again", error);
  }
  const twice = repeatedKey(text);
  if (twice !== null) throw fail(`its header has ${quote(twice)} twice; the file is damaged`);
  return checkHeader(json as Record<string, unknown>, 8 + length, source.size, fail);
}

/** What a file that is no safetensors file may be instead. */
function otherKind(first: Uint8Array): string | null {
  const text = String.fromCharCode(...first);
  if (text.startsWith("version ")) {
    return "a Git LFS pointer instead of the weights themselves; run git lfs pull, or download the file";
  }
  if (text.startsWith("PK")) {
    return "a zip archive (such as pytorch_model.bin is), not a safetensors file; convert it with transformers' save_pretrained";
  }
  if (/^\s*<(!doc|html|\?xml)/i.test(text)) {
    return "a web page instead of a safetensors file; check where it came from";
  }
  return null;
}

async function readText(source: ByteSource, length: number): Promise<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let text = "", structure = 0;
  for (let at = 0; at < length; at += PIECE) {
    const piece = await source.read(8 + at, Math.min(PIECE, length - at));
    for (let i = 0; i < piece.length; i++) {
      const byte = piece[i], low = byte | 0x20; // Takes [ to { and ] to }.
      if (byte === 0x2c || byte === 0x3a || low === 0x7b || low === 0x7d) structure++;
    }
    if (structure > STRUCTURE_LIMIT) {
      throw new WhetError(
        "format",
        `${source.name}: its header lists far more tensors than any model has; the file is damaged`,
      );
    }
    text += decoder.decode(piece, { stream: true });
  }
  return text + decoder.decode();
}

/**
 * The first key that some object of a valid JSON text has twice, or null. `JSON.parse` keeps the last one
 * without a word; the format forbids it, since two readers could see two different tensors.
 */
function repeatedKey(json: string): string | null {
  const open: Set<string>[] = [];
  for (let i = 0; i < json.length; i++) {
    const char = json[i];
    if (char === "{") open.push(new Set());
    else if (char === "}") open.pop();
    if (char !== '"') continue;
    const begin = i;
    for (i++; json[i] !== '"'; i++) if (json[i] === "\\") i++;
    let next = i + 1;
    while (/\s/.test(json.charAt(next))) next++;
    if (json[next] !== ":") continue;
    const key = JSON.parse(json.slice(begin, i + 1)) as string;
    const keys = open[open.length - 1];
    if (keys.has(key)) return key;
    keys.add(key);
  }
  return null;
}

type Fail = (why: string) => WhetError;

function checkHeader(json: Record<string, unknown>, begin: number, size: number, fail: Fail): Header {
  const metadata = checkMetadata(json.__metadata__ ?? {}, fail);
  const tensors = Object.entries(json).filter(([name]) => name !== "__metadata__")
    .map(([name, entry]) => [name, checkTensor(name, entry, begin, fail)] as const)
    .sort(([, a], [, b]) => a.offset - b.offset || a.bytes - b.bytes);
  let end = begin;
  for (const [name, { offset, bytes }] of tensors) {
    if (offset + bytes > size) {
      throw fail(
        `truncated: tensor ${quote(name)} ends at byte ${
          offset + bytes
        }, the file has ${size}; fetch it again`,
      );
    }
    if (offset !== end) {
      const what = offset < end ? "overlaps the tensor before it" : "leaves a hole before it";
      throw fail(`data_offsets of tensor ${quote(name)}: ${what}; the file is damaged`);
    }
    end = offset + bytes;
  }
  if (end !== size) {
    throw fail(`${size - end} bytes at its end belong to no tensor; the file is damaged`);
  }
  return { tensors: new Map(tensors), metadata };
}

function checkMetadata(metadata: unknown, fail: Fail): Record<string, string> {
  const entries = isRecord(metadata) ? Object.entries(metadata) : null;
  if (!entries?.every(([, value]) => typeof value === "string")) {
    throw fail("__metadata__: expected an object of strings; the file is damaged");
  }
  return Object.fromEntries(entries) as Record<string, string>;
}

function checkTensor(name: string, entry: unknown, begin: number, fail: Fail): TensorInfo {
  const where = `tensor ${quote(name)}`;
  if (!isRecord(entry)) throw fail(`${where}: expected an object with dtype, shape and data_offsets`);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (!isStoredDType(dtype)) {
    throw fail(`dtype of ${where}: ${quote(dtype)} is not known; save it as F32, F16 or BF16`);
  }
  if (!isSizes(shape)) {
    throw fail(`shape of ${where}: expected whole numbers of at least 0, got ${quote(shape)}`);
  }
  if (!isSizes(offsets) || offsets.length !== 2 || offsets[1] < offsets[0]) {
    throw fail(`data_offsets of ${where}: expected [begin, end], got ${quote(offsets)}`);
  }
  let bits = bitsOf(dtype);
  for (const extent of shape) {
    bits *= extent;
    if (bits > Number.MAX_SAFE_INTEGER) {
      throw fail(`shape of ${where}: ${quote(shape)} is larger than any file`);
    }
  }
  const bytes = offsets[1] - offsets[0];
  if (bits !== 8 * bytes) {
    throw fail(
      `${where}: shape ${quote(shape)} of ${dtype} takes ${bits / 8} bytes, its data_offsets say ${bytes}; ` +
        "the file is damaged",
    );
  }
  return { dtype, shape, offset: begin + offsets[0], bytes };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((entry) => Number.isSafeInteger(entry) && entry >= 0);
}
