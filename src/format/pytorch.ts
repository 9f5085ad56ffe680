/**
 * Reads `pytorch_model.bin` and its like: what `torch.save` writes of a state dict, one tensor, or some rows of
 * it, at a time, without running anything that the file says.
 *
 * Since PyTorch 1.6 such a file is a ZIP archive of stored files: `NAME/data.pkl` (the pickle), `NAME/data/KEY`
 * (a storage's elements), `NAME/byteorder`. Before, it was a row of pickles: see `pytorch_legacy.ts`.
 *
 * Source: PyTorch, `torch/serialization.py` and `caffe2/serialize/inline_container.cc`.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { widen } from "./dtype.ts";
import { readLegacy } from "./pytorch_legacy.ts";
import {
  type Contents,
  countOf,
  itemSize,
  PICKLE_LIMIT,
  type Place,
  readState,
  type Storage,
  type TensorView,
  TensorVocabulary,
} from "./pytorch_state.ts";
import { quoted } from "./quote.ts";
import type { ByteSource } from "./repository.ts";
import { gather, isContiguous } from "./strided.ts";
import { checkFloat, checkRows, readWidened, type TensorFile, type TensorInfo } from "./tensor_file.ts";
import { checkStored, locateZip, readZip, type ZipRecord } from "./zip.ts";

/**
 * An open PyTorch file whose pickle was read and found to be tensors and nothing else.
 *
 * @example
 * ```ts ignore
 * import { PyTorchFile } from "./pytorch.ts";
 * import { openRepository } from "./source.ts";
 *
 * const source = await (await openRepository("./model")).open("pytorch_model.bin");
 * using file = await PyTorchFile.open(source!);
 * for (const name of file.names()) console.log(name, file.info(name).shape);
 * ```
 */
export class PyTorchFile implements TensorFile {
  /** It has none. */
  readonly metadata: Readonly<Record<string, string>> = {};
  readonly #source: ByteSource;
  readonly #contents: Contents;
  readonly #infos: ReadonlyMap<string, TensorInfo>;
  /** Where storages begin, as far as they were looked at. */
  readonly #begins = new Map<Storage, number>();

  private constructor(source: ByteSource, contents: Contents) {
    this.#source = source;
    this.#contents = contents;
    const infos = [...contents.tensors].map(([name, view]) => [name, infoOf(view, contents)] as const);
    this.#infos = new Map(infos.sort(([, a], [, b]) => a.offset - b.offset));
  }

  /**
   * Reads what a file holds, and checks that all of it is there.
   *
   * @param source The file; closed with the result, and also when this fails.
   * @returns The open file.
   * @throws {WhetError} `format`, naming what the pickle asks for that is not a tensor, or the tensor that is
   * not true.
   */
  static async open(source: ByteSource): Promise<PyTorchFile> {
    try {
      const first = await source.read(0, Math.min(300, source.size));
      const kind = String.fromCharCode(...first);
      if (kind.startsWith("PK\x03\x04")) return new PyTorchFile(source, await readArchive(source));
      if (kind.startsWith("\x80") || TEXT_PICKLE.test(kind)) {
        return new PyTorchFile(source, await readLegacy(source));
      }
      throw new WhetError("format", `${source.name}: ${otherKind(kind)}`);
    } catch (error) {
      source.close();
      throw error;
    }
  }

  /** What messages call the file. */
  get name(): string {
    return this.#source.name;
  }

  /** Whether to read in another order than the file's costs. */
  get sequential(): boolean {
    return this.#source.sequential ?? false;
  }

  /** The tensors' names, in the order of their bytes. */
  names(): string[] {
    return [...this.#infos.keys()];
  }

  /** Whether there is a tensor of that name. */
  has(name: string): boolean {
    return this.#infos.has(name);
  }

  /** What the file says of a tensor; see {@linkcode TensorFile.info}. */
  info(name: string): TensorInfo {
    const info = this.#infos.get(name);
    if (!info) throw new WhetError("format", `${this.name}: there is no tensor ${name}`);
    return info;
  }

  /** Reads a tensor's elements; see {@linkcode TensorFile.readBytes}. */
  async readBytes(name: string): Promise<Uint8Array<ArrayBuffer>> {
    return await this.#bytes(name, this.#view(name));
  }

  /** Reads a tensor as 32-bit floats; see {@linkcode TensorFile.readF32}. */
  async readF32(name: string): Promise<Float32Array<ArrayBuffer>> {
    return await this.#floats(name, this.#view(name));
  }

  /** Reads some rows of a tensor as 32-bit floats; see {@linkcode TensorFile.readRowsF32}. */
  async readRowsF32(name: string, firstRow: number, rows: number): Promise<Float32Array<ArrayBuffer>> {
    const { shape: [R = 0, ...rest], strides, start, ...view } = this.#view(name);
    checkRows(this.name, name, R, firstRow, rows);
    const part = { ...view, shape: [rows, ...rest], strides, start: start + firstRow * (strides[0] ?? 0) };
    return await this.#floats(name, part);
  }

  async #floats(name: string, view: TensorView): Promise<Float32Array<ArrayBuffer>> {
    const { dtype, shape, strides } = view;
    checkFloat(this.name, name, dtype);
    const count = countOf(shape);
    if (isContiguous(shape, strides)) {
      const read = (begin: number, length: number) => this.#read(view, begin, length);
      return await readWidened(this.name, name, dtype, count * itemSize(dtype), read);
    }
    const bytes = await this.#bytes(name, view);
    if (dtype === "F32") return new Float32Array(bytes.buffer);
    const values = new Float32Array(count);
    widen(dtype, bytes, values);
    return values;
  }

