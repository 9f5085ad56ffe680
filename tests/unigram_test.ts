import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import { openRepository } from "../src/format/source.ts";
import { loadUnigramTokenizer, type UnigramTokenizer } from "../src/text/unigram.ts";
import { Charsmap } from "../src/text/unigram_charsmap.ts";
import { UnigramModel } from "../src/text/unigram_model.ts";
import { replacePattern } from "../src/text/unigram_normalize.ts";

type Files = Record<string, string | Uint8Array>;
type Pair = [prompt: string, response: string, limit: number, ids: number[], typeIds: number[]];

interface Expected {
  ids: number[][];
  pairs: Pair[];
}

const FIXTURES = new URL("./fixtures/unigram/", import.meta.url);
const EXPECTED: {
  page: string[];
  converted: Expected & { dialogues: string };
  saved: Expected & { dialogues: string };
  symbols: Expected & { page: string[]; size: number };
} = JSON.parse(await Deno.readTextFile(new URL("expected.json", FIXTURES)));

async function unpack(file: URL): Promise<Uint8Array> {
  const stream = (await Deno.open(file)).readable.pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const fixture = (name: string) => unpack(new URL(name, FIXTURES));
const json = async (name: string) => JSON.parse(new TextDecoder().decode(await fixture(name)));

const SPM = await fixture("spm.model.gz");
const SYMBOLS = await fixture("symbols.model.gz");
const SAVED = await json("saved.json.gz");
/** What transformers 4 makes of SPM; its charsmap is SPM's (make.py), whose length is before its first bytes. */
const CONVERTED = await json("converted.json.gz");
const CHARSMAP = charsmapOf(SPM);
CONVERTED.normalizer.normalizers[1].precompiled_charsmap = CHARSMAP.toBase64();

/** normalizer_spec.precompiled_charsmap, found by its neighbour: field 1 is the rules' name. */
function charsmapOf(model: Uint8Array): Uint8Array {
  const name = new TextEncoder().encode("\x0a\x08nmt_nfkc\x12");
  const at = model.findIndex((_, i) => name.every((byte, j) => model[i + j] === byte)) + name.length;
  let length = 0, i = at;
  do length += (model[i] & 127) * 128 ** (i - at); while (model[i++] >= 128);
  return model.slice(i, i + length);
}

function load(files: Files, name?: string): Promise<UnigramTokenizer> {
  return loadUnigramTokenizer({
    name,
    text: (file) => Promise.resolve(file in files ? files[file] as string : null),
    bytes: (file) => Promise.resolve(file in files ? files[file] as Uint8Array : null),
  });
}

const fromJson = (value: unknown) => load({ "tokenizer.json": JSON.stringify(value) });
const fromSpm = (companions: Record<string, unknown> = {}, model = SPM) =>
  load({
    "spm.model": model,
    ...Object.fromEntries(Object.entries(companions).map(([file, value]) => [file, JSON.stringify(value)])),
  });

/** A tokenizer.json of a few pieces; unknown 0, `[CLS]` 1, `[SEP]` 2; anything may be replaced. */
// deno-lint-ignore no-explicit-any -- whatever a file may hold
function small(vocab: [string, number][] = [], change: (json: any) => void = () => {}) {
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

function added(content: string, id: number, flags: Record<string, boolean> = {}) {
  return { content, id, special: false, normalized: false, ...flags };
}

const CONVERTED_TOKENIZER = await fromJson(CONVERTED);
const SAVED_TOKENIZER = await fromJson(SAVED);
const SPM_TOKENIZER = await fromSpm();
const THREE: [string, UnigramTokenizer, Expected][] = [
  ["tokenizer.json of transformers 4", CONVERTED_TOKENIZER, EXPECTED.converted],
  ["tokenizer.json of transformers 5", SAVED_TOKENIZER, EXPECTED.saved],
  ["spm.model", SPM_TOKENIZER, EXPECTED.converted],
];

for (const [name, tokenizer, { ids, pairs }] of THREE) {
  Deno.test(`${name}: ids of awkward texts are transformers' own`, () => {
    assert(EXPECTED.page.length > 150);
    assertEquals(tokenizer.vocabSize, 1401);
    EXPECTED.page.forEach((text, i) => assertEquals(tokenizer.encode(text), ids[i], JSON.stringify(text)));
  });

  Deno.test(`${name}: pairs, cut from the prompt's front, are transformers' own`, () => {
    assert(pairs.length >= 20);
    for (const [prompt, response, limit, ids, typeIds] of pairs) {
      const encoded = tokenizer.encodePair(prompt, response, limit);
      assertEquals([encoded.ids, encoded.typeIds], [ids, typeIds], JSON.stringify([prompt, response, limit]));
      const length = tokenizer.encode(prompt).length + tokenizer.encode(response).length + 3;
      assertEquals(encoded.dropped, length - ids.length);
    }
  });

  Deno.test(`${name}: no text becomes a special token, in full-width letters neither`, () => {
    for (const text of ["[CLS]", "a [SEP] b[PAD]", "[UNK][MASK]", "［ＣＬＳ］", "▁[SEP]", "x[CLS"]) {
      const special = tokenizer.encode(text).filter((id) => tokenizer.isSpecial(id) && id !== 3);
      assertEquals(special, [], text);
    }
    assertEquals([0, 1, 2, 3, 1400].map((id) => tokenizer.isSpecial(id)), [true, true, true, true, true]);
    const { ids } = tokenizer.encodePair("[CLS]", "[SEP]");
    assertEquals([ids.filter((id) => id === 1).length, ids.filter((id) => id === 2).length], [1, 2]);
  });
}

const SAMPLE = new URL("../../shared/data/hh-rlhf-sample.jsonl.gz", import.meta.url);
const SAMPLE_IS_THERE = await Deno.stat(SAMPLE).then(() => true, () => false);

Deno.test({
  name: "ids of all dialogues of the sample are transformers' own",
  ignore: !SAMPLE_IS_THERE,
  async fn() {
    const dialogues = new TextDecoder().decode(await unpack(SAMPLE)).trimEnd().split("\n")
      .flatMap((line) => [JSON.parse(line).chosen, JSON.parse(line).rejected]);
    assertEquals(dialogues.length, 2312);
    for (
      const [tokenizer, expected] of [
        [CONVERTED_TOKENIZER, EXPECTED.converted.dialogues],
        [SAVED_TOKENIZER, EXPECTED.saved.dialogues],
        [SPM_TOKENIZER, EXPECTED.converted.dialogues],
      ] as const
    ) {
      const lines = dialogues.map((text) => tokenizer.encode(text).join(",") + "\n").join("");
      const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(lines));
      assertEquals(new Uint8Array(digest).toHex(), expected);
    }
  },
});

Deno.test("spm.model with SentencePiece's default special tokens: others follow, user-defined ones are found first", async () => {
  const tokenizer = await fromSpm({}, SYMBOLS);
  const { page, ids, pairs, size } = EXPECTED.symbols;
  assertEquals(tokenizer.vocabSize, size);
  page.forEach((text, i) => assertEquals(tokenizer.encode(text), ids[i], JSON.stringify(text)));
  for (const [prompt, response, limit, ids, typeIds] of pairs) {
    const encoded = tokenizer.encodePair(prompt, response, limit);
    assertEquals([encoded.ids, encoded.typeIds], [ids, typeIds]);
  }
});

Deno.test("a directory on disk: tokenizer.json wins over spm.model, which is read where it is alone", async () => {
  const directory = await Deno.makeTempDir();
  try {
    await Deno.writeFile(`${directory}/spm.model`, SPM);
    const ids = async () => (await loadUnigramTokenizer(await openRepository(directory))).encode("ｆｕｌｌ…");
    assertEquals(await ids(), CONVERTED_TOKENIZER.encode("ｆｕｌｌ…"));
    await Deno.writeTextFile(`${directory}/tokenizer.json`, JSON.stringify(SAVED));
    assertEquals(await ids(), SAVED_TOKENIZER.encode("ｆｕｌｌ…"));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("lone surrogates are encoded as U+FFFD", () => {
  for (const [, tokenizer] of THREE) {
    assertEquals(tokenizer.encode("a\ud83d b\ude00"), tokenizer.encode("a\ufffd b\ufffd"));
  }
});

Deno.test("decoding gives the text that normalization left, special tokens as their literals", () => {
  const { ids } = CONVERTED_TOKENIZER.encodePair("Hello  world", "ｆｕｌｌ");
  assertEquals(CONVERTED_TOKENIZER.decode(ids), "[CLS] Hello world[SEP] full[SEP]");
  assertEquals(CONVERTED_TOKENIZER.decode(CONVERTED_TOKENIZER.encode(" Hello, world!")), "Hello, world!");
  assertEquals(CONVERTED_TOKENIZER.decode([]), "");
  assertEquals(CONVERTED_TOKENIZER.decode([99_999]), "\ufffd");
  for (const id of [-1, 0.5, NaN]) {
    const error = assertThrows(() => CONVERTED_TOKENIZER.decode([id]), WhetError);
    assertEquals([error.code, error.message.includes(`token id ${id}`)], ["option", true]);
  }
});

Deno.test("a response that is too long alone loses its end, and the prompt all", () => {
  const response = SPM_TOKENIZER.encode("one two three four five");
  const { ids, typeIds, dropped } = SPM_TOKENIZER.encodePair("a prompt", "one two three four five", 6);
  assertEquals(ids, [1, 2, ...response.slice(0, 3), 2]);
  assertEquals(typeIds, [0, 0, 1, 1, 1, 1]);
  assertEquals(dropped, SPM_TOKENIZER.encode("a prompt").length + response.length - 3);
  assertEquals(SPM_TOKENIZER.encodePair("a", "b", 3).ids, [1, 2, 2]);
});

Deno.test("a response that fits exactly leaves no prompt, and one token less leaves one of it", () => {
  const prompt = SPM_TOKENIZER.encode("first and last"), response = SPM_TOKENIZER.encode("an answer");
  const at = (limit: number) => SPM_TOKENIZER.encodePair("first and last", "an answer", limit).ids;
  assertEquals(at(response.length + 3), [1, 2, ...response, 2]);
  assertEquals(at(response.length + 4), [1, prompt.at(-1)!, 2, ...response, 2]);
});

Deno.test("an empty response has its [SEP]; 512 is the limit where none is given, Infinity none", () => {
  assertEquals(SPM_TOKENIZER.encodePair("", ""), { ids: [1, 2, 2], typeIds: [0, 0, 1], dropped: 0 });
  const long = "word ".repeat(1000);
  assertEquals(SPM_TOKENIZER.encodePair(long, "x").ids.length, 512);
  assertEquals(SPM_TOKENIZER.encodePair(long, "x", Infinity).dropped, 0);
});

Deno.test("a limit without room for special tokens, and texts that are none, are refused by name", () => {
  for (const limit of [2, 0, -1, 3.5, NaN]) {
    const error = assertThrows(() => SPM_TOKENIZER.encodePair("a", "b", limit), WhetError, "maxLength");
    assertEquals(error.code, "option");
  }
  for (const text of [null, undefined, 1, ["a"]] as unknown as string[]) {
    assertEquals(assertThrows(() => SPM_TOKENIZER.encode(text), WhetError, "text to encode").code, "option");
  }
});

Deno.test("a text of 1 MB without a space, and one of spaces, combining marks or line ends, are encoded", () => {
  const mb = 2 ** 20;
  for (const [, tokenizer] of THREE) {
    const ids = tokenizer.encode("ab".repeat(mb / 2));
    assertEquals(tokenizer.decode(ids).length, mb);
    assertEquals(tokenizer.encode(" ".repeat(mb)), []);
    assert(tokenizer.encode("e" + "\u0301\u0327".repeat(mb / 2)).length > 0);
    assertEquals(tokenizer.encode("a" + "\r\n".repeat(mb / 2) + "b"), tokenizer.encode("a b"));
  }
});

Deno.test("every text of three letters gets its most probable pieces", () => {
  const pieces = ["<unk>", "a", "b", "ab", "ba", "aab", "bb"];
  const scores = Float64Array.of(0, -2, -2.5, -4.25, -4.75, -6.125, -5.5);
  const model = new UnigramModel({ pieces, scores, unknown: 0, excluded: new Set([0]), byteFallback: false });
  const score = (ids: number[]) => ids.reduce((sum, id) => sum + (id === 0 ? -16.125 : scores[id]), 0);
  /** All ways to divide a text, unknown characters one by one. */
  function* ways(text: string): Generator<number[]> {
    if (text === "") yield [];
    for (let id = 1; id < pieces.length; id++) {
      if (!text.startsWith(pieces[id])) continue;
      for (const rest of ways(text.slice(pieces[id].length))) yield [id, ...rest];
    }
    if (text.startsWith("c")) { for (const rest of ways(text.slice(1))) yield [0, ...rest]; }
  }
  for (let i = 0; i < 3 ** 6; i++) {
    const text = i.toString(3).padStart(6, "0").replace(/./g, (digit) => "abc"[Number(digit)]);
    const best = Math.max(...[...ways(text)].map(score));
    const ids: number[] = [];
    model.segment(text, ids);
    const unfused = ids.flatMap((id) => id === 0 ? [] : [id]);
    const unknown = text.replaceAll(/[^c]/g, "").length;
    assertEquals(score(unfused) - 16.125 * unknown, best, text);
    assertEquals(ids.filter((id) => id === 0).length, text.split(/[^c]+/).filter(Boolean).length, text);
  }
});

Deno.test("of equally probable pieces the longest last one wins", async () => {
  const tokenizer = await fromJson(small([["ab", -4], ["ba", -4], ["aba", -6]]));
  assertEquals(tokenizer.encode("ab"), [3, 6]);
  assertEquals(tokenizer.encode("aba"), [3, 8]);
  assertEquals(tokenizer.encode("bab"), [3, 5, 6]);
});

Deno.test("unknown characters in a row are one token, and bytes where the model has them", async () => {
  assertEquals((await fromJson(small())).encode("axyéb 😀"), [3, 4, 0, 5, 3, 0]);
  const bytes = Array.from({ length: 256 }, (_, i): [string, number] => {
    return [`<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`, -9];
  });
  const tokenizer = await fromJson(small(bytes, (json) => json.model.byte_fallback = true));
  const ids = [3, 4, 6 + 0xc3, 6 + 0xa9, 5, 3, 6 + 0xf0, 6 + 0x9f, 6 + 0x98, 6 + 0x80];
  assertEquals(tokenizer.encode("aéb 😀"), ids);
  assertEquals(tokenizer.decode(ids), "aéb 😀");
  assertEquals(tokenizer.decode(ids.slice(0, 3)), "a\ufffd");
  const some = await fromJson(small(bytes.slice(0, 0xc4), (json) => json.model.byte_fallback = true));
  assertEquals(some.encode("é b é😀"), [3, 6 + 0xc3, 6 + 0xa9, 3, 5, 3, 0]); // F0 is missing: none are bytes
});

Deno.test("Metaspace marks every stretch, the first or none, and cuts at marks or does not", async () => {
  const encode = async (metaspace: Record<string, unknown>, text: string) =>
    (await fromJson(small([["▁a", -2], ["a▁", -1], ["x", -5]], (json) => {
      Object.assign(json.pre_tokenizer, metaspace);
      json.added_tokens.push(added("x", 8));
    }))).encode(text);
  assertEquals(await encode({}, "axa"), [6, 8, 6]);
  assertEquals(await encode({ prepend_scheme: "first" }, "axa"), [6, 8, 4]);
  assertEquals(await encode({ prepend_scheme: "first" }, "xa"), [8, 4]);
  assertEquals(await encode({ prepend_scheme: "never" }, "axa"), [4, 8, 4]);
  assertEquals(await encode({ prepend_scheme: undefined, add_prefix_space: false }, "a"), [4]);
  assertEquals(await encode({}, " a a"), [6, 6]);
  assertEquals(await encode({}, "a a"), [6, 6]);
  assertEquals(await encode({ split: false, prepend_scheme: "never" }, "a a"), [7, 4]);
});

Deno.test("added tokens: the leftmost and longest, with white space where they take it, whole words only", async () => {
  const encode = async (flags: Record<string, boolean>, text: string) =>
    (await fromJson(small([], (json) => {
      json.normalizer = { type: "Lowercase" };
      json.added_tokens.push(added("XY", 6, flags), added("X", 7));
    }))).encode(text);
  assertEquals(await encode({}, "aXYXb"), [3, 4, 6, 7, 3, 5]);
  assertEquals(await encode({}, "a XY b"), [3, 4, 3, 6, 3, 5]);
  assertEquals(await encode({ lstrip: true, rstrip: true }, "a\u0085 XY \u00a0b"), [3, 4, 6, 3, 5]);
  assertEquals(await encode({ single_word: true }, "aXY XY XYé XY"), [3, 4, 0, 3, 6, 3, 0, 3, 6]);
  // Normalized: found in small letters, which both become.
  assertEquals(await encode({ normalized: true }, "xy"), [6]);
  assertEquals(await encode({ normalized: true }, "XY"), [7, 3, 0]); // X, not normalized, comes first
});

Deno.test("a special token's literal in text shadows no other added token but where they overlap", async () => {
  const tokenizer = await fromJson(
    small([], (json) => json.added_tokens.push(added("]a", 6), added("b", 5))),
  );
  assertEquals(tokenizer.encode("[CLS]ab"), [3, 0, 4, 5]);
  assertEquals(tokenizer.encode("]ab"), [6, 5]);
});

Deno.test("normalizers do what tokenizer.json names them for", async () => {
  const normalized = async (normalizer: unknown, text: string) => {
    const alphabet = [...new Set("abcABC_$& \u0085\u00e9e\u0301σfi")].filter((c) => !"ab ".includes(c));
    const tokenizer = await fromJson(
      small(alphabet.map((c): [string, number] => [c, -3]), (json) => {
        json.normalizer = normalizer;
        json.pre_tokenizer.prepend_scheme = "never";
      }),
    );
    return tokenizer.decode(tokenizer.encode(text));
  };
  const strip = (left: boolean, right: boolean) => ({ type: "Strip", strip_left: left, strip_right: right });
  assertEquals(await normalized(strip(true, false), "\u0085 a "), "a ");
  assertEquals(await normalized(strip(false, true), " a\u3000"), " a");
  assertEquals(await normalized({ type: "NFC" }, "e\u0301"), "é");
  assertEquals(await normalized({ type: "NFD" }, "é"), "e\u0301");
  assertEquals(await normalized({ type: "NFKC" }, "ﬁ"), "fi");
  assertEquals(await normalized({ type: "NFKD" }, "é"), "e\u0301");
  assertEquals(await normalized({ type: "Lowercase" }, "ABCΣ"), "abcσ");
  assertEquals(await normalized({ type: "Nmt" }, "a\x01b\u200b\ufeffc\x7f"), "ab  c");
  const replace = (pattern: unknown, content: string) => ({ type: "Replace", pattern, content });
  assertEquals(await normalized(replace({ String: "a" }, "$&"), "aba"), "$&b$&");
  assertEquals(await normalized(replace({ Regex: "a{2,}|b" }, "$&"), "aaab a"), "$&$& a");
  const both = { type: "Sequence", normalizers: [{ type: "Lowercase" }, replace({ String: "a" }, "b")] };
  assertEquals(await normalized(both, "A"), "b");
});

Deno.test("expressions of tokenizers are read; those that mean something else here or take long are refused", () => {
  const replaced = (pattern: string, text: string) => replacePattern(pattern, "_", "here")(text);
  assertEquals(replaced(" {2,}", "a b  c   d"), "a b_c_d");
  assertEquals(
    replaced("\\s{2,}|[\\n\\r\\t]", "a\nb \u0085c\ufeff\ufeff\u0085d"),
    "a_b_c\ufeff\ufeff\u0085d",
  );
  assertEquals(replaced("``|\\.", "a``b.c`"), "a_b_c`");
  assertEquals(replaced("[\\s,]+", "a, ,b"), "a_b");
  assertEquals(replaced("😀+", "a😀😀b"), "a_b");
  assertEquals(replaced("\\s+", " ".repeat(10 ** 6)), "_");
  for (
    const pattern
      of "|a|,a|,|,(a+)+$,a*,a?,a+b,a++,a+?,a{0,},a{2,1},a{2,}?,.,^a,[^a],[a-c],\\d,\\w,\\p{L},\\b,\\1,[]"
        .split(",").concat("", "\\", "[", "[\\w]")
  ) {
    const error = assertThrows(
      () => replacePattern(pattern, "", "here: pattern"),
      WhetError,
      "here: pattern",
    );
    assertEquals(error.code, "unsupported", pattern);
  }
});

Deno.test("the charsmap replaces whole clusters below 6 bytes, and characters of longer ones", () => {
  const charsmap = new Charsmap(CHARSMAP, "charsmap");
  for (
    const [text, expected] of [
      ["", ""],
      ["plain ASCII", "plain ASCII"],
      ["\tｆｕｌｌ\u00a0™", " full TM"],
      ["\r\n", " "], // one cluster
      ["\n\r", "  "],
      ["\u00aa\u0300", "a"], // what follows in the cluster is lost, as it is in the reference
      ["A\u0300", "À"],
      ["A\u0302\u0300", "Â"], // the shortest rule
      ["a\u0301\u0302\u0303 ½\u0301\u0302\u0303", "a\u0301\u0302\u0303 1⁄2\u0301\u0302\u0303"], // 7 bytes and more
      ["a\x00b", "a\x00b"],
      ["\u200b\u200d", "\u0020\u200d"],
    ]
  ) {
    assertEquals(charsmap.normalize(text), expected, JSON.stringify(text));
  }
});

Deno.test("names and flags beside spm.model: small letters, other special tokens, tokens that are added", async () => {
  const lower = await fromSpm({ "tokenizer_config.json": { do_lower_case: true } });
  assertEquals(lower.encode("HELLO World"), SPM_TOKENIZER.encode("hello world"));
  const other = await fromSpm({
    "tokenizer_config.json": { cls_token: "<cls>", sep_token: { content: "<sep>" }, mask_token: null },
  });
  assertEquals(other.encodePair("", "").ids, [1401, 1400, 1400]); // after the pieces, in transformers' order
  const map = await fromSpm({
    "special_tokens_map.json": { cls_token: { content: "[SEP]" }, sep_token: "[CLS]" },
    "tokenizer_config.json": { cls_token: "[PAD]" },
  });
  assertEquals(map.encodePair("", "").ids, [2, 1, 1]);
  const legacy = await fromSpm({ "added_tokens.json": { "[MASK]": 1400, "<sep>": 1401 } });
  assertEquals([legacy.isSpecial(1400), legacy.isSpecial(1401)], [true, false]);
  assertEquals(legacy.encode("<sep>"), [1401]);
  const decoder = await fromSpm({
    "tokenizer_config.json": {
      added_tokens_decoder: { "1401": added("the", 0), "1400": { content: "<x>", special: true } },
    },
  }).catch((error) => error);
  assertStringIncludes(decoder.message, '"the" should have the id 1401, but comes to');
});

// What follows is bad input: one line, the file and the field, the right code.

async function refused(promise: Promise<unknown>, code: string, ...parts: string[]): Promise<void> {
  const error = await assertRejects(() => promise, WhetError);
  assertEquals(error.code, code, error.message);
  assert(!error.message.includes("\n"), error.message);
  for (const part of parts) assertStringIncludes(error.message, part);
}

Deno.test("a directory with neither file, and files that are none, are refused by name", async () => {
  await refused(load({}, "models/x/"), "format", "models/x/tokenizer.json", "spm.model");
  await refused(load({ "tokenizer.json": "{" }, "m"), "format", "m/tokenizer.json", "JSON");
  await refused(load({ "tokenizer.json": "[]" }), "format", "tokenizer.json: expected an object");
  await refused(load({ "tokenizer.json": '{"model": {"type": "BPE"}}' }), "unsupported", "model.type", "BPE");
  await refused(load({ "spm.model": new Uint8Array() }, "m"), "format", "m/spm.model");
  const html = new TextEncoder().encode("<!DOCTYPE html><html></html>");
  await refused(load({ "spm.model": html }), "format", "spm.model");
});

// deno-lint-ignore no-explicit-any -- whatever a file may hold
const BROKEN: [name: string, change: (json: any) => void, code: string, ...parts: string[]][] = [
  ["no pieces", (j) => j.model.vocab = [], "format", "model.unk_id"],
  ["a vocabulary that is no list", (j) => j.model.vocab = {}, "format", "model.vocab: expected a list"],
  ["a piece that is no pair", (j) => j.model.vocab[4] = ["a"], "format", "model.vocab[4]"],
  ["a piece that is no text", (j) => j.model.vocab[4] = [1, 2], "format", "model.vocab[4]"],
  ["a score that is no number", (j) => j.model.vocab[4] = ["a", "1"], "format", "model.vocab[4]"],
  ["an empty piece", (j) => j.model.vocab[4][0] = "", "format", "model.vocab[4] is empty"],
  ["half a pair as a piece", (j) => j.model.vocab[4][0] = "\ud800", "format", "model.vocab[4]", "surrogate"],
  ["a piece twice", (j) => j.model.vocab[5][0] = "a", "format", "model.vocab[5]", '"a"', "piece 4"],
  ["no unknown piece", (j) => j.model.unk_id = null, "format", "model.unk_id"],
  [
    "an unknown piece that is not there",
    (j) => j.model.unk_id = 6,
    "format",
    "model.unk_id",
    "0 to 5, got 6",
  ],
  ["an unknown piece that is no id", (j) => j.model.unk_id = 0.5, "format", "model.unk_id"],
  ["added tokens that are no list", (j) => j.added_tokens = {}, "format", "added_tokens: expected a list"],
  ["an added token without text", (j) => j.added_tokens[0].content = 1, "format", "added_tokens[0].content"],
  ["an empty added token", (j) => j.added_tokens.push(added("", 9)), "format", "added_tokens[3]"],
  ["an id below 0", (j) => j.added_tokens.push(added("x", -1)), "format", "added_tokens[3]", "the id -1"],
  [
    "a huge id",
    (j) => j.added_tokens.push(added("x", 1e12)),
    "format",
    "added_tokens[3]",
    "the id 1000000000000",
  ],
  ["no id", (j) => delete j.added_tokens[0].id, "format", "added_tokens[0]"],
  [
    "an id twice",
    (j) => j.added_tokens.push(added("x", 9), added("y", 9)),
    "format",
    "added_tokens[4]",
    '"x"',
  ],
  [
    "a token twice",
    (j) => j.added_tokens.push(added("x", 9), added("x", 10)),
    "format",
    "added_tokens[4]",
    "twice",
  ],
  ["another piece's id", (j) => j.added_tokens.push(added("x", 4)), "format", "added_tokens[3]", '"a"'],
  [
    "a piece with another id",
    (j) => j.added_tokens.push(added("a", 9)),
    "format",
    "added_tokens[3]",
    "piece 4",
  ],
  [
    "a normalizer that is not known",
    (j) => j.normalizer = { type: "Bert" },
    "unsupported",
    "normalizer",
    "Bert",
  ],
  ["a normalizer that is no object", (j) => j.normalizer = "NFC", "format", "normalizer: expected an object"],
  [
    "an empty Replace",
    (j) => j.normalizer = { type: "Replace", pattern: { String: "" }, content: "" },
    "format",
    "pattern",
  ],
  [
    "a Replace without content",
    (j) => j.normalizer = { type: "Replace", pattern: { String: "a" } },
    "format",
    "content",
  ],
  [
    "a regular expression beyond",
    (j) => j.normalizer = { type: "Replace", pattern: { Regex: "(a+)+$" }, content: "" },
    "unsupported",
    "(a+)+$",
  ],
  [
    "a charsmap that is no base64",
    (j) => j.normalizer = { type: "Precompiled", precompiled_charsmap: "é" },
    "format",
    "precompiled_charsmap",
  ],
  ["no charsmap", (j) => j.normalizer = { type: "Precompiled" }, "format", "precompiled_charsmap"],
  [
    "an empty charsmap",
    (j) => j.normalizer = { type: "Precompiled", precompiled_charsmap: "" },
    "format",
    "precompiled_charsmap",
  ],
  [
    "a charsmap of 4 GB",
    (j) => j.normalizer = { type: "Precompiled", precompiled_charsmap: "/P///wAAAAA=" },
    "format",
    "4294967292",
  ],
  [
    "sequences in each other without end",
    (j) => {
      for (let i = 0; i < 5000; i++) j.normalizer = { type: "Sequence", normalizers: [j.normalizer] };
    },
    "format",
    "normalizer",
    "16",
  ],
  ["no pre-tokenizer", (j) => j.pre_tokenizer = null, "unsupported", "pre_tokenizer", "null"],
  [
    "another pre-tokenizer",
    (j) => j.pre_tokenizer = { type: "ByteLevel" },
    "unsupported",
    "pre_tokenizer",
    "ByteLevel",
  ],
  ["an empty mark", (j) => j.pre_tokenizer.replacement = "", "format", "replacement"],
  ["a mark of two characters", (j) => j.pre_tokenizer.replacement = "__", "format", "replacement"],
  [
    "a scheme that is none",
    (j) => j.pre_tokenizer.prepend_scheme = "last",
    "format",
    "prepend_scheme",
    "last",
  ],
  ["no template", (j) => j.post_processor = null, "unsupported", "post_processor"],
  [
    "another post-processor",
    (j) => j.post_processor.type = "RobertaProcessing",
    "unsupported",
    "RobertaProcessing",
  ],
  [
    "a pair without the response",
    (j) => j.post_processor.pair.splice(3, 1),
    "unsupported",
    "post_processor",
    "prompt",
  ],
  ["a pair in the wrong order", (j) => j.post_processor.pair.reverse(), "unsupported", "response, prompt"],
  ["a text that is neither", (j) => j.post_processor.pair[1].Sequence.id = "C", "format", "pair[1]", '"C"'],
  ["a type id that is none", (j) => j.post_processor.pair[1].Sequence.type_id = "0", "format", "pair[1]"],
  [
    "a special token that is not named",
    (j) => delete j.post_processor.special_tokens["[CLS]"],
    "format",
    '"[CLS]"',
  ],
  [
    "a special token named like a method",
    (j) => j.post_processor.pair[0].SpecialToken.id = "toString",
    "format",
    "toString",
  ],
  [
    "a special token that is not there",
    (j) => j.post_processor.special_tokens["[CLS]"].ids = [77],
    "format",
    "77",
  ],
  [
    "a special token that is no id",
    (j) => j.post_processor.special_tokens["[CLS]"].ids = ["1"],
    "format",
    '"1"',
  ],
];

for (const [name, change, code, ...parts] of BROKEN) {
  Deno.test(`tokenizer.json is refused with its entry: ${name}`, () => {
    return refused(fromJson(small([], change)), code, "tokenizer.json: ", ...parts);
  });
}

Deno.test("a score that is not finite is refused", async () => {
  const text = JSON.stringify(small()).replace('["a",-2]', '["a",-1e999]');
  await refused(load({ "tokenizer.json": text }), "format", "model.vocab[4]", "-Infinity");
});

/** A field of a protobuf message. */
function field(number: number, value: number | string | Uint8Array): number[] {
  if (typeof value === "number") {
    return [number * 8 % 256 | (number > 15 ? 128 : 0), ...(number > 15 ? [number >> 4] : []), value];
  }
  const bytes = typeof value === "string" ? new TextEncoder().encode(value) : value;
  return [number * 8 + 2, bytes.length, ...bytes];
}

function piece(text: string, score = -1, type = 1): number[] {
  const float = new Uint8Array(Float32Array.of(score).buffer);
  return field(1, Uint8Array.from([...field(1, text), 2 * 8 + 5, ...float, ...field(3, type)]));
}

const HEAD = [...piece("<unk>", 0, 2), ...piece("[CLS]", 0, 3), ...piece("[SEP]", 0, 3), ...piece("▁")];
const spm = (...parts: number[][]) => fromSpm({}, Uint8Array.from([...HEAD, ...parts.flat()]));

Deno.test("a SentencePiece model is read field by field, whatever else is in it", async () => {
  const tokenizer = await spm(
    piece("a"),
    piece("b"),
    field(2, Uint8Array.from([...field(40, 0), ...field(41, 9)])),
    field(90 % 16, "x"),
  );
  assertEquals(tokenizer.encodePair("ab", "ba").ids, [1, 3, 4, 5, 2, 3, 5, 4, 2]);
  assertEquals(tokenizer.encode("a<unk>[CLS]"), [3, 4, 0]);
});

Deno.test("a SentencePiece model that is damaged or another is refused with its field", async () => {
  const trainer = (...parts: number[][]) => field(2, Uint8Array.from(parts.flat()));
  await refused(spm(trainer(field(3, 2))), "unsupported", "spm.model", "model_type", "BPE");
  await refused(spm(trainer(field(40, 77))), "format", "trainer_spec.unk_id", "77");
  await refused(spm(piece("▁")), "format", "pieces[4]", "as is piece 3");
  await refused(spm(piece("")), "format", "pieces[4] is empty");
  await refused(spm(piece("a", NaN)), "format", "pieces[4]", "NaN");
  await refused(spm(piece("a", -Infinity)), "format", "pieces[4]", "-Infinity");
  await refused(spm(piece("a", 0, 7)), "format", "pieces[4].type", "got 7");
  await refused(spm(field(1, 5)), "format", "pieces[4]: expected bytes");
  await refused(
    spm(field(1, Uint8Array.from(field(1, Uint8Array.of(0xff))))),
    "format",
    "pieces[4].piece: not UTF-8",
  );
  await refused(spm(field(1, Uint8Array.from(field(2, "abc")))), "format", "pieces[4].score", "got 3");
  await refused(spm([1 * 8 + 2, 200]), "format", "spm.model", "cut short");
  await refused(
    spm([1 * 8 + 2, 0xff, 0xff, 0xff, 0xff, 0x7f]),
    "format",
    "spm.model",
    "34359738367 bytes where 0 are left",
  );
  await refused(spm([1 * 8 + 3]), "format", "wire type 3");
  await refused(spm(Array(11).fill(0xff)), "format", "more than 10 bytes");
  await refused(
    spm(field(3, Uint8Array.from(field(2, "abcdefgh")))),
    "format",
    "normalizer_spec.precompiled_charsmap",
  );
  await refused(spm([0, 0]), "format", "number 0");
});

Deno.test("companions of spm.model that contradict it are refused with their entry", async () => {
  const config = (value: unknown) => fromSpm({ "tokenizer_config.json": value });
  await refused(config({ split_by_punct: true }), "unsupported", "tokenizer_config.json: split_by_punct");
  await refused(config({ cls_token: null }), "format", "cls_token and sep_token");
  await refused(config({ cls_token: 5 }), "format", "tokenizer_config.json: cls_token");
  await refused(config({ added_tokens_decoder: [] }), "format", "added_tokens_decoder");
  await refused(
    config({ added_tokens_decoder: { "1400": {} } }),
    "format",
    'added_tokens_decoder["1400"].content',
  );
  await refused(fromSpm({ "added_tokens.json": { "[MASK]": 1500 } }), "mismatch", '"[MASK]"', "1500", "1400");
  await refused(fromSpm({ "added_tokens.json": { "[MASK]": "x" } }), "mismatch", '"[MASK]"');
});

Deno.test("a model cut short or with bits turned is refused or read, and never hangs or fails otherwise", async () => {
  const attempt = async (bytes: Uint8Array) => {
    try {
      const tokenizer = await fromSpm({}, bytes);
      tokenizer.encode("ｆｕｌｌ e\u0301 \u00aa\u0300 ﷺ… text\r\n" + String.fromCodePoint(0x1f600, 0x2f801));
      return true;
    } catch (error) {
      if (!(error instanceof WhetError)) throw error;
      return false;
    }
  };
  for (let i = 1; i <= 20; i++) await attempt(SPM.slice(0, Math.floor(SPM.length * i / 21)));
  let state = 1, read = 0;
  const random = (n: number) => (state = Math.imul(state, 1103515245) + 12345 >>> 0) % n;
  for (let i = 0; i < 30; i++) {
    const bytes = SPM.slice();
    // Few in the pieces, where one is mostly fatal; many in the charsmap, which is read as it is used.
    if (i % 2 === 0) bytes[random(bytes.length)] ^= 1 << random(8);
    else for (let j = 0; j < 20_000; j++) bytes[bytes.length - 230_000 + random(225_000)] ^= 1 << random(8);
    if (await attempt(bytes)) read++;
  }
  assert(read > 0);
});
