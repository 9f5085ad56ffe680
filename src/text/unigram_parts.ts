/**
 * What a Unigram tokenizer is made of, whatever file it comes from, and the check that the parts fit.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import type { UnigramAddedToken } from "./unigram_added.ts";
import type { Normalizer } from "./unigram_normalize.ts";

/** How spaces become pieces (`Metaspace`). */
export interface Metaspace {
  /** The character that stands for a space: `▁`. */
  replacement: string;
  /**
   * Where one is put before text that does not begin with one: every stretch between added tokens, only
   * where a text begins, or nowhere. (The `tokenizers` library's "first" leaves a text without one where
   * normalization has cut its beginning off; here it gets one.)
   */
  prepend: "always" | "first" | "never";
  /** Whether a text is cut before each of them, so that no piece reaches over one. */
  split: boolean;
}

/** A part of a pair as the model sees it (`TemplateProcessing`): one of its texts, or special tokens. */
export type TemplatePart =
  & {
    /** The token type id of its tokens. */
    typeId: number;
  }
  & ({ text: "prompt" | "response" } | { ids: readonly number[] });

/** What a `UnigramTokenizer` is made of; V pieces. */
export interface UnigramParts {
  /** (V): the pieces in the order of ids. */
  pieces: readonly string[];
  /** (V): their log probabilities. */
  scores: Float64Array;
  /** The piece of unknown characters. */
  unknown: number;
  /** Whether unknown characters become bytes. */
  byteFallback: boolean;
  /** Tokens that are looked for in text before it is divided; special ones never are. */
  added: readonly UnigramAddedToken[];
  /** What text goes through first. */
  normalize: Normalizer;
  /** How spaces become pieces. */
  metaspace: Metaspace;
  /** A pair; the prompt and then the response, each once. */
  template: readonly TemplatePart[];
}

/** How errors name the places that parts were read from. */
export interface UnigramPlaces {
  /** Piece i: `tokenizer.json: model.vocab[3]`. */
  piece(i: number): string;
  /** The unknown piece: `tokenizer.json: model.unk_id`. */
  unknown: string;
  /** Added token i: `tokenizer.json: added_tokens[0]`. */
  added(i: number): string;
  /** The template: `tokenizer.json: post_processor`. */
  template: string;
}

/** Ids are below this: what a signed number of 32 bits holds. */
const MAX_ID = 2 ** 31;

/**
 * Refuses parts that do not fit together.
 *
 * @param parts The parts; their types are right, nothing else is known.
 * @param places How errors name where each came from.
 * @throws {WhetError} `format` for a piece that is empty, given twice or not text, a score that is not
 * finite, ids that are no ids or given twice, an unknown piece or special token that is not there, and a
 * template that does not have the prompt and then the response.
 */
export function checkUnigram(parts: UnigramParts, places: UnigramPlaces): void {
  const { pieces, scores, unknown, added, template } = parts;
  if (pieces.length === 0) {
    throw new WhetError("format", `${places.piece(0)} is not there; a vocabulary without pieces is none`);
  }
  const ids = new Map<string, number>();
  pieces.forEach((piece, i) => {
    const wrong = piece === ""
      ? "is empty"
      : !piece.isWellFormed()
      ? "has half of a surrogate pair"
      : ids.has(piece)
      ? `is ${JSON.stringify(piece)}, as is piece ${ids.get(piece)}`
      : !Number.isFinite(scores[i])
      ? `has the score ${scores[i]}, which is not finite`
      : null;
    if (wrong !== null) {
      throw new WhetError("format", `${places.piece(i)} ${wrong}; download the file again`);
    }
    ids.set(piece, i);
  });
  if (!(Number.isInteger(unknown) && unknown >= 0 && unknown < pieces.length)) {
    throw new WhetError(
      "format",
      `${places.unknown}: expected a piece from 0 to ${pieces.length - 1}, got ${unknown}; ` +
        "a Unigram tokenizer needs one for unknown characters",
    );
  }

  const owners = new Map<number, string>();
  const contents = new Set<string>();
  added.forEach(({ content, id }, i) => {
    const place = `${places.added(i)}: ${JSON.stringify(content)}`;
    const wrong = content === "" || !content.isWellFormed()
      ? "is no text"
      : !(Number.isInteger(id) && id >= 0 && id < MAX_ID)
      ? `has the id ${JSON.stringify(id)}; expected a whole number from 0 to ${MAX_ID - 1}`
      : contents.has(content)
      ? "is there twice; remove one"
      : owners.has(id)
      ? `has the id ${id}, which is ${JSON.stringify(owners.get(id))}'s`
      : (ids.get(content) ?? id) !== id
      ? `has the id ${id}, but is piece ${ids.get(content)}`
      : id < pieces.length && pieces[id] !== content
      ? `has the id ${id}, which is the piece ${JSON.stringify(pieces[id])}'s`
      : null;
    if (wrong !== null) throw new WhetError("format", `${place} ${wrong}`);
    owners.set(id, content);
    contents.add(content);
  });

  const texts = template.flatMap((part) => "text" in part ? [part.text] : []).join(", ");
  if (texts !== "prompt, response") {
    throw new WhetError(
      "unsupported",
      `${places.template}: a pair is made of ${
        texts || "neither text"
      }; expected the first text, then the second`,
    );
  }
  for (const id of template.flatMap((part) => "ids" in part ? part.ids : [])) {
    if (Number.isInteger(id) && id >= 0 && (id < pieces.length || owners.has(id))) continue;
    throw new WhetError("format", `${places.template}: special token ${JSON.stringify(id)} is not there`);
  }
}
