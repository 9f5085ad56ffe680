import { assertEquals, assertThrows } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import { formatDialogue, formatPrompt, parseDialogue, STOP, type Turn } from "../src/text/templates.ts";

const DIALOGUE: Turn[] = [
  { role: "human", text: "What is 2 + 2?" },
  { role: "assistant", text: "4.\n\nIs there\nmore?" },
  { role: "human", text: "No." },
];

Deno.test("a dialogue is written as HH-RLHF writes it, and read back", () => {
  const text = "\n\nHuman: What is 2 + 2?\n\nAssistant: 4.\n\nIs there\nmore?\n\nHuman: No.";
  assertEquals(formatDialogue(DIALOGUE), text);
  assertEquals(parseDialogue(text), DIALOGUE);
});

Deno.test("a prompt ends where the assistant begins to speak, without a space", () => {
  assertEquals(formatPrompt(DIALOGUE.slice(0, 1)), "\n\nHuman: What is 2 + 2?\n\nAssistant:");
  assertEquals(STOP, "\n\nHuman:");
});

Deno.test("a prompt after the assistant's turn, or after none, is an error", () => {
  for (const turns of [DIALOGUE.slice(0, 2), []]) {
    assertEquals(assertThrows(() => formatPrompt(turns), WhetError, "turn").code, "option");
  }
});

Deno.test("empty turns, two of one side in a row and white space within stay what they are", () => {
  const turns: Turn[] = [
    { role: "human", text: "" },
    { role: "human", text: " two spaces, and one behind " },
    { role: "assistant", text: "" },
  ];
  assertEquals(parseDialogue(formatDialogue(turns)), turns);
  assertEquals(parseDialogue("\n\nAssistant: \n\nHuman:x\n"), [
    { role: "assistant", text: "" },
    { role: "human", text: "x\n" },
  ]);
});

Deno.test("a marker within a line or after a single line feed is text", () => {
  const text = "I said: Human: yes\nAssistant: no\n\n Human: no\n\nhuman: no";
  assertEquals(parseDialogue(`\n\nHuman: ${text}`), [{ role: "human", text }]);
});

Deno.test("white space before the first marker does not matter, text before it is an error", () => {
  assertEquals(parseDialogue(" \n\n\nHuman: Hi"), [{ role: "human", text: "Hi" }]);
  for (const text of ["", "Hi", "Hi\n\nHuman: there", "Human: Hi\n\nAssistant: Hello"]) {
    const error = assertThrows(() => parseDialogue(text), WhetError, String.raw`"\n\nHuman:"`);
    assertEquals(error.code, "format");
    assertEquals(error.message.includes("\n"), false);
  }
});
