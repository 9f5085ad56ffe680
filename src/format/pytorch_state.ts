/**
 * What `torch.save(model.state_dict(), file)` pickles: which tensors there are, and how each lies in its
 * storage. The values are elsewhere in the file.
 *
 * Source: PyTorch, `torch/_utils.py` (`_rebuild_tensor_v2` and its like) and `torch/serialization.py`.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { bitsOf, type StoredDType } from "./dtype.ts";
import { Builder, isTuple, unpickle, type Vocabulary } from "./pickle.ts";
import { quoted } from "./quote.ts";

/** A stretch of elements that tensors are views of. */
export interface Storage {
  /** Its name in the file. */
  readonly key: string;
  /** What an element is. */
  readonly dtype: StoredDType;
  /** How many bytes it has. */
  readonly bytes: number;
}

/** A tensor as a view of a storage: element (i, j, …) is number start + i · strides[0] + j · strides[1] + …. */
export interface TensorView {
  /** Where its elements are. */
  readonly storage: Storage;
  /** What an element is. */
  readonly dtype: StoredDType;
  /** Its extents, outermost first. */
  readonly shape: readonly number[];
  /** Elements between neighbours along each axis. */
  readonly strides: readonly number[];
  /** The first element's number in the storage. */
  readonly start: number;
}

/** Where a storage's elements are. */
export interface Place {
  /** About where: a little before them. */
  readonly near: number;
  /** Looks where exactly, which takes a read right before them. */
  readonly begin: () => Promise<number>;
}

/** What a file holds, whichever of the two formats it has. */
export interface Contents {
  /** Its tensors by name. */
  readonly tensors: ReadonlyMap<string, TensorView>;
  /** Where their storages are. */
  readonly places: ReadonlyMap<Storage, Place>;
  /** Whether a big-endian machine wrote it. */
  readonly bigEndian: boolean;
}

/** A pickle's bytes at most: hundreds of times what the largest model's takes. */
export const PICKLE_LIMIT = 2 ** 25;
/** Axes of a tensor at most, as in PyTorch. */
const AXES = 64;
/** Characters of a tensor's name at most. */
const LONGEST_NAME = 500;

class StorageType {
  constructor(readonly dtype: StoredDType) {}
}

class ElementType {
  constructor(readonly dtype: StoredDType) {}
}

/** What the pickle says of a tensor, to be checked when its name is known. */
class Claim {
  constructor(
    readonly storage: Storage,
    readonly dtype: StoredDType,
    readonly start: unknown,
    readonly shape: unknown,
    readonly strides: unknown,
  ) {}
}

const STORAGES: Readonly<Record<string, StoredDType>> = {
  FloatStorage: "F32",
  HalfStorage: "F16",
  BFloat16Storage: "BF16",
  DoubleStorage: "F64",
  LongStorage: "I64",
  IntStorage: "I32",
  ShortStorage: "I16",
  CharStorage: "I8",
  ByteStorage: "U8",
  BoolStorage: "BOOL",
  UntypedStorage: "U8",
};

const DTYPES: Readonly<Record<string, StoredDType>> = {
  float32: "F32",
  float16: "F16",
  bfloat16: "BF16",
  float64: "F64",
  int64: "I64",
  int32: "I32",
  int16: "I16",
  int8: "I8",
  uint8: "U8",
  uint16: "U16",
  uint32: "U32",
  uint64: "U64",
  bool: "BOOL",
  float8_e4m3fn: "F8_E4M3",
  float8_e5m2: "F8_E5M2",
  float8_e4m3fnuz: "F8_E4M3FNUZ",
  float8_e5m2fnuz: "F8_E5M2FNUZ",
  float8_e8m0fnu: "F8_E8M0",
};

/** Python's own modules that reach outside of the program; a model that names one is an attack. */
const DANGEROUS = new Set(
  ("__builtin__ builtins os posix nt subprocess sys shutil socket pty runpy importlib imp ctypes code codeop " +
    "commands webbrowser operator pickle _pickle cPickle marshal multiprocessing pip timeit pdb").split(" "),
);

/** The names that a pickle of tensors may use, for one file. */
export class TensorVocabulary implements Vocabulary {
  readonly #names = new Map<string, unknown>();
  readonly #storages = new Map<string, Storage>();

