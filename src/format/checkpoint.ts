/**
 * A model's weights as Hugging Face stores them: one file, or shards with an index; in safetensors, or as
 * PyTorch pickles them.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import type { StoredDType } from "./dtype.ts";
import { checkInside } from "./files.ts";
import { parseJsonObject } from "./json.ts";
import { PyTorchFile } from "./pytorch.ts";
import type { ByteSource, Repository } from "./repository.ts";
import { Safetensors } from "./safetensors.ts";
import type { TensorFile } from "./tensor_file.ts";

/** How weights may be stored. */
interface Format {
  /** The file that holds all of them. */
  readonly single: string;
  /** The file that says which shard holds which. */
  readonly index: string;
  /** Opens a file of them. */
  readonly open: (source: ByteSource) => Promise<TensorFile>;
  /** Whether the index's `total_size` is the sum of its tensors' bytes. */
  readonly exactTotal: boolean;
}

/** The formats, the one before the other where both are there. */
const FORMATS: readonly Format[] = [
  {
    single: "model.safetensors",
    index: "model.safetensors.index.json",
    open: (source) => Safetensors.open(source),
    exactTotal: true,
  },
  {
    single: "pytorch_model.bin",
    index: "pytorch_model.bin.index.json",
    open: (source) => PyTorchFile.open(source),
    // transformers counted tensors of one storage once or twice, and booleans as a bit, as its version was.
    exactTotal: false,
  },
];

/** The tensors of a model, whatever files they are in. */
export class Checkpoint implements Disposable {
  /** Tensor name to its file; files in reading order. */
  readonly #files: ReadonlyMap<string, TensorFile>;
  readonly #order: ReadonlyMap<TensorFile, number>;

  /**
   * A checkpoint over open files, which it closes when it is disposed of.
   *
   * @param files The file of each tensor.
   */
  constructor(files: ReadonlyMap<string, TensorFile>) {
    this.#files = files;
    this.#order = new Map([...new Set(files.values())].map((file, index) => [file, index]));
  }

  /** The free notes of its (first) file, such as `format: "pt"`. */
  get metadata(): Readonly<Record<string, string>> {
    const [first] = this.#order.keys();
    return first?.metadata ?? {};
  }

