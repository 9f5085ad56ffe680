/**
 * Writes a tokenizer as Hugging Face's files, for `model.save`.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { ByteLevelBpe } from "./bpe.ts";
import type { Tokenizer } from "./tokenizer.ts";

/**
 * Writes tokenizer.json and tokenizer_config.json, which transformers reads, and vocab.json and
 * merges.txt, which GPT-2 was published with and older tools read.
 *
 * @param tokenizer A byte-level BPE: GPT-2's, one that was loaded, or one that was trained.
 * @param write Writes a text file.
 * @throws {WhetError} `unsupported` for another kind of tokenizer; nothing is written.
 *
 * @example
 * ```ts
 * import { gpt2Tokenizer } from "./gpt2.ts";
 * import { saveTokenizer } from "./save.ts";
 *
 * const files = new Map<string, string>();
 * await saveTokenizer(await gpt2Tokenizer(), (name, text) => Promise.resolve(void files.set(name, text)));
 * console.log(files.get("merges.txt")?.split("\n")[1]); // Ġ t
 * ```
 */
export async function saveTokenizer(
  tokenizer: Tokenizer,
  write: (name: string, text: string) => Promise<void>,
): Promise<void> {
  if (!(tokenizer instanceof ByteLevelBpe)) {
    throw new WhetError(
      "unsupported",
      "the tokenizer to save is no byte-level BPE; Whet writes no other kind",
    );
  }
  const { added, merges, endOfText, addPrefixSpace } = tokenizer.parts;
  const names: string[] = [];
  for (const [name, id] of tokenizer.entries()) names[id] = name;
  // By hand: an object would put the tokens that look like numbers first.
  const vocab = `{${
    [...tokenizer.entries()].map(([name, id]) => `${JSON.stringify(name)}:${id}`).join(",")
  }}`;
  const pairs = Array.from({ length: merges.count }, (_, rank) => {
    const [left, right] = merges.at(rank);
    return `${names[left]} ${names[right]}`;
  });
  const byteLevel = (prefix: boolean) => ({
    type: "ByteLevel",
    add_prefix_space: prefix,
    trim_offsets: true,
    use_regex: true,
  });
  const model = {
    type: "BPE",
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: "",
    end_of_word_suffix: "",
    fuse_unk: false,
    byte_fallback: false,
  };
  const addedTokens = added.toSorted((a, b) => a.id - b.id).map((token) => ({
    id: token.id,
    content: token.content,
    single_word: false,
    lstrip: token.lstrip ?? false,
    rstrip: token.rstrip ?? false,
    normalized: false,
    special: token.special,
  }));
  const json = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: addedTokens,
    normalizer: null,
    pre_tokenizer: byteLevel(addPrefixSpace),
    post_processor: null,
    decoder: byteLevel(true),
  };
  const name = names[endOfText];
  const config = {
    tokenizer_class: "GPT2Tokenizer",
    add_prefix_space: addPrefixSpace,
    added_tokens_decoder: Object.fromEntries(addedTokens.map(({ id, ...token }) => [id, token])),
    bos_token: name,
    eos_token: name,
    unk_token: name,
  };
  const text = JSON.stringify(json).slice(0, -1) +
    `,"model":${JSON.stringify(model).slice(0, -1)},"vocab":${vocab},` +
    `"merges":${JSON.stringify(pairs)}}}`;
  await write("tokenizer.json", text + "\n");
  await write("tokenizer_config.json", JSON.stringify(config, null, 2) + "\n");
  await write("vocab.json", vocab + "\n");
  await write("merges.txt", ["#version: 0.2", ...pairs, ""].join("\n"));
}
