/**
 * What the command line prints: results to standard output, the rest to standard error.
 *
 * @module
 */
import { explainFileError } from "../format/files.ts";

const encoder = new TextEncoder();

function write(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = encoder.encode(text);
  for (let at = 0; at < bytes.length;) at += stream.writeSync(bytes.subarray(at));
}

/**
 * Text to standard output, as it is.
 *
 * @throws {Deno.errors.BrokenPipe} Where its reader is gone, as `head` is.
 * @throws {WhetError} Where it cannot be written for another reason.
 */
export function print(text: string): void {
  try {
    write(Deno.stdout, text);
  } catch (error) {
    throw error instanceof Deno.errors.BrokenPipe
      ? error
      : explainFileError(error, "write", "standard output");
  }
}

/** A line to standard output. */
export function printLine(text: string): void {
  print(`${text}\n`);
}

/** A line to standard error; where nobody reads it any more, that is no reason to stop. */
export function note(text: string): void {
  try {
    write(Deno.stderr, `${text}\n`);
  } catch {
    // Closed, or its disk is full.
  }
}