  /** Whether to read in another order than the files' costs. */
  get sequential(): boolean {
    return [...this.#order.keys()].some(({ sequential }) => sequential);
  }

  /** Each file's free notes, with what messages call it. */
  notes(): { file: string; metadata: Readonly<Record<string, string>> }[] {
    return [...this.#order.keys()].map(({ name, metadata }) => ({ file: name, metadata }));
  }

  /** The tensors' names, as they are stored. */
  names(): string[] {
    return [...this.#files.keys()];
  }

  /** Whether there is a tensor of that name. */
  has(name: string): boolean {
    return this.#files.has(name);
  }

  /**
   * A tensor's extents, outermost first.
   *
   * @param name Its name.
   * @throws {WhetError} `format`, if there is none of that name; so do all that take a name.
   */
  shape(name: string): readonly number[] {
    return this.#file(name).info(name).shape;
  }

  /** A tensor's element type. */
  dtype(name: string): StoredDType {
    return this.#file(name).info(name).dtype;
  }

  /** Reads a tensor as 32-bit floats; see {@linkcode TensorFile.readF32}. */
  async readF32(name: string): Promise<Float32Array<ArrayBuffer>> {
    return await this.#file(name).readF32(name);
  }

  /** Reads some rows of a tensor as 32-bit floats; see {@linkcode TensorFile.readRowsF32}. */
  async readRowsF32(name: string, firstRow: number, rows: number): Promise<Float32Array<ArrayBuffer>> {
    return await this.#file(name).readRowsF32(name, firstRow, rows);
  }

  /** Reads a tensor's bytes; see {@linkcode TensorFile.readBytes}. */
  async readBytes(name: string): Promise<Uint8Array<ArrayBuffer>> {
    return await this.#file(name).readBytes(name);
  }

  /**
   * Sorts names into the order in which reading is cheapest: over HTTP, one pass through each file.
   *
   * @param names Some of the tensors' names.
   * @returns The same names.
   */
  inFileOrder(names: Iterable<string>): string[] {
    const place = (name: string) => {
      const file = this.#file(name);
      return [this.#order.get(file)!, file.info(name).offset];
    };
    const placed = [...names].map((name) => [name, ...place(name)] as [string, number, number]);
    return placed.sort(([, f, a], [, g, b]) => f - g || a - b).map(([name]) => name);
  }

  #file(name: string): TensorFile {
    const file = this.#files.get(name);
    if (!file) throw new WhetError("format", `the checkpoint has no tensor ${name}`);
    return file;
  }

  /** Closes its files. */
  [Symbol.dispose](): void {
    for (const file of this.#order.keys()) file[Symbol.dispose]();
  }
}

/**
 * Opens a model's weights: `model.safetensors`, else the shards of `model.safetensors.index.json`, else
 * `pytorch_model.bin`, else the shards of `pytorch_model.bin.index.json`.
 *
 * @param repository Where they are.
 * @returns The open checkpoint; dispose of it when all is read.
 * @throws {WhetError} `format`, if a file is missing or not true, or is a pickle that asks for more than tensors.
 *
 * @example
 * ```ts
 * import { openCheckpoint } from "./checkpoint.ts";
 * import { writeSafetensors } from "./safetensors.ts";
 * import { openRepository } from "./source.ts";
 *
 * const directory = await Deno.makeTempDir();
 * const data = () => new Float32Array(6);
 * await writeSafetensors(`${directory}/model.safetensors`, [{ name: "w", dtype: "F32", shape: [2, 3], data }]);
 * using checkpoint = await openCheckpoint(await openRepository(directory));
 * console.log(checkpoint.names(), checkpoint.shape("w")); // ["w"] [2, 3]
 * await Deno.remove(directory, { recursive: true });
 * ```
 */
export async function openCheckpoint(repository: Repository): Promise<Checkpoint> {
  for (const format of FORMATS) {
    const single = await repository.open(format.single);
    if (single) {
      const file = await format.open(single);
      return new Checkpoint(new Map(file.names().map((name) => [name, file])));
    }
    const index = await repository.text(format.index);
    if (index !== null) return await openShards(repository, format, index);
  }
  throw new WhetError(
    "format",
    `${repository.name}: no ${FORMATS.map(({ single }) => single).join(" or ")} (nor shards with an index) ` +
      "there; give a model's directory, and convert weights of another format with transformers' save_pretrained",
  );
}

async function openShards(repository: Repository, format: Format, text: string): Promise<Checkpoint> {
  const where = `${repository.name}/${format.index}`;
  const { weight_map: map, metadata } = parseJsonObject(text, where);
  if (typeof map !== "object" || map === null || Array.isArray(map) || Object.keys(map).length === 0) {
    throw new WhetError("format", `${where}: weight_map: expected an object of tensor names and files`);
  }
  const open = new Map<string, TensorFile>();
  const files = new Map<string, TensorFile>();
  try {
    for (const [name, shard] of Object.entries(map)) {
      if (typeof shard !== "string") {
        throw new WhetError("format", `${where}: weight_map: expected a file name for tensor ${name}`);
      }
      const file = open.get(shard) ?? await openShard(repository, format, shard, where);
      open.set(shard, file);
      if (!file.has(name)) {
        throw new WhetError("format", `${where}: it says that tensor ${name} is in ${shard}, but it is not`);
      }
      files.set(name, file);
    }
    if (format.exactTotal) checkTotal(metadata, files, where);
    return new Checkpoint(files);
  } catch (error) {
    for (const file of open.values()) file[Symbol.dispose]();
    throw error;
  }
}

async function openShard(
  repository: Repository,
  format: Format,
  shard: string,
  where: string,
): Promise<TensorFile> {
  const source = await repository.open(checkInside(shard, where));
  if (!source) {
    throw new WhetError(
      "format",
      `${where}: it names ${shard}, which is not there; the download is not complete`,
    );
  }
  const file = await format.open(source);
  file.rest(); // Its turn to be read comes later.
  return file;
}

/** Shards of two different saves may agree in all names; hardly in their size too. */
function checkTotal(metadata: unknown, files: ReadonlyMap<string, TensorFile>, where: string): void {
  const total = (metadata as { total_size?: unknown } | null | undefined)?.total_size;
  if (total === undefined) return;
  let sum = 0;
  for (const [name, file] of files) sum += file.info(name).bytes;
  if (total === sum) return;
  throw new WhetError(
    "format",
    `${where}: metadata.total_size is ${
      JSON.stringify(total)
    }, the tensors have ${sum} bytes; the shards do not ` +
      "belong together, fetch them again (or delete that field)",
  );
}
