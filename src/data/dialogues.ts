/**
 * Dialogues, and other texts, from files of JSON lines.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import type { Progress } from "../format/repository.ts";
import { type Example, quote, readExample, SHAPES } from "./example.ts";
import { readLines, readText, unpack } from "./lines.ts";
import { type DataFile, openData } from "./open.ts";

/** What {@linkcode Dialogues.load} takes beside the source. */
export interface DialoguesOptions {
  /** Which part of a Hub data set whose files are not named: `"train"` (default) or `"test"`. */
  split?: string;
  /** Called as bytes arrive. */
  onProgress?: (progress: Progress) => void;
  /** Takes lines for people: a download tried again, the cache used for want of a network. */
  onNote?: (note: string) => void;
  /** Ends the loading when it is aborted; it rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Stands in for the global `fetch`. */
  fetch?: typeof fetch;
}

/** An example and where it was found. */
interface Entry {
  example: Example;
  /** The file's name, or empty if there is none. */
  file: string;
  /** Its line, or its number if there is no file; from 1. */
  number: number;
}

/**
 * A list of dialogues and other examples.
 *
 * A file has one JSON object a line: HH-RLHF pairs as Anthropic publishes them (`chosen` and `rejected`
 * transcripts with `\n\nHuman:` and `\n\nAssistant:` turns), `{"text"}`, `{"prompt", "response"}`, or a
 * mixture. It may be packed with gzip, whatever its name. A file whose name ends in `.txt` (or
 * `.txt.gz`) is one example, its whole text.
 *
 * @example
 * ```ts
 * import { Dialogues } from "./dialogues.ts";
 *
 * const data = await Dialogues.parse('{"chosen": "\\n\\nHuman: Hi\\n\\nAssistant: Hello"}\n');
 * for (const example of data) console.log(example);
 * ```
 */
export class Dialogues implements Iterable<Example> {
  readonly #entries: readonly Entry[];

  private constructor(entries: readonly Entry[]) {
    this.#entries = entries;
  }

  /**
   * Loads a file.
   *
   * @param source A path, a `file:` or `http(s):` URL, or a data set of the Hugging Face Hub: one of its
   * files (`Anthropic/hh-rlhf/helpful-base/train.jsonl.gz`), or a folder or all of it, of which the
   * files of `split` are taken in alphabetical order. A file that exists is taken before a Hub id.
   * @param options Split, progress, abort signal, a stand-in for `fetch`.
   * @returns The dialogues.
   * @throws {WhetError} `option`, if there is no such file; `format`, if it is damaged, empty, or a line
   * is not an example; `network` or `resource`, if it is out of reach.
   *
   * @example
   * ```ts ignore
   * const data = await Dialogues.load("Anthropic/hh-rlhf/helpful-base/test.jsonl.gz");
   * console.log(data.length); // 2354
   * ```
   */
  static async load(source: string | URL, options: DialoguesOptions = {}): Promise<Dialogues> {
    const entries: Entry[] = [];
    for (const file of await openData(source, options)) {
      for await (const entry of readEntries(file)) entries.push(entry);
    }
    return new Dialogues(entries);
  }

  /**
   * Reads a file's content.
   *
   * @param content Text, or bytes, plain or gzip.
   * @param name What messages call it; one that ends in `.txt` says that it is plain text.
   * @returns The dialogues.
   * @throws {WhetError} `format`, if it is damaged, empty, or a line is not an example.
   */
  static async parse(content: string | Uint8Array, name = "the data"): Promise<Dialogues> {
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    const entries: Entry[] = [];
    const whole = async function* () {
      yield bytes;
    };
    for await (const entry of readEntries({ name, bytes: whole() })) entries.push(entry);
    return new Dialogues(entries);
  }

  /**
   * Takes examples that are there already.
   *
   * @param examples The examples; each is checked.
   * @returns The dialogues.
   * @throws {WhetError} `format`, if one is not an example, or there is none.
   *
   * @example
   * ```ts
   * import { Dialogues } from "./dialogues.ts";
   *
   * const data = Dialogues.from([{ prompt: "1, 2, 3,", response: " 4" }]);
   * console.log(data.length); // 1
   * ```
   */
  static from(examples: Iterable<Example>): Dialogues {
    const entries: Entry[] = [];
    for (const example of examples) {
      const number = entries.length + 1;
      entries.push({ example: readExample(example, `example ${number}`), file: "", number });
    }
    if (entries.length === 0) {
      throw new WhetError("format", "the data are empty: expected at least one example");
    }
    return new Dialogues(entries);
  }

  /** How many there are. */
  get length(): number {
    return this.#entries.length;
  }

  /** They, one after the other. */
  *[Symbol.iterator](): IterableIterator<Example> {
    for (const { example } of this.#entries) yield example;
  }

  /**
   * One of them.
   *
   * @param index Which; from the end if negative.
   * @returns The example, or undefined where there is none.
   */
  at(index: number): Example | undefined {
    return this.#entries.at(index)?.example;
  }

  /**
   * Some of them; the texts are shared, not copied.
   *
   * @param start The first; from the end if negative.
   * @param end The one after the last; from the end if negative.
   * @returns The dialogues, as `Array.prototype.slice` would pick them; there may be none.
   */
  slice(start?: number, end?: number): Dialogues {
    return new Dialogues(this.#entries.slice(start, end));
  }

  /**
   * Where one was found, for messages.
   *
   * @param index Which.
   * @returns File and line, or the number of the example.
   */
  where(index: number): string {
    const { file, number } = this.#entries[index];
    return file ? `${file}, line ${number}` : `example ${number}`;
  }
}

async function* readEntries({ name, bytes }: DataFile): AsyncGenerator<Entry> {
  const content = unpack(bytes, name);
  let empty = true;
  if (/\.txt(\.gz)?$/i.test(name)) {
    const text = await readText(content, name);
    if (text.trim() !== "") {
      empty = false;
      yield { example: { text }, file: name, number: 1 };
    }
  } else {
    for await (const { number, text } of readLines(content, name)) {
      if (text.trim() === "") continue;
      empty = false;
      const where = `${name}, line ${number}`;
      yield { example: readExample(parseJson(text, where), where), file: name, number };
    }
  }
  if (empty) throw new WhetError("format", `${name}: the file is empty; expected one example a line`);
}

function parseJson(line: string, where: string): unknown {
  try {
    return JSON.parse(line);
  } catch (error) {
    const message = (error as Error).message;
    const at = Number(/position (\d+)/.exec(message)?.[1] ?? (/end of JSON/.test(message) ? line.length : 0));
    throw new WhetError(
      "format",
      `${where}: broken JSON near ${
        quote(line.slice(Math.max(0, at - 20), at + 60))
      }; expected ${SHAPES}, on one line`,
      { cause: error },
    );
  }
}
