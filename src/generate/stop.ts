/**
 * Stop strings in a stream of text.
 *
 * @module
 */

/** Lets text through until a stop string appears; what might be the beginning of one is held back. */
export class StopFilter {
  readonly #stops: readonly string[];
  #held = "";

  /** @param stops The stop strings, none of them empty. */
  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /**
   * Takes in more text.
   *
   * @param text What comes next.
   * @returns What may be shown, and whether a stop string ended it.
   */
  push(text: string): { text: string; stopped: boolean } {
    const all = this.#held + text;
    // The one that is complete first counts, however the text came in pieces; of those, the longest.
    let start = -1, end = Infinity;
    for (const stop of this.#stops) {
      const at = all.indexOf(stop);
      if (at < 0 || at + stop.length > end || (at + stop.length === end && at > start)) continue;
      [start, end] = [at, at + stop.length];
    }
    if (start >= 0) {
      this.#held = "";
      return { text: all.slice(0, start), stopped: true };
    }
    let from = Math.max(0, all.length - Math.max(0, ...this.#stops.map(({ length }) => length - 1)));
    while (from < all.length && !this.#stops.some((stop) => stop.startsWith(all.slice(from)))) from++;
    this.#held = all.slice(from);
    return { text: all.slice(0, from), stopped: false };
  }

  /** What was held back, when no more text comes. */
  flush(): string {
    const held = this.#held;
    this.#held = "";
    return held;
  }
}