  async #bytes(name: string, view: TensorView): Promise<Uint8Array<ArrayBuffer>> {
    const { dtype, shape, strides } = view;
    const length = countOf(shape) * itemSize(dtype);
    if (isContiguous(shape, strides)) return await this.#read(view, 0, length);
    let out;
    try {
      out = new Uint8Array(length);
    } catch (error) {
      throw new WhetError("resource", `${this.name}: no memory for tensor ${name}`, { cause: error });
    }
    const read = (begin: number, n: number) => this.#read(view, begin, n);
    await gather({ shape, strides, itemSize: itemSize(dtype) }, read, out);
    return out;
  }

  /** Reads whole elements of a view's storage, from its first one on, little-endian. */
  async #read(view: TensorView, begin: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const { storage, dtype, start } = view;
    if (length === 0) return new Uint8Array(0);
    let base = this.#begins.get(storage);
    if (base === undefined) {
      base = await this.#contents.places.get(storage)!.begin();
      this.#begins.set(storage, base);
    }
    const bytes = await this.#source.read(base + start * itemSize(dtype) + begin, length);
    if (this.#contents.bigEndian) swap(bytes, itemSize(dtype));
    return bytes;
  }

  #view(name: string): TensorView {
    this.info(name);
    return this.#contents.tensors.get(name)!;
  }

  /** Lets go of a connection that will not be needed soon. */
  rest(): void {
    this.#source.rest();
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#source.close();
  }
}

function infoOf({ storage, dtype, shape, start }: TensorView, { places }: Contents): TensorInfo {
  const offset = places.get(storage)!.near + start * itemSize(dtype);
  return { dtype, shape, offset, bytes: countOf(shape) * itemSize(dtype) };
}

/** Reads what a ZIP archive of PyTorch's holds. */
async function readArchive(source: ByteSource): Promise<Contents> {
  const vocabulary = new TensorVocabulary(source.name);
  const records = await readZip(source);
  const roots = [...records.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (roots.length !== 1) {
    throw vocabulary.fail(
      `a zip archive with ${roots.length} files data.pkl, where torch.save writes one; is it the right file?`,
    );
  }
  const root = roots[0].slice(0, -"data.pkl".length);
  if (records.has(`${root}constants.pkl`)) {
    throw vocabulary.fail(
      "a TorchScript program, not a model's weights; in Python: torch.save(torch.jit.load(FILE).state_dict(), FILE)",
    );
  }
  const pickle = await readRecord(source, records.get(roots[0])!, PICKLE_LIMIT);
  const { tensors, end } = readState(pickle, vocabulary, source.name);
  if (end !== pickle.length) throw vocabulary.fail("bytes behind the end of its pickle; the file is damaged");

  const mark = records.get(`${root}byteorder`);
  const order = mark ? new TextDecoder().decode(await readRecord(source, mark, 16)) : "little";
  if (order !== "little" && order !== "big") {
    throw vocabulary.fail(`its byte order is ${quoted(order)}; expected little or big`);
  }
  const places = new Map<Storage, Place>();
  for (const storage of vocabulary.storages.values()) {
    const record = records.get(`${root}data/${storage.key}`);
    if (record) checkStored(source, record);
    if (record?.size !== storage.bytes) {
      throw vocabulary.fail(
        `storage ${quoted(storage.key)} should have ${storage.bytes} bytes, ` +
          `${record ? `it has ${record.size}` : "it is not there"}; the file is damaged, fetch it again`,
      );
    }
    places.set(storage, { near: record.header, begin: () => locateZip(source, record) });
  }
  return { tensors, places, bigEndian: order === "big" };
}

async function readRecord(source: ByteSource, record: ZipRecord, limit: number): Promise<Uint8Array> {
  if (record.size > limit) {
    throw new WhetError(
      "format",
      `${source.name}: ${
        quoted(record.name)
      } has ${record.size} bytes, more than the ${limit} that it can need`,
    );
  }
  return await source.read(await locateZip(source, record), record.size);
}

/** Turns each element's bytes round. */
function swap(bytes: Uint8Array, itemSize: number): void {
  if (itemSize === 1) return;
  for (let at = 0; at < bytes.length; at += itemSize) bytes.subarray(at, at + itemSize).reverse();
}

/** How a pickle of protocol 0 or 1 begins that names a class or a function. */
const TEXT_PICKLE = /^(?:c|[(\]}].*?[ci])[\w.]+\n[\w.]+\n/s;

/** What a file that is none of PyTorch's may be instead, judged by how it begins. */
function otherKind(text: string): string {
  if (text === "") return "an empty file; fetch it again";
  if (text.startsWith("version ")) {
    return "a Git LFS pointer instead of the weights themselves; run git lfs pull, or download the file";
  }
  if (/^\s*<(!doc|html|\?xml)/i.test(text)) {
    return "a web page instead of a PyTorch file; check where it came from";
  }
  if (text.slice(257, 262) === "ustar") {
    return "a tar archive, as PyTorch wrote before version 0.1.10; load and save it again with a PyTorch of 2017";
  }
  if (/^.{8}\{/s.test(text)) return "it looks like a safetensors file; name it model.safetensors";
  return "not a PyTorch file; expected a zip archive or a binary pickle, as torch.save writes";
}
