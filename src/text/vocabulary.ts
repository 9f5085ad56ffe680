/**
 * Makes a byte-level BPE tokenizer of a vocabulary and merges as their files write them, and checks
 * that they belong together.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { type AddedToken, ByteLevelBpe } from "./bpe.ts";
import { fromBytes, toBytes } from "./bytes.ts";
import { expected } from "./fields.ts";
import { MAX_RANKS, Merges } from "./merges.ts";
import { NameTable } from "./name_table.ts";

/** The literal of GPT-2's end-of-text token. */
export const END_OF_TEXT = "<|endoftext|>";

/** A vocabulary as files write it. */
export interface Vocabulary {
  /** Token, in GPT-2's byte alphabet, to id. All 256 bytes are in it. */
  vocab: Readonly<Record<string, number>>;
  /** Which two tokens become one, the earliest learned first: "left right" or [left, right] each, which is checked. */
  merges: readonly unknown[];
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
  const names = namesById(vocabulary.vocab, places);
  const ids = new NameTable(names);
  const added = addedTokens(vocabulary, ids, names, places);
  const endOfText = findEndOfText(vocabulary, ids, names, added, places);
  if (!added.some((token) => token.id === endOfText)) {
    added.push({ content: names[endOfText]!, id: endOfText, special: true });
  }
  return new ByteLevelBpe({
    ...pack(names, added),
    byteTokens: byteTokens(ids, places),
    merges: readMerges(vocabulary.merges, ids, names, places),
    added,
    endOfText,
    addPrefixSpace: vocabulary.addPrefixSpace ?? false,
  });
}

/** The vocabulary turned round: names[id], with holes where there is no token. */
function namesById(vocab: Vocabulary["vocab"], places: VocabularyPlaces): (string | undefined)[] {
  const names: (string | undefined)[] = [];
  for (const name of Object.keys(vocab)) { // Object.values and Object.entries take three and four times as long
    const id = vocab[name];
    if (!isId(id)) throw noId(id, `${places.vocab}: ${JSON.stringify(name)}`);
    if (names[id] !== undefined) {
      const both = `${JSON.stringify(names[id])} and ${JSON.stringify(name)}`;
      throw new WhetError("format", `${places.vocab}: ${both} have the same id ${id}; ids must differ`);
    }
    names[id] = name;
  }
  return names;
}

function isId(id: unknown): id is number {
  return typeof id === "number" && Number.isInteger(id) && id >= 0 && id < MAX_RANKS;
}

function noId(id: unknown, place: string): WhetError {
  const expected = `expected a whole number from 0 to ${MAX_RANKS - 1}`;
  return new WhetError("format", `${place} has the id ${JSON.stringify(id)}; ${expected}`);
}

/** The added tokens, entered into `ids` and `names` where they are new. */
function addedTokens(
  vocabulary: Vocabulary,
  ids: NameTable,
  names: readonly (string | undefined)[],
  places: VocabularyPlaces,
): AddedToken[] {
  const added = [...vocabulary.added ?? []];
  const contents = new Set<string>();
  added.forEach(({ content, id }, i) => {
    const place = `${places.added(i)}: ${JSON.stringify(content)}`;
    if (!isId(id)) throw noId(id, place);
    if (content === "") throw new WhetError("format", `${place} is empty; an added token needs a text`);
    if (contents.has(content)) throw new WhetError("format", `${place} is there twice; remove one`);
    contents.add(content);
    const known = ids.find(content);
    if (known >= 0 && known !== id) {
      throw new WhetError("format", `${place} has the id ${id}, but ${places.vocab} gives it ${known}`);
    }
    if (names[id] !== undefined && names[id] !== content) {
      throw new WhetError("format", `${place} has the id ${id}, which is ${JSON.stringify(names[id])}'s`);
    }
    if (known < 0) ids.add(content, id);
  });
  const endOfText = ids.find(END_OF_TEXT);
  if (endOfText >= 0 && !contents.has(END_OF_TEXT)) {
    added.push({ content: END_OF_TEXT, id: endOfText, special: true });
  }
  return added;
}

