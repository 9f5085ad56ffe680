/**
 * One thing to learn from: its four shapes, how an untrusted value is read as one, and how a
 * transcript falls into turns.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { MARKERS } from "../text/templates.ts";

/**
 * What training and scoring take.
 *
 * - `{ text }`: any text; one with `\n\nAssistant:` turns is a dialogue.
 * - `{ prompt, response }`: they follow each other as they are, nothing is put between them.
 * - `{ chosen, rejected }`: an HH-RLHF pair (Bai et al. 2022), two transcripts of
 *   `\n\nHuman:` and `\n\nAssistant:` turns; `chosen` is learned.
 * - `{ tokens }`: token ids, used as they are.
 */
export type Example =
  | { text: string }
  | { prompt: string; response: string }
  | { chosen: string; rejected?: string }
  | { tokens: ArrayLike<number> };

/** A stretch of an example's text, tokenised by itself. */
export interface Segment {
  /** The text; only a response may be empty. */
  text: string;
  /** Whether it is what the assistant says. */
  response: boolean;
}

/** What a line or an element of the data may be, for messages. */
export const SHAPES = 'an object with "chosen" and "rejected", "prompt" and "response", or "text"';

/**
 * Reads a value of unknown origin as an example. Other fields are left aside; where several shapes
 * are there, `chosen` comes before `prompt` with `response`, and these before `text`.
 *
 * @param value A parsed line, or what an iterable gave.
 * @param where What messages call it, such as `chats.jsonl, line 3`.
 * @returns The example, with no field but its shape's.
 * @throws {WhetError} `format`, if it has none of the shapes, an empty or mistyped field, or a transcript
 * without a turn.
 *
 * @example
 * ```ts
 * import { readExample } from "./example.ts";
 *
 * console.log(readExample({ text: "Hello", id: 7 }, "line 1")); // { text: "Hello" }
 * ```
 */
export function readExample(value: unknown, where: string): Example {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new WhetError("format", `${where}: expected ${SHAPES}, got ${kindOf(value)}`);
  }
  const record = value as Record<string, unknown>;
  const has = (field: string) => record[field] !== undefined && record[field] !== null;
  if (has("chosen") || has("rejected")) {
    const chosen = transcript(record, "chosen", where);
    return has("rejected") ? { chosen, rejected: transcript(record, "rejected", where) } : { chosen };
  }
  if (has("prompt") && has("response") || !has("text") && (has("prompt") || has("response"))) {
    return { prompt: text(record, "prompt", where), response: text(record, "response", where) };
  }
  if (has("text")) return { text: text(record, "text", where) };
  if (has("tokens")) return { tokens: tokens(record.tokens, where) };
  const keys = Object.keys(record).slice(0, 8).map((key) => quote(key) + (has(key) ? "" : " (null)"));
  throw new WhetError(
    "format",
    `${where}: expected ${SHAPES}, found ${keys.length ? `the fields ${keys.join(", ")}` : "no field"}`,
  );
}

/** A piece of untrusted text, short and on one line, for a message. */
export function quote(text: string): string {
  const characters = Array.from(text.slice(0, 80));
  return JSON.stringify(characters.length > 40 ? `${characters.slice(0, 40).join("")}…` : text);
}

function text(record: Record<string, unknown>, field: string, where: string): string {
  const value = record[field];
  if (typeof value !== "string") {
    throw new WhetError("format", `${where}, field "${field}": expected a text, got ${kindOf(value)}`);
  }
  if (value === "") {
    throw new WhetError(
      "format",
      `${where}, field "${field}": the text is empty; fill it in or leave the example out`,
    );
  }
  return value;
}

function transcript(record: Record<string, unknown>, field: string, where: string): string {
  const value = text(record, field, where);
  if (value.search(TURN) < 0) {
    throw new WhetError(
      "format",
      `${where}, field "${field}": no turn in ${quote(value)}; a transcript is made of ` +
        String.raw`"\n\nHuman: …" and "\n\nAssistant: …", other text belongs in "text"`,
    );
  }
  return value;
}

