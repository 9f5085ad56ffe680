import { assert, assertEquals, assertThrows } from "@std/assert";
import { Dialogues } from "../src/data/dialogues.ts";
import { checkExample, encodeExample, type Encoder, type Example, type LossOn } from "../src/data/encode.ts";
import { WhetError } from "../src/errors.ts";
import { gpt2Tokenizer } from "../src/text/gpt2.ts";

const END = 256;
/** A token per byte; `<|endoftext|>` is the special one. */
const byteLevel: Encoder = {
  vocabSize: 257,
  endOfText: END,
  encode: (text) =>
    text.split("<|endoftext|>").flatMap((part, i) => [
      ...(i > 0 ? [END] : []),
      ...new TextEncoder().encode(part),
    ]),
};

/** The text of the tokens that count, `#` for end-of-text. */
function counted(example: Example, lossOn: LossOn): string {
  const { tokens, counts } = encodeExample(example, byteLevel, { lossOn });
  assertEquals(tokens.length, counts.length);
  return Array.from(
    tokens.filter((_, i) => counts[i] === 1),
    (id) => id === END ? "#" : String.fromCharCode(id),
  )
    .join("");
}

function text(example: Example): string {
  const { tokens } = encodeExample(example, byteLevel, { lossOn: "all" });
  return Array.from(tokens, (id) => id === END ? "#" : String.fromCharCode(id)).join("");
}

Deno.test("every example ends with one end-of-text token, which is learned", () => {
  assertEquals(text({ text: "abc" }), "abc#");
  assertEquals(counted({ text: "abc" }, "all"), "bc#");
  assertEquals(text({ prompt: "ab", response: "c" }), "abc#");
  assertEquals(counted({ prompt: "ab", response: "c" }, "all"), "bc#");
  assertEquals(counted({ chosen: "\n\nHuman: a\n\nAssistant: b" }, "all"), "\nHuman: a\n\nAssistant: b#");
  assertEquals(text({ text: "abc<|endoftext|>" }), "abc#");
});

Deno.test("a literal end-of-text within a text is learned like any other token", () => {
  assertEquals(counted({ text: "a<|endoftext|>b<|endoftext|>" }, "all"), "#b#");
  assertEquals(counted({ prompt: "a", response: "<|endoftext|>b" }, "responses"), "#b#");
  assertEquals(counted({ prompt: "<|endoftext|>a<|endoftext|>", response: "b" }, "responses"), "b#");
});

Deno.test("with the loss on responses, what the assistant says counts, and the end behind it", () => {
  assertEquals(counted({ prompt: "What?", response: "That." }, "responses"), "That.#");
  const two = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d";
  assertEquals(counted({ chosen: two, rejected: "\n\nHuman: x\n\nAssistant: y" }, "responses"), " b d#");
  assertEquals(counted({ text: two }, "responses"), " b d#");
  assertEquals(counted({ chosen: two + "\n\nHuman: e" }, "responses"), " b d");
  assertEquals(counted({ chosen: "\n\nHuman: a\n\nAssistant:" }, "responses"), "#");
  // A prompt's own turns are given, not answered.
  assertEquals(counted({ prompt: two + "\n\nHuman: e\n\nAssistant:", response: " f" }, "responses"), " f#");
});

Deno.test("tokens do not depend on what counts", () => {
  const examples: Example[] = [
    { text: "a\n\nAssistant: b\n\nHuman: c" },
    { prompt: "a", response: "b" },
    { chosen: "\n\nHuman: a\n\nAssistant: b" },
  ];
  for (const example of examples) {
    assertEquals(
      encodeExample(example, byteLevel, { lossOn: "responses" }).tokens,
      encodeExample(example, byteLevel, { lossOn: "all" }).tokens,
    );
  }
});

Deno.test("prompt and response are tokenised apart, and so are the turns of a dialogue", () => {
  const seen: string[] = [];
  const spy: Encoder = { ...byteLevel, encode: (text) => (seen.push(text), byteLevel.encode(text)) };
  encodeExample({ prompt: "a", response: "b" }, spy, { lossOn: "all" });
  encodeExample({ chosen: "\n\nHuman: a\n\nAssistant: b" }, spy, { lossOn: "all" });
  assertEquals(seen, ["a", "b", "\n\nHuman: a\n\nAssistant:", " b"]);
});

Deno.test("token ids are taken as they are, and checked against the vocabulary", () => {
  const { tokens, counts } = encodeExample({ tokens: [5, END, 7] }, byteLevel, { lossOn: "all" });
  assertEquals([...tokens], [5, END, 7]);
  assertEquals([...counts], [0, 1, 1]);
  const beyond = () => encodeExample({ tokens: [5, 257] }, byteLevel, { lossOn: "all" }, "example 3");
  assertThrows(
    beyond,
    WhetError,
    'example 3, field "tokens": token 257 at index 1 is beyond the vocabulary of 257',
  );
});

Deno.test("an example without a response is an error when responses are to be learned", () => {
  for (const example of [{ text: "abc" }, { chosen: "\n\nHuman: a" }, { tokens: [1, 2] }]) {
    const error = assertThrows(
      () => checkExample(example, byteLevel, "responses", "a.jsonl, line 7"),
      WhetError,
    );
    assertEquals(error.code, "format");
    assert(error.message.startsWith("a.jsonl, line 7: nothing to learn"), error.message);
    assertThrows(
      () => encodeExample(example, byteLevel, { lossOn: "responses" }),
      WhetError,
      "nothing to learn",
    );
    checkExample(example, byteLevel, "all", "x");
  }
});

const SAMPLE = new URL("../../shared/data/hh-rlhf-sample.jsonl.gz", import.meta.url);
const missing = !await Deno.stat(SAMPLE).then(() => true, () => false);

Deno.test({
  name: "on real dialogues, turns tokenised apart are the very tokens of the whole",
  ignore: missing,
  async fn() {
    const data = await Dialogues.load(SAMPLE);
    assertEquals(data.length, 1156);
    const tokenizer = await gpt2Tokenizer();
    for (const example of data) {
      const { chosen, rejected } = example as { chosen: string; rejected: string };
      for (const transcript of [chosen, rejected]) {
        const { tokens } = encodeExample({ chosen: transcript }, tokenizer, { lossOn: "responses" });
        assertEquals(Array.from(tokens), [...tokenizer.encode(transcript), tokenizer.endOfText]);
      }
    }
  },
});
