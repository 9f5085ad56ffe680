/**
 * Progress on standard error: one line that redraws itself in a terminal, a plain line now and then in
 * a log file.
 *
 * @module
 */
import { formatBytes, formatDuration, formatNumber, plain } from "./text.ts";

/** Where progress is written; `Deno.stderr` is one. */
export interface ProgressStream {
  /** Writes some bytes; how many it took. */
  writeSync(bytes: Uint8Array): number;
  /** Whether a person watches. */
  isTerminal(): boolean;
}

/** What {@linkcode Progress} is told at the start. */
export interface ProgressOptions {
  /** How much there is to do; leave it out where nobody knows. */
  total?: number;
  /** What is being done, in a word: "train", a file's name. */
  label?: string;
  /** What is counted: `"bytes"` shows sizes and a rate; anything else shows plain numbers. */
  unit?: string;
  /** Where to write; standard error by default. */
  stream?: ProgressStream;
  /** Writes nothing at all. */
  quiet?: boolean;
  /** Whether to use colour; by default where `NO_COLOR` is not set. */
  color?: boolean;
  /** The terminal's width in characters; by default the console is asked each time. */
  columns?: () => number;
  /** The time in milliseconds; for tests. */
  clock?: () => number;
}

/** How far things are. */
export interface ProgressUpdate {
  /** How much is done, of `total`. */
  done: number;
  /** Figures to show. A name with a slash is a unit and follows its value:
   * `12 tokens/s`. */
  fields?: Readonly<Record<string, string | number>>;
  /** Seconds left; by default reckoned from the pace since the first update. */
  eta?: number;
}

/** A terminal's line is redrawn at most every so many milliseconds. */
const REDRAW = 100;
/** Without a terminal a line comes at the earliest after so many milliseconds, or a tenth of the work. */
const PLAIN = 10_000;

/**
 * A progress bar. It never throws: a closed pipe or a strange terminal must not end hours of training.
 *
 * @example
 * ```ts
 * import { Progress } from "./progress.ts";
 *
 * const bar = new Progress({ total: 1000, label: "train" });
 * for (let step = 1; step <= 1000; step++) {
 *   bar.update({ done: step, fields: { loss: 2.1, "tokens/s": 1204 } });
 * }
 * bar.finish();
 * ```
 */
export class Progress {
  readonly #options: ProgressOptions;
  readonly #terminal: boolean;
  readonly #began: number;
  #first: { time: number; done: number } | null = null;
  #update: ProgressUpdate | null = null;
  #shown: { time: number; done: number } | null = null;
  #dirty = false;
  #finished = false;

  /**
   * Begins to measure time; nothing is shown before the first update.
   *
   * @param options What to count, and where to show it.
   */
  constructor(options: ProgressOptions) {
    this.#options = options;
    this.#began = this.#now();
    this.#terminal = attempt(() => this.#stream().isTerminal(), false);
  }

