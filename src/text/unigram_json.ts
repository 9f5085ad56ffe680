/**
 * Reads a Unigram tokenizer from Hugging Face's tokenizer.json.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { array, expected, type Json, object, steps } from "./fields.ts";
import type { UnigramAddedToken } from "./unigram_added.ts";
import { Charsmap } from "./unigram_charsmap.ts";
import {
  lowercase,
  nmt,
  type Normalizer,
  replaceLiteral,
  replacePattern,
  sequence,
  strip,
  unicodeForm,
} from "./unigram_normalize.ts";
import { checkUnigram, type Metaspace, type TemplatePart, type UnigramParts } from "./unigram_parts.ts";

/**
 * Reads the whole of tokenizer.json but for its decoder, truncation and padding, which transformers does
 * not use either where it encodes.
 *
 * @param json What the file says.
 * @param place Its name, for errors.
 * @returns The tokenizer's parts, checked.
 * @throws {WhetError} `format` for an entry that is not what it must be, `unsupported` for a step that Whet
 * does not have; both name the entry.
 */
export function readUnigramJson(json: Json, place: string): UnigramParts {
  const model = object(json.model, `${place}: model`);
  if (model.type !== "Unigram") throw unsupported(`${place}: model.type`, model.type);
  const vocab = array(model.vocab, `${place}: model.vocab`);
  const scores = new Float64Array(vocab.length);
  const pieces = vocab.map((entry, i) => {
    const [piece, score] = Array.isArray(entry) && entry.length === 2 ? entry : [];
    if (typeof piece !== "string" || typeof score !== "number") {
      throw expected("a piece and its score", entry, `${place}: model.vocab[${i}]`);
    }
    scores[i] = score;
    return piece;
  });
  if (typeof model.unk_id !== "number") {
    throw expected("the piece of unknown characters", model.unk_id, `${place}: model.unk_id`);
  }
  const parts: UnigramParts = {
    pieces,
    scores,
    unknown: model.unk_id,
    byteFallback: model.byte_fallback === true,
    added: array(json.added_tokens ?? [], `${place}: added_tokens`)
      .map((token, i) => readUnigramAddedToken(token, `${place}: added_tokens[${i}]`)),
    normalize: sequence(
      steps(json.normalizer, "normalizers", `${place}: normalizer`)
        .map((step) => readNormalizer(step, `${place}: normalizer`)),
    ),
    metaspace: readMetaspace(json.pre_tokenizer, `${place}: pre_tokenizer`),
    template: readTemplate(json.post_processor, `${place}: post_processor`),
  };
  checkUnigram(parts, {
    piece: (i) => `${place}: model.vocab[${i}]`,
    unknown: `${place}: model.unk_id`,
    added: (i) => `${place}: added_tokens[${i}]`,
    template: `${place}: post_processor`,
  });
  return parts;
}

/**
 * Reads an added token.
 *
 * @param value An entry of `added_tokens`, or of tokenizer_config.json's `added_tokens_decoder` with its id.
 * @param place Its name, for errors.
 * @returns The token; its id and content are checked with the vocabulary.
 * @throws {WhetError} `format` where it is no such entry.
 */
export function readUnigramAddedToken(value: unknown, place: string): UnigramAddedToken {
  const token = object(value, place);
  if (typeof token.content !== "string") throw expected("a string", token.content, `${place}.content`);
  return {
    content: token.content,
    id: token.id as number,
    special: token.special === true,
    normalized: token.normalized === true,
    singleWord: token.single_word === true,
    lstrip: token.lstrip === true,
    rstrip: token.rstrip === true,
  };
}

function readNormalizer(step: Json, stage: string): Normalizer {
  const place = `${stage}: ${step.type}`;
  switch (step.type) {
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD":
      return unicodeForm(step.type);
    case "Lowercase":
      return lowercase;
    case "Nmt":
      return nmt;
    case "Strip":
      return strip(step.strip_left === true, step.strip_right === true);
    case "Precompiled": {
      const charsmap = new Charsmap(
        readBase64(step.precompiled_charsmap, place),
        `${place}.precompiled_charsmap`,
      );
      return (text) => charsmap.normalize(text);
    }
    case "Replace": {
      const { String: literal, Regex: expression } = object(step.pattern, `${place}.pattern`);
      if (typeof step.content !== "string") throw expected("a string", step.content, `${place}.content`);
      const content = step.content.toWellFormed();
      if (typeof expression === "string") return replacePattern(expression, content, `${place}.pattern`);
      if (typeof literal === "string" && literal !== "") return replaceLiteral(literal, content);
      throw expected("a String or Regex", step.pattern, `${place}.pattern`);
    }
  }
  throw unsupported(stage, step.type);
}

function readBase64(value: unknown, place: string): Uint8Array {
  if (typeof value !== "string") throw expected("a text in base64", value, `${place}.precompiled_charsmap`);
  let binary;
  try {
    binary = atob(value);
  } catch {
    throw expected("a text in base64", value, `${place}.precompiled_charsmap`);
  }
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

function readMetaspace(stage: unknown, place: string): Metaspace {
  const [step, ...others] = steps(stage, "pretokenizers", place);
  if (step?.type !== "Metaspace" || others.length > 0) {
    throw unsupported(
      place,
      step === undefined ? null : [step, ...others].map(({ type }) => type).join(", "),
    );
  }
  const { replacement, split = true } = step;
  // Files older than prepend_scheme say add_prefix_space.
  const prepend = step.add_prefix_space === false ? "never" : step.prepend_scheme ?? "always";
  if (typeof replacement !== "string" || [...replacement].length !== 1 || !replacement.isWellFormed()) {
    throw expected("one character", replacement, `${place}: Metaspace.replacement`);
  }
  if (prepend !== "always" && prepend !== "first" && prepend !== "never") {
    throw expected('"always", "first" or "never"', prepend, `${place}: Metaspace.prepend_scheme`);
  }
  return { replacement, prepend, split: split !== false };
}

function readTemplate(stage: unknown, place: string): TemplatePart[] {
  const [step, ...others] = steps(stage, "processors", place);
  if (step?.type !== "TemplateProcessing" || others.length > 0) {
    throw unsupported(
      place,
      step === undefined ? null : [step, ...others].map(({ type }) => type).join(", "),
    );
  }
  const specials = object(step.special_tokens, `${place}: special_tokens`);
  return array(step.pair, `${place}: pair`).map((value, i): TemplatePart => {
    const name = `${place}: pair[${i}]`;
    const entry = object(value, name);
    const { id, type_id: typeId } = object(entry.Sequence ?? entry.SpecialToken, name);
    if (typeof id !== "string" || !Number.isInteger(typeId) || (typeId as number) < 0) {
      throw expected("an id and a type_id", value, name);
    }
    if (entry.Sequence === undefined) {
      const special = `${place}: special_tokens[${JSON.stringify(id)}]`;
      const token = object(Object.hasOwn(specials, id) ? specials[id] : undefined, special);
      // Whether they are ids is checked with the vocabulary.
      return { ids: array(token.ids, `${special}.ids`) as number[], typeId: typeId as number };
    }
    if (id !== "A" && id !== "B") throw expected('"A" or "B"', id, `${name}.Sequence.id`);
    return { text: id === "A" ? "prompt" : "response", typeId: typeId as number };
  });
}

function unsupported(place: string, value: unknown): WhetError {
  return new WhetError(
    "unsupported",
    `${place}: ${JSON.stringify(value ?? null)} is not supported; Whet reads Unigram as DeBERTa-v3 has it`,
  );
}
