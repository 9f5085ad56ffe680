/**
 * How reports, pictures and progress lines write numbers, times and other people's text.
 *
 * @module
 */

/**
 * Text made safe inside HTML and SVG, in elements and in quoted attributes alike.
 *
 * Characters that XML forbids even when escaped (control characters, lone surrogates) become U+FFFD,
 * so that one strange token of a model never makes a picture unreadable.
 *
 * @param text Anything at all, a model's output included.
 * @returns Text without `<`, `>`, `&` or quotation marks of its own.
 * @example
 * ```ts
 * import { escapeText } from "./text.ts";
 *
 * console.log(escapeText('<b title="x">')); // &lt;b title=&quot;x&quot;&gt;
 * ```
 */
export function escapeText(text: string): string {
  return text.toWellFormed()
    // deno-lint-ignore no-control-regex
    .replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]/g, "\ufffd")
    .replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
    .replaceAll("&#38;", "&amp;").replaceAll("&#60;", "&lt;").replaceAll("&#62;", "&gt;")
    .replaceAll("&#34;", "&quot;");
}

/**
 * Text made safe for a terminal: a file's name from a server, or a model's answer, must not steer it.
 *
 * @param text Anything at all.
 * @returns Text without control characters, lone surrogates, and formats such as those that turn its direction; emoji stay
 * joined.
 */
export function plain(text: string): string {
  return text.replace(/[^\P{C}\u200d]/gu, "");
}

/**
 * A number for people: thousands grouped, at most `digits` significant digits where it is a fraction.
 *
 * @param value The number; NaN and infinities are written as such.
 * @param digits Significant digits of a fraction.
 * @returns `"1,204"`, `"2.104"`, `"−0.6233"`, `"3.2e-5"`; minus is U+2212.
 * @example
 * ```ts
 * import { formatNumber } from "./text.ts";
 *
 * console.log(formatNumber(43835), formatNumber(2.10391)); // 43,835 2.104
 * ```
 */
export function formatNumber(value: number, digits = 4): string {
  if (Number.isNaN(value)) return "not a number";
  const size = Math.abs(value);
  let text: string;
  if (size === Infinity) text = "∞";
  else if (size !== 0 && (size < 1e-3 || size >= 1e15)) {
    const [mantissa, power] = size.toExponential(digits - 1).split("e");
    text = `${Number(mantissa)}e${Number(power)}`;
  } else if (Number.isInteger(size) || size >= 10 ** (digits - 1)) {
    text = Math.round(size).toLocaleString("en-US");
  } else text = size.toPrecision(digits);
  return value < 0 ? `−${text}` : text;
}

/**
 * A stretch of time for people.
 *
 * @param seconds How long; negative counts as none.
 * @returns `"0.4 s"`, `"42 s"`, `"3 min 05 s"`, `"2 h 07 min"`, `"3 d 4 h"`.
 * @example
 * ```ts
 * import { formatDuration } from "./text.ts";
 *
 * console.log(formatDuration(185)); // 3 min 05 s
 * ```
 */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "unknown";
  const clamped = Math.max(0, seconds);
  if (clamped < 9.95) return `${Number(clamped.toFixed(1))} s`;
  const whole = Math.round(clamped);
  const two = (value: number) => String(Math.floor(value)).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  if (whole < 48 * 3600) return `${Math.floor(whole / 3600)} h ${two(whole % 3600 / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole % 86400 / 3600)} h`;
}

/**
 * A size in bytes for people, in decimal units as file managers and the Hub write it.
 *
 * @param bytes How many.
 * @returns `"512 B"`, `"1.4 MB"`, `"548 MB"`.
 * @example
 * ```ts
 * import { formatBytes } from "./text.ts";
 *
 * console.log(formatBytes(548_105_171)); // 548 MB
 * ```
 */
export function formatBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = Math.max(0, bytes);
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}
