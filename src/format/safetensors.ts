/**
 * Reads and writes safetensors files, one tensor, or some rows of it, at a time.
 *
 * Source: https://github.com/huggingface/safetensors, "Format".
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import type { ByteSource } from "./repository.ts";
import { readHeader } from "./safetensors_header.ts";
import { checkFloat, checkRows, readWidened, type TensorFile, type TensorInfo } from "./tensor_file.ts";

export type { StoredDType } from "./dtype.ts";
export type { TensorInfo } from "./tensor_file.ts";
export { safetensorsContent, type TensorToWrite, writeSafetensors } from "./safetensors_write.ts";

/**
 * An open safetensors file whose header was read and found true.
 *
 * @example
 * ```ts
 * import { openRepository } from "./source.ts";
 * import { Safetensors, writeSafetensors } from "./safetensors.ts";
 *
 * const directory = await Deno.makeTempDir();
 * const data = () => new Float32Array([1, 2, 3, 4, 5, 6]);
 * await writeSafetensors(`${directory}/x.safetensors`, [{ name: "w", dtype: "BF16", shape: [2, 3], data }]);
 * const source = await (await openRepository(directory)).open("x.safetensors");
 * using file = await Safetensors.open(source!);
 * console.log(file.info("w").shape, await file.readRowsF32("w", 1, 1)); // [2, 3] [4, 5, 6]
 * await Deno.remove(directory, { recursive: true });
 * ```
 */
export class Safetensors implements TensorFile {
  private constructor(
    private readonly source: ByteSource,
    private readonly tensors: ReadonlyMap<string, TensorInfo>,
    /** The file's free notes, such as `format: "pt"`. */
    readonly metadata: Readonly<Record<string, string>>,
  ) {}

  /**
   * Reads a file's header and checks it against the file.
   *
   * @param source The file; closed with the result, and also when this fails.
   * @returns The open file.
   * @throws {WhetError} `format`, naming the file and the tensor whose entry is not true.
   */
  static async open(source: ByteSource): Promise<Safetensors> {
    try {
      const { tensors, metadata } = await readHeader(source);
      return new Safetensors(source, tensors, metadata);
    } catch (error) {
      source.close();
      throw error;
    }
  }

  /** What messages call the file. */
  get name(): string {
    return this.source.name;
  }

  /** Whether to read in another order than the file's costs. */
  get sequential(): boolean {
    return this.source.sequential ?? false;
  }

  /** The tensors' names, in the order of their bytes, which is the cheapest to read them in. */
  names(): string[] {
    return [...this.tensors.keys()];
  }

  /** Whether there is a tensor of that name. */
  has(name: string): boolean {
    return this.tensors.has(name);
  }

  /**
   * What the header says of a tensor.
   *
   * @param name Its name.
   * @returns Its element type, its shape, and where its bytes begin from the file's beginning.
   * @throws {WhetError} `format`, if there is none of that name.
   */
  info(name: string): TensorInfo {
    const info = this.tensors.get(name);
    if (!info) throw new WhetError("format", `${this.name}: there is no tensor ${name}`);
    return info;
  }

  /**
   * Reads a tensor as it is stored.
   *
   * @param name Its name.
   * @returns Its bytes, little-endian.
   * @throws {WhetError} As {@linkcode ByteSource.read}.
   */
  async readBytes(name: string): Promise<Uint8Array<ArrayBuffer>> {
    const { offset, bytes } = this.info(name);
    return await this.source.read(offset, bytes);
  }

  /**
   * Reads a tensor as 32-bit floats.
   *
   * @param name Its name; of type F32, F16 or BF16.
   * @returns Its values, row-major.
   * @throws {WhetError} `format`, if it holds something else; and as {@linkcode ByteSource.read}.
   */
  async readF32(name: string): Promise<Float32Array<ArrayBuffer>> {
    return await this.#read(name, 0, this.info(name).bytes);
  }

  /**
   * Reads some rows (stretches along the first axis) of a tensor as 32-bit floats.
   *
   * @param name Its name; of type F32, F16 or BF16, with at least one axis.
   * @param firstRow The first row.
   * @param rows How many.
   * @returns Their values, row-major.
   * @throws {WhetError} `format`, if there are no such rows or they hold something else.
   */
  async readRowsF32(name: string, firstRow: number, rows: number): Promise<Float32Array<ArrayBuffer>> {
    const { shape: [R = 0], bytes } = this.info(name);
    checkRows(this.name, name, R, firstRow, rows);
    if (rows === 0) return new Float32Array(0);
    return await this.#read(name, firstRow * (bytes / R), rows * (bytes / R));
  }

  async #read(name: string, begin: number, length: number): Promise<Float32Array<ArrayBuffer>> {
    const { dtype, offset } = this.info(name);
    checkFloat(this.name, name, dtype);
    const read = (at: number, n: number) => this.source.read(offset + begin + at, n);
    return await readWidened(this.name, name, dtype, length, read);
  }

  /** Lets go of a connection that will not be needed soon. */
  rest(): void {
    this.source.rest();
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.source.close();
  }
}
