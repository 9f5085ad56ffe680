/**
 * ZIP archives whose files are stored as they are, read by range: nothing is inflated, and nothing is read but
 * the directory at the end, a file's own header when its place is asked for, and then its bytes.
 *
 * Strict, since the same archive must not mean two things to two readers: the directory ends the file, without a
 * comment; files do not overlap, have different names, and have the same name in both their headers.
 * Checksums are not compared: most reads are of parts.
 *
 * Source: PKWARE's APPNOTE.TXT 6.3, sections 4.3 (layout) and 4.5.3 (ZIP64).
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { quoted } from "./quote.ts";
import type { ByteSource } from "./repository.ts";

/** A file in an archive. */
export interface ZipRecord {
  /** Its path. */
  readonly name: string;
  /** Bytes that it takes in the archive. */
  readonly size: number;
  /** What keeps its bytes from being read as they are, if anything. */
  readonly packed: "encrypted" | "compressed" | null;
  /** Where its own header begins; its bytes follow that. */
  readonly header: number;
  /** Where the next file's header, or the directory, begins. */
  readonly limit: number;
}

/** The directory's bytes at most: a quarter of a million files with names as PyTorch gives them. */
const DIRECTORY_LIMIT = 2 ** 24;
/** A file's name's bytes at most. */
const LONGEST_NAME = 1024;

const LOCAL = 0x04034b50, LOCAL_SIZE = 30;
const ENTRY = 0x02014b50, ENTRY_SIZE = 46;
const END = 0x06054b50, END_SIZE = 22;
const LOCATOR = 0x07064b50, LOCATOR_SIZE = 20;
const END64 = 0x06064b50, END64_SIZE = 56;
/** Flags: encrypted in one of three ways. */
const ENCRYPTED = 0x2041;
/** Flag: the sizes come after the bytes, and are zero in the header before them. */
const SIZES_LATER = 0x0008;

/** So much of the end is read at once: most directories whole, for one request over HTTP. */
const TAIL = 2 ** 16;

/** Reads a stretch, as {@linkcode ByteSource.read}. */
type Read = ByteSource["read"];

/** Where the directory lies, and how many files it lists. */
interface Directory {
  count: number;
  offset: number;
  size: number;
}

/**
 * Reads an archive's directory.
 *
 * @param source The archive.
 * @returns Its files by name, in the order of their bytes.
 * @throws {WhetError} `format`, if it is no such archive, or damaged.
 */
export async function readZip(source: ByteSource): Promise<Map<string, ZipRecord>> {
  const read = await tailReader(source);
  const { count, offset, size } = await findDirectory(source, read);
  const bytes = await read(offset, size), view = viewOf(bytes);
  const entries: Omit<ZipRecord, "limit">[] = [];
  const names = new Set<string>();
  for (let at = 0; at < size;) {
    if (size - at < ENTRY_SIZE || view.getUint32(at, true) !== ENTRY) throw damaged(source, "its directory");
    const next = at + ENTRY_SIZE + view.getUint16(at + 28, true) + view.getUint16(at + 30, true) +
      view.getUint16(at + 32, true);
    if (next > size) throw damaged(source, "its directory");
    const entry = parseEntry(source, bytes.subarray(at, next));
    if (names.has(entry.name)) throw damaged(source, `${quoted(entry.name)}, which is there twice`);
    names.add(entry.name);
    entries.push(entry);
    at = next;
  }
  if (entries.length !== count) {
    throw damaged(source, `its directory, which lists ${entries.length} files and not ${count}`);
  }
  entries.sort((a, b) => a.header - b.header);
  const records = entries.map((entry, i) => ({ ...entry, limit: entries[i + 1]?.header ?? offset }));
  for (const { name, size, header, limit } of records) {
    if (header + LOCAL_SIZE + size > limit) {
      throw damaged(source, `${quoted(name)}, which overlaps what follows it`);
    }
  }
  return new Map(records.map((record) => [record.name, record]));
}

/**
 * Reads a file's own header.
 *
 * @param source The archive.
 * @param record The file.
 * @returns Where its bytes begin.
 * @throws {WhetError} `format`, if it is not stored as it is, or the header does not say what the directory does.
 */
export async function locateZip(source: ByteSource, record: ZipRecord): Promise<number> {
  const { name, size, header, limit } = record;
  checkStored(source, record);
  const encoded = new TextEncoder().encode(name);
  if (header + LOCAL_SIZE + encoded.length > limit) throw damaged(source, `the header of ${quoted(name)}`);
  const bytes = await source.read(header, LOCAL_SIZE + encoded.length), view = viewOf(bytes);
  if (view.getUint32(0, true) !== LOCAL || view.getUint16(26, true) !== encoded.length) {
    throw damaged(source, `the header of ${quoted(name)}`);
  }
  if (encoded.some((byte, i) => byte !== bytes[LOCAL_SIZE + i])) {
    throw damaged(source, `the header of ${quoted(name)}, which has another name`);
  }
  const flags = view.getUint16(6, true);
  checkStored(source, { name, packed: packing(flags, view.getUint16(8, true)) });
  const said = view.getUint32(18, true);
  const later = (flags & SIZES_LATER) !== 0 && said === 0;
  const begin = header + LOCAL_SIZE + encoded.length + view.getUint16(28, true);
  if ((said !== size && said !== 0xffffffff && !later) || begin + size > limit) {
    throw damaged(source, `the header of ${quoted(name)}, which has another size`);
  }
  return begin;
}

/** Reads on from the source what lies before its last bytes, which are read once. */
async function tailReader(source: ByteSource): Promise<Read> {
  const begin = Math.max(0, source.size - TAIL);
  const tail = await source.read(begin, source.size - begin);
  return (offset, length) =>
    offset < begin
      ? source.read(offset, length)
      : Promise.resolve(tail.slice(offset - begin, offset - begin + length));
}