  /**
   * Says how far things are; cheap enough to be called for every step.
   *
   * @param update What is done, and figures to show.
   */
  update(update: ProgressUpdate): void {
    if (this.#options.quiet || this.#finished) return;
    const time = this.#now();
    this.#first ??= { time, done: update.done };
    this.#update = update;
    this.#dirty = true;
    if (this.#terminal ? this.#mayRedraw(time) : this.#mayPrint(time)) this.#show(time);
  }

  /**
   * Writes a line of text without tearing the bar.
   *
   * @param text The line; printed also when the bar is finished, but not when it is quiet.
   */
  note(text: string): void {
    if (this.#options.quiet) return;
    this.#write(this.#terminal && this.#shown && !this.#finished ? `\r\x1b[K${text}\n` : `${text}\n`);
    if (this.#terminal && this.#update && !this.#finished) this.#show(this.#now());
  }

  /** Shows the last state and ends the line; further updates do nothing. */
  finish(): void {
    if (this.#options.quiet || this.#finished) return;
    if (this.#update && this.#dirty) this.#show(this.#now());
    this.#finished = true;
    if (this.#terminal && this.#shown) this.#write("\n");
  }

  #mayRedraw(time: number): boolean {
    return !this.#shown || time - this.#shown.time >= REDRAW;
  }

  /** Every tenth of the work, or as the time spent grows by a tenth: a log of a day has some hundred lines. */
  #mayPrint(time: number): boolean {
    const last = this.#shown ?? { time: this.#began, done: 0 };
    if (time - last.time >= Math.max(PLAIN, (time - this.#began) / 10)) return true;
    const { total } = this.#options;
    return total !== undefined && total > 0 && this.#update!.done - last.done >= total / 10;
  }

  #show(time: number): void {
    this.#shown = { time, done: this.#update!.done };
    this.#dirty = false;
    if (!this.#terminal) {
      const { label, share, count, figures, left } = this.#parts(time);
      return this.#write(
        [label, share, count, ...figures, left].filter((part) => part !== "").join("  ") + "\n",
      );
    }
    // One column is left free: some terminals wrap when the last one is filled.
    const width = Math.max(8, attempt(this.#options.columns ?? (() => Deno.consoleSize().columns), 80) - 1);
    this.#write(`\r${this.#line(time, width)}\x1b[K`);
  }

  /** Label, share, bar, count, fields, time left: what does not fit goes, the least important first. */
  #line(time: number, width: number): string {
    const { label, share, count, figures, left } = this.#parts(time);
    const size = (texts: string[]) => texts.reduce((sum, text) => sum + [...text].length + 2, -2);
    const shorter = figures.map((_, i) => figures.slice(0, -1 - i));
    for (const rest of [[count, ...figures], figures, ...shorter]) {
      const parts = [label, share, ...rest, left.padEnd(12)].filter((part) => part !== "");
      // A few fixed lengths, so that the bar keeps still while the figures beside it change theirs.
      const room = [24, 14, 8].find((room) => room <= width - size(parts) - 2);
      if (share !== "" && room) parts.splice(label ? 1 : 0, 0, this.#bar(room));
      if (share === "" ? size(parts) <= width : room) return parts.join("  ").trimEnd();
    }
    const least = [label, share || count, left].filter((part) => part !== "").join("  ");
    return [...least].slice(0, width).join("");
  }

  #bar(room: number): string {
    const eighths = Math.round(this.#share()! * room * 8);
    const full = "█".repeat(eighths >> 3);
    const part = eighths % 8 ? "▏▎▍▌▋▊▉"[eighths % 8 - 1] : "";
    const rest = "·".repeat(room - full.length - part.length);
    const color = this.#options.color ?? !attempt(() => Deno.noColor, true);
    return color ? `\x1b[36m${full}${part}\x1b[90m${rest}\x1b[39m` : full + part + rest;
  }

  #parts(time: number): { label: string; share: string; count: string; figures: string[]; left: string } {
    const { done, fields, eta } = this.#update!;
    const { total, unit, label } = this.#options;
    const write = unit === "bytes" ? formatBytes : (value: number) => formatNumber(value);
    const share = this.#share();
    const figures = Object.entries(fields ?? {}).map(([name, value]) => {
      const text = plain(typeof value === "number" ? formatNumber(value) : value);
      return name.includes("/") ? `${text} ${plain(name)}` : `${plain(name)} ${text}`;
    });
    if (unit === "bytes") figures.unshift(...this.#rate(time));
    return {
      label: plain(label ?? ""),
      share: share === null ? "" : `${Math.floor(share * 100)} %`.padStart(5),
      count: total === undefined ? write(done) : `${write(done)}/${write(total)}`,
      figures,
      left: this.#left(time, eta),
    };
  }

  #share(): number | null {
    const { total } = this.#options;
    return total && total > 0 ? Math.min(1, Math.max(0, this.#update!.done / total)) : null;
  }

  /** Bytes per second since the first update. */
  #rate(time: number): string[] {
    const { time: began, done } = this.#first!;
    if (time - began < 500) return [];
    return [`${formatBytes((this.#update!.done - done) / (time - began) * 1000)}/s`];
  }

  #left(time: number, eta?: number): string {
    const { done } = this.#update!;
    const { total } = this.#options;
    if (total !== undefined && done >= total) return `in ${formatDuration((time - this.#began) / 1000)}`;
    const past = done - this.#first!.done;
    const reckoned = total !== undefined && past > 0
      ? (time - this.#first!.time) / 1000 * (total - done) / past
      : undefined;
    const seconds = eta ?? reckoned;
    return seconds === undefined || !Number.isFinite(seconds) ? "" : `${formatDuration(seconds)} left`;
  }

  #now(): number {
    return (this.#options.clock ?? (() => performance.now()))();
  }

  #stream(): ProgressStream {
    return this.#options.stream ?? Deno.stderr;
  }

  #write(text: string): void {
    attempt(() => {
      const bytes = new TextEncoder().encode(text);
      for (let at = 0; at < bytes.length;) {
        const taken = this.#stream().writeSync(bytes.subarray(at));
        if (taken <= 0) break;
        at += taken;
      }
    }, undefined);
  }
}

function attempt<T>(action: () => T, otherwise: T): T {
  try {
    return action();
  } catch {
    return otherwise;
  }
}
