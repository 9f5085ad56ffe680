/**
 * The Human/Assistant template of HH-RLHF: a dialogue as one text, each turn led in by `\n\nHuman:` or
 * `\n\nAssistant:` (Bai et al., 2022, Training a Helpful and Harmless Assistant with RLHF).
 *
 * @module
 */
import { WhetError } from "../errors.ts";

/** Who speaks. */
export type Role = "human" | "assistant";

/** What one side says in one go. */
export interface Turn {
  /** Who says it. */
  role: Role;
  /** What is said, without the marker and the space after it. */
  text: string;
}

/** What leads in a turn of each side. */
export const MARKERS: Readonly<Record<Role, string>> = {
  human: "\n\nHuman:",
  assistant: "\n\nAssistant:",
};

/** Where an answer ends: the model has begun to speak for the human. */
export const STOP: string = MARKERS.human;

/**
 * A dialogue as one text.
 *
 * @param turns The turns.
 * @returns Each turn's marker, a space and its text, end to end; no space before an empty text.
 *
 * @example
 * ```ts
 * import { formatDialogue } from "./templates.ts";
 *
 * const text = formatDialogue([{ role: "human", text: "Hi" }, { role: "assistant", text: "Hello!" }]);
 * console.log(JSON.stringify(text)); // "\n\nHuman: Hi\n\nAssistant: Hello!"
 * ```
 */
export function formatDialogue(turns: readonly Turn[]): string {
  return turns.map(({ role, text }) => MARKERS[role] + (text === "" ? "" : " " + text)).join("");
}

/**
 * The prompt that asks for the assistant's next turn. It ends in a colon without a space: the answer
 * begins with its own, as GPT-2's tokens do.
 *
 * @param turns The dialogue so far, the human's turn last.
 * @returns The text to continue.
 * @throws {WhetError} `option` where the last turn is not the human's.
 *
 * @example
 * ```ts
 * import { formatPrompt } from "./templates.ts";
 *
 * console.log(JSON.stringify(formatPrompt([{ role: "human", text: "Hi" }]))); // "\n\nHuman: Hi\n\nAssistant:"
 * ```
 */
export function formatPrompt(turns: readonly Turn[]): string {
  const last = turns.at(-1);
  if (last?.role === "human") return formatDialogue(turns) + MARKERS.assistant;
  throw new WhetError(
    "option",
    `turns: ${last ? "the last turn is the assistant's" : "there is none"}; end with a turn of the human`,
  );
}

/**
 * Splits a transcript into its turns. A marker counts only after an empty line, so `Human:` within a
 * sentence is text. The texts are as they stand, but for the one space after a marker; two turns of one
 * side in a row and empty turns, both in HH-RLHF, stay what they are.
 *
 * @param transcript A text that begins with a marker (white space before it does not matter).
 * @returns Its turns, at least one.
 * @throws {WhetError} `format` where there is text before the first marker, or none at all.
 *
 * @example
 * ```ts
 * import { parseDialogue } from "./templates.ts";
 *
 * const [question, answer] = parseDialogue("\n\nHuman: Hi\n\nAssistant: Hello!");
 * console.log(question.text, answer.role); // Hi assistant
 * ```
 */
export function parseDialogue(transcript: string): Turn[] {
  const [before, ...parts] = transcript.split(/\n\n(Human|Assistant):/); // speaker and text in turns
  if (parts.length === 0 || before.trim() !== "") {
    const shown = JSON.stringify(before.length > 40 ? before.slice(0, 40) + "…" : before);
    throw new WhetError(
      "format",
      `transcript: expected ${JSON.stringify(MARKERS.human)} at its beginning, got ${shown}`,
    );
  }
  return Array.from({ length: parts.length / 2 }, (_, i) => ({
    role: parts[2 * i] === "Human" ? "human" : "assistant",
    text: parts[2 * i + 1].replace(/^ /, ""),
  }));
}
