/**
 * Unigram tokenizers for tests: the fixtures' files, and small ones that may be changed.
 *
 * @module
 */
import { loadUnigramTokenizer, type UnigramTokenizer } from "../../src/text/unigram.ts";

export type Files = Record<string, string | Uint8Array>;
export const FIXTURES = new URL("../fixtures/unigram/", import.meta.url);

export async function unpack(file: URL): Promise<Uint8Array> {
  const stream = (await Deno.open(file)).readable.pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const fixture = (name: string) => unpack(new URL(name, FIXTURES));
const json = async (name: string) => JSON.parse(new TextDecoder().decode(await fixture(name)));

export const SPM = await fixture("spm.model.gz");
export const SYMBOLS = await fixture("symbols.model.gz");
export const SAVED = await json("saved.json.gz");
/** What transformers 4 makes of SPM; its charsmap is SPM's (make.py), whose length is before its first bytes. */
export const CONVERTED = await json("converted.json.gz");
export const CHARSMAP = charsmapOf(SPM);
CONVERTED.normalizer.normalizers[1].precompiled_charsmap = CHARSMAP.toBase64();

/** normalizer_spec.precompiled_charsmap, found by its neighbour: field 1 is the rules' name. */
function charsmapOf(model: Uint8Array): Uint8Array {
  const name = new TextEncoder().encode("\x0a\x08nmt_nfkc\x12");
  const at = model.findIndex((_, i) => name.every((byte, j) => model[i + j] === byte)) + name.length;
  let length = 0, i = at;
  do length += (model[i] & 127) * 128 ** (i - at); while (model[i++] >= 128);
  return model.slice(i, i + length);
}

export function load(files: Files, name?: string): Promise<UnigramTokenizer> {
  return loadUnigramTokenizer({
    name,
    text: (file) => Promise.resolve(file in files ? files[file] as string : null),
    bytes: (file) => Promise.resolve(file in files ? files[file] as Uint8Array : null),
  });
}

export const fromJson = (value: unknown) => load({ "tokenizer.json": JSON.stringify(value) });
export const fromSpm = (companions: Record<string, unknown> = {}, model = SPM) =>
  load({
    "spm.model": model,
    ...Object.fromEntries(Object.entries(companions).map(([file, value]) => [file, JSON.stringify(value)])),
  });

/** A tokenizer.json of a few pieces; unknown 0, `[CLS]` 1, `[SEP]` 2; anything may be replaced. */
// deno-lint-ignore no-explicit-any -- whatever a file may hold
export function small(vocab: [string, number][] = [], change: (json: any) => void = () => {}) {
  const special = (content: string, id: number) => ({ content, id, special: true, normalized: false });
  const token = (id: string, type_id: number) => ({ SpecialToken: { id, type_id } });
  const text = (id: string, type_id: number) => ({ Sequence: { id, type_id } });
  const json = {
    added_tokens: [special("<unk>", 0), special("[CLS]", 1), special("[SEP]", 2)],
    normalizer: null,
    pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
    post_processor: {
      type: "TemplateProcessing",
      pair: [token("[CLS]", 0), text("A", 0), token("[SEP]", 0), text("B", 1), token("[SEP]", 1)],
      special_tokens: { "[CLS]": { id: "[CLS]", ids: [1] }, "[SEP]": { id: "[SEP]", ids: [2] } },
    },
    model: {
      type: "Unigram",
      unk_id: 0,
      vocab: [["<unk>", 0], ["[CLS]", 0], ["[SEP]", 0], ["▁", -1], ["a", -2], ["b", -2], ...vocab],
    },
  };
  change(json);
  return json;
}

export function added(content: string, id: number, flags: Record<string, boolean> = {}) {
  return { content, id, special: false, normalized: false, ...flags };
}
