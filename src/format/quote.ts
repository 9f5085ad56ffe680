/**
 * Text from files that nobody vouches for, in messages.
 *
 * @module
 */

/** Characters shown at most. */
const LONGEST = 100;

/**
 * A text in quotation marks, fit for one line of a message: cut, and without what could steer a terminal.
 *
 * @param text The text, or a number.
 * @returns It, quoted.
 *
 * @example
 * ```ts
 * import { quoted } from "./quote.ts";
 *
 * console.log(quoted("h.0\u001b[2J")); // "h.0\u001b[2J", in visible characters
 * ```
 */
export function quoted(text: string | number): string {
  const whole = `${text}`;
  const shown = JSON.stringify(whole.slice(0, LONGEST)).replace(/[^\x20-\x7e]/g, "?");
  return whole.length > LONGEST ? `${shown.slice(0, -1)}…"` : shown;
}

/**
 * A value out of JSON, as JSON, fit for one line of a message as {@linkcode quoted} is.
 *
 * @param value The value.
 * @returns It, cut.
 */
export function quotedValue(value: unknown): string {
  let text;
  try {
    text = (JSON.stringify(value) ?? "nothing").replace(/[^\x20-\x7e]/g, "?");
  } catch {
    text = "something nested too deeply to show";
  }
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}
