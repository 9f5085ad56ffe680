/**
 * JSON files that people and other programs wrote.
 *
 * @module
 */

import { WhetError } from "../errors.ts";

/**
 * Parses a text that must be one JSON object.
 *
 * @param text The text.
 * @param where The file, for the message.
 * @returns The object.
 * @throws {WhetError} `format`, if it is anything else.
 */
export function parseJsonObject(text: string, where: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const why = error instanceof Error ? error.message.replaceAll(/\s+/g, " ").slice(0, 150) : "";
    throw new WhetError("format", `${where}: not JSON (${why}); fix it or fetch it again`, { cause: error });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new WhetError("format", `${where}: expected a JSON object; is it the right file?`);
  }
  return value as Record<string, unknown>;
}
