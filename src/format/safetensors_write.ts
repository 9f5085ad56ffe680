/**
 * Writes safetensors files, byte for byte as the reference implementation would, one tensor at a time.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { bitsOf, isFloat, isStoredDType, narrow, rankOf, type StoredDType } from "./dtype.ts";
import { writeAtomically } from "./files.ts";
import { HEADER_LIMIT } from "./safetensors_header.ts";

/** A tensor's values, or a part of them: floats, converted to the stored type, or bytes as stored. */
export type TensorData = Float32Array | Uint8Array;

/** A tensor to be written; its values are asked for when their turn comes. */
export interface TensorToWrite {
  /** Its name. */
  name: string;
  /** What an element is in the file. */
  dtype: StoredDType;
  /** Its extents, outermost first. */
  shape: readonly number[];
  /** Gives its values, row-major, at once or in pieces; called once, when the tensors before it are written. */
  data(): TensorData | Promise<TensorData> | Iterable<TensorData> | AsyncIterable<TensorData>;
}

/**
 * Writes a safetensors file: whole, or not at all.
 *
 * @param path The file.
 * @param tensors Its tensors, in any order; the file has them sorted by element type, then name.
 * @param metadata Free notes.
 * @throws {WhetError} As {@linkcode safetensorsContent} and {@linkcode writeAtomically}.
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<TensorToWrite>,
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  await writeAtomically(path, safetensorsContent(tensors, metadata));
}

/**
 * A safetensors file's bytes, made as they are asked for.
 *
 * The same tensors and notes give the same bytes, whatever their order: as in the reference
 * implementation wider element types come first, then names in code point order; the header is padded
 * with spaces to a multiple of 8.
 *
 * @param tensors Its tensors.
 * @param metadata Free notes; transformers and PEFT expect `format: "pt"`.
 * @returns The bytes in pieces, for {@linkcode writeAtomically} or {@linkcode writeDirectory}.
 * @throws {WhetError} `format`, if a name comes twice or a tensor's data do not fill its shape.
 */
export async function* safetensorsContent(
  tensors: Iterable<TensorToWrite>,
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): AsyncGenerator<Uint8Array> {
  const sorted = [...tensors].sort((a, b) => rankOf(b.dtype) - rankOf(a.dtype) || compare(a.name, b.name));
  yield encodeHeader(sorted, metadata);
  for (const tensor of sorted) {
    const expected = sizeOf(tensor);
    let written = 0;
    const data = tensor.data();
    for await (const part of isParts(data) ? data : [await data]) {
      const bytes = encode(tensor, part);
      written += bytes.length;
      if (written > expected) break;
      yield bytes;
    }
    if (written !== expected) {
      throw new WhetError(
        "format",
        `tensor ${tensor.name}: its shape [${
          tensor.shape.join(", ")
        }] of ${tensor.dtype} takes ${expected} bytes, ` +
          `its data have ${written > expected ? "more" : written}`,
      );
    }
  }
}

function isParts(
  data: ReturnType<TensorToWrite["data"]>,
): data is Iterable<TensorData> | AsyncIterable<TensorData> {
  return !ArrayBuffer.isView(data) && !(data instanceof Promise);
}

function encode({ name, dtype }: TensorToWrite, part: TensorData): Uint8Array {
  if (part instanceof Uint8Array) return part;
  if (isFloat(dtype)) return narrow(dtype, part);
  throw new WhetError("format", `tensor ${name}: floats cannot be stored as ${dtype}; give its bytes`);
}

function sizeOf({ name, dtype, shape }: TensorToWrite): number {
  const bits = isStoredDType(dtype)
    ? shape.reduce((product, extent) => product * extent, bitsOf(dtype))
    : NaN;
  if (
    !Number.isSafeInteger(bits) || bits % 8 !== 0 ||
    shape.some((extent) => !Number.isInteger(extent) || extent < 0)
  ) {
    throw new WhetError(
      "format",
      `tensor ${name}: the shape [${shape.join(", ")}] of ${dtype} makes no sense`,
    );
  }
  return bits / 8;
}

function encodeHeader(
  tensors: readonly TensorToWrite[],
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  const seen = new Set(["__metadata__"]);
  const entries: string[] = [];
  const notes = Object.keys(metadata).sort(compare).map((key) => member(key, metadata[key]));
  if (notes.length > 0) entries.push(`"__metadata__":{${notes.join()}}`);
  let begin = 0;
  for (const tensor of tensors) {
    const { name, dtype, shape } = tensor;
    if (seen.has(name)) throw new WhetError("format", `tensor ${name}: the name is taken; names must differ`);
    seen.add(name);
    const end = begin + sizeOf(tensor);
    entries.push(member(name, { dtype, shape, data_offsets: [begin, end] }));
    begin = end;
  }
  const json = new TextEncoder().encode(`{${entries.join()}}`);
  const length = Math.ceil(json.length / 8) * 8;
  if (length > HEADER_LIMIT) {
    throw new WhetError("format", `a header of ${length} bytes; the format allows ${HEADER_LIMIT}`);
  }
  const bytes = new Uint8Array(8 + length).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(json, 8);
  return bytes;
}

function member(key: string, value: unknown): string {
  return `${JSON.stringify(key)}:${JSON.stringify(value)}`;
}

/** Code point order, which is also the order of UTF-8 bytes; `<` compares UTF-16 and differs beyond U+D800. */
function compare(a: string, b: string): number {
  let i = 0;
  while (i < a.length && i < b.length && a[i] === b[i]) i++;
  if (i === a.length || i === b.length) return a.length - b.length;
  const isSurrogate = (unit: number) => unit >= 0xd800 && unit < 0xe000;
  const x = a.charCodeAt(i), y = b.charCodeAt(i);
  return isSurrogate(x) === isSurrogate(y) ? x - y : isSurrogate(x) ? 1 : -1;
}
