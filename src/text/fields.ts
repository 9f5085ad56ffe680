/**
 * The fields of tokenizer files: JSON that is checked as it is read, with errors that name the entry.
 *
 * @module
 */
import { WhetError } from "../errors.ts";

/** A JSON object whose fields are not known yet. */
export type Json = Record<string, unknown>;

/**
 * Parses a file.
 *
 * @param text Its text.
 * @param place Its name, for errors.
 * @returns What it says.
 * @throws {WhetError} `format` where it is not JSON.
 */
export function parse(text: string, place: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    const reason = (cause as Error).message.replaceAll(/\s+/g, " ");
    throw new WhetError("format", `${place}: not valid JSON (${reason}); download the file again`, { cause });
  }
}

/**
 * A value that must be an object.
 *
 * @param value The value.
 * @param place Its name, for errors.
 * @returns The object.
 * @throws {WhetError} `format` where it is anything else.
 */
export function object(value: unknown, place: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw expected("an object", value, place);
  }
  return value as Json;
}

/**
 * A value that must be an object where it is there at all.
 *
 * @param value The value; null and undefined count as an empty object.
 * @param place Its name, for errors.
 * @returns The object.
 * @throws {WhetError} `format` where it is anything else.
 */
export function optionalObject(value: unknown, place: string): Json {
  return value === undefined || value === null ? {} : object(value, place);
}

/**
 * A value that must be a list.
 *
 * @param value The value.
 * @param place Its name, for errors.
 * @returns The list.
 * @throws {WhetError} `format` where it is anything else.
 */
export function array(value: unknown, place: string): unknown[] {
  if (!Array.isArray(value)) throw expected("a list", value, place);
  return value;
}

/**
 * The steps of a stage of tokenizer.json: none, one, or a sequence's, which may hold others.
 *
 * @param stage The stage.
 * @param listName The name of a sequence's list: `normalizers`, `pretokenizers` and so on.
 * @param place Its name, for errors.
 * @param depth How many sequences it lies in.
 * @returns The steps in order.
 * @throws {WhetError} `format` where one is no object, or lies in more than 16 sequences.
 */
export function steps(stage: unknown, listName: string, place: string, depth = 0): Json[] {
  if (stage === null || stage === undefined) return [];
  const step = object(stage, place);
  if (step.type !== "Sequence") return [step];
  if (depth === 16) throw expected("at most 16 sequences in each other", "more", place);
  return array(step[listName], `${place}.${listName}`)
    .flatMap((inner, i) => steps(inner, listName, `${place}.${listName}[${i}]`, depth + 1));
}

/**
 * The error for a field that is not what it must be.
 *
 * @param what What it must be.
 * @param value What it is.
 * @param place Its name.
 * @returns The error, to be thrown.
 */
export function expected(what: string, value: unknown, place: string): WhetError {
  const shown = JSON.stringify(value) ?? "nothing";
  return new WhetError(
    "format",
    `${place}: expected ${what}, got ${shown.length > 60 ? shown.slice(0, 60) + "…" : shown}`,
  );
}
