/**
 * Makes a byte-level BPE tokenizer of a vocabulary and merges as their files write them, and checks
 * that they belong together.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { type AddedToken, ByteLevelBpe } from "./bpe.ts";
import { fromBytes, toBytes } from "./bytes.ts";
import { MAX_RANKS, Merges } from "./merges.ts";

/** The literal of GPT-2's end-of-text token. */
export const END_OF_TEXT = "<|endoftext|>";

/** A vocabulary as files write it. */
export interface Vocabulary {
  /** Token, in GPT-2's byte alphabet, to id. All 256 bytes are in it. */
  vocab: Readonly<Record<string, number>>;
  /** Which two tokens become one, the earliest learned first. */
  merges: readonly (readonly [left: string, right: string])[];
  /** Tokens found in text as they stand; `<|endoftext|>` of the vocabulary is one without being named. */
  added?: readonly AddedToken[];
  /** Whether text that does not begin with a space gets one; false by default. */
  addPrefixSpace?: boolean;
  /** config.json's `eos_token_id`; see {@linkcode bpeFromVocabulary}. */
  eosTokenId?: number | null;
}

/** How errors name the places that a vocabulary was read from. */
export interface VocabularyPlaces {
  /** The vocabulary: `vocab.json`. */
  vocab: string;
  /** Merge i: `merges.txt: line 2`. */
  merge(i: number): string;
  /** Added token i: `tokenizer.json: added_tokens[0]`. */
  added(i: number): string;
}

const PLAIN: VocabularyPlaces = {
  vocab: "vocab",
  merge: (i) => `merges[${i}]`,
  added: (i) => `added[${i}]`,
};

/**
 * The tokenizer of a vocabulary.
 *
 * End-of-text is `eosTokenId` where that is an added, special token, else `<|endoftext|>`, else
 * whatever token `eosTokenId` is.
 *
 * @param vocabulary The vocabulary, merges and added tokens.
 * @param places How errors name where each came from.
 * @returns The tokenizer.
 * @throws {WhetError} `format` for ids that are no ids or given twice, a byte without a token, a merge
 * of tokens that are not there, or no end-of-text.
 *
 * @example
 * ```ts
 * import { fromBytes } from "./bytes.ts";
 * import { bpeFromVocabulary } from "./vocabulary.ts";
 *
 * const vocab: Record<string, number> = {};
 * for (let byte = 0; byte < 256; byte++) vocab[fromBytes(Uint8Array.of(byte))] = byte;
 * vocab["hi"] = 256;
 * vocab["<|endoftext|>"] = 257;
 * const tokenizer = bpeFromVocabulary({ vocab, merges: [["h", "i"]] });
 * console.log(tokenizer.encode("hi!<|endoftext|>")); // [256, 33, 257]
 * ```
 */
export function bpeFromVocabulary(
  vocabulary: Vocabulary,
  places: VocabularyPlaces = PLAIN,
): ByteLevelBpe {
  const ids = new Map(Object.entries(vocabulary.vocab));
  const names = namesById(ids, places);
  const added = addedTokens(vocabulary, ids, names, places);
  const endOfText = findEndOfText(vocabulary, ids, names, added, places);
  if (!added.some((token) => token.id === endOfText)) {
    added.push({ content: names[endOfText]!, id: endOfText, special: true });
  }
  return new ByteLevelBpe({
    ...pack(names, added),
    byteTokens: byteTokens(ids, places),
    merges: readMerges(vocabulary.merges, ids, places),
    added,
    endOfText,
    addPrefixSpace: vocabulary.addPrefixSpace ?? false,
  });
}

/** The vocabulary turned round: names[id], with holes where there is no token. */
function namesById(ids: ReadonlyMap<string, number>, places: VocabularyPlaces): (string | undefined)[] {
  const names: (string | undefined)[] = [];
  for (const [name, id] of ids) {
    checkId(id, `${places.vocab}: ${JSON.stringify(name)}`);
    if (names[id] !== undefined) {
      const both = `${JSON.stringify(names[id])} and ${JSON.stringify(name)}`;
      throw new WhetError("format", `${places.vocab}: ${both} have the same id ${id}; ids must differ`);
    }
    names[id] = name;
  }
  return names;
}

function checkId(id: unknown, place: string): asserts id is number {
  if (typeof id === "number" && Number.isInteger(id) && id >= 0 && id < MAX_RANKS) return;
  throw new WhetError(
    "format",
    `${place} has the id ${JSON.stringify(id)}; expected a whole number from 0 to ${MAX_RANKS - 1}`,
  );
}

