/**
 * Writes GGUF files, version 3 (github.com/ggml-org/ggml, docs/gguf.md): what llama.cpp reads.
 *
 * @module
 */

/** A note: text, a whole number below 2³², `{ float }`, or a list of texts or of whole numbers. */
export type GgufValue = string | number | { float: number } | readonly string[] | readonly number[];

/** How a tensor's numbers are stored. */
export type GgufType = keyof typeof TYPES;

/** Their numbers in the format, and the bytes of so many elements. */
const TYPES = {
  f32: { id: 0, elements: 1, bytes: 4 },
  q8_0: { id: 8, elements: 32, bytes: 34 },
} as const;

/** A tensor to be written. */
export interface GgufTensor {
  /** Its name. */
  name: string;
  /** Its extents, outermost first; the file has them the other way round. */
  shape: readonly number[];
  /** How it is stored; of q8_0 the innermost extent is a multiple of 32. */
  type: GgufType;
  /** Gives its values, row-major, when their turn comes. */
  values(): Promise<Float32Array>;
}

const ALIGNMENT = 32;
const UINT32 = 4, INT32 = 5, FLOAT32 = 6, STRING = 8, ARRAY = 9;

/**
 * A file's bytes, made as they are asked for.
 *
 * @param notes Its metadata.
 * @param tensors Its tensors.
 */
export async function* ggufContent(
  notes: Readonly<Record<string, GgufValue>>,
  tensors: readonly GgufTensor[],
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  yield ggufHeader(notes, tensors);
  for (const tensor of tensors) {
    const values = await tensor.values();
    const bytes = tensor.type === "q8_0" ? quantize(values) : asBytes(values);
    if (bytes.length !== sizeOf(tensor)) {
      throw new Error(`${tensor.name}: ${values.length} values do not fill ${tensor.shape}`);
    }
    yield bytes;
    yield new Uint8Array(align(bytes.length) - bytes.length);
  }
}

/**
 * What comes before the tensors' data: magic, version, counts, metadata, and each tensor's name, extents, type and
 * place.
 *
 * @param notes The metadata.
 * @param tensors The tensors.
 * @returns The bytes, up to where the data begin.
 */
export function ggufHeader(
  notes: Readonly<Record<string, GgufValue>>,
  tensors: readonly Omit<GgufTensor, "values">[],
): Uint8Array<ArrayBuffer> {
  const out = new Bytes();
  out.raw(new TextEncoder().encode("GGUF")).u32(3);
  out.u64(tensors.length).u64(Object.keys(notes).length);
  for (const [key, value] of Object.entries(notes)) {
    out.text(key);
    if (typeof value === "string") out.u32(STRING).text(value);
    else if (typeof value === "number") out.u32(UINT32).u32(value);
    else if ("float" in value) out.u32(FLOAT32).f32(value.float);
    else {
      out.u32(ARRAY).u32(typeof value[0] === "string" ? STRING : INT32).u64(value.length);
      for (const element of value) typeof element === "string" ? out.text(element) : out.u32(element);
    }
  }
  let place = 0;
  for (const tensor of tensors) {
    out.text(tensor.name).u32(tensor.shape.length);
    for (const extent of tensor.shape.toReversed()) out.u64(extent);
    out.u32(TYPES[tensor.type].id).u64(place);
    place += align(sizeOf(tensor));
  }
  return out.raw(new Uint8Array(align(out.length) - out.length)).bytes();
}

/**
 * Q8_0: groups of 32 numbers, each group a half, its scale, and 32 signed bytes.
 *
 * @param values The numbers, in whole groups.
 * @returns The groups, 34 bytes each.
 */
export function quantize(values: Float32Array): Uint8Array<ArrayBuffer> {
  const { elements, bytes } = TYPES.q8_0;
  const out = new DataView(new ArrayBuffer(values.length / elements * bytes));
  for (let group = 0, at = 0; group < values.length; group += elements, at += bytes) {
    let most = 0;
    for (let i = 0; i < elements; i++) most = Math.max(most, Math.abs(values[group + i]));
    const scale = most / 127;
    out.setFloat16(at, scale, true);
    for (let i = 0; i < elements; i++) {
      out.setInt8(at + 2 + i, scale ? Math.round(values[group + i] / scale) : 0);
    }
  }
  return new Uint8Array(out.buffer);
}

function sizeOf({ shape, type }: Omit<GgufTensor, "values">): number {
  const { elements, bytes } = TYPES[type];
  return shape.reduce((product, extent) => product * extent, 1) / elements * bytes;
}

function align(length: number): number {
  return Math.ceil(length / ALIGNMENT) * ALIGNMENT;
}

function asBytes({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
}

/** Bytes in the making, little-endian. */
class Bytes {
  #view = new DataView(new ArrayBuffer(1 << 16));
  length = 0;

  raw(bytes: Uint8Array): this {
    const at = this.#grow(bytes.length);
    new Uint8Array(this.#view.buffer).set(bytes, at);
    return this;
  }

  u32(value: number): this {
    const at = this.#grow(4);
    this.#view.setUint32(at, value, true);
    return this;
  }

  u64(value: number): this {
    const at = this.#grow(8);
    this.#view.setBigUint64(at, BigInt(value), true);
    return this;
  }

  f32(value: number): this {
    const at = this.#grow(4);
    this.#view.setFloat32(at, value, true);
    return this;
  }

  text(value: string): this {
    const bytes = new TextEncoder().encode(value);
    return this.u64(bytes.length).raw(bytes);
  }

  bytes(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#view.buffer, 0, this.length).slice();
  }

  /** Makes room and gives where it begins. */
  #grow(count: number): number {
    const at = this.length;
    this.length += count;
    if (this.length > this.#view.byteLength) {
      const bytes = new Uint8Array(2 * this.length);
      bytes.set(new Uint8Array(this.#view.buffer, 0, at));
      this.#view = new DataView(bytes.buffer);
    }
    return at;
  }
}
