/**
 * GPT-2's byte alphabet: each of the 256 bytes as one printable character, so that a vocabulary of
 * byte strings can be kept as JSON text. Bytes that are printable in Latin-1 stand for themselves,
 * the other 68 are U+0100 and up, in their order: the space is `Ġ`, the line feed `Ċ`.
 * (Radford et al., 2019, Language Models are Unsupervised Multitask Learners; `bytes_to_unicode`.)
 *
 * @module
 */

/** Whether GPT-2's alphabet writes a byte as its own Latin-1 character. */
function standsForItself(byte: number): boolean {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/** Byte → its character. */
const CHARACTERS: readonly string[] = (() => {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(standsForItself(byte) ? byte : next++));
})();

/** Character code → its byte, or −1. */
const BYTES: Int16Array = (() => {
  const bytes = new Int16Array(0x100 + 68).fill(-1);
  CHARACTERS.forEach((character, byte) => bytes[character.charCodeAt(0)] = byte);
  return bytes;
})();

/**
 * Writes bytes in the alphabet.
 *
 * @param bytes Any bytes.
 * @returns One character for each.
 *
 * @example
 * ```ts
 * import { fromBytes } from "./bytes.ts";
 *
 * console.log(fromBytes(new TextEncoder().encode(" hi"))); // Ġhi
 * ```
 */
export function fromBytes(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += CHARACTERS[byte];
  return text;
}

/**
 * Reads bytes written in the alphabet.
 *
 * @param text A vocabulary's entry.
 * @param into Where its bytes go, one for each character.
 * @param start Where in that they begin.
 * @returns Whether all of it is of the alphabet; if not, what was written means nothing.
 *
 * @example
 * ```ts
 * import { toBytes } from "./bytes.ts";
 *
 * const bytes = new Uint8Array(3);
 * console.log(toBytes("Ġhi", bytes, 0), bytes); // true Uint8Array [32, 104, 105]
 * ```
 */
export function toBytes(text: string, into: Uint8Array, start: number): boolean {
  for (let i = 0; i < text.length; i++) {
    const byte = BYTES[text.charCodeAt(i)] ?? -1;
    if (byte < 0) return false;
    into[start + i] = byte;
  }
  return true;
}
