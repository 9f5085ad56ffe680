/**
 * A peer's end of the line: {@linkcode Peer} asks, a session answers.
 *
 * @module
 */
import { TextLineStream } from "./lines.ts";
import type { Sample } from "./statistics.ts";

/** What a peer is to do, as its work describes it. */
export interface Job {
  /** Which of the peer's jobs. */
  job: string;
  /** Threads to compute with. */
  threads: number;
  [setting: string]: unknown;
}

/** A job, ready to be run again and again. */
export interface Session {
  /** The peer's name and version, more than its package's if it has parts. */
  version?: string;
  /** Runs once and says what was done in which time. */
  run(): Promise<Sample>;
  /** Something by which it can be seen that it does what others do. */
  check?(question: Record<string, unknown>): Promise<unknown>;
}

/**
 * Answers `open`, `run` and `check` on standard input until it ends.
 *
 * @param open Makes a job ready.
 */
export async function serve(open: (job: Job) => Promise<Session>): Promise<void> {
  let session: Session | null = null;
  for await (const line of Deno.stdin.readable.pipeThrough(new TextLineStream())) {
    try {
      const { do: what, ...question } = JSON.parse(line);
      if (what === "open") {
        session = await open(question);
        say({ answer: session.version ?? null });
      } else if (what === "run") {
        say({ answer: await session!.run() });
      } else {
        say({ answer: await session!.check!(question) });
      }
    } catch (error) {
      say({ error: String(error instanceof Error ? error.message : error).split("\n")[0] || String(error) });
    }
  }
  // Libraries leave workers and timers behind.
  Deno.exit(0);
}

function say(message: { answer: unknown } | { error: string }): void {
  const bytes = new TextEncoder().encode(JSON.stringify(message) + "\n");
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}