/** The added tokens, entered into `ids` and `names` where they are new. */
function addedTokens(
  vocabulary: Vocabulary,
  ids: Map<string, number>,
  names: (string | undefined)[],
  places: VocabularyPlaces,
): AddedToken[] {
  const added = [...vocabulary.added ?? []];
  const contents = new Set<string>();
  added.forEach(({ content, id }, i) => {
    const place = `${places.added(i)}: ${JSON.stringify(content)}`;
    checkId(id, place);
    if (content === "") throw new WhetError("format", `${place} is empty; an added token needs a text`);
    if (contents.has(content)) throw new WhetError("format", `${place} is there twice; remove one`);
    contents.add(content);
    const known = ids.get(content);
    if (known !== undefined && known !== id) {
      throw new WhetError("format", `${place} has the id ${id}, but ${places.vocab} gives it ${known}`);
    }
    if (names[id] !== undefined && names[id] !== content) {
      throw new WhetError("format", `${place} has the id ${id}, which is ${JSON.stringify(names[id])}'s`);
    }
    ids.set(content, id);
    names[id] = content;
  });
  const endOfText = ids.get(END_OF_TEXT);
  if (endOfText !== undefined && !contents.has(END_OF_TEXT)) {
    added.push({ content: END_OF_TEXT, id: endOfText, special: true });
  }
  return added;
}

function findEndOfText(
  vocabulary: Vocabulary,
  ids: ReadonlyMap<string, number>,
  names: readonly (string | undefined)[],
  added: readonly AddedToken[],
  places: VocabularyPlaces,
): number {
  const eos = vocabulary.eosTokenId;
  if (added.some((token) => token.special && token.id === eos)) return eos!;
  const endOfText = ids.get(END_OF_TEXT) ?? eos;
  if (typeof endOfText === "number" && names[endOfText] !== undefined) return endOfText;
  const config = eos === undefined || eos === null
    ? "config.json names no eos_token_id"
    : `config.json's eos_token_id ${eos} is no token`;
  throw new WhetError(
    "format",
    `${places.vocab}: no "${END_OF_TEXT}" in it, and ${config}; set eos_token_id to the token that ends a text`,
  );
}

function byteTokens(ids: ReadonlyMap<string, number>, places: VocabularyPlaces): Int32Array {
  return Int32Array.from({ length: 256 }, (_, byte) => {
    const name = fromBytes(Uint8Array.of(byte));
    const id = ids.get(name);
    if (id !== undefined) return id;
    throw new WhetError(
      "format",
      `${places.vocab}: no token for byte ${byte} (${
        JSON.stringify(name)
      }); a byte-level vocabulary has all 256`,
    );
  });
}

function readMerges(
  pairs: readonly (readonly [string, string])[],
  ids: ReadonlyMap<string, number>,
  places: VocabularyPlaces,
): Merges {
  if (pairs.length > MAX_RANKS) {
    throw new WhetError("format", `${places.merge(MAX_RANKS)}: too many merges, at most ${MAX_RANKS}`);
  }
  const merges = new Merges(pairs.length);
  pairs.forEach(([left, right], i) => {
    const [leftId, rightId, result] = [left, right, left + right].map((name) => {
      const id = ids.get(name);
      if (id !== undefined) return id;
      const merge = JSON.stringify(`${left} ${right}`);
      const missing = JSON.stringify(name);
      throw new WhetError(
        "format",
        `${
          places.merge(i)
        }: the merge ${merge} needs the token ${missing}, which ${places.vocab} does not have`,
      );
    });
    merges.add(leftId, rightId, result);
  });
  return merges;
}

/** The tokens' bytes end to end, and where each begins. */
function pack(
  names: readonly (string | undefined)[],
  added: readonly AddedToken[],
): { bytes: Uint8Array; offsets: Uint32Array } {
  const utf8 = new TextEncoder();
  const literals = new Set(added.map((token) => token.id));
  const offsets = new Uint32Array(names.length + 1);
  const hole = new Uint8Array();
  const tokens = Array.from(names, (name, id) => {
    // A name outside the alphabet stands for its own text; no merge leads to it.
    const bytes = name === undefined ? hole : (literals.has(id) ? null : toBytes(name)) ?? utf8.encode(name);
    offsets[id + 1] = offsets[id] + bytes.length;
    return bytes;
  });
  const bytes = new Uint8Array(offsets[names.length]);
  tokens.forEach((token, id) => bytes.set(token, offsets[id]));
  return { bytes, offsets };
}
