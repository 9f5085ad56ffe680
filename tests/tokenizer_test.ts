import { assert, assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import { checkVocabulary, gpt2Tokenizer, saveTokenizer } from "../src/text/tokenizers.ts";

type Case = [text: string, ids: number[]];

const FIXTURE = new URL("./fixtures/tokenizer/gpt2.json", import.meta.url);

Deno.test("GPT-2's ids are transformers' own on awkward texts, and decode to the text", async () => {
  const tokenizer = await gpt2Tokenizer();
  const cases: Case[] = JSON.parse(await Deno.readTextFile(FIXTURE));
  assert(cases.length > 100);
  for (const [text, ids] of cases) {
    assertEquals(tokenizer.encode(text), ids, JSON.stringify(text));
    assertEquals(tokenizer.decode(ids), text);
  }
});

Deno.test("GPT-2's tokenizer has 50,257 tokens, end-of-text last, and is made once", async () => {
  const [tokenizer, again] = await Promise.all([gpt2Tokenizer(), gpt2Tokenizer()]);
  assertStrictEquals(tokenizer, again);
  assertEquals(tokenizer.vocabSize, 50257);
  assertEquals(tokenizer.endOfText, 50256);
  assert(tokenizer.isSpecial(50256) && !tokenizer.isSpecial(50255));
  assertEquals(tokenizer.bytes(995), new TextEncoder().encode(" world"));
});

Deno.test("a literal <|endoftext|> is the special token wherever it stands", async () => {
  const tokenizer = await gpt2Tokenizer();
  assertEquals(tokenizer.encode("Hi<|endoftext|>there"), [17250, 50256, 8117]);
  assertEquals(tokenizer.encode("<|endoftext|><|endoftext|>a<|endoftext|>"), [50256, 50256, 64, 50256]);
  assertEquals(tokenizer.decode([17250, 50256, 8117]), "Hi<|endoftext|>there");
});

Deno.test("decoding remembers nothing: half an emoji leaves the next text whole", async () => {
  const tokenizer = await gpt2Tokenizer();
  const [half] = tokenizer.encode("😀");
  assertEquals(tokenizer.decode([half]), "\ufffd");
  assertEquals(tokenizer.decode(tokenizer.encode("next")), "next");
  assertEquals(tokenizer.decode(tokenizer.encode("é")), "é");
});

Deno.test("a byte order mark stays, at the beginning too", async () => {
  const tokenizer = await gpt2Tokenizer();
  assertEquals(tokenizer.decode(tokenizer.encode("\ufeffHi")), "\ufeffHi");
});

Deno.test("U+0085 is white space to GPT-2 and U+FEFF is not", async () => {
  const tokenizer = await gpt2Tokenizer();
  const ids = (text: string) => tokenizer.encode(text);
  // White space before a word: all but its last character is one piece. Other signs stay together.
  assertEquals(ids("a\u0085\u0085b"), [...ids("a"), ...ids("\u0085"), ...ids("\u0085"), ...ids("b")]);
  assertEquals(ids("a \ufeff b"), [...ids("a"), ...ids(" \ufeff"), ...ids(" b")]);
});

Deno.test("lone surrogates are encoded as U+FFFD", async () => {
  const tokenizer = await gpt2Tokenizer();
  assertEquals(tokenizer.encode("a\ud83d b\ude00"), tokenizer.encode("a\ufffd b\ufffd"));
});

Deno.test("100,000 letters without a space take well under a second", async () => {
  const tokenizer = await gpt2Tokenizer();
  const alphabet = "abcdefghijklmnopqrstuvwxyzäöü";
  let state = 1;
  const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 8;
  const word = Array.from({ length: 100_000 }, () => alphabet[random() % alphabet.length]).join("");
  for (const text of [word, "a".repeat(100_000), " ".repeat(100_000), "!".repeat(100_000)]) {
    const start = performance.now();
    const ids = tokenizer.encode(text);
    assert(performance.now() - start < 1000);
    assertEquals(tokenizer.decode(ids), text);
  }
});

Deno.test("an id beyond the vocabulary decodes to U+FFFD, one that is no id is an error", async () => {
  const tokenizer = await gpt2Tokenizer();
  assertEquals(tokenizer.decode([31373, 50257, 995, 2 ** 40]), "hello\ufffd world\ufffd");
  for (const id of [-1, 0.5, NaN, Infinity]) {
    const error = assertThrows(() => tokenizer.decode([id]), WhetError, `token id ${id}`);
    assertEquals(error.code, "option");
  }
});

Deno.test("encoding what is no string is an error that says so", async () => {
  const tokenizer = await gpt2Tokenizer();
  for (const [value, name] of [[undefined, "undefined"], [null, "null"], [7, "number"]] as const) {
    const error = assertThrows(() => tokenizer.encode(value as unknown as string), WhetError, name);
    assertEquals(error.code, "option");
  }
});

Deno.test("what bytes gives is a copy", async () => {
  const tokenizer = await gpt2Tokenizer();
  tokenizer.bytes(64).fill(0);
  assertEquals(tokenizer.decode([64]), "a");
});

Deno.test("a tokenizer larger than the model is a mismatch, a padded model is none", async () => {
  const tokenizer = await gpt2Tokenizer();
  checkVocabulary(tokenizer, 50257);
  checkVocabulary(tokenizer, 50304);
  const error = assertThrows(() => checkVocabulary(tokenizer, 50256), WhetError, "vocab_size is 50256");
  assertEquals(error.code, "mismatch");
});

// GPT-2's own files lie beside the repository where it is developed, and nowhere else.
const shared = new URL("../../shared/data/", import.meta.url);
const ignore = !(await exists(new URL("gpt2-vocab/encoder.json.gz", shared)));

async function exists(url: URL): Promise<boolean> {
  return await Deno.stat(url).then(() => true, () => false);
}

async function gunzip(name: string): Promise<string> {
  const file = await Deno.open(new URL(name, shared));
  return await new Response(file.readable.pipeThrough(new DecompressionStream("gzip"))).text();
}

Deno.test({
  name: "GPT-2's vocabulary and merges are the published files', byte for byte",
  ignore,
  async fn() {
    const files = new Map<string, string>();
    await saveTokenizer(await gpt2Tokenizer(), (name, text) => Promise.resolve(void files.set(name, text)));
    assertEquals(
      JSON.parse(files.get("vocab.json")!),
      JSON.parse(await gunzip("gpt2-vocab/encoder.json.gz")),
    );
    assertEquals(files.get("merges.txt"), await gunzip("gpt2-vocab/vocab.bpe.gz"));
  },
});

Deno.test({
  name: "GPT-2's ids are a plain BPE's over the published files, on real dialogues",
  ignore,
  async fn() {
    const tokenizer = await gpt2Tokenizer();
    const reference = plainBpe(
      JSON.parse(await gunzip("gpt2-vocab/encoder.json.gz")),
      await gunzip("gpt2-vocab/vocab.bpe.gz"),
    );
    const lines = (await gunzip("hh-rlhf-sample.jsonl.gz")).trim().split("\n");
    for (const line of lines) {
      const { chosen } = JSON.parse(line);
      const ids = tokenizer.encode(chosen);
      assertEquals(ids, reference(chosen));
      assertEquals(tokenizer.decode(ids), chosen);
    }
  },
});

/** GPT-2's encoding as its paper's code has it: no shortcut, and pieces found letter by letter. */
function plainBpe(vocab: Record<string, number>, mergesText: string): (text: string) => number[] {
  const ranks = new Map(mergesText.split("\n").slice(1, -1).map((line, rank) => [line, rank]));
  const visible = [[33, 126], [161, 172], [174, 255]].flatMap(([first, last]) =>
    Array.from({ length: last - first + 1 }, (_, i) => first + i)
  );
  const letters = new Map(visible.map((byte) => [byte, String.fromCharCode(byte)]));
  for (let byte = 0, next = 256; byte < 256; byte++) {
    if (!letters.has(byte)) letters.set(byte, String.fromCharCode(next++));
  }
  const known = new Map<string, number[]>();
  const encodePiece = (piece: string): number[] => {
    let word = Array.from(new TextEncoder().encode(piece), (byte) => letters.get(byte)!);
    for (;;) {
      const bigrams = word.slice(1).map((right, i) => `${word[i]} ${right}`);
      const best = bigrams.filter((pair) => ranks.has(pair)).sort((a, b) => ranks.get(a)! - ranks.get(b)!)[0];
      if (best === undefined) return word.map((token) => vocab[token]);
      const merged: string[] = [];
      for (let i = 0; i < word.length; i++) {
        merged.push(`${word[i]} ${word[i + 1]}` === best ? word[i] + word[++i] : word[i]);
      }
      word = merged;
    }
  };
  return (text) =>
    plainPieces(text).flatMap((piece) => {
      if (!known.has(piece)) known.set(piece, encodePiece(piece));
      return known.get(piece)!;
    });
}

function plainPieces(text: string): string[] {
  const kind = (c: string | undefined) =>
    c === undefined
      ? "end"
      : /\p{White_Space}/u.test(c)
      ? "space"
      : /\p{L}/u.test(c)
      ? "letter"
      : /\p{N}/u.test(c)
      ? "number"
      : "sign";
  const chars = [...text];
  const result: string[] = [];
  for (let i = 0; i < chars.length;) {
    const contraction = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].find((suffix) =>
      suffix === chars.slice(i, i + suffix.length).join("")
    );
    let end = i + (contraction?.length ?? 0);
    if (!contraction) {
      const first = chars[i] === " " && !["space", "end"].includes(kind(chars[i + 1])) ? i + 1 : i;
      for (end = first; kind(chars[end]) === kind(chars[first]); end++);
      const blank = kind(chars[first]) === "space";
      if (blank && end < chars.length && end - i > 1) end--;
    }
    result.push(chars.slice(i, end).join(""));
    i = end;
  }
  return result;
}

Deno.test("saving a tokenizer of another kind is an error, and nothing is written", async () => {
  const tokenizer = await gpt2Tokenizer();
  const other = { ...tokenizer, vocabSize: 1, endOfText: 0 } as typeof tokenizer;
  const error = await assertRejects(
    () => saveTokenizer(other, () => Promise.reject(new Error("written"))),
    WhetError,
    "no byte-level BPE",
  );
  assertEquals(error.code, "unsupported");
});
