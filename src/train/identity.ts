/**
 * What a run is of, in a few characters, so that its checkpoint is taken up with nothing else.
 *
 * @module
 */
import { Dialogues } from "../data/dialogues.ts";
import type { ExampleSource } from "../data/examples.ts";
import type { LanguageModel } from "../model/language_model.ts";
import { bits } from "../tensor/random.ts";

/**
 * Tells data apart: how many examples, and a digest of them all.
 *
 * @param data The data.
 * @returns For example `9 examples (1f2e3d4c)`; null for a source that gives its examples one by one.
 */
export function identifyData(data: ExampleSource): string | null {
  if (!(data instanceof Dialogues || Array.isArray(data))) return null;
  const digest = new Digest();
  let count = 0;
  for (const example of data) {
    count++;
    for (const [field, value] of Object.entries(example) as [string, unknown][]) {
      digest.text(field);
      if (typeof value === "string") digest.text(value);
      else if (Array.isArray(value) || ArrayBuffer.isView(value)) digest.numbers(value as ArrayLike<number>);
    }
  }
  return `${count} examples (${digest})`;
}

/**
 * Tells base models apart by their position embeddings, which every training of all weights changes and
 * which lie in memory as they are in the file, whatever the backend and the storage of the others.
 *
 * @param model The model.
 * @returns A digest.
 */
export async function identifyModel(model: LanguageModel): Promise<string> {
  const digest = new Digest();
  const { buffer, byteOffset, length } = await model.parameter("wpe.weight");
  digest.numbers(new Uint32Array(buffer, byteOffset, length));
  return `${digest}`;
}

/** 32 bits that depend on every number and its place; against mix-ups, not against forgers. */
class Digest {
  #state = 0;

  text(text: string): void {
    for (let i = 0; i < text.length; i++) this.#add(text.charCodeAt(i));
    this.#add(-1);
  }

  numbers(numbers: ArrayLike<number>): void {
    for (let i = 0; i < numbers.length; i++) this.#add(numbers[i]);
    this.#add(-1);
  }

  toString(): string {
    return bits(0, [this.#state, 0]).toString(16).padStart(8, "0");
  }

  #add(number: number): void {
    // FNV-1a's step on 32 bits at a time, with a rotation that brings high bits down again.
    const mixed = Math.imul(this.#state ^ number, 0x01000193);
    this.#state = (mixed << 7) | (mixed >>> 25);
  }
}
