/**
 * Reads a SentencePiece model: the Protocol Buffers message `ModelProto` of `spm.model`
 * (google/sentencepiece, `sentencepiece_model.proto`), as far as a Unigram tokenizer needs it.
 *
 * @module
 */
import { WhetError } from "../errors.ts";

/** What kind of piece it is; the numbers are the file's. */
export const PieceType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** A SentencePiece model, V pieces. */
export interface SentencePieceModel {
  /** (V): the pieces, `▁` for a space. */
  pieces: string[];
  /** (V): their log probabilities. */
  scores: Float64Array;
  /** (V): see {@linkcode PieceType}. */
  types: Uint8Array;
  /** `trainer_spec.unk_id`. */
  unknown: number;
  /** `normalizer_spec.precompiled_charsmap`; null where text is taken as it is. */
  charsmap: Uint8Array | null;
}

/** `trainer_spec.model_type` of a Unigram model, and the names of the others. */
const UNIGRAM = 1;
const MODEL_TYPES: Readonly<Record<number, string>> = { 2: "BPE", 3: "words", 4: "characters" };

/** The most pieces that a model may have: its scores and types alone are then 32 MB. */
const MAX_PIECES = 2 ** 22;

/**
 * Reads the bytes of `spm.model`.
 *
 * Of `normalizer_spec` the charsmap alone counts: transformers gives every DeBERTa text a leading `▁` and
 * joins spaces, whatever `add_dummy_prefix`, `remove_extra_whitespaces` and `escape_whitespaces` say.
 *
 * @param bytes The file.
 * @param place Its name, for errors.
 * @returns What it says; pieces and scores are checked by whoever uses them.
 * @throws {WhetError} `format` where it is damaged or no such file, `unsupported` for a model other than
 * Unigram.
 */
export function readSentencePiece(bytes: Uint8Array, place: string): SentencePieceModel {
  const pieces: Piece[] = [];
  let unknown = 0, modelType: number = UNIGRAM, charsmap: Uint8Array | null = null;
  for (const part of fields(bytes, place)) {
    if (part.field === 1) {
      if (pieces.length === MAX_PIECES) {
        throw new WhetError("format", `${place}: more than ${MAX_PIECES} pieces; is it the right file?`);
      }
      pieces.push(readPiece(part.value, `${place}: pieces[${pieces.length}]`));
    } else if (part.field === 2) {
      const name = `${place}: trainer_spec`;
      for (const { field, value } of fields(message(part.value, name), name)) {
        if (field === 3) modelType = integer(value, `${name}.model_type`);
        else if (field === 40) unknown = integer(value, `${name}.unk_id`);
      }
    } else if (part.field === 3) {
      const name = `${place}: normalizer_spec`;
      for (const { field, value } of fields(message(part.value, name), name)) {
        if (field === 2) charsmap = message(value, `${name}.precompiled_charsmap`);
      }
    }
  }
  if (modelType !== UNIGRAM) {
    const got = MODEL_TYPES[modelType] ?? modelType;
    throw new WhetError(
      "unsupported",
      `${place}: trainer_spec.model_type: this is a SentencePiece model of ${got}; Whet reads Unigram`,
    );
  }
  return {
    pieces: pieces.map(({ piece }) => piece),
    scores: Float64Array.from(pieces, ({ score }) => score),
    types: Uint8Array.from(pieces, ({ type }) => type),
    unknown,
    charsmap: charsmap?.length === 0 ? null : charsmap,
  };
}

interface Piece {
  piece: string;
  score: number;
  type: number;
}

function readPiece(bytes: Value, name: string): Piece {
  let piece = "", score = 0, type: number = PieceType.normal;
  for (const { field, value } of fields(message(bytes, name), name)) {
    if (field === 1) piece = text(value, `${name}.piece`);
    else if (field === 2) score = float(value, `${name}.score`);
    else if (field === 3) type = integer(value, `${name}.type`);
  }
  if (!(type >= PieceType.normal && type <= PieceType.byte)) {
    throw new WhetError("format", `${name}.type: expected 1 to 6, got ${type}; download the file again`);
  }
  return { piece, score, type };
}

/** A field's value: a number of wire type 0 (varint), or the bytes of wire type 1, 2 or 5. */
type Value = number | Uint8Array;

/** The fields of a message in the order of the file. Unknown ones come too; whoever reads skips them. */
function* fields(bytes: Uint8Array, place: string): Generator<{ field: number; value: Value }> {
  let at = 0;
  const broken = (what: string) =>
    new WhetError("format", `${place}: ${what} at byte ${at}; is it a whole SentencePiece model?`);
  const varint = (): number => {
    let value = 0, scale = 1;
    for (let i = 0; i < 10; i++, scale *= 128) {
      if (at === bytes.length) throw broken("the file is cut short");
      const byte = bytes[at++];
      value += (byte & 127) * scale; // exact to 2^53: lengths and ids beyond are refused all the same
      if (byte < 128) return value;
    }
    throw broken("a number of more than 10 bytes");
  };
  const take = (length: number): Uint8Array => {
    if (length > bytes.length - at) {
      throw broken(`a value of ${length} bytes where ${bytes.length - at} are left`);
    }
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const tag = varint();
    const field = Math.floor(tag / 8), wire = tag % 8;
    if (field === 0) throw broken("a field of number 0");
    if (wire === 0) yield { field, value: varint() };
    else if (wire === 1) yield { field, value: take(8) };
    else if (wire === 2) yield { field, value: take(varint()) };
    else if (wire === 5) yield { field, value: take(4) };
    else throw broken(`a field of wire type ${wire}`);
  }
}

function message(value: Value, place: string): Uint8Array {
  if (typeof value === "number") throw new WhetError("format", `${place}: expected bytes, got ${value}`);
  return value;
}

function integer(value: Value, place: string): number {
  if (typeof value !== "number") throw new WhetError("format", `${place}: expected a number, got bytes`);
  return value;
}

function float(value: Value, place: string): number {
  const bytes = message(value, place);
  if (bytes.length !== 4) throw new WhetError("format", `${place}: expected 4 bytes, got ${bytes.length}`);
  return new DataView(bytes.buffer, bytes.byteOffset).getFloat32(0, true);
}

function text(value: Value, place: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(message(value, place));
  } catch (error) {
    if (error instanceof WhetError) throw error;
    throw new WhetError("format", `${place}: not UTF-8; download the file again`, { cause: error });
  }
}
