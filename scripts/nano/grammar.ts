/**
 * Small tools for writing English by rule: seeded choices, articles, verb endings, lists, sentences.
 *
 * @module
 */
import { bits, uniform } from "../../src/tensor/random.ts";

/** A stream of choices that its key alone decides. */
export class Random {
  #drawn = 0;

  /** @param key Seed and stream; streams of one seed are independent of each other. */
  constructor(readonly key: readonly [number, number]) {}

  /** The next number, uniform in [0, 1). */
  next(): number {
    return uniform(this.#drawn++, this.key);
  }

  /** A whole number from 0 to `n` − 1. */
  int(n: number): number {
    return Math.floor(this.next() * n);
  }

  /** True with probability `p`. */
  chance(p: number): boolean {
    return this.next() < p;
  }

  /** One of `items`, each as likely as the others. */
  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new RangeError("Random.pick: nothing to pick from");
    return items[this.int(items.length)];
  }

  /** `n` of `items` (all of them if there are fewer), none twice, in random order. */
  sample<T>(items: readonly T[], n: number): T[] {
    const rest = [...items];
    const taken: T[] = [];
    while (taken.length < n && rest.length > 0) taken.push(...rest.splice(this.int(rest.length), 1));
    return taken;
  }

  /** One of `items` other than `not`. */
  other<T>(items: readonly T[], not: T): T {
    return this.pick(items.filter((item) => item !== not));
  }
}

/** A key for {@linkcode Random} from a seed and a name. */
export function keyOf(seed: number, name: string): [number, number] {
  let hash = 0;
  for (let i = 0; i < name.length; i++) hash = bits(name.charCodeAt(i), [hash, i]);
  return [seed >>> 0, hash];
}

/** The noun with its indefinite article: a cat, an owl. By its first letter, which the world's words respect. */
export function a(noun: string): string {
  return `${/^[aeiou]/.test(noun) ? "an" : "a"} ${noun}`;
}

/** The text with its first letter, after any quotation mark, made a capital. */
export function capital(text: string): string {
  return text.replace(/^("?)(\p{L})/u, (_, quote: string, letter: string) => quote + letter.toUpperCase());
}

/** A sentence: begins with a capital, ends with a full stop unless it ends already. */
export function sentence(text: string): string {
  return capital(text) + (/[.!?]"?$/.test(text) ? "" : ".");
}

/** Several sentences, one after the other. */
export function prose(...texts: string[]): string {
  return texts.filter((text) => text !== "").map(sentence).join(" ");
}

/** "bake bread" → "bakes bread": the phrase's first word in the third person. */
export function third(phrase: string): string {
  const [verb, ...rest] = phrase.split(" ");
  let ending = verb + "s";
  if (/(ch|sh|s|x|o)$/.test(verb)) ending = verb + "es";
  else if (/[^aeiou]y$/.test(verb)) ending = verb.slice(0, -1) + "ies";
  return [ending, ...rest].join(" ");
}

/** "apples, pears and plums". */
export function list(items: readonly string[]): string {
  return items.length < 2
    ? items.join("")
    : `${items.slice(0, -1).join(", ")} and ${items[items.length - 1]}`;
}
