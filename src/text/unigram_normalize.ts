/**
 * The steps that text goes through before it is divided into pieces, as tokenizer.json names them.
 *
 * @module
 */
import { WhetError } from "../errors.ts";

/** Changes a text; always well-formed, before and after. */
export type Normalizer = (text: string) => string;

/** White_Space as Unicode has it. JavaScript's `\s` lacks U+0085 and has U+FEFF. */
const WHITE = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const WHITE_SPACE = new RegExp(`^[${WHITE}]$`);

/**
 * Whether a UTF-16 unit is white space to Unicode.
 *
 * @param text A text.
 * @param i Which of its units.
 * @returns True for White_Space; false outside of the text.
 */
export function isWhiteSpace(text: string, i: number): boolean {
  return WHITE_SPACE.test(text.charAt(i));
}

/**
 * Several steps as one.
 *
 * @param normalizers The steps in order.
 * @returns All of them.
 */
export function sequence(normalizers: readonly Normalizer[]): Normalizer {
  return (text) => normalizers.reduce((result, normalize) => normalize(result), text);
}

/**
 * `Strip`: cuts white space off.
 *
 * @param left At the beginning.
 * @param right At the end.
 * @returns The step.
 */
export function strip(left: boolean, right: boolean): Normalizer {
  return (text) => {
    let start = 0, end = text.length;
    if (left) { while (start < end && isWhiteSpace(text, start)) start++; }
    if (right) { while (end > start && isWhiteSpace(text, end - 1)) end--; }
    return text.slice(start, end);
  };
}

/**
 * `Lowercase`: each character for itself, so that a final sigma is like the others.
 *
 * @param text A text.
 * @returns It in small letters.
 */
export function lowercase(text: string): string {
  return text.replace(/[^\0-@[-\x7f]/gu, (character) => character.toLowerCase());
}

/**
 * `Nmt`: drops control characters, makes spaces of what looks like one.
 *
 * @param text A text.
 * @returns It without them.
 */
export function nmt(text: string): string {
  return text
    // deno-lint-ignore no-control-regex -- these are what it drops
    .replace(/[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]/g, "")
    .replace(/[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]/g, " ");
}

/** So many combining marks in a row are put in order on their own, for ICU takes the square of their number:
 * 65,536 of two kinds in turns took 1.9 s (Deno 2.9.6). No language writes so many. */
const LONG_RUN = /\p{M}{256}/gu;

/**
 * `NFC` and its like, by the runtime's Unicode. The `tokenizers` library has Unicode 9's tables: of later
 * characters 21 have a canonical and 170 a compatibility decomposition (`㋿`), which it leaves as they are.
 *
 * @param form The normalization form.
 * @returns The step.
 */
export function unicodeForm(form: "NFC" | "NFD" | "NFKC" | "NFKD"): Normalizer {
  return (text) => {
    let result = "", done = 0;
    for (const { 0: run, index } of text.matchAll(LONG_RUN)) {
      result += text.slice(done, index + run.length).normalize(form);
      done = index + run.length;
    }
    return result + text.slice(done).normalize(form);
  };
}

/**
 * `Replace` of a literal.
 *
 * @param literal What is replaced; not empty.
 * @param content What by.
 * @returns The step.
 */
export function replaceLiteral(literal: string, content: string): Normalizer {
  return (text) => text.replaceAll(literal, () => content);
}

/** A character or class with the times that it must come, as the patterns of tokenizers have it. */
const ATOM =
  /(\\[nrtfs]|\\[^\p{L}\p{N}]|\[(?:\\[nrtfs]|\\[^\p{L}\p{N}]|[^\\[\]^&-])+\]|[^\\[\](){}.^$|?*+])((?:\+|\{[1-9]\d?,?\})(?![+?]))?/uy;

/**
 * `Replace` of a regular expression. The library's expressions are Oniguruma's; only what means the same in
 * both languages and runs in linear time is taken: alternatives of literal characters, or of one character
 * or class that may be repeated. That is all that Unigram tokenizers use: ` {2,}`, `\s{2,}|[\n\r\t]`.
 *
 * @param pattern The expression.
 * @param content What a match is replaced by, as it stands.
 * @param place The file and field, for errors.
 * @returns The step.
 * @throws {WhetError} `unsupported` for another expression.
 */
export function replacePattern(pattern: string, content: string, place: string): Normalizer {
  let translated = "", atoms = 0, repeated = false;
  for (let at = 0; at < pattern.length || atoms === 0;) {
    if (pattern[at] === "|" && atoms > 0) {
      translated += "|";
      atoms = 0;
      repeated = false;
      at++;
      continue;
    }
    ATOM.lastIndex = at;
    const match = ATOM.exec(pattern);
    if (match) {
      atoms++;
      repeated ||= match[2] !== undefined;
    }
    if (!match || (repeated && atoms > 1)) {
      throw new WhetError(
        "unsupported",
        `${place}: the expression ${JSON.stringify(pattern)} is not supported; Whet reads alternatives of ` +
          "literals and of single repeated characters or classes",
      );
    }
    const [whole, atom, times = ""] = match;
    translated += translate(atom) + times;
    at += whole.length;
  }
  const expression = new RegExp(translated, "gu");
  return (text) => text.replace(expression, () => content);
}

/** An atom in JavaScript's words. */
function translate(atom: string): string {
  if (atom === "\\s") return `[${WHITE}]`;
  const inside = (text: string) =>
    text.replace(/\\(.)|[^]/gu, (whole, escaped?: string) => {
      if (escaped === "s") return WHITE;
      if (escaped !== undefined && /[nrtf]/.test(escaped)) return whole;
      return `\\u{${(escaped ?? whole).codePointAt(0)!.toString(16)}}`;
    });
  return atom.length > 1 && atom.startsWith("[") ? `[${inside(atom.slice(1, -1))}]` : inside(atom);
}
