/**
 * Trains a byte-level BPE vocabulary (Sennrich et al., 2016): of all pairs of adjacent symbols the most
 * frequent becomes a new symbol, again and again, within GPT-2's pieces.
 *
 * @module
 */
import { WhetError } from "../../src/errors.ts";
import { fromBytes } from "../../src/text/bytes.ts";
import { pieces } from "../../src/text/pretokenize.ts";
import { END_OF_TEXT } from "../../src/text/vocabulary.ts";

/** A vocabulary as vocab.json and merges.txt write it. */
export interface TrainedBpe {
  /** Token, in GPT-2's byte alphabet, to id: the 256 bytes in the alphabet's order, the merges' results, `<|endoftext|>`. */
  vocab: Record<string, number>;
  /** Which two tokens become one, the most frequent first. */
  merges: [left: string, right: string][];
}

/** A distinct piece of the text. */
interface Word {
  /** Its symbols, merged so far. */
  symbols: number[];
  /** How often it occurs. */
  count: number;
}

/** A pair of adjacent symbols. */
interface Pair {
  left: number;
  right: number;
  /** How often it occurs in the text. */
  count: number;
  /** The words it occurs in, or did before another merge. */
  words: Set<Word>;
}

/**
 * Trains a vocabulary. The same text gives the same vocabulary: of equally frequent pairs the one with
 * the lower ids goes first. A literal `<|endoftext|>` parts texts and is not learned from.
 *
 * @param text The text, or texts; no pair is counted across two.
 * @param vocabSize How many tokens to make, bytes and `<|endoftext|>` included. It may become fewer:
 * a pair that occurs only once is not merged.
 * @returns The vocabulary.
 * @throws {WhetError} `option` for a size below 257.
 *
 * @example
 * ```ts
 * import { trainBpe } from "./bpe_trainer.ts";
 *
 * const { vocab, merges } = trainBpe("low lower lowest", 259);
 * console.log(merges); // [["l", "o"], ["lo", "w"]]
 * console.log(vocab["<|endoftext|>"]); // 258
 * ```
 */
export function trainBpe(text: string | Iterable<string>, vocabSize: number): TrainedBpe {
  if (!Number.isInteger(vocabSize) || vocabSize < 257) {
    throw new WhetError("option", `vocabSize: expected a whole number of at least 257, got ${vocabSize}`);
  }
  const alphabet = Array.from({ length: 256 }, (_, byte) => fromBytes(Uint8Array.of(byte))).sort();
  const names = [...alphabet];
  const merges: [string, string][] = [];
  const pairs = countPairs(countWords(typeof text === "string" ? [text] : text, alphabet));
  while (names.length < vocabSize - 1) {
    const best = mostFrequent(pairs.values());
    if (best === null || best.count < 2) break;
    merges.push([names[best.left], names[best.right]]);
    merge(best, names.length, pairs);
    names.push(names[best.left] + names[best.right]);
  }
  names.push(END_OF_TEXT);
  return { vocab: Object.fromEntries(names.map((name, id) => [name, id])), merges };
}

function countWords(texts: Iterable<string>, alphabet: readonly string[]): Word[] {
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const document of text.toWellFormed().split(END_OF_TEXT)) {
      for (const piece of pieces(document)) counts.set(piece, (counts.get(piece) ?? 0) + 1);
    }
  }
  const ids = new Map(alphabet.map((name, id) => [name, id]));
  const utf8 = new TextEncoder();
  return Array.from(counts, ([piece, count]) => ({
    symbols: Array.from(fromBytes(utf8.encode(piece)), (character) => ids.get(character)!),
    count,
  }));
}

/** Pairs by {@linkcode key}. */
type Pairs = Map<number, Pair>;

function key(left: number, right: number): number {
  return left * 2 ** 26 + right;
}

function countPairs(words: Word[]): Pairs {
  const pairs: Pairs = new Map();
  for (const word of words) addPairs(word, word.count, pairs);
  return pairs;
}

/** Adds `count` for each pair of adjacent symbols in a word. */
function addPairs(word: Word, count: number, pairs: Pairs): void {
  const { symbols } = word;
  for (let i = 0; i + 1 < symbols.length; i++) {
    const at = key(symbols[i], symbols[i + 1]);
    let pair = pairs.get(at);
    if (pair === undefined) {
      pair = { left: symbols[i], right: symbols[i + 1], count: 0, words: new Set() };
      pairs.set(at, pair);
    }
    pair.count += count;
    if (count > 0) pair.words.add(word);
    else if (pair.count === 0) pairs.delete(at);
  }
}

/** The pair that occurs most often; of several the one with the lowest left id, then the lowest right. */
function mostFrequent(pairs: Iterable<Pair>): Pair | null {
  let best: Pair | null = null;
  for (const pair of pairs) {
    if (best !== null && pair.count < best.count) continue;
    const wins = best === null || pair.count > best.count || pair.left < best.left ||
      (pair.left === best.left && pair.right < best.right);
    if (wins) best = pair;
  }
  return best;
}

/** Replaces a pair by one symbol in every word, and recounts those words' pairs. */
function merge({ left, right, words }: Pair, symbol: number, pairs: Pairs): void {
  for (const word of [...words]) {
    addPairs(word, -word.count, pairs);
    const merged: number[] = [];
    for (let i = 0; i < word.symbols.length; i++) {
      const found = word.symbols[i] === left && word.symbols[i + 1] === right;
      merged.push(found ? symbol : word.symbols[i]);
      if (found) i++;
    }
    word.symbols = merged;
    addPairs(word, word.count, pairs);
  }
}
