import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import type { ByteSource } from "../src/format/repository.ts";
import {
  Safetensors,
  safetensorsContent,
  type TensorToWrite,
  writeSafetensors,
} from "../src/format/safetensors.ts";
import { LocalRepository } from "../src/format/source_local.ts";

const REFERENCE = new URL("./fixtures/safetensors/reference.safetensors", import.meta.url);

/** Bytes as a file; it counts what was asked of it. */
class Memory implements ByteSource {
  readonly name = "x.safetensors";
  asked = 0;
  largest = 0;
  closed = false;
  constructor(readonly bytes: Uint8Array<ArrayBuffer>, readonly size = bytes.length) {}
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    if (this.closed) throw new WhetError("disposed", "closed");
    assert(offset >= 0 && offset + length <= this.size, `asked for ${offset} + ${length} of ${this.size}`);
    this.asked += length;
    this.largest = Math.max(this.largest, length);
    if (offset + length > this.bytes.length) {
      return Promise.reject(new WhetError("network", "the line was cut: nothing more came"));
    }
    return Promise.resolve(this.bytes.slice(offset, offset + length));
  }
  rest() {}
  close() {
    this.closed = true;
  }
}

function fileOf(header: string | Uint8Array, data = 0, length?: bigint): Uint8Array<ArrayBuffer> {
  const json = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const bytes = new Uint8Array(8 + json.length + data);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

async function encode(
  tensors: TensorToWrite[],
  metadata?: Record<string, string>,
): Promise<Uint8Array<ArrayBuffer>> {
  const chunks = await Array.fromAsync(safetensorsContent(tensors, metadata));
  return new Uint8Array(await new Blob(chunks as Uint8Array<ArrayBuffer>[]).arrayBuffer());
}

async function refusal(bytes: Uint8Array<ArrayBuffer>): Promise<WhetError> {
  const source = new Memory(bytes);
  const error = await assertRejects(() => Safetensors.open(source), WhetError);
  assert(source.closed);
  return error;
}

async function reference(): Promise<Safetensors> {
  return await Safetensors.open(new Memory(await Deno.readFile(REFERENCE)));
}

Deno.test("what the reference implementation writes is read, 16-bit floats bit for bit", async () => {
  using file = await reference();
  assertEquals(file.metadata, { format: "pt" });
  assertEquals(file.info("z.weight").shape, [2, 3]);
  assertEquals(file.info("double").shape, []);
  assertEquals(await file.readF32("z.weight"), new Float32Array([0, 1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7]));
  assertEquals(await file.readF32("a.weight"), new Float32Array([1.5, -2.25, Infinity, NaN]));
  assertEquals(await file.readF32("empty"), new Float32Array(0));
  assertEquals(await file.readBytes("mask"), new Uint8Array([1, 0]));
  for (const type of ["half", "brain"]) {
    const values = await file.readF32(type), expected = await file.readF32(`${type}.as.f32`);
    assertEquals(values.length, Math.ceil(65536 / 37));
    // Object.is tells 0 from -0, and takes every NaN for the same.
    assert(values.every((value, i) => Object.is(value, expected[i])), type);
  }
});

Deno.test("the same tensors are written as the reference implementation writes them, byte for byte", async () => {
  using file = await reference();
  const tensors = file.names().reverse().map((name) => {
    const { dtype, shape } = file.info(name);
    return { name, dtype, shape, data: () => file.readBytes(name) };
  });
  assertEquals(await encode(tensors), await Deno.readFile(REFERENCE));
  tensors.sort((a, b) => a.name < b.name ? -1 : 1);
  assertEquals(await encode(tensors), await Deno.readFile(REFERENCE));
});

Deno.test("all 16-bit floats survive widening and narrowing", async () => {
  const all = new Uint16Array(65536).map((_, i) => i);
  for (const dtype of ["F16", "BF16"] as const) {
    const shape = [65536];
    const wide = await Safetensors.open(
      new Memory(await encode([{ name: "w", dtype, shape, data: () => new Uint8Array(all.buffer) }])),
    );
    const values = await wide.readF32("w");
    const again = await Safetensors.open(
      new Memory(await encode([{ name: "w", dtype, shape, data: () => values }])),
    );
    const bits = new Uint16Array((await again.readBytes("w")).buffer);
    for (let i = 0; i < 65536; i++) {
      if (Number.isNaN(values[i])) assert(Number.isNaN((await again.readRowsF32("w", i, 1))[0]));
      else assertEquals(bits[i], i);
    }
  }
});

Deno.test("narrowing rounds to nearest, ties to even", async () => {
  const values = Float32Array.from({ length: 20_000 }, (_, i) => Math.sin(i) * 2 ** ((i % 60) - 35));
  values.set([
    65504,
    65519.996,
    65520,
    1e9,
    -1e9,
    2 ** -25,
    2 ** -25 * 1.0001,
    1 + 2 ** -11,
    1 + 3 * 2 ** -11,
    -0,
    NaN,
  ]);
  const tensor = (dtype: "F16" | "BF16") => ({ name: "w", dtype, shape: [20_000], data: () => values });
  const half = await Safetensors.open(new Memory(await encode([tensor("F16")])));
  assertEquals(await half.readF32("w"), new Float32Array(new Float16Array(values)));
  const brain = await Safetensors.open(new Memory(await encode([tensor("BF16")])));
  const read = await brain.readF32("w");
  const spacing = (x: number) => 2 ** Math.max(Math.floor(Math.log2(Math.abs(x))) - 7, -133);
  for (let i = 0; i < values.length; i++) {
    if (!Number.isNaN(values[i])) {
      assert(Math.abs(read[i] - values[i]) <= spacing(values[i]) / 2, `${values[i]} → ${read[i]}`);
    }
  }
  assert(Number.isNaN(read[10]));
});

Deno.test("rows are read without their tensor", async () => {
  const values = Float32Array.from({ length: 7 * 3 }, (_, i) => i);
  for (const dtype of ["F32", "F16", "BF16"] as const) {
    const source = new Memory(await encode([{ name: "w", dtype, shape: [7, 3], data: () => values }]));
    const file = await Safetensors.open(source);
    const before = source.asked;
    assertEquals(await file.readRowsF32("w", 2, 4), values.slice(6, 18));
    assertEquals(source.asked - before, 12 * (dtype === "F32" ? 4 : 2));
    assertEquals(await file.readRowsF32("w", 7, 0), new Float32Array(0));
    for (const [first, rows] of [[-1, 1], [6, 2], [0.5, 1], [0, NaN]]) {
      await assertRejects(() => file.readRowsF32("w", first, rows), WhetError, "has 7 rows");
    }
  }
});

Deno.test("a large half-precision tensor is widened in pieces", async () => {
  const length = 5_000_001;
  const data = () => new Uint8Array(2 * length).fill(0x3c);
  const source = new Memory(await encode([{ name: "w", dtype: "BF16", shape: [length], data }]));
  const values = await (await Safetensors.open(source)).readF32("w");
  assert(source.largest <= 4 * 2 ** 20);
  assertEquals(values[0], values[length - 1]);
  assert(values[0] > 0);
});

Deno.test("what is not a float is refused when it is read, and only then", async () => {
  using file = await reference();
  for (const name of ["mask", "bytes", "double", "ids", "eighth"]) {
    const error = await assertRejects(() => file.readF32(name), WhetError);
    assertMatch(
      error.message,
      new RegExp(`x\\.safetensors: tensor ${name} is of type \\w+; expected F32, F16 or BF16`),
    );
  }
  assertMatch(
    (await assertRejects(() => file.readF32("none"), WhetError)).message,
    /there is no tensor none/,
  );
});

Deno.test("a header that is not true of its file is refused, with the tensor's name", async () => {
  const t = (entry: string, name = "t") => `{"${name}":${entry}}`;
  const cases: [string, number, RegExp][] = [
    [`{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 7, /truncated: tensor "t" ends at byte/],
    [`{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 9, /1 bytes at its end belong to no tensor/],
    [
      t(`{"dtype":"F32","shape":[3],"data_offsets":[0,8]}`),
      8,
      /tensor "t": shape \[3\] of F32 takes 12 bytes, its data_offsets say 8/,
    ],
    [t(`{"dtype":"F31","shape":[2],"data_offsets":[0,8]}`), 8, /dtype of tensor "t": "F31" is not known/],
    [t(`{"dtype":"toString","shape":[2],"data_offsets":[0,8]}`), 8, /"toString" is not known/],
    [t(`{"shape":[2],"data_offsets":[0,8]}`), 8, /dtype of tensor "t": nothing/],
    [
      t(`{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}`),
      8,
      /shape of tensor "t": expected whole numbers/,
    ],
    [t(`{"dtype":"F32","shape":[0.5,4],"data_offsets":[0,8]}`), 8, /shape of tensor "t"/],
    [t(`{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}`), 8, /shape of tensor "t"/],
    [t(`{"dtype":"F32","shape":{"0":2},"data_offsets":[0,8]}`), 8, /shape of tensor "t"/],
    [t(`{"dtype":"F32","shape":[1e300],"data_offsets":[0,8]}`), 8, /shape of tensor "t"/],
    [t(`{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}`), 0, /larger than any file/],
    [t(`{"dtype":"F32","shape":[94906266,94906266,0],"data_offsets":[0,0]}`), 0, /larger than any file/],
    [
      t(`{"dtype":"F32","shape":[2],"data_offsets":[8,0]}`),
      8,
      /data_offsets of tensor "t": expected \[begin, end\]/,
    ],
    [t(`{"dtype":"F32","shape":[2],"data_offsets":[0]}`), 8, /data_offsets of tensor "t"/],
    [t(`{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}`), 8, /data_offsets of tensor "t"/],
    [t(`{"dtype":"F32","shape":[2],"data_offsets":[9007199254740984,9007199254740991]}`), 8, /tensor "t"/],
    [
      t(`{"dtype":"F32","shape":[2],"data_offsets":[9007199254740983,9007199254740991]}`),
      8,
      /truncated: tensor "t"/,
    ],
    [t(`{"dtype":"F32","shape":[1],"data_offsets":[4,8]}`), 8, /tensor "t": leaves a hole before it/],
    [t(`{"dtype":"F4","shape":[3],"data_offsets":[0,1]}`), 1, /takes 1\.5 bytes/],
    [t(`[]`), 0, /tensor "t": expected an object/],
    [t(`null`), 0, /tensor "t": expected an object/],
    [
      `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`,
      12,
      /tensor "b": overlaps/,
    ],
    [
      `{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}}`,
      4,
      /header has "a" twice/,
    ],
    [
      `{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"\\u0061" :{"dtype":"I8","shape":[4],"data_offsets":[0,4]}}`,
      4,
      /header has "a" twice/,
    ],
    [t(`{"dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]}`), 4, /header has "dtype" twice/],
    [`{"__metadata__":{"a":1}}`, 0, /__metadata__: expected an object of strings/],
    [`{"__metadata__":["a"]}`, 0, /__metadata__: expected an object of strings/],
    [`{"a":`, 0, /header is not JSON/],
    [`[{}]`, 0, /does not begin with \{/],
    [``, 0, /does not begin with \{/],
    [` {}`, 0, /does not begin with \{/],
  ];
  for (const [header, data, message] of cases) {
    const error = await refusal(fileOf(header, data));
    assertEquals(error.code, "format");
    assertMatch(error.message, message, header);
    assertMatch(error.message, /^x\.safetensors: [^\n]{1,400}$/);
  }
  assertMatch((await refusal(fileOf(new Uint8Array([0x7b, 0x22, 0xff, 0x22])))).message, /not UTF-8/);
  for (const size of [0, 1, 7]) {
    assertMatch((await refusal(new Uint8Array(size))).message, /not a safetensors file/);
  }
});

Deno.test("what else is there instead of weights is told", async () => {
  const file = (text: string) => new TextEncoder().encode(text);
  assertMatch(
    (await refusal(file("version https://git-lfs.github.com/spec/v1\n"))).message,
    /Git LFS pointer .* git lfs pull/,
  );
  assertMatch(
    (await refusal(file("PK\x03\x04 and then a pickle"))).message,
    /zip archive \(such as pytorch_model\.bin/,
  );
  assertMatch((await refusal(file("<!DOCTYPE html><html>"))).message, /a web page instead/);
});

Deno.test("odd but valid headers are read", async () => {
  const open = (header: string, data: number) => Safetensors.open(new Memory(fileOf(header, data)));
  assertEquals((await open("{}", 0)).names(), []);
  assertEquals((await open("{}".padEnd(0x4b50), 0)).names(), []); // Its length reads "PK", as a zip file begins.
  assertEquals((await open(`{"__metadata__":null}   `, 0)).metadata, {});
  const tensor = `{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":{"of":["it"]}}`;
  assertEquals((await open(`{"__proto__":${tensor}}`, 4)).names(), ["__proto__"]);
  assertEquals((await open(`{"t\\"{":${tensor},"__metadata__":{"t":"\\"x\\":"}}`, 4)).names(), ['t"{']);
  const empty = `"b":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}`;
  const file = await open(
    `{${empty},"c":{"dtype":"F32","shape":[3],"data_offsets":[4,16]},"a":${tensor}}`,
    16,
  );
  assertEquals(file.names(), ["a", "b", "c"]);
});

Deno.test("a huge or lying header takes neither memory nor time", async () => {
  for (const length of [100_000_001n, 2n ** 63n, 2n ** 64n - 1n]) {
    assertMatch((await refusal(fileOf("{}", 0, length))).message, /more than 100000000/);
  }
  assertMatch(
    (await refusal(fileOf("{}", 0, 99_999_999n))).message,
    /truncated: its header has 99999999 bytes/,
  );
  // A server that promises 100 MB and sends little.
  const promise = new Memory(fileOf("{}", 3 * 2 ** 20, 99_999_999n), 200_000_000);
  await assertRejects(() => Safetensors.open(promise), WhetError, "the line was cut");
  assert(promise.largest <= 2 ** 20 && promise.asked < 6 * 2 ** 20);
  // A hundred thousand levels; two million tensors.
  const deep = `{"t":{"dtype":"F32","shape":${"[".repeat(1e5)}${"]".repeat(1e5)},"data_offsets":[0,0]}}`;
  assertMatch((await refusal(fileOf(deep))).message, /x\.safetensors: /);
  const many = `{"t":[${"0,".repeat(2e6)}0]}`;
  assertMatch((await refusal(fileOf(many))).message, /lists far more tensors than any model has/);
});

Deno.test("a hundred megabytes of padding is read within seconds", async () => {
  const padding = new Uint8Array(99_999_992).fill(0x20);
  padding.set(new TextEncoder().encode("{}"));
  assertEquals((await Safetensors.open(new Memory(fileOf(padding)))).names(), []);
});

Deno.test("writing refuses what would not be true, and leaves nothing", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const path = `${directory}/x.safetensors`;
    const tensor = (more: Partial<TensorToWrite>): TensorToWrite => ({
      name: "t",
      dtype: "F32",
      shape: [2],
      data: () => new Float32Array(2),
      ...more,
    });
    const cases: [TensorToWrite[], RegExp][] = [
      [
        [tensor({ data: () => new Float32Array(3) })],
        /tensor t: its shape \[2\] of F32 takes 8 bytes, its data have more/,
      ],
      [[tensor({ data: () => [new Float32Array(1)] })], /takes 8 bytes, its data have 4/],
      [[tensor({}), tensor({})], /tensor t: the name is taken/],
      [[tensor({ name: "__metadata__" })], /the name is taken/],
      [[tensor({ dtype: "I32" })], /tensor t: floats cannot be stored as I32/],
      [[tensor({ shape: [-2] })], /shape \[-2\] of F32 makes no sense/],
      [[tensor({ shape: [0.5, 4] })], /makes no sense/],
      [[tensor({ dtype: "F31" as "F32" })], /makes no sense/],
    ];
    for (const [tensors, message] of cases) {
      assertMatch((await assertRejects(() => writeSafetensors(path, tensors), WhetError)).message, message);
      assertEquals([...Deno.readDirSync(directory)], []);
    }
    let asked = "";
    const lazily = (name: string) =>
      tensor({ name, data: () => Promise.resolve((asked += name, new Float32Array(2))) });
    await writeSafetensors(path, ["c", "a", "b"].map(lazily));
    assertEquals(asked, "abc");
    const source = await (await LocalRepository.open(directory, {}))!.open("x.safetensors");
    using file = await Safetensors.open(source!);
    assertEquals(file.names(), ["a", "b", "c"]);
    assertEquals(file.info("a").offset % 8, 0);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

/** Numbers in [0, 1), the same in every run. */
function generator(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function randomTensors(random: () => number): (TensorToWrite & { bytes: Uint8Array })[] {
  const dtypes = { F32: 4, F16: 2, BF16: 2, U8: 1, BOOL: 1, I64: 8, F8_E4M3: 1, F64: 8 } as const;
  return Array.from({ length: Math.floor(random() * 6) }, (_, i) => {
    const dtype = Object.keys(dtypes)[Math.floor(random() * 8)] as keyof typeof dtypes;
    const shape = Array.from({ length: Math.floor(random() * 4) }, () => Math.floor(random() * 6));
    const length = shape.reduce((a, b) => a * b, dtypes[dtype]);
    const bytes = Uint8Array.from({ length }, () => random() * 256);
    const cut = Math.floor(random() * length);
    const data = () => random() < 0.5 ? bytes : [bytes.subarray(0, cut), bytes.subarray(cut)];
    return {
      name: `${String.fromCodePoint(33 + Math.floor(random() * 50_000))}.${i}`,
      dtype,
      shape,
      data,
      bytes,
    };
  });
}

Deno.test("any tensors come back as they were written", async () => {
  const random = generator(1);
  for (let round = 0; round < 200; round++) {
    const tensors = randomTensors(random);
    const metadata = { note: `${random()}`, format: "pt" };
    const file = await Safetensors.open(new Memory(await encode(tensors, metadata)));
    assertEquals(file.metadata, metadata);
    assertEquals(file.names().sort(), tensors.map(({ name }) => name).sort());
    for (const { name, dtype, shape, bytes } of tensors) {
      assertEquals([file.info(name).dtype, file.info(name).shape], [dtype, shape]);
      assertEquals(await file.readBytes(name), bytes);
    }
  }
});

Deno.test("a damaged file is read or refused, never worse", async () => {
  const random = generator(2);
  let read = 0, refused = 0;
  for (let round = 0; round < 3000; round++) {
    let bytes = await encode(randomTensors(random));
    const header = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const what = random();
    if (what < 0.7) bytes[Math.floor(random() * header)] = random() * 256;
    else if (what < 0.8) bytes = bytes.slice(0, random() * bytes.length);
    else bytes[Math.floor(random() * bytes.length)] ^= 1 << (random() * 8);
    const source = new Memory(bytes);
    try {
      const file = await Safetensors.open(source);
      for (const name of file.names()) {
        const { dtype } = file.info(name);
        if (["F32", "F16", "BF16"].includes(dtype)) await file.readF32(name);
        else await file.readBytes(name);
      }
      read++;
    } catch (error) {
      if (!(error instanceof WhetError)) throw error;
      assertMatch(error.message, /^x\.safetensors: [^\n]{1,400}$/);
      refused++;
    }
  }
  assert(read > 100 && refused > 1000, `${read} read, ${refused} refused`);
});
