/**
 * The command line as a user meets it: a process of its own, with its streams and its exit status.
 *
 * @module
 */
import { assertEquals, assertMatch } from "@std/assert";

const program = new URL("../../mod.ts", import.meta.url).pathname;

/** Path of something under `tests/fixtures/parity`. */
export function fixture(name: string): string {
  return new URL(`../fixtures/parity/${name}`, import.meta.url).pathname;
}

/** A tiny GPT-2 with a vocabulary of bytes and a window of 40 tokens. */
export const MODEL = fixture("d16/model");

/** What came out of a command. */
export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

/** How a command is run; by default with all permissions. */
export interface RunOptions {
  permissions?: string[];
  env?: Record<string, string>;
  cwd?: string;
}

function command(args: readonly string[], { permissions = ["-A"], ...options }: RunOptions): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", ...permissions, program, ...args],
    ...options,
    env: { NO_COLOR: "1", ...options.env },
    ...{ stdin: "null", stdout: "piped", stderr: "piped" },
  });
}

/** Runs a command line to its end. */
export async function whet(args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const { code, stdout, stderr } = await command(args, options).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Begins a command line and hands over its process; what it prints is thrown away. */
export function begin(args: readonly string[]): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "-A", program, ...args],
    ...{ stdin: "null", stdout: "null", stderr: "null" },
  }).spawn();
}

/** Runs a command that is to fail: nothing on standard output, one line on standard error, no stack. */
export async function refused(
  args: readonly string[],
  { code, message, ...options }: RunOptions & { code: number; message: RegExp },
): Promise<void> {
  const outcome = await whet(args, options);
  assertMatch(outcome.stderr, message);
  assertEquals(outcome.stderr.trim().split("\n").length, 1, outcome.stderr);
  assertEquals([outcome.code, outcome.stdout], [code, ""], outcome.stderr);
}

/** Gives a directory that is gone afterwards. */
export async function inTempDir(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    await work(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Writes a few short exchanges, of unequal lengths, as JSON lines. */
export async function writeExchanges(path: string, count = 9): Promise<string> {
  const lines = Array.from(
    { length: count },
    (_, i) => JSON.stringify({ prompt: `Q${i}?`, response: " yes".repeat(1 + i % 4) }),
  );
  await Deno.writeTextFile(path, lines.join("\n") + "\n");
  return path;
}

/** The lines of a run's metrics.jsonl. */
export async function readMetrics(out: string): Promise<Record<string, number>[]> {
  const text = await Deno.readTextFile(`${out}/metrics.jsonl`);
  return text.trimEnd().split("\n").map((line) => JSON.parse(line));
}

/** What must not differ between a run and the same run with interruptions. */
export async function result(out: string): Promise<{ adapter: Uint8Array; steps: number[][] }> {
  return {
    adapter: await Deno.readFile(`${out}/adapter_model.safetensors`),
    steps: (await readMetrics(out)).map((
      { step, loss, learning_rate, grad_norm, tokens },
    ) => [step, loss, learning_rate, grad_norm, tokens]),
  };
}
