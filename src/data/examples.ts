/**
 * Examples by number, whatever they come from, each encoded when it is first asked for.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { Dialogues } from "./dialogues.ts";
import { checkExample, type EncodedExample, encodeExample, type Encoder, type LossOn } from "./encode.ts";
import { type Example, readExample } from "./example.ts";

/** What training takes: something with random access, or anything that gives examples one by one, maybe forever. */
export type ExampleSource = Dialogues | Iterable<Example> | AsyncIterable<Example>;

/**
 * Numbers the examples of a source from 0, encodes on demand, and keeps the tokens (5 bytes each).
 * Arrays and {@linkcode Dialogues} are checked at once, so that a bad example does not end a run after
 * hours; other sources are pulled as far as they are asked for, and not begun again.
 */
export class EncodedExamples {
  readonly #list: Dialogues | readonly Example[] | null;
  readonly #iterator: Iterator<Example> | AsyncIterator<Example> | null = null;
  /** What was pulled and not encoded yet. */
  readonly #pulled = new Map<number, Example>();
  readonly #encoded = new Map<number, EncodedExample>();
  #count = 0;
  #length: number | undefined;

  /**
   * Takes a source; nothing is encoded yet.
   *
   * @param source The examples.
   * @param tokenizer The model's tokenizer.
   * @param lossOn What counts.
   * @throws {WhetError} `option`, if it is no source or an empty list; `format`, if an example of a list is bad.
   */
  constructor(
    source: ExampleSource,
    private readonly tokenizer: Encoder,
    private readonly lossOn: LossOn,
  ) {
    this.#list = source instanceof Dialogues || Array.isArray(source) ? source : null;
    if (this.#list) {
      this.#length = this.#list.length;
      if (this.#length === 0) throw empty();
      for (let i = 0; i < this.#length; i++) checkExample(this.#at(i), tokenizer, lossOn, this.#where(i));
    } else if (typeof source === "object" && source !== null && Symbol.asyncIterator in source) {
      this.#iterator = source[Symbol.asyncIterator]();
    } else if (typeof source === "object" && source !== null && Symbol.iterator in source) {
      this.#iterator = source[Symbol.iterator]();
    } else {
      throw new WhetError("option", "data: expected Dialogues or an iterable of examples");
    }
  }

  /** Whether all are there from the beginning: an array or Dialogues. */
  get listed(): boolean {
    return this.#list !== null;
  }

  /** How many there are; undefined as long as the source has not come to its end. */
  get length(): number | undefined {
    return this.#length;
  }

  /**
   * Whether there is an example of that number; pulls the source up to it.
   *
   * @param index The number.
   * @throws {WhetError} `format`, if one on the way is bad; `option`, if the source gives nothing at all.
   */
  async has(index: number): Promise<boolean> {
    while (this.#length === undefined && index >= this.#count) {
      const { done, value } = await this.#iterator!.next();
      if (done) {
        this.#length = this.#count;
        if (this.#length === 0) throw empty();
      } else {
        const where = this.#where(this.#count);
        const example = readExample(value, where);
        checkExample(example, this.tokenizer, this.lossOn, where);
        this.#pulled.set(this.#count++, example);
      }
    }
    return index < (this.#length ?? this.#count);
  }

  /**
   * An example's tokens.
   *
   * @param index Its number; {@linkcode has} said that it exists.
   * @returns Always the same arrays; not to be written to.
   */
  get(index: number): EncodedExample {
    let encoded = this.#encoded.get(index);
    if (!encoded) {
      const example = this.#list ? this.#at(index) : this.#pulled.get(index)!;
      encoded = encodeExample(example, this.tokenizer, { lossOn: this.lossOn }, this.#where(index));
      this.#encoded.set(index, encoded);
      this.#pulled.delete(index);
    }
    return encoded;
  }

  /** Lets a source that did not come to its end tidy up. */
  async close(): Promise<void> {
    if (this.#length === undefined) await this.#iterator?.return?.();
    this.#length ??= this.#count;
  }

  #at(index: number): Example {
    if (this.#list instanceof Dialogues) return this.#list.at(index)!;
    return readExample(this.#list![index], this.#where(index));
  }

  #where(index: number): string {
    return this.#list instanceof Dialogues ? this.#list.where(index) : `example ${index + 1}`;
  }
}

function empty(): WhetError {
  return new WhetError("option", "the data are empty: expected at least one example");
}
