/**
 * Pickles and ZIP archives put together by hand, true and false ones, and files that are mostly holes.
 *
 * @module
 */
import { WhetError } from "../../src/errors.ts";
import type { ByteSource } from "../../src/format/repository.ts";

/** Part of a pickle. */
export type Code = number[];

const utf8 = (text: string) => [...new TextEncoder().encode(text)];

function little(value: number | bigint, length: number): number[] {
  const bytes = [];
  for (let i = 0, rest = BigInt(value); i < length; i++, rest >>= 8n) bytes.push(Number(rest & 255n));
  return bytes;
}

/** A pickle of a value, under a protocol. */
export function pickle(value: Code, protocol = 2): Uint8Array<ArrayBuffer> {
  return new Uint8Array([0x80, protocol, ...value, 0x2e]);
}

/** Instructions that put a value on the stack. */
export const code = {
  none: [0x4e],
  true: [0x88],
  text: (text: string): Code => [0x58, ...little(utf8(text).length, 4), ...utf8(text)],
  int: (value: number | bigint): Code => {
    if (typeof value === "number" && value === (value | 0)) return [0x4a, ...little(value >>> 0, 4)];
    return [0x8a, 16, ...little(BigInt.asUintN(128, BigInt(value)), 16)];
  },
  tuple: (...items: Code[]): Code => [0x28, ...items.flat(), 0x74],
  list: (...items: Code[]): Code => [0x5d, 0x28, ...items.flat(), 0x65],
  dict: (...items: Code[]): Code => [0x7d, 0x28, ...items.flat(), 0x75],
  global: (module: string, name: string): Code => [0x63, ...utf8(`${module}\n${name}\n`)],
  call: (builder: Code, ...args: Code[]): Code => [...builder, ...code.tuple(...args), 0x52],
  build: (value: Code, state: Code): Code => [...value, ...state, 0x62],
};

/** What a tensor's pickle says; the rest is a true 2 × 3 matrix of floats. */
export interface TensorCode {
  type?: Code;
  key?: Code;
  elements?: Code;
  start?: Code;
  shape?: Code;
  strides?: Code;
  more?: Code[];
}

/** The storage of a tensor, as a persistent id. */
export function storageCode({ type, key, elements }: TensorCode = {}): Code {
  const { text, int, tuple, global } = code;
  const id = [text("storage"), type ?? global("torch", "FloatStorage"), key ?? text("0"), text("cpu")];
  return [...tuple(...id, elements ?? int(6)), 0x51];
}

/** A tensor, as `torch.save` pickles it. */
export function tensorCode(tensor: TensorCode = {}): Code {
  const { int, tuple, global, call } = code;
  return call(
    global("torch._utils", "_rebuild_tensor_v2"),
    storageCode(tensor),
    tensor.start ?? int(0),
    tensor.shape ?? tuple(int(2), int(3)),
    tensor.strides ?? tuple(int(3), int(1)),
    code.true,
    call(global("collections", "OrderedDict")),
    ...(tensor.more ?? []),
  );
}

/** A file of an archive: its bytes, or how many zeros. */
export type ZipFile = [name: string, content: Uint8Array | number];

/** An archive, and where its parts begin. */
export interface Zip {
  segments: [number, Uint8Array][];
  size: number;
  local: number[];
  central: number[];
  end: number;
}

