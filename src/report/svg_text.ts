/**
 * Text in SVG, where nothing breaks lines or measures a word for us.
 *
 * @module
 */
import { escapeText } from "./text.ts";

/** A text element at a place, with more attributes. */
export function text(x: number, y: number, content: string, attributes: string): string {
  return `<text x="${round(x)}" y="${round(y)}" ${attributes}>${escapeText(content)}</text>`;
}

/** A tenth of a pixel is as fine as anyone sees. */
export function round(value: number): string {
  return String(Math.round(value * 10) / 10);
}

/** About how wide a text is in pixels, too much rather than too little: there is no font to ask. */
export function textWidth(content: string, size: number): number {
  let width = 0;
  for (const character of content) {
    if (
      /[\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uff60]|\p{Extended_Pictographic}/u.test(
        character,
      )
    ) width += 1.05;
    else if (/[MW@%m]/.test(character)) width += 0.92;
    else if (/[A-Z]/.test(character)) width += 0.7;
    else if (/[ .,:;!|'ijl()\[\]]/.test(character)) width += 0.33;
    else width += 0.59;
  }
  return width * size;
}

/** The text, cut off with an ellipsis where it is wider than allowed. */
export function shorten(content: string, size: number, width: number): string {
  if (textWidth(content, size) <= width) return content;
  const characters = [...content];
  while (characters.length > 1 && textWidth(characters.join("") + "…", size) > width) characters.pop();
  return characters.join("").trimEnd() + "…";
}

/** A title in at most two lines. */
export function wrap(content: string, size: number, width: number): string[] {
  const words = content.trim().split(/\s+/);
  let first = "";
  while (words.length > 0 && textWidth(`${first} ${words[0]}`, size) <= width) {
    first = `${first} ${words.shift()}`.trim();
  }
  if (first === "") first = shorten(words.shift() ?? "", size, width);
  return words.length === 0 ? [first] : [first, shorten(words.join(" "), size, width)];
}
