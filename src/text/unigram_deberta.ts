/**
 * Makes DeBERTa-v3's tokenizer of a SentencePiece model, as transformers converts one.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { expected, type Json, object, optionalObject } from "./fields.ts";
import type { UnigramAddedToken } from "./unigram_added.ts";
import { Charsmap } from "./unigram_charsmap.ts";
import { readUnigramAddedToken } from "./unigram_json.ts";
import { lowercase, type Normalizer, replacePattern, sequence, strip } from "./unigram_normalize.ts";
import { checkUnigram, type UnigramParts } from "./unigram_parts.ts";
import { PieceType, readSentencePiece, type SentencePieceModel } from "./unigram_spm.ts";

/** The files beside spm.model, each null where it is not there. */
export interface DebertaFiles {
  /** tokenizer_config.json. */
  config: Json | null;
  /** special_tokens_map.json; it counts where the config has no `added_tokens_decoder`. */
  specialTokens: Json | null;
  /** added_tokens.json; likewise. */
  addedTokens: Json | null;
}

/** Special tokens in the order in which those that no piece stands for get their ids. */
const SPECIAL_TOKENS = {
  bos_token: "[CLS]",
  eos_token: "[SEP]",
  unk_token: "[UNK]",
  sep_token: "[SEP]",
  pad_token: "[PAD]",
  cls_token: "[CLS]",
  mask_token: "[MASK]",
} as const;

/**
 * Reads spm.model and its companions.
 *
 * Text is stripped, goes through the model's own charsmap and has its spaces joined: what transformers to
 * version 4 makes of spm.model (`DebertaV2Converter`), what it wrote to the tokenizer.json of published
 * models, and what these were trained with. Version 5 ignores the charsmap of spm.model and does something
 * else (NFC; full-width letters, `…` and no-break spaces become unknown); a tokenizer that it has saved says
 * so in its tokenizer.json and is read like that. The ids of the 2,312 dialogues of a sample of HH-RLHF are
 * the same in both. Characters that no piece covers are unknown even where the model could fall back to
 * bytes, in both versions.
 *
 * @param bytes spm.model.
 * @param files Its companions.
 * @param place Names a file, for errors.
 * @returns The tokenizer's parts, checked.
 * @throws {WhetError} `format` for a file that is damaged or contradicts another, `unsupported` for
 * a tokenizer of another kind.
 */
export function readDebertaSpm(
  bytes: Uint8Array,
  files: DebertaFiles,
  place: (file: string) => string,
): UnigramParts {
  const spm = place("spm.model");
  const model = readSentencePiece(bytes, spm);
  const config = files.config ?? {};
  if (config.split_by_punct === true) {
    throw new WhetError(
      "unsupported",
      `${place("tokenizer_config.json")}: split_by_punct true is not supported; DeBERTa-v3 has false`,
    );
  }
  const added = addedTokens(model, files, place);
  const id = (key: "cls_token" | "sep_token") => {
    const name = specialName(key, files, place);
    return added.find(({ content }) => content === name)?.id ?? -1;
  };
  const [cls, sep] = [id("cls_token"), id("sep_token")];
  const parts: UnigramParts = {
    pieces: model.pieces,
    scores: model.scores,
    unknown: model.unknown,
    byteFallback: false,
    added,
    normalize: normalizer(model, config.do_lower_case === true, spm),
    metaspace: { replacement: "▁", prepend: "always", split: true },
    template: [
      { ids: [cls], typeId: 0 },
      { text: "prompt", typeId: 0 },
      { ids: [sep], typeId: 0 },
      { text: "response", typeId: 1 },
      { ids: [sep], typeId: 1 },
    ],
  };
  checkUnigram(parts, {
    piece: (i) => `${spm}: pieces[${i}]`,
    unknown: `${spm}: trainer_spec.unk_id`,
    added: () => `${place("tokenizer_config.json")}: added tokens`,
    template: `${place("tokenizer_config.json")}: cls_token and sep_token`,
  });
  return parts;
}

