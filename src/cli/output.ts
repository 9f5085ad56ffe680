/**
 * What the command line prints: results to standard output, the rest to standard error.
 *
 * @module
 */
const encoder = new TextEncoder();

function write(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = encoder.encode(text);
  for (let at = 0; at < bytes.length;) at += stream.writeSync(bytes.subarray(at));
}

/** Text to standard output, as it is. */
export function print(text: string): void {
  write(Deno.stdout, text);
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