/**
 * Throws unless a file's bytes are stored as they are.
 *
 * @param source The archive.
 * @param record The file.
 * @throws {WhetError} `format`.
 */
export function checkStored(source: ByteSource, { name, packed }: Pick<ZipRecord, "name" | "packed">): void {
  if (packed === null) return;
  throw new WhetError(
    "format",
    `${source.name}: ${quoted(name)} in this zip archive is ${packed}; torch.save writes no such files: ` +
      "unpack it, or fetch the original",
  );
}

async function findDirectory(source: ByteSource, read: Read): Promise<Directory> {
  const length = Math.min(source.size, END_SIZE + LOCATOR_SIZE);
  const tail = source.size - length;
  const view = viewOf(await read(tail, length));
  const end = length - END_SIZE;
  if (end < 0 || view.getUint32(end, true) !== END || view.getUint16(end + 20, true) !== 0) {
    throw new WhetError(
      "format",
      `${source.name}: a zip archive without its end: it is cut short (${source.size} bytes); fetch it again`,
    );
  }
  const short = {
    count: view.getUint16(end + 10, true),
    size: view.getUint32(end + 12, true),
    offset: view.getUint32(end + 16, true),
  };
  const parts = [view.getUint16(end + 4, true), view.getUint16(end + 6, true)];
  const has64 = end === LOCATOR_SIZE && view.getUint32(0, true) === LOCATOR;
  const directory = has64 ? await findDirectory64(source, read, view, tail) : short;
  if (has64) {
    const agree = (small: number, large: number, most: number) => small === large || small === most;
    const same = agree(short.count, directory.count, 0xffff) &&
      agree(short.size, directory.size, 0xffffffff) && agree(short.offset, directory.offset, 0xffffffff);
    if (!same) throw damaged(source, "its end, which says two things");
  }
  if (parts.some((part) => part !== 0 && !(has64 && part === 0xffff))) {
    throw new WhetError(
      "format",
      `${source.name}: one part of a zip archive in several; fetch it as one file`,
    );
  }
  if (!has64 && directory.offset + directory.size !== source.size - END_SIZE) {
    throw damaged(source, "the place of its directory");
  }
  if (directory.size > DIRECTORY_LIMIT) {
    throw damaged(source, `its directory, which has ${directory.size} bytes, more than ${DIRECTORY_LIMIT},`);
  }
  return directory;
}

/** The directory's place as the ZIP64 end says, which lies before its locator. */
async function findDirectory64(
  source: ByteSource,
  read: Read,
  locator: DataView,
  tail: number,
): Promise<Directory> {
  const place = big(locator, 8);
  // Between them may be only what the end's own size covers.
  if (locator.getUint32(4, true) !== 0 || locator.getUint32(16, true) !== 1 || place + END64_SIZE > tail) {
    throw damaged(source, "its ZIP64 end");
  }
  const view = viewOf(await read(place, END64_SIZE));
  const count = big(view, 32), size = big(view, 40), offset = big(view, 48);
  const whole = view.getUint32(0, true) === END64 && place + 12 + big(view, 4) === tail &&
    view.getUint32(16, true) === 0 && view.getUint32(20, true) === 0 && big(view, 24) === count;
  if (!whole || offset + size !== place) throw damaged(source, "its ZIP64 end");
  return { count, size, offset };
}

function parseEntry(source: ByteSource, bytes: Uint8Array<ArrayBuffer>): Omit<ZipRecord, "limit"> {
  const view = viewOf(bytes);
  const behind = ENTRY_SIZE + view.getUint16(28, true);
  const name = decodeName(source, bytes.subarray(ENTRY_SIZE, behind));
  const packed = packing(view.getUint16(8, true), view.getUint16(10, true));
  // Fields that are full go on, in this order, in the ZIP64 extra field.
  const more = extra64(bytes.subarray(behind, behind + view.getUint16(30, true)));
  let used = 0;
  const [size, stored, header] = [24, 20, 42].map((at) => {
    const value = view.getUint32(at, true);
    if (value !== 0xffffffff) return value;
    if (!more || used + 8 > more.byteLength) throw damaged(source, `the size or place of ${quoted(name)}`);
    used += 8;
    return big(more, used - 8);
  });
  if (packed === null && size !== stored) throw damaged(source, `the size of ${quoted(name)}`);
  return { name, size: stored, packed, header };
}

function decodeName(source: ByteSource, bytes: Uint8Array): string {
  try {
    if (bytes.length > LONGEST_NAME) throw new RangeError("too long");
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw damaged(source, "the name of one of its files", error);
  }
}

/** The ZIP64 extra field among the extra fields, if it is there. */
function extra64(bytes: Uint8Array<ArrayBuffer>): DataView | null {
  const view = viewOf(bytes);
  for (let at = 0; at + 4 <= bytes.length;) {
    const length = view.getUint16(at + 2, true);
    if (view.getUint16(at, true) === 1) return viewOf(bytes.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return null;
}

function packing(flags: number, method: number): ZipRecord["packed"] {
  return (flags & ENCRYPTED) !== 0 ? "encrypted" : method !== 0 ? "compressed" : null;
}

function damaged(source: ByteSource, what: string, cause?: unknown): WhetError {
  return new WhetError(
    "format",
    `${source.name}: a zip archive that is not true in ${what}; the file is damaged, fetch it again`,
    { cause },
  );
}

function viewOf(bytes: Uint8Array<ArrayBuffer>): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** 64 bits; inexact beyond 2⁵³, which no file reaches, so that no comparison with its size holds. */
function big(view: DataView, at: number): number {
  return Number(view.getBigUint64(at, true));
}
