import { assert, assertEquals } from "@std/assert";
import { StreamingDecoder } from "../src/text/streaming.ts";
import { gpt2Tokenizer } from "../src/text/tokenizers.ts";

function randomNumbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 8) % below;
}

/** What each push gives, and last what flush gives. */
function chunks(decoder: StreamingDecoder, ids: Iterable<number>): string[] {
  return [...Array.from(ids, (id) => decoder.push(id)), decoder.flush()];
}

/** UTF-8 as the WHATWG Encoding Standard decodes it, written from its algorithm. */
function plainDecode(bytes: readonly number[]): string {
  let text = "";
  for (let i = 0; i < bytes.length;) {
    const lead = bytes[i++];
    const more = lead < 0x80
      ? 0
      : lead >= 0xc2 && lead <= 0xdf
      ? 1
      : lead >> 4 === 0xe
      ? 2
      : lead >= 0xf0 && lead <= 0xf4
      ? 3
      : -1;
    let lower = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
    let upper = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
    let point = more < 0 ? 0xfffd : more === 0 ? lead : lead & (0x3f >> more);
    for (let k = 0; k < more; k++, lower = 0x80, upper = 0xbf) {
      if (!(bytes[i] >= lower && bytes[i] <= upper)) {
        point = 0xfffd;
        break;
      }
      point = point << 6 | bytes[i++] & 0x3f;
    }
    text += String.fromCodePoint(point);
  }
  return text;
}

Deno.test("chunks put together are the whole text decoded at once, whatever the bytes", () => {
  const random = randomNumbers(1);
  const likely = [
    0x20,
    0x41,
    0x7f,
    0x80,
    0x9f,
    0xa0,
    0xbb,
    0xbf,
    0xc0,
    0xc3,
    0xe0,
    0xe2,
    0xed,
    0xef,
    0xf0,
    0xf4,
    0xf5,
    0xff,
  ];
  for (let trial = 0; trial < 3000; trial++) {
    const bytes = Array.from(
      { length: random(24) },
      () => random(3) ? likely[random(likely.length)] : random(256),
    );
    // Tokens of 0 to 4 bytes.
    const tokens: Uint8Array[] = [];
    for (let at = 0; at < bytes.length;) {
      const end = Math.min(bytes.length, at + random(5));
      tokens.push(Uint8Array.from(bytes.slice(at, end)));
      at = end;
    }
    const parts = chunks(new StreamingDecoder((id) => tokens[id]), tokens.keys());
    assertEquals(parts.join(""), plainDecode(bytes), String(bytes));
    for (const part of parts) assert(part.isWellFormed());
  }
});

Deno.test("any of GPT-2's ids give in chunks what decode gives", async () => {
  const tokenizer = await gpt2Tokenizer();
  const random = randomNumbers(2);
  for (let trial = 0; trial < 500; trial++) {
    // The first 256 ids are single bytes; 50,257 and up are no tokens.
    const ids = Array.from({ length: random(20) }, () => random(random(2) ? 256 : 50300));
    const parts = chunks(tokenizer.decoder(), ids);
    assertEquals(parts.join(""), tokenizer.decode(ids));
    for (const part of parts) assert(part.isWellFormed());
  }
});

Deno.test("a character comes out with the token that completes it", async () => {
  const tokenizer = await gpt2Tokenizer();
  const ids = [...new TextEncoder().encode("a😀é")].flatMap((byte) =>
    Array.from({ length: 256 }, (_, id) => id).filter((id) => tokenizer.bytes(id)[0] === byte)
  );
  assertEquals(chunks(tokenizer.decoder(), ids), ["a", "", "", "", "😀", "", "é", ""]);
});

Deno.test("what was never finished comes out as U+FFFD at the end, and the decoder is new again", async () => {
  const tokenizer = await gpt2Tokenizer();
  const decoder = tokenizer.decoder();
  const [half] = tokenizer.encode("😀");
  assertEquals([decoder.push(half), decoder.flush()], ["", "\ufffd"]);
  assertEquals([decoder.push(64), decoder.flush()], ["a", ""]);
});

Deno.test("two decoders do not know of each other", async () => {
  const tokenizer = await gpt2Tokenizer();
  const [one, two] = [tokenizer.decoder(), tokenizer.decoder()];
  const ids = tokenizer.encode("😀");
  let first = "", second = "";
  for (const id of ids) {
    first += one.push(id);
    second += two.push(64) + two.push(id);
  }
  assertEquals(first + one.flush(), "😀");
  assertEquals(second + two.flush(), tokenizer.decode(ids.flatMap((id) => [64, id])));
});

Deno.test("byte order marks are text, first and later", async () => {
  const tokenizer = await gpt2Tokenizer();
  const ids = tokenizer.encode("\ufeffa\ufeff");
  assertEquals(chunks(tokenizer.decoder(), ids).join(""), "\ufeffa\ufeff");
});
