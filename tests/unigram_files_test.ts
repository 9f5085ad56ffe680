import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import { added, fromJson, fromSpm, load, small, SPM } from "./support/unigram.ts";

Deno.test("names and flags beside spm.model: small letters, other special tokens, tokens that are added", async () => {
  const lower = await fromSpm({ "tokenizer_config.json": { do_lower_case: true } });
  assertEquals(lower.encode("HELLO World"), (await fromSpm()).encode("hello world"));
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

/** Refused in one line that names the file and the field, with the right code. */
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
  await refused(
    load({ "spm.model": new Uint8Array() }, "m"),
    "format",
    "m/spm.model: pieces[0] is not there",
  );
  const html = new TextEncoder().encode("<!DOCTYPE html><html></html>");
  await refused(load({ "spm.model": html }), "format", "spm.model");
});

// deno-lint-ignore no-explicit-any -- whatever a file may hold
const BROKEN: [name: string, change: (json: any) => void, code: string, ...parts: string[]][] = [
  ["no pieces", (j) => j.model.vocab = [], "format", "model.vocab[0] is not there"],
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
