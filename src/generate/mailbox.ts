/**
 * What one part of the program leaves for another to fetch when it has time.
 *
 * @module
 */

/** A queue from one writer to one reader; it holds whatever the reader has not fetched. */
export class Mailbox<Item> implements AsyncIterable<Item> {
  readonly #items: Item[] = [];
  #ended = false;
  #error: { reason: unknown } | null = null;
  #wake: (() => void) | null = null;

  /** Whether nothing more is taken in. */
  get closed(): boolean {
    return this.#ended;
  }

  /**
   * Leaves something.
   *
   * @param item What; it is dropped where the mailbox is closed.
   */
  push(item: Item): void {
    if (this.#ended) return;
    this.#items.push(item);
    this.#wake?.();
  }

  /** That was all: the reader ends after what is there. */
  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  /**
   * Something went wrong: the reader gets the error after what is there.
   *
   * @param reason What it throws.
   */
  fail(reason: unknown): void {
    if (!this.#ended) this.#error = { reason };
    this.end();
  }

  /** Nobody fetches anything any more. */
  close(): void {
    this.#items.length = 0;
    this.end();
  }

  /** What is left, as it comes. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Item, void, undefined> {
    for (;;) {
      while (this.#items.length > 0) yield this.#items.shift()!;
      if (this.#error) throw this.#error.reason;
      if (this.#ended) return;
      await new Promise<void>((resolve) => this.#wake = resolve);
      this.#wake = null;
    }
  }
}
