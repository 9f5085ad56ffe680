/**
 * A model's weights as Hugging Face stores them: one safetensors file, or shards with an index.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import type { StoredDType } from "./dtype.ts";
import { checkInside } from "./files.ts";
import { parseJsonObject } from "./json.ts";
import type { Repository } from "./repository.ts";
import { Safetensors } from "./safetensors.ts";

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";
const PICKLES = ["pytorch_model.bin", "pytorch_model.bin.index.json"];

/** The tensors of a model, whatever files they are in. */
export class Checkpoint implements Disposable {
  /** Tensor name to its file; files in reading order. */
  readonly #files: ReadonlyMap<string, Safetensors>;
  readonly #order: ReadonlyMap<Safetensors, number>;

  /**
   * A checkpoint over open files, which it closes when it is disposed of.
   *
   * @param files The file of each tensor.
   */
  constructor(files: ReadonlyMap<string, Safetensors>) {
    this.#files = files;
    this.#order = new Map([...new Set(files.values())].map((file, index) => [file, index]));
  }

  /** The free notes of its (first) file, such as `format: "pt"`. */
  get metadata(): Readonly<Record<string, string>> {
    const [first] = this.#order.keys();
    return first?.metadata ?? {};
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

  /** Reads a tensor as 32-bit floats; see {@linkcode Safetensors.readF32}. */
  async readF32(name: string): Promise<Float32Array<ArrayBuffer>> {
    return await this.#file(name).readF32(name);
  }

  /** Reads some rows of a tensor as 32-bit floats; see {@linkcode Safetensors.readRowsF32}. */
  async readRowsF32(name: string, firstRow: number, rows: number): Promise<Float32Array<ArrayBuffer>> {
    return await this.#file(name).readRowsF32(name, firstRow, rows);
  }

  /** Reads a tensor's bytes; see {@linkcode Safetensors.readBytes}. */
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

  #file(name: string): Safetensors {
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
 * Opens a model's weights: `model.safetensors`, else the shards of `model.safetensors.index.json`.
 *
 * @param repository Where they are.
 * @returns The open checkpoint; dispose of it when all is read.
 * @throws {WhetError} `format`, if a file is missing or not true; `unsupported`, if the weights are there
 * in PyTorch's pickle format only.
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
  const single = await repository.open(SINGLE);
  if (single) {
    const file = await Safetensors.open(single);
    return new Checkpoint(new Map(file.names().map((name) => [name, file])));
  }
  const index = await repository.text(INDEX);
  if (index !== null) return await openShards(repository, index);
  for (const file of PICKLES) {
    const pickle = await repository.open(file);
    if (!pickle) continue;
    pickle.close();
    throw new WhetError(
      "unsupported",
      `${repository.name}: its weights are in ${file} only, which is not read; convert it in Python: ` +
        "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(DIR)",
    );
  }
  throw new WhetError(
    "format",
    `${repository.name}: no ${SINGLE} (nor ${INDEX}) there; give a model's directory, and convert weights ` +
      "of another format with transformers' save_pretrained",
  );
}

async function openShards(repository: Repository, text: string): Promise<Checkpoint> {
  const where = `${repository.name}/${INDEX}`;
  const { weight_map: map, metadata } = parseJsonObject(text, where);
  if (typeof map !== "object" || map === null || Array.isArray(map) || Object.keys(map).length === 0) {
    throw new WhetError("format", `${where}: weight_map: expected an object of tensor names and files`);
  }
  const open = new Map<string, Safetensors>();
  const files = new Map<string, Safetensors>();
  try {
    for (const [name, shard] of Object.entries(map)) {
      if (typeof shard !== "string") {
        throw new WhetError("format", `${where}: weight_map: expected a file name for tensor ${name}`);
      }
      const file = open.get(shard) ?? await openShard(repository, shard, where);
      open.set(shard, file);
      if (!file.has(name)) {
        throw new WhetError("format", `${where}: it says that tensor ${name} is in ${shard}, but it is not`);
      }
      files.set(name, file);
    }
    checkTotal(metadata, files, where);
    return new Checkpoint(files);
  } catch (error) {
    for (const file of open.values()) file[Symbol.dispose]();
    throw error;
  }
}

async function openShard(repository: Repository, shard: string, where: string): Promise<Safetensors> {
  const source = await repository.open(checkInside(shard, where));
  if (!source) {
    throw new WhetError(
      "format",
      `${where}: it names ${shard}, which is not there; the download is not complete`,
    );
  }
  const file = await Safetensors.open(source);
  file.rest(); // Its turn to be read comes later.
  return file;
}

/** Shards of two different saves may agree in all names; hardly in their size too. */
function checkTotal(metadata: unknown, files: ReadonlyMap<string, Safetensors>, where: string): void {
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