function normalizer(model: SentencePieceModel, small: boolean, place: string): Normalizer {
  const all: Normalizer[] = small ? [lowercase] : [];
  all.push(strip(true, true));
  if (model.charsmap !== null) {
    const charsmap = new Charsmap(model.charsmap, `${place}: normalizer_spec.precompiled_charsmap`);
    all.push((text) => charsmap.normalize(text));
  }
  all.push(replacePattern(" {2,}", " ", place));
  return sequence(all);
}

/** Control and user-defined pieces, then the tokens that other files add, then special tokens. */
function addedTokens(
  model: SentencePieceModel,
  files: DebertaFiles,
  place: (file: string) => string,
): UnigramAddedToken[] {
  const added = new Map<string, UnigramAddedToken>();
  const ids = new Map<string, number>();
  model.pieces.forEach((content, id) => {
    ids.set(content, id);
    const type = model.types[id];
    if (type !== PieceType.control && type !== PieceType.userDefined) return;
    added.set(content, { ...plain(content, type === PieceType.control), id });
  });
  let next = model.pieces.length;
  const add = (token: UnigramAddedToken) =>
    added.set(token.content, {
      ...token,
      id: added.get(token.content)?.id ?? ids.get(token.content) ?? next++,
    });

  const named = new Set<string>();
  for (const key of Object.keys(SPECIAL_TOKENS) as (keyof typeof SPECIAL_TOKENS)[]) {
    const name = specialName(key, files, place);
    if (name !== null) named.add(name);
  }
  for (const token of tokensOfFiles(files, named, place)) {
    const { id } = add(token).get(token.content)!;
    if (id !== token.id) {
      throw new WhetError(
        "mismatch",
        `${place("spm.model")}: the added token ${JSON.stringify(token.content)} should have the id ` +
          `${JSON.stringify(token.id)}, but comes to ${id} here; use the files that belong together`,
      );
    }
  }
  for (const name of named) if (!added.has(name)) add({ ...plain(name, true), id: -1 });
  return [...added.values()];
}

function plain(content: string, special: boolean): Omit<UnigramAddedToken, "id"> {
  return { content, special, normalized: false, singleWord: false };
}

/** The added tokens of tokenizer_config.json, else of added_tokens.json, in the order of their ids. */
function tokensOfFiles(
  { config, addedTokens }: DebertaFiles,
  named: ReadonlySet<string>,
  place: (file: string) => string,
): UnigramAddedToken[] {
  const byId = (a: UnigramAddedToken, b: UnigramAddedToken) => a.id - b.id;
  if (config?.added_tokens_decoder !== undefined) {
    const name = `${place("tokenizer_config.json")}: added_tokens_decoder`;
    return Object.entries(optionalObject(config.added_tokens_decoder, name)).map(([id, value]) => {
      const entry = object(value, `${name}[${JSON.stringify(id)}]`);
      return readUnigramAddedToken({ ...entry, id: Number(id) }, `${name}[${JSON.stringify(id)}]`);
    }).sort(byId);
  }
  return Object.entries(addedTokens ?? {}).map(([content, id]) => {
    const special = named.has(content);
    return { ...plain(content, special), normalized: !special, id: id as number };
  }).sort(byId);
}

/** What a special token is called here; null where there is none. */
function specialName(
  key: keyof typeof SPECIAL_TOKENS,
  { config, specialTokens }: DebertaFiles,
  place: (file: string) => string,
): string | null {
  const legacy = config?.added_tokens_decoder === undefined && specialTokens?.[key] !== undefined;
  const value = legacy ? specialTokens![key] : config?.[key];
  if (value === undefined) return SPECIAL_TOKENS[key];
  if (value === null || typeof value === "string") return value;
  const name = `${place(legacy ? "special_tokens_map.json" : "tokenizer_config.json")}: ${key}`;
  const { content } = object(value, name);
  if (typeof content !== "string") throw expected("a string", content, `${name}.content`);
  return content;
}
