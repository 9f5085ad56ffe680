import { assert, assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import { fromBytes } from "../src/text/bytes.ts";
import { gpt2Tokenizer, loadTokenizer, saveTokenizer, type Tokenizer } from "../src/text/tokenizers.ts";

type Files = Record<string, string>;

const FIXTURES = new URL("./fixtures/tokenizer/", import.meta.url);
const SMALL: Files = { "tokenizer.json": await Deno.readTextFile(new URL("small/tokenizer.json", FIXTURES)) };
const SMALL_CASES: [string, number[]][] = JSON.parse(
  await Deno.readTextFile(new URL("small.json", FIXTURES)),
);

function directory(files: Files, name?: string) {
  return { name, text: (file: string) => Promise.resolve(files[file] ?? null) };
}

async function load(files: Files, eosTokenId?: number): Promise<Tokenizer> {
  const tokenizer = await loadTokenizer(directory(files), eosTokenId);
  assert(tokenizer !== null);
  return tokenizer;
}

async function save(tokenizer: Tokenizer): Promise<Files> {
  const files: Files = {};
  await saveTokenizer(tokenizer, (name, text) => Promise.resolve(void (files[name] = text)));
  return files;
}

/** A vocabulary of the 256 bytes, `<|endoftext|>` and what merges make; anything may be replaced. */
function vocabulary(merges: string[] = ["h i"]): Record<string, number> {
  const vocab: Record<string, number> = {};
  for (let byte = 0; byte < 256; byte++) vocab[fromBytes(Uint8Array.of(byte))] = byte;
  vocab["<|endoftext|>"] = 256;
  merges.forEach((merge, i) => vocab[merge.replace(" ", "")] = 257 + i);
  return vocab;
}

function twoFiles(vocab: unknown = vocabulary(), merges = "#version: 0.2\nh i\n"): Files {
  return { "vocab.json": JSON.stringify(vocab), "merges.txt": merges };
}

/** The small tokenizer.json, changed. */
// deno-lint-ignore no-explicit-any -- whatever the file holds
function changed(change: (json: any) => void): Files {
  const json = JSON.parse(SMALL["tokenizer.json"]);
  change(json);
  return { "tokenizer.json": JSON.stringify(json) };
}

Deno.test("a directory without a tokenizer gives null", async () => {
  assertStrictEquals(await loadTokenizer(directory({ "config.json": "{}" })), null);
});

Deno.test("a tokenizer.json with a prefix space and added tokens gives Hugging Face's ids", async () => {
  const tokenizer = await load(SMALL);
  assertEquals(tokenizer.vocabSize, 400);
  assertEquals(tokenizer.endOfText, 0);
  assert(SMALL_CASES.length > 100);
  for (const [text, ids] of SMALL_CASES) assertEquals(tokenizer.encode(text), ids, JSON.stringify(text));
});

Deno.test("merges may be written as pairs or with a space between", async () => {
  const strings = changed((json) =>
    json.model.merges = json.model.merges.map((pair: string[]) => pair.join(" "))
  );
  const [one, other] = [await load(SMALL), await load(strings)];
  for (const [text] of SMALL_CASES) assertEquals(one.encode(text), other.encode(text));
});

Deno.test("tokenizer.json wins over vocab.json and merges.txt", async () => {
  assertEquals((await load({ ...twoFiles(), ...SMALL })).vocabSize, 400);
});

Deno.test("vocab.json and merges.txt are read, with or without a version line and with CRLF", async () => {
  for (const merges of ["#version: 0.2\nh i\nhi !\n", "h i\nhi !", "#version: 0.2\r\nh i\r\nhi !\r\n"]) {
    const tokenizer = await load(twoFiles(vocabulary(["h i", "hi !"]), merges));
    assertEquals(tokenizer.encode("hi!hi<|endoftext|>é"), [257, 33, 257, 256, 0xc3, 0xa9]);
    assertEquals(tokenizer.decode([258, 256]), "hi!<|endoftext|>");
  }
});

Deno.test("a merge of number signs is a merge and no comment", async () => {
  const tokenizer = await load(twoFiles(vocabulary(["# #"]), "#version: 0.2\n# #\n"));
  assertEquals(tokenizer.encode("##"), [257]);
});

Deno.test("added tokens beside vocab.json are found in text, and the prefix space is put", async () => {
  const tokenizer = await load({
    ...twoFiles(),
    "added_tokens.json": '{"<pad>": 258, "<sep>": 259}',
    "tokenizer_config.json": JSON.stringify({
      add_prefix_space: true,
      added_tokens_decoder: {
        "259": { content: "<sep>", special: true, lstrip: true },
        "260": { content: "word", special: false },
      },
    }),
  });
  assertEquals(tokenizer.vocabSize, 261);
  assertEquals(tokenizer.encode("hi <sep>word<pad>"), [32, 257, 259, 260, 258]);
  assertEquals([258, 259, 260].map((id) => tokenizer.isSpecial(id)), [true, true, false]);
});

Deno.test("end-of-text: the special token that the config names, else <|endoftext|>, else any token it names", async () => {
  assertEquals((await load(SMALL, 394)).endOfText, 394); // <pad>
  assertEquals((await load(SMALL, 20)).endOfText, 0); // 20 is a letter
  const { "<|endoftext|>": _, ...vocab } = vocabulary();
  const tokenizer = await load(twoFiles({ ...vocab, "</s>": 256 }), 256);
  assertEquals(tokenizer.endOfText, 256);
  assertEquals(tokenizer.encode("hi</s>"), [257, 256]);
});

Deno.test("a token that the vocabulary lists and no merge makes is not used", async () => {
  const tokenizer = await load(twoFiles({ ...vocabulary(), hiho: 258 }));
  assertEquals(tokenizer.encode("hiho"), [257, 104, 111]);
  assertEquals(tokenizer.decode([258]), "hiho");
});

Deno.test("an id without a token decodes to U+FFFD", async () => {
  const tokenizer = await load(twoFiles({ ...vocabulary(), hiho: 300 }));
  assertEquals(tokenizer.vocabSize, 301);
  assertEquals(tokenizer.decode([257, 299]), "hi\ufffd");
});

Deno.test("what is saved is loaded again the same, from either form", async () => {
  const saved = await save(await load(SMALL));
  assertEquals(Object.keys(saved).sort(), [
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
  ]);
  const { "tokenizer.json": _, ...older } = saved;
  const again = await load(saved), fromOlder = await load(older);
  for (const [text, ids] of SMALL_CASES) {
    assertEquals(again.encode(text), ids);
    assertEquals(fromOlder.encode(text), ids);
  }
  assertEquals(await save(again), saved);
});

Deno.test("GPT-2's tokenizer, saved and loaded from either form, gives GPT-2's ids", async () => {
  const saved = await save(await gpt2Tokenizer());
  const { "tokenizer.json": json, ...older } = saved;
  const cases: [string, number[]][] = JSON.parse(await Deno.readTextFile(new URL("gpt2.json", FIXTURES)));
  for (const tokenizer of [await load({ "tokenizer.json": json }), await load(older)]) {
    assertEquals(tokenizer.endOfText, 50256);
    for (const [text, ids] of cases) assertEquals(tokenizer.encode(text), ids);
  }
});

const BROKEN: [what: string, files: Files, code: string, says: string[]][] = [
  ["broken JSON", { "tokenizer.json": '{"model":\n{' }, "format", ["m/tokenizer.json", "not valid JSON"]],
  ["a list for an object", { "tokenizer.json": "[]" }, "format", [
    "m/tokenizer.json",
    "expected an object, got []",
  ]],
  ["no model", { "tokenizer.json": "{}" }, "format", ["tokenizer.json: model", "got nothing"]],
  ["no vocabulary", changed((j) => delete j.model.vocab), "format", ["model.vocab", "expected an object"]],
  ["no merges", changed((j) => delete j.model.merges), "format", ["model.merges", "expected a list"]],
  ["a model of another type", changed((j) => j.model.type = "WordPiece"), "unsupported", [
    'model.type "WordPiece"',
  ]],
  ["a word suffix", changed((j) => j.model.end_of_word_suffix = "</w>"), "unsupported", [
    'end_of_word_suffix "</w>"',
  ]],
  ["ignore_merges", changed((j) => j.model.ignore_merges = true), "unsupported", [
    "model.ignore_merges true",
  ]],
  ["dropout", changed((j) => j.model.dropout = 0.1), "unsupported", ["model.dropout 0.1"]],
  ["a normalizer", changed((j) => j.normalizer = { type: "NFC" }), "unsupported", ['normalizer "NFC"']],
  ["another pre-tokenizer", changed((j) => j.pre_tokenizer = { type: "Metaspace" }), "unsupported", [
    '"Metaspace"',
  ]],
  ["no pre-tokenizer", changed((j) => j.pre_tokenizer = null), "unsupported", ["pre_tokenizer null"]],
  [
    "a second pre-tokenizer",
    changed((j) =>
      j.pre_tokenizer = { type: "Sequence", pretokenizers: [{ type: "Digits" }, j.pre_tokenizer] }
    ),
    "unsupported",
    ['pre_tokenizer "Digits, ByteLevel"'],
  ],
  ["no splitting", changed((j) => j.pre_tokenizer.use_regex = false), "unsupported", ["pre_tokenizer"]],
  ["another decoder", changed((j) => j.decoder = { type: "WordPiece" }), "unsupported", [
    'decoder "WordPiece"',
  ]],
  [
    "a post-processor that adds tokens",
    changed((j) =>
      j.post_processor = { type: "TemplateProcessing", single: [{ SpecialToken: { id: "<s>", type_id: 0 } }] }
    ),
    "unsupported",
    ['post_processor "TemplateProcessing"'],
  ],
  ["a merge of one token", changed((j) => j.model.merges[2] = "ab"), "format", ["model.merges[2]", '"ab"']],
  ["a merge of three", changed((j) => j.model.merges[0] = ["a", "b", "c"]), "format", [
    "model.merges[0]",
    "expected two tokens",
  ]],
  [
    "a merge of an unknown token",
    changed((j) => j.model.merges[1] = ["a", "zzz"]),
    "format",
    ["model.merges[1]", '"a zzz" needs the token "zzz"'],
  ],
  ["a merge with an unknown result", changed((j) => j.model.merges[1] = ["q", "x"]), "format", [
    'needs the token "qx"',
  ]],
  ["an added token without text", changed((j) => delete j.added_tokens[1].content), "format", [
    "added_tokens[1].content",
  ]],
  ["an empty added token", changed((j) => j.added_tokens[1].content = ""), "format", [
    "added_tokens[1]",
    "empty",
  ]],
  ["an added token twice", changed((j) => j.added_tokens[1].content = "<mask>"), "format", [
    "added_tokens[2]",
    "twice",
  ]],
  ["an added token's other id", changed((j) => j.added_tokens[0].id = 9), "format", [
    '"<|endoftext|>" has the id 9',
    "gives it 0",
  ]],
  ["an added token's taken id", changed((j) => j.added_tokens[1].id = 9), "format", ['"<pad>" has the id 9']],
  ["an added token's id that is none", changed((j) => j.added_tokens[1].id = "x"), "format", [
    'has the id "x"',
  ]],
  ["single_word", changed((j) => j.added_tokens[1].single_word = true), "unsupported", [
    '"<pad>".single_word',
  ]],
  ["only vocab.json", { "vocab.json": "{}" }, "format", ["m/merges.txt: not found"]],
  ["only merges.txt", { "merges.txt": "" }, "format", ["m/vocab.json: not found"]],
  ["an id twice", twoFiles({ ...vocabulary(), twice: 97 }), "format", [
    'vocab.json: "a" and "twice" have the same id 97',
  ]],
  ["a negative id", twoFiles({ ...vocabulary(), no: -1 }), "format", ['vocab.json: "no" has the id -1']],
  ["an id that is a text", twoFiles({ ...vocabulary(), no: "5" }), "format", ['"no" has the id "5"']],
  ["a fraction", twoFiles({ ...vocabulary(), no: 300.5 }), "format", ["300.5"]],
  ["an id of a billion", twoFiles({ ...vocabulary(), no: 1e9 }), "format", ["1000000000"]],
  ["a byte without a token", twoFiles({ ...vocabulary(), "Ġ": undefined }), "format", [
    "vocab.json: no token for byte 32",
  ]],
  ["a merge line of one token", twoFiles(vocabulary(), "#version: 0.2\n\nhi\n"), "format", [
    "m/merges.txt: line 3",
    '"hi"',
  ]],
  ["a merge line of unknowns", twoFiles(vocabulary(), "h i\nh o\n"), "format", [
    "m/merges.txt: line 2",
    'the token "ho"',
  ]],
  [
    "no end of text",
    twoFiles({ ...vocabulary(), "<|endoftext|>": undefined }),
    "format",
    ["vocab.json", '"<|endoftext|>"', "config.json's eos_token_id 999"],
  ],
  ["broken added tokens", { ...twoFiles(), "added_tokens.json": '{"x": null}' }, "format", [
    "added tokens",
    "has the id null",
  ]],
];

for (const [what, files, code, says] of BROKEN) {
  Deno.test(`refused in one line that names the place: ${what}`, async () => {
    const error = await assertRejects(() => loadTokenizer(directory(files, "m"), 999), WhetError);
    assertEquals(error.code, code, error.message);
    assertEquals(error.message.includes("\n"), false);
    for (const part of says) assert(error.message.includes(part), `"${error.message}" lacks "${part}"`);
  });
}
