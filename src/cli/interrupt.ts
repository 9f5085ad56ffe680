/**
 * Ctrl-C: the first ends the work where it can be taken up again, the second ends the process.
 *
 * @module
 */
import { note } from "./output.ts";

/** The person asked to stop. */
export class Interrupted extends Error {}

/**
 * Runs work that stops when the person asks. On Windows there is no SIGTERM to listen to.
 *
 * @param work Takes a signal that Ctrl-C, or SIGTERM, aborts.
 * @param message What to say then.
 */
export async function interruptible<Result>(
  work: (signal: AbortSignal) => Promise<Result>,
  message: () => string,
): Promise<Result> {
  const controller = new AbortController();
  const names: Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM"];
  const stop = () => {
    release();
    note(`${Deno.stderr.isTerminal() ? "\n" : ""}whet: stopping after this step; Ctrl-C again stops at once`);
    controller.abort();
  };
  const release = () => {
    for (const name of names) Deno.removeSignalListener(name, stop);
  };
  for (const name of names) Deno.addSignalListener(name, stop);
  try {
    return await work(controller.signal);
  } catch (error) {
    throw error === controller.signal.reason ? new Interrupted(message()) : error;
  } finally {
    if (!controller.signal.aborted) release();
  }
}