/** A ZIP archive of stored files, as PyTorch lays it out, or as programs without ZIP64 do. */
export function zip(files: ZipFile[], { zip64 = false, padding = 5 } = {}): Zip {
  const segments: [number, Uint8Array][] = [];
  const local: number[] = [], central: number[] = [];
  let at = 0;
  const add = (...bytes: (number[] | Uint8Array)[]) => {
    for (const part of bytes) {
      segments.push([at, Uint8Array.from(part)]);
      at += part.length;
    }
  };
  for (const [name, content] of files) {
    const size = typeof content === "number" ? content : content.length;
    const sizes = zip64 ? [0, 0] : [size, size];
    local.push(at);
    add(little(0x04034b50, 4), little(0, 2), little(zip64 ? 0x0808 : 0, 2), little(0, 2), little(0, 8));
    add(little(sizes[0], 4), little(sizes[1], 4), little(utf8(name).length, 2), little(4 + padding, 2));
    add(utf8(name), [0x46, 0x42], little(padding, 2), new Array(padding).fill(0x5a));
    if (typeof content === "number") at += content;
    else add(content);
    if (zip64) add(little(0x08074b50, 4), little(0, 4), little(size, 8), little(size, 8));
  }
  const directory = at;
  for (const [i, [name, content]] of files.entries()) {
    const size = typeof content === "number" ? content : content.length;
    const full = little(0xffffffff, 4);
    const extra = zip64
      ? [...little(1, 2), ...little(24, 2), ...[size, size, local[i]].flatMap((n) => little(n, 8))]
      : [];
    central.push(at);
    add(little(0x02014b50, 4), little(0, 4), little(zip64 ? 0x0808 : 0, 2), little(0, 2), little(0, 8));
    add(zip64 ? full : little(size, 4), zip64 ? full : little(size, 4), little(utf8(name).length, 2));
    add(
      little(extra.length, 2),
      little(0, 2),
      little(0, 2),
      little(0, 6),
      zip64 ? full : little(local[i], 4),
    );
    add(utf8(name), extra);
  }
  const size = at - directory, count = files.length, end64 = at;
  if (zip64) {
    add(
      little(0x06064b50, 4),
      little(44, 8),
      little(0x2d031e, 4),
      little(0, 8),
      little(count, 8),
      little(count, 8),
    );
    add(little(size, 8), little(directory, 8));
    add(little(0x07064b50, 4), little(0, 4), little(end64, 8), little(1, 4));
  }
  const end = at;
  add(little(0x06054b50, 4), little(0, 4), little(count, 2), little(count, 2), little(size, 4));
  add(little(zip64 ? 0xffffffff : directory, 4), little(0, 2));
  return { segments, size: at, local, central, end };
}

/** The bytes of an archive. */
export function bytesOf({ segments, size }: Zip): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(size);
  for (const [at, part] of segments) bytes.set(part, at);
  return bytes;
}

/** What `torch.save` writes of a pickle and storages `data/0`, `data/1`…. */
export function archive(
  pickle: Uint8Array,
  storages: (Uint8Array | number)[] = [new Uint8Array(24)],
  options?: { zip64?: boolean; padding?: number },
): Zip {
  const files = storages.map((content, i): ZipFile => [`x/data/${i}`, content]);
  return zip([["x/data.pkl", pickle], ["x/byteorder", new Uint8Array(utf8("little"))], ...files], options);
}

/** A file in memory, or of holes; counts what is read of it. */
export class Memory implements ByteSource {
  readonly name = "x.bin";
  readonly size: number;
  /** Bytes read. */
  asked = 0;
  /** The longest read. */
  largest = 0;
  closed = false;
  readonly #segments: [number, Uint8Array][];

  constructor(content: Uint8Array | Zip) {
    this.size = content instanceof Uint8Array ? content.length : content.size;
    this.#segments = content instanceof Uint8Array ? [[0, content]] : content.segments;
  }

  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.size)) {
      return Promise.reject(new WhetError("format", `${this.name}: bytes beyond its end`));
    }
    this.asked += length;
    this.largest = Math.max(this.largest, length);
    const bytes = new Uint8Array(length);
    for (const [at, part] of this.#segments) {
      const from = Math.max(at, offset), to = Math.min(at + part.length, offset + length);
      if (from < to) bytes.set(part.subarray(from - at, to - at), from - offset);
    }
    return Promise.resolve(bytes);
  }

  rest() {}

  close() {
    this.closed = true;
  }
}
