/**
 * The Unigram language model: a text's most probable pieces (Kudo, 2018, Subword Regularization).
 *
 * @module
 */
import { PieceTrie } from "./unigram_trie.ts";

/** What a {@linkcode UnigramModel} is made of, already checked; V pieces. */
export interface UnigramModelParts {
  /** (V): the pieces, each other than the others and none empty. */
  pieces: readonly string[];
  /** (V): their log probabilities, finite. */
  scores: Float64Array;
  /** The piece that stands for what no piece covers. */
  unknown: number;
  /** The pieces that no text becomes: those of special tokens. */
  excluded: ReadonlySet<number>;
  /** Whether what no piece covers becomes its UTF-8 bytes' pieces `<0x00>` to `<0xFF>`. */
  byteFallback: boolean;
}

/** How much less probable an unknown character is than the least probable piece (`kUnkPenalty`). */
const UNKNOWN_PENALTY = 10;

/** The best segmentations of a text's beginnings: n + 1 places of a text of n UTF-16 units. */
class Lattice {
  /** (n + 1): the log probability of the best one that ends here. */
  readonly best: Float64Array;
  /** (n + 1): where its last piece begins, or −1 where none ends here. */
  readonly from: Int32Array;
  /** (n + 1): its last piece. */
  readonly piece: Int32Array;

  constructor(places: number) {
    this.best = new Float64Array(places);
    this.from = new Int32Array(places);
    this.piece = new Int32Array(places);
  }
}

/** Texts of fewer units, which words are, share one lattice. */
const SHARED_PLACES = 1024;

/**
 * Divides texts into pieces as the `tokenizers` library does, to the id: of equally probable
 * segmentations the one whose last piece is longest, unknown characters in a row as one unknown piece.
 *
 * @example
 * ```ts
 * import { UnigramModel } from "./unigram_model.ts";
 *
 * const model = new UnigramModel({
 *   pieces: ["<unk>", "a", "b", "ab"],
 *   scores: Float64Array.of(0, -2, -2, -3),
 *   unknown: 0,
 *   excluded: new Set([0]),
 *   byteFallback: false,
 * });
 * const ids: number[] = [];
 * model.segment("abbxy", ids);
 * console.log(ids); // [3, 2, 0]
 * ```
 */
export class UnigramModel {
  readonly #trie: PieceTrie;
  readonly #scores: Float64Array;
  readonly #unknown: number;
  readonly #unknownScore: number;
  /** (256): each byte's piece; null where unknown characters stay unknown. */
  readonly #bytes: Int32Array | null;
  readonly #shared = new Lattice(SHARED_PLACES);
  readonly #utf8 = new TextEncoder();

  /**
   * A model of parts that fit together.
   *
   * @param parts What it is made of.
   */
  constructor(parts: UnigramModelParts) {
    const ids = new Map<string, number>();
    parts.pieces.forEach((piece, id) => parts.excluded.has(id) || ids.set(piece, id));
    this.#trie = new PieceTrie(ids);
    this.#scores = parts.scores;
    this.#unknown = parts.unknown;
    this.#unknownScore = parts.scores.reduce((least, score) => Math.min(least, score)) - UNKNOWN_PENALTY;
    this.#bytes = parts.byteFallback
      ? Int32Array.from({ length: 256 }, (_, i) => ids.get(byteName(i)) ?? -1)
      : null;
  }

  /**
   * Divides a text (Viterbi's algorithm), in time linear in its length.
   *
   * @param text Any well-formed text.
   * @param ids Takes its pieces' ids.
   */
  segment(text: string, ids: number[]): void {
    const n = text.length;
    const lattice = n < SHARED_PLACES ? this.#shared : new Lattice(n + 1);
    this.#forward(text, lattice);
    const { from, piece } = lattice;
    const first = ids.length;
    for (let end = n; end > 0;) {
      let start = from[end];
      const id = piece[end];
      if (id === this.#unknown) {
        while (start > 0 && piece[start] === this.#unknown) start = from[start];
        this.#pushUnknown(text.slice(start, end), ids);
      } else {
        ids.push(id);
      }
      end = start;
    }
    reverse(ids, first);
  }

  #forward(text: string, { best, from, piece }: Lattice): void {
    const n = text.length;
    from.fill(-1, 0, n + 1);
    best[0] = 0;
    piece[0] = -1;
    for (let start = 0, next; start < n; start = next) {
      next = start + ((text.charCodeAt(start) & 0xfc00) === 0xd800 ? 2 : 1);
      let covered = false; // the character at `start`, by a piece of its own
      for (let end = start, node = 0; end < n;) {
        node = this.#trie.child(node, text.charCodeAt(end++));
        if (node < 0) break;
        const id = this.#trie.pieces[node];
        if (id < 0) continue;
        covered ||= end === next;
        const score = best[start] + this.#scores[id];
        if (from[end] < 0 || score > best[end]) {
          best[end] = score;
          from[end] = start;
          piece[end] = id;
        }
      }
      if (covered) continue;
      const score = best[start] + this.#unknownScore;
      if (from[next] < 0 || score > best[next]) {
        best[next] = score;
        from[next] = start;
        piece[next] = this.#unknown;
      }
    }
  }

  /** Appends unknown text, last byte first. */
  #pushUnknown(text: string, ids: number[]): void {
    const bytes = this.#bytes && this.#utf8.encode(text);
    if (bytes?.every((byte) => this.#bytes![byte] >= 0)) {
      for (let i = bytes.length - 1; i >= 0; i--) ids.push(this.#bytes![bytes[i]]);
    } else {
      ids.push(this.#unknown);
    }
  }
}

/**
 * The piece of a byte where unknown characters become bytes.
 *
 * @param byte 0 to 255.
 * @returns Its piece: `<0x0A>`.
 */
export function byteName(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
}

function reverse(ids: number[], first: number): void {
  for (let i = first, j = ids.length - 1; i < j; i++, j--) [ids[i], ids[j]] = [ids[j], ids[i]];
}
