/**
 * Reads the tokenizer of a model directory: Hugging Face's tokenizer.json, or GPT-2's vocab.json and
 * merges.txt.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import type { AddedToken } from "./bpe.ts";
import { array, expected, type Json, object, optionalObject, parse, steps } from "./fields.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { bpeFromVocabulary, type Vocabulary, type VocabularyPlaces } from "./vocabulary.ts";

/** Where a model's files come from: a directory, the Hub, an archive in memory. */
export interface TextFiles {
  /** What errors call the place: a path, a URL, a Hub id. */
  readonly name?: string;
  /** The whole of a text file by its name, or null where there is none. */
  text(name: string): Promise<string | null>;
}

/**
 * Reads a directory's own tokenizer: tokenizer.json (a byte-level BPE, as GPT-2 and its fine-tunes have
 * it), else vocab.json and merges.txt with added_tokens.json and tokenizer_config.json where they are.
 *
 * @param files The directory.
 * @param eosTokenId config.json's `eos_token_id`; it ends a text where it is a special token of the
 * vocabulary, or where the vocabulary has no `<|endoftext|>`.
 * @returns The tokenizer, or null where the directory has none: GPT-2's own is meant then.
 * @throws {WhetError} `format` for a file that is broken or contradicts itself, `unsupported` for a
 * tokenizer of another kind; both name the file and the entry.
 *
 * @example
 * ```ts
 * import { loadTokenizer } from "./load.ts";
 * import { gpt2Tokenizer } from "./gpt2.ts";
 *
 * const files = { text: (_name: string) => Promise.resolve(null) };
 * const tokenizer = await loadTokenizer(files) ?? await gpt2Tokenizer();
 * console.log(tokenizer.vocabSize); // 50257
 * ```
 */
export async function loadTokenizer(
  files: TextFiles,
  eosTokenId?: number | null,
): Promise<Tokenizer | null> {
  const place = (name: string) =>
    files.name === undefined ? name : `${files.name.replace(/\/$/, "")}/${name}`;
  const read = async (name: string): Promise<Json | null> => {
    const text = await files.text(name);
    return text === null ? null : object(parse(text, place(name)), place(name));
  };

  const json = await read("tokenizer.json");
  if (json !== null) {
    const [vocabulary, places] = readTokenizerJson(json, place("tokenizer.json"));
    return bpeFromVocabulary({ ...vocabulary, eosTokenId }, places);
  }

  const vocab = await read("vocab.json");
  const mergesText = await files.text("merges.txt");
  if (vocab === null && mergesText === null) return null;
  if (vocab === null || mergesText === null) {
    const [there, missing] = vocab === null ? ["merges.txt", "vocab.json"] : ["vocab.json", "merges.txt"];
    throw new WhetError(
      "format",
      `${place(missing)}: not found, though ${there} is there; a vocabulary needs both`,
    );
  }
  const { merges, lines } = readMergesText(mergesText);
  const config = await read("tokenizer_config.json") ?? {};
  const configPlace = `${place("tokenizer_config.json")}: added_tokens_decoder`;
  const added = Object.entries(optionalObject(config.added_tokens_decoder, configPlace))
    .map(([id, token]) =>
      readAddedToken({ ...object(token, `${configPlace}.${id}`), id: Number(id) }, configPlace)
    );
  for (const [content, id] of Object.entries(await read("added_tokens.json") ?? {})) {
    if (added.some((token) => token.content === content)) continue;
    added.push({ content, id: id as number, special: true }); // ids are checked with the vocabulary's
  }
  return bpeFromVocabulary({
    vocab: vocab as Record<string, number>,
    merges,
    added,
    addPrefixSpace: config.add_prefix_space === true,
    eosTokenId,
  }, {
    vocab: place("vocab.json"),
    merge: (i) => `${place("merges.txt")}: line ${lines[i]}`,
    added: () => place("added tokens"),
  });
}

/** A line for each merge, "left right", after a line that tells the version. */
function readMergesText(text: string): { merges: string[]; lines: number[] } {
  const merges: string[] = [];
  const lines: number[] = [];
  text.split("\n").forEach((line, i) => {
    if (line.endsWith("\r")) line = line.slice(0, -1);
    if (line === "" || line.startsWith("#version")) return;
    merges.push(line);
    lines.push(i + 1);
  });
  return { merges, lines };
}

function readTokenizerJson(json: Json, place: string): [Vocabulary, VocabularyPlaces] {
  const model = object(json.model, `${place}: model`);
  if ((model.type ?? "BPE") !== "BPE") throw unsupported(place, "model.type", model.type);
  for (
    const field of [
      "dropout",
      "continuing_subword_prefix",
      "end_of_word_suffix",
      "byte_fallback",
      "ignore_merges",
    ]
  ) {
    if (model[field]) throw unsupported(place, `model.${field}`, model[field]);
  }
  const normalizers = steps(json.normalizer, "normalizers", `${place}: normalizer`);
  if (normalizers.length > 0) throw unsupported(place, "normalizer", normalizers[0].type);

  const preTokenizers = steps(json.pre_tokenizer, "pretokenizers", `${place}: pre_tokenizer`);
  const byteLevel = preTokenizers[0];
  if (preTokenizers.length !== 1 || byteLevel.type !== "ByteLevel" || byteLevel.use_regex === false) {
    throw unsupported(place, "pre_tokenizer", preTokenizers.map((step) => step.type).join(", ") || null);
  }
  for (const decoder of steps(json.decoder, "decoders", `${place}: decoder`)) {
    if (decoder.type !== "ByteLevel") throw unsupported(place, "decoder", decoder.type);
  }
  for (const processor of steps(json.post_processor, "processors", `${place}: post_processor`)) {
    const silent = processor.type === "ByteLevel" ||
      (processor.type === "TemplateProcessing" && !JSON.stringify(processor.single).includes("SpecialToken"));
    if (!silent) throw unsupported(place, "post_processor", processor.type);
  }

  const merges = array(model.merges, `${place}: model.merges`);
  const added = array(json.added_tokens ?? [], `${place}: added_tokens`)
    .map((token, i) => readAddedToken(token, `${place}: added_tokens[${i}]`));
  const vocab = object(model.vocab, `${place}: model.vocab`) as Record<string, number>;
  return [{ vocab, merges, added, addPrefixSpace: byteLevel.add_prefix_space === true }, {
    vocab: `${place}: model.vocab`,
    merge: (i) => `${place}: model.merges[${i}]`,
    added: (i) => `${place}: added_tokens[${i}]`,
  }];
}

function readAddedToken(value: unknown, place: string): AddedToken {
  const token = object(value, place);
  if (typeof token.content !== "string") throw expected("a string", token.content, `${place}.content`);
  if (token.single_word === true) {
    throw unsupported(place, `${JSON.stringify(token.content)}.single_word`, true);
  }
  return {
    content: token.content,
    id: token.id as number, // checked with the vocabulary's ids
    special: token.special === true,
    lstrip: token.lstrip === true,
    rstrip: token.rstrip === true,
  };
}

function unsupported(place: string, field: string, value: unknown): WhetError {
  return new WhetError(
    "unsupported",
    `${place}: ${field} ${JSON.stringify(value)} is not supported; Whet reads byte-level BPE as GPT-2 has it`,
  );
}
