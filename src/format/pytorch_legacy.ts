/**
 * What `torch.save` wrote before PyTorch 1.6 (2020): five pickles one after the other (a magic number, a version,
 * the machine's sizes, the state dict, the storages' keys), then each storage's length and its elements.
 *
 * Source: PyTorch, `torch/serialization.py`, `_legacy_load`; the elements are little-endian on all machines
 * (`torch/csrc/serialization.cpp`).
 *
 * @module
 */

import { isTuple, PickleCut, unpickle } from "./pickle.ts";
import {
  type Contents,
  itemSize,
  PICKLE_LIMIT,
  type Place,
  readState,
  type Storage,
  TensorVocabulary,
} from "./pytorch_state.ts";
import { quoted } from "./quote.ts";
import type { ByteSource } from "./repository.ts";

const MAGIC = 0x1950a86a20f9469cfc6cn, VERSION = 1001;
/** The bytes first read in search of the pickles' end; mostly enough. */
const FIRST = 2 ** 18;

/**
 * Reads what a file of the old format holds.
 *
 * @param source The file.
 * @returns Its tensors, and where their storages lie.
 * @throws {WhetError} `format`, if it is something else, damaged, or asks for more than tensors.
 */
export async function readLegacy(source: ByteSource): Promise<Contents> {
  const { name } = source;
  const vocabulary = new TensorVocabulary(name);
  let bytes = await source.read(0, Math.min(FIRST, source.size)), at = 0;

  /** Reads the next pickle, and more of the file as far as that takes. */
  const next = async <T extends { end: number }>(parse: (rest: Uint8Array) => T): Promise<T> => {
    while (true) {
      try {
        const parsed = parse(bytes.subarray(at));
        at += parsed.end;
        return parsed;
      } catch (error) {
        const more = Math.min(bytes.length * 3, source.size - bytes.length);
        if (!(error instanceof PickleCut) || more === 0) throw error;
        if (bytes.length + more > PICKLE_LIMIT) {
          throw vocabulary.fail(`its pickle is larger than ${PICKLE_LIMIT} bytes; is it a model's weights?`);
        }
        const longer = new Uint8Array(bytes.length + more);
        longer.set(bytes);
        longer.set(await source.read(bytes.length, more), bytes.length);
        bytes = longer;
      }
    }
  };
  const value = async () => (await next((rest) => unpickle(rest, vocabulary, name))).value;

  if (await value() !== MAGIC) {
    throw vocabulary.fail(
      "a Python pickle, but not one of PyTorch's; save model.state_dict() with torch.save",
    );
  }
  if (await value() !== VERSION) {
    throw vocabulary.fail(`a version of PyTorch's format that is not ${VERSION}`);
  }
  await value(); // The machine's sizes, which change nothing.
  const { tensors } = await next((rest) => readState(rest, vocabulary, name));
  const keys = await value();

  const places = new Map<Storage, Place>();
  for (const key of Array.isArray(keys) && !isTuple(keys) ? keys : []) {
    const storage = vocabulary.storages.get(key);
    if (!storage || places.has(storage)) throw vocabulary.fail("its list of storages is damaged");
    places.set(storage, { near: at, begin: begin(source, at, storage) });
    at += 8 + storage.bytes;
    if (at > source.size) {
      throw vocabulary.fail(`truncated: storage ${quoted(storage.key)} ends at byte ${at}; fetch it again`);
    }
  }
  if (places.size < vocabulary.storages.size) throw vocabulary.fail("its list of storages is damaged");
  return { tensors, places, bigEndian: false };
}

/** Looks at a storage's length when its elements are first read, which is right before them. */
function begin(source: ByteSource, at: number, { key, dtype, bytes }: Storage): () => Promise<number> {
  return async () => {
    const head = await source.read(at, 8);
    if (Number(new DataView(head.buffer).getBigUint64(0, true)) * itemSize(dtype) !== bytes) {
      throw new TensorVocabulary(source.name).fail(
        `storage ${quoted(key)} has another length than its tensors say; the file is damaged, fetch it again`,
      );
    }
    return at + 8;
  };
}
