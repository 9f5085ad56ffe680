import { assert, assertEquals, assertThrows } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import { openRepository } from "../src/format/source.ts";
import { loadUnigramTokenizer, type UnigramTokenizer } from "../src/text/unigram.ts";
import { Charsmap } from "../src/text/unigram_charsmap.ts";
import { UnigramModel } from "../src/text/unigram_model.ts";
import { replacePattern } from "../src/text/unigram_normalize.ts";
import {
  added,
  CHARSMAP,
  CONVERTED,
  FIXTURES,
  fromJson,
  fromSpm,
  SAVED,
  small,
  SPM,
  SYMBOLS,
  unpack,
} from "./support/unigram.ts";

type Pair = [prompt: string, response: string, limit: number, ids: number[], typeIds: number[]];

interface Expected {
  ids: number[][];
  pairs: Pair[];
}

const EXPECTED: {
  page: string[];
  converted: Expected & { dialogues: string };
  saved: Expected & { dialogues: string };
  symbols: Expected & { page: string[]; size: number };
} = JSON.parse(await Deno.readTextFile(new URL("expected.json", FIXTURES)));

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
