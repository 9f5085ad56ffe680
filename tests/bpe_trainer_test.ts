import { assert, assertEquals, assertThrows } from "@std/assert";
import { trainBpe } from "../scripts/nano/bpe_trainer.ts";
import { WhetError } from "../src/errors.ts";
import { pieces } from "../src/text/pretokenize.ts";
import { bpeFromVocabulary } from "../src/text/vocabulary.ts";

const TEXT =
  `The cat sat on the mat; the dog sat on the log. "Aha!", said the cat's friend, "I'll sit as well."
aaaaaaa aaaa aaaaaaaaaa hahaha hahahaha 1234 1234 12 😀😀 café cafés

    indented  twice
`.repeat(2) + "the theme of them: there, then, these, those -- 😀😃";

/** The same by the book: all pairs counted anew before each merge. */
function plainTrain(text: string, merges: number): string[][] {
  const alphabet = Object.entries(trainBpe("", 257).vocab).sort(([, a], [, b]) => a - b).map(([name]) =>
    name
  );
  const names = alphabet.slice(0, 256);
  const letter = bpeFromVocabulary({ vocab: { ...trainBpe("", 257).vocab }, merges: [] });
  let words = [...pieces(text)].map((piece) => letter.encode(piece));
  const result: string[][] = [];
  while (result.length < merges) {
    const counts = new Map<string, number>();
    for (const word of words) {
      for (let i = 0; i + 1 < word.length; i++) {
        const pair = `${word[i]},${word[i + 1]}`;
        counts.set(pair, (counts.get(pair) ?? 0) + 1);
      }
    }
    const ranked = [...counts].map(([pair, count]) => [count, ...pair.split(",").map(Number)])
      .sort((a, b) => b[0] - a[0] || a[1] - b[1] || a[2] - b[2]);
    if (ranked.length === 0 || ranked[0][0] < 2) break;
    const [, left, right] = ranked[0];
    words = words.map((word) => {
      const merged: number[] = [];
      for (let i = 0; i < word.length; i++) {
        const found = word[i] === left && word[i + 1] === right;
        merged.push(found ? names.length : word[i]);
        if (found) i++;
      }
      return merged;
    });
    result.push([names[left], names[right]]);
    names.push(names[left] + names[right]);
  }
  return result;
}

Deno.test("training finds the merges that counting everything anew finds", () => {
  const all = plainTrain(TEXT, 1000);
  assert(all.length > 60 && all.length < 300, `${all.length} merges`);
  assertEquals(trainBpe(TEXT, 257 + 1000).merges as string[][], all);
  assertEquals(trainBpe(TEXT, 257 + 20).merges as string[][], all.slice(0, 20));
});

Deno.test("a trained vocabulary encodes its text in fewer tokens, any text, and back", () => {
  const trained = trainBpe(TEXT, 340);
  assertEquals(Object.keys(trained.vocab).length, 340);
  const tokenizer = bpeFromVocabulary(trained);
  assertEquals([tokenizer.vocabSize, tokenizer.endOfText], [340, 339]);
  assert(tokenizer.encode(TEXT).length < 0.6 * new TextEncoder().encode(TEXT).length);
  for (const text of [TEXT, "Ünseen: 中文 \u0000<|endoftext|>\n"]) {
    assertEquals(tokenizer.decode(tokenizer.encode(text)), text);
  }
});

Deno.test("ids are 256 bytes in GPT-2's order, merges' results, end-of-text last", () => {
  const { vocab, merges } = trainBpe("low lower lowest", 259);
  assertEquals(merges, [["l", "o"], ["lo", "w"]]);
  assertEquals([vocab["!"], vocab["A"], vocab["Ā"], vocab["lo"], vocab["low"], vocab["<|endoftext|>"]], [
    0,
    32,
    188,
    256,
    257,
    258,
  ]);
});

Deno.test("texts may come one by one, and order does not matter", () => {
  const lines = TEXT.split(/(?<=\n)/);
  const one = trainBpe(lines, 320);
  assertEquals(trainBpe(lines.toReversed().values(), 320), one);
});

Deno.test("end-of-text parts texts and is not learned from", () => {
  const { vocab, merges } = trainBpe("<|endoftext|>".repeat(50) + "ab<|endoftext|>ab", 300);
  assertEquals(merges, [["a", "b"]]);
  assertEquals(Object.keys(vocab).length, 258);
});

Deno.test("a pair that occurs once is not merged, so that the vocabulary may stay small", () => {
  assertEquals(trainBpe("abcdefg", 1000).merges, []);
  assertEquals(trainBpe([], 257).vocab["<|endoftext|>"], 256);
});

Deno.test("a size without room for the bytes is an error", () => {
  for (const size of [256, 0, 300.5, NaN]) {
    assertEquals(assertThrows(() => trainBpe(TEXT, size), WhetError, "at least 257").code, "option");
  }
});