  /**
   * A vocabulary that knows no storage yet.
   *
   * @param where What messages call the file.
   */
  constructor(private readonly where: string) {
    const add = (name: string, build: (args: readonly unknown[]) => unknown) =>
      this.#names.set(name, new Builder(name, build));
    add("collections.OrderedDict", (args) => {
      if (args.length > 0) throw this.fail("an OrderedDict made of other data, which is not read");
      return new Map();
    });
    add("torch.Size", ([sizes]) => sizes);
    add("torch._utils._rebuild_tensor_v2", (args) => this.#rebuild(args.slice(0, 6), args.slice(6)));
    add("torch._utils._rebuild_tensor_v3", (args) => this.#rebuild(args.slice(0, 7), args.slice(7)));
    add("torch._utils._rebuild_parameter", ([tensor]) => tensor);
    for (const [name, dtype] of Object.entries(STORAGES)) {
      this.#names.set(`torch.${name}`, new StorageType(dtype));
    }
    this.#names.set("torch.storage.UntypedStorage", new StorageType(STORAGES.UntypedStorage));
    for (const [name, dtype] of Object.entries(DTYPES)) {
      this.#names.set(`torch.${name}`, new ElementType(dtype));
    }
  }

  /** What `module.name` stands for; see {@linkcode Vocabulary.global}. */
  global(module: string, name: string): unknown {
    const full = `${module}.${name}`;
    if (this.#names.has(full)) return this.#names.get(full);
    const [top] = full.split(".");
    const it = quoted(full).slice(1, -1);
    if (DANGEROUS.has(top)) {
      throw this.fail(
        `its pickle asks for ${it}, which Python would run on loading it. Nothing was run. No model needs it: ` +
          "do not open this file elsewhere, and get the model, as safetensors, from someone you trust",
      );
    }
    const what = top === "torch" ? "is no plain tensor" : "Python would import, and which is no tensor";
    throw this.fail(
      `its pickle asks for ${it}, which ${what}; nothing was run. Save plain tensors, in Python, if you trust the ` +
        "file: torch.save(model.state_dict(), FILE), or save_pretrained",
    );
  }

  /**
   * The storage that a persistent id describes.
   *
   * @param id `("storage", type, key, location, elements)`; the format before PyTorch 1.6 adds a view, or None.
   */
  persistent(id: unknown): Storage {
    if (!isTuple(id) || id.length < 5 || id.length > 6 || id[0] !== "storage") {
      throw this.fail("its pickle refers to something else than a storage; is it a model's weights?");
    }
    const [, type, key, , elements, view = null] = id;
    if (!(type instanceof StorageType) || typeof key !== "string" || !isSize(elements) || view !== null) {
      throw this.fail("a storage is not described as PyTorch does; save it again with PyTorch 1.6 or later");
    }
    const storage = { key, dtype: type.dtype, bytes: elements * itemSize(type.dtype) };
    const known = this.#storages.get(key);
    if (known && (known.bytes !== storage.bytes || known.dtype !== storage.dtype)) {
      throw this.fail(`storage ${quoted(key)} is described in two ways; the file is damaged`);
    }
    if (!known) this.#storages.set(key, storage);
    return known ?? storage;
  }

  /** The storages that were referred to, by their keys. */
  get storages(): ReadonlyMap<string, Storage> {
    return this.#storages;
  }

  #rebuild(args: readonly unknown[], metadata: readonly unknown[]): Claim {
    const [storage, start, shape, strides, _requiresGrad, _hooks, type] = args;
    if (!this.#isStorage(storage) || (args.length > 6 && !(type instanceof ElementType))) {
      throw this.fail("a tensor is not described as PyTorch does; the file is damaged");
    }
    const [notes = null] = metadata;
    if (notes !== null && !(notes instanceof Map && notes.size === 0)) {
      throw this.fail(
        "a tensor that is a conjugate or negative view, which is not read; save a .clone() of it",
      );
    }
    return new Claim(
      storage,
      type instanceof ElementType ? type.dtype : storage.dtype,
      start,
      shape,
      strides,
    );
  }

  #isStorage(value: unknown): value is Storage {
    const key = (value as Partial<Storage> | null | undefined)?.key;
    return typeof key === "string" && this.#storages.get(key) === value;
  }

  /** An error about this file. */
  fail(why: string): WhetError {
    return new WhetError("format", `${this.where}: ${why}`);
  }
}

/**
 * Reads a pickled state dict.
 *
 * @param bytes The pickle, and perhaps more behind it.
 * @param vocabulary The names in it.
 * @param where What messages call the file.
 * @returns The tensors by name, each within its storage, and where the pickle ends.
 * @throws {WhetError} `format`, if it is anything else; and as {@linkcode unpickle}.
 */
export function readState(
  bytes: Uint8Array,
  vocabulary: TensorVocabulary,
  where: string,
): { tensors: Map<string, TensorView>; end: number } {
  const { value, end } = unpickle(bytes, vocabulary, where);
  if (!(value instanceof Map)) {
    throw vocabulary.fail(
      `it holds ${describe(value)}, not a dict of tensors by name; save model.state_dict() instead`,
    );
  }
  const tensors = new Map<string, TensorView>();
  for (const [name, claim] of value) {
    if (claim instanceof Map) {
      throw vocabulary.fail(
        `its entry ${quoted(name)} is a dict: it is a training checkpoint, not a model's weights. Take the ` +
          'weights out, in Python: torch.save(torch.load(FILE, weights_only=True)["…"], FILE)',
      );
    }
    if (!(claim instanceof Claim)) {
      throw vocabulary.fail(
        `its entry ${quoted(name)} is ${describe(claim)}, not a tensor; save the tensors alone`,
      );
    }
    // deno-lint-ignore no-control-regex
    if (typeof name !== "string" || name.length > LONGEST_NAME || /[\x00-\x1f\x7f-\x9f]/.test(name)) {
      throw vocabulary.fail(`${quoted(name)} is no name for a tensor; the file is damaged`);
    }
    tensors.set(name, checkClaim(claim, (why) => vocabulary.fail(`tensor ${name}: ${why}`)));
  }
  return { tensors, end };
}

/** Bytes of an element. */
export function itemSize(dtype: StoredDType): number {
  return bitsOf(dtype) / 8;
}

/** How many elements a tensor of this shape has. */
export function countOf(shape: readonly number[]): number {
  return shape.includes(0) ? 0 : shape.reduce((a, b) => a * b, 1);
}

/** A tensor that lies within its storage, none of its elements twice. */
function checkClaim(claim: Claim, fail: (why: string) => WhetError): TensorView {
  const { storage, dtype, start, shape, strides } = claim;
  if (!isSizes(shape) || !isSizes(strides) || shape.length !== strides.length || !isSize(start)) {
    throw fail(
      "its shape, strides and offset are not whole numbers of at least 0, as many strides as extents; the file is damaged",
    );
  }
  const view = { storage, dtype, shape, strides, start };
  if (shape.includes(0)) return view;
  // From the innermost axis out: a step along an axis must lead beyond all that the axes within it reach.
  const axes = shape.map((extent, i) => ({ extent, stride: strides[i] })).filter(({ extent }) => extent > 1)
    .sort((a, b) => a.stride - b.stride);
  let span = 1, overlaps = false;
  for (const { extent, stride } of axes) {
    overlaps ||= stride < span;
    span += (extent - 1) * stride;
  }
  if ((start + span) * itemSize(dtype) > storage.bytes) {
    throw fail(
      `it reaches beyond the ${storage.bytes} bytes of its storage; the file is damaged`,
    );
  }
  if (overlaps) {
    throw fail("its elements overlap in its storage (an expanded tensor); save a .clone() of it");
  }
  return view;
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isSizes(value: unknown): value is readonly number[] {
  return isTuple(value) && value.length <= AXES && value.every(isSize);
}

/** What a pickled value is, for a message. */
function describe(value: unknown): string {
  if (value === null) return "None";
  if (value instanceof Claim) return "a tensor";
  if (value instanceof Map) return "a dict";
  if (Array.isArray(value)) return isTuple(value) ? "a tuple" : "a list";
  if (typeof value === "string") return "a text";
  if (typeof value === "boolean") return "True or False";
  return typeof value === "number" || typeof value === "bigint" ? "a number" : "an object";
}