function tokens(value: unknown, where: string): Uint32Array {
  const isList = Array.isArray(value) || ArrayBuffer.isView(value) && !(value instanceof DataView);
  const given = value as ArrayLike<unknown>;
  if (!isList || given.length === 0) {
    throw new WhetError(
      "format",
      `${where}, field "tokens": expected a list of token ids, got ${
        isList ? "an empty one" : kindOf(value)
      }`,
    );
  }
  const ids = new Uint32Array(given.length);
  for (let i = 0; i < ids.length; i++) {
    const id = given[i];
    ids[i] = id as number;
    if (ids[i] !== id) {
      throw new WhetError(
        "format",
        `${where}, field "tokens": expected a token id at index ${i}, got ${show(id)}`,
      );
    }
  }
  return ids;
}

function show(value: unknown): string {
  return typeof value === "number" ? String(value) : kindOf(value);
}

function kindOf(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}

const ASSISTANT = MARKERS.assistant;
const TURN = new RegExp(`${MARKERS.human}|${ASSISTANT}`);

/**
 * Splits a transcript behind every `\n\nAssistant:` and before the turn that follows, so that what
 * the assistant says stands alone, as in generation, where a prompt ends with `\n\nAssistant:`.
 *
 * @param transcript A text, with or without turns.
 * @returns Its segments, which put together are the text again.
 *
 * @example
 * ```ts
 * import { turns } from "./example.ts";
 *
 * console.log(turns("\n\nHuman: Hi\n\nAssistant: Hello").map((segment) => segment.text));
 * // [ "\n\nHuman: Hi\n\nAssistant:", " Hello" ]
 * ```
 */
export function turns(transcript: string): Segment[] {
  const segments: Segment[] = [];
  let begin = 0, response = false;
  const cut = (end: number) => {
    if (end > begin || response) segments.push({ text: transcript.slice(begin, end), response });
    begin = end;
  };
  for (const { index, 0: marker } of transcript.matchAll(new RegExp(TURN, "g"))) {
    if (response) cut(index);
    response = false;
    if (marker !== ASSISTANT) continue;
    cut(index + marker.length);
    response = true;
  }
  cut(transcript.length);
  return segments;
}

/**
 * The last question of a dialogue and the answer that it got. Put together the two are the transcript
 * again: the prompt ends with `\n\nAssistant:`, and the response keeps the space it begins with
 * (trim it to show it or to have it scored).
 *
 * @param dialogue A transcript, or an example; of a pair, `chosen` is taken.
 * @returns The prompt, as generation takes it, and the response.
 * @throws {WhetError} `format`, if there is no `\n\nAssistant:` turn.
 *
 * @example
 * ```ts
 * import { lastExchange } from "./example.ts";
 *
 * console.log(lastExchange("\n\nHuman: Hi\n\nAssistant: Hello"));
 * // { prompt: "\n\nHuman: Hi\n\nAssistant:", response: " Hello" }
 * ```
 */
export function lastExchange(dialogue: string | Example): { prompt: string; response: string } {
  if (typeof dialogue !== "string" && "prompt" in dialogue) {
    return { prompt: dialogue.prompt, response: dialogue.response };
  }
  const transcript = typeof dialogue === "string"
    ? dialogue
    : "chosen" in dialogue
    ? dialogue.chosen
    : "text" in dialogue
    ? dialogue.text
    : "";
  const end = transcript.lastIndexOf(ASSISTANT) + ASSISTANT.length;
  if (end < ASSISTANT.length) {
    throw new WhetError(
      "format",
      String.raw`no "\n\nAssistant:" turn in ${quote(transcript)}: expected a dialogue`,
    );
  }
  return { prompt: transcript.slice(0, end), response: transcript.slice(end) };
}
