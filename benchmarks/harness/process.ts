/**
 * A peer in a process of its own, which is asked and answers in lines of JSON: so that no one's memory, threads
 * or warnings are in another's way.
 *
 * @module
 */
import { TextLineStream } from "./lines.ts";

/** How a process is started. */
export interface ProcessOptions {
  /** The program. */
  command: string;
  /** Its arguments. */
  args: readonly string[];
  /** Where it runs. */
  cwd?: string;
  /** Variables beside those of this process. */
  env?: Record<string, string>;
}

/** What a peer says: what it was asked for, or why there is none. */
type Answer = { answer: unknown } | { error: string };

/** Seconds that a peer has for an answer. */
const PATIENCE = 600;

/** A process that answers. */
export class Peer implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #answers: ReadableStreamDefaultReader<string>;
  readonly #questions: WritableStreamDefaultWriter<Uint8Array>;
  /** The last lines of its standard error. */
  readonly #complaints: string[] = [];
  readonly #complained: Promise<void>;

  /** @param options What to start. */
  constructor({ command, args, env, ...rest }: ProcessOptions) {
    this.#process = new Deno.Command(command, {
      args: [...args],
      ...rest,
      env: { NO_COLOR: "1", ...env },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#questions = this.#process.stdin.getWriter();
    this.#answers = this.#process.stdout.pipeThrough(new TextLineStream()).getReader();
    this.#complained = this.#listen(this.#process.stderr.pipeThrough(new TextLineStream()));
  }

  /**
   * Asks.
   *
   * @param question What is asked, `do` saying for what.
   * @param seconds How long it may take.
   * @returns The answer.
   * @throws {Error} What the peer says instead, or that it says nothing; one line.
   */
  async ask<T>(question: { do: string; [name: string]: unknown }, seconds: number = PATIENCE): Promise<T> {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.#process.kill("SIGKILL");
    }, seconds * 1000);
    try {
      await this.#questions.write(new TextEncoder().encode(JSON.stringify(question) + "\n"));
      const answer = await this.#next();
      if ("error" in answer) throw new Error(answer.error);
      return answer.answer as T;
    } catch (error) {
      if (late) throw new Error(`no answer in ${seconds} s`);
      if (error instanceof Error && !isBrokenPipe(error)) throw error;
      throw new Error(await this.#lastWords());
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * The most memory that it has had, as Linux counts it (`VmHWM`).
   *
   * @returns Bytes.
   * @throws {Error} Where there is no `/proc`.
   */
  peakMemory(): Promise<number> {
    return peakMemory(this.#process.pid);
  }

  /** Lets it end, and ends it if it does not. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#questions.close().catch(() => {});
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), 5000);
    await this.#answers.cancel().catch(() => {});
    await this.#process.status;
    clearTimeout(timer);
    await this.#complained;
  }

  /** The next line that is an answer; libraries write to standard output what they like. */
  async #next(): Promise<Answer> {
    for (;;) {
      const { value, done } = await this.#answers.read();
      if (done) throw new Error(await this.#lastWords());
      if (!/^\{"(answer|error)":/.test(value)) continue;
      return JSON.parse(value);
    }
  }

  async #listen(lines: ReadableStream<string>): Promise<void> {
    for await (const line of lines) {
      if (line.trim() === "") continue;
      this.#complaints.push(line.trim());
      if (this.#complaints.length > 20) this.#complaints.shift();
    }
  }

  async #lastWords(): Promise<string> {
    const { code, signal } = await this.#process.status;
    await this.#complained;
    const said = this.#complaints.findLast((line) => /error/i.test(line)) ?? this.#complaints.at(-1);
    return said ?? `it ended with ${signal ?? `exit status ${code}`} and said nothing`;
  }
}

/**
 * The most memory that a process has had so far.
 *
 * @param pid Its number.
 * @returns Bytes.
 * @throws {Error} Where there is no `/proc`.
 */
export async function peakMemory(pid: number): Promise<number> {
  if (Deno.build.os !== "linux") throw new Error("peak memory is read from /proc, which only Linux has");
  const status = await Deno.readTextFile(`/proc/${pid}/status`);
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? NaN) * 1024;
}

function isBrokenPipe(error: Error): boolean {
  return error instanceof Deno.errors.BrokenPipe || /closed|errored|broken pipe/i.test(error.message);
}