function findEndOfText(
  vocabulary: Vocabulary,
  ids: NameTable,
  names: readonly (string | undefined)[],
  added: readonly AddedToken[],
  places: VocabularyPlaces,
): number {
  const eos = vocabulary.eosTokenId;
  if (added.some((token) => token.special && token.id === eos)) return eos!;
  const found = ids.find(END_OF_TEXT);
  const endOfText = found < 0 ? eos : found;
  if (typeof endOfText === "number" && names[endOfText] !== undefined) return endOfText;
  const config = eos === undefined || eos === null
    ? "config.json names no eos_token_id"
    : `config.json's eos_token_id ${eos} is no token`;
  throw new WhetError(
    "format",
    `${places.vocab}: no "${END_OF_TEXT}" in it, and ${config}; set eos_token_id to the token that ends a text`,
  );
}

function byteTokens(ids: NameTable, places: VocabularyPlaces): Int32Array {
  return Int32Array.from({ length: 256 }, (_, byte) => {
    const name = fromBytes(Uint8Array.of(byte));
    const id = ids.find(name);
    if (id >= 0) return id;
    throw new WhetError(
      "format",
      `${places.vocab}: no token for byte ${byte} (${
        JSON.stringify(name)
      }); a byte-level vocabulary has all 256`,
    );
  });
}

/**
 * The table of merges. A merge written as "left right" is not taken apart, and what it results in is looked up only where it
 * is not the token that is due, as in GPT-2's files.
 */
function readMerges(
  written: readonly unknown[],
  ids: NameTable,
  names: readonly (string | undefined)[],
  places: VocabularyPlaces,
): Merges {
  if (written.length > MAX_RANKS) {
    throw new WhetError("format", `${places.merge(MAX_RANKS)}: too many merges, at most ${MAX_RANKS}`);
  }
  const merges = new Merges(written.length);
  for (let i = 0; i < written.length; i++) {
    const text = mergeText(written[i]);
    const space = text.indexOf(" ");
    if (space < 1 || space === text.length - 1 || text.includes(" ", space + 1)) {
      throw expected("two tokens with a space between", written[i], places.merge(i));
    }
    const left = ids.find(text, 0, space), right = ids.find(text, space + 1);
    let result = 256 + i;
    if (!isMerge(text, space, names[result])) result = ids.find(text.replace(" ", ""));
    if (left < 0 || right < 0 || result < 0) {
      const [first, second] = text.split(" ");
      const missing = left < 0 ? first : right < 0 ? second : first + second;
      throw new WhetError(
        "format",
        `${places.merge(i)}: the merge ${JSON.stringify(text)} needs the token ${JSON.stringify(missing)}, ` +
          `which ${places.vocab} does not have`,
      );
    }
    merges.add(left, right, result);
  }
  return merges;
}

/** A merge as "left right"; "" where it is neither that nor [left, right]. */
function mergeText(written: unknown): string {
  if (typeof written === "string") return written;
  const pair = Array.isArray(written) && written.length === 2 &&
    written.every((token) => typeof token === "string");
  return pair ? `${written[0]} ${written[1]}` : "";
}

/** Whether a token is what stands left and right of the space. */
function isMerge(text: string, space: number, token: string | undefined): boolean {
  if (token?.length !== text.length - 1) return false;
  let i = 0;
  while (i < token.length && token.charCodeAt(i) === text.charCodeAt(i < space ? i : i + 1)) i++;
  return i === token.length;
}

/** The tokens' bytes end to end, and where each begins. */
function pack(
  names: readonly (string | undefined)[],
  added: readonly AddedToken[],
): { bytes: Uint8Array; offsets: Uint32Array } {
  const utf8 = new TextEncoder();
  const literals = new Set(added.map((token) => token.id));
  const offsets = new Uint32Array(names.length + 1);
  let units = 0;
  for (const name of names) units += name?.length ?? 0;
  const bytes = new Uint8Array(3 * units); // UTF-8: at most 3 a unit
  for (let id = 0; id < names.length; id++) {
    const name = names[id] ?? "";
    let length = name.length;
    // A name outside the alphabet stands for its own text; no merge leads to it.
    if (literals.has(id) || !toBytes(name, bytes, offsets[id])) {
      length = utf8.encodeInto(name, bytes.subarray(offsets[id])).written;
    }
    offsets[id + 1] = offsets[id] + length;
  }
  return { bytes: bytes.slice(0, offsets[names.length]), offsets };
}
