/**
 * The command line: picks the command, prints what it gives, turns errors into one line and an exit status.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { VERSION } from "../version.ts";
import { type Command, commands } from "./commands.ts";
import { describeFlags, parseFlags, UsageError } from "./flags.ts";
import { Interrupted } from "./interrupt.ts";
import { note, printLine } from "./output.ts";

const INTRODUCTION = `whet fine-tunes GPT-2 with LoRA, generates with it and scores it.

usage: deno run -A mod.ts COMMAND [flags]

commands:
`;

/**
 * Runs a command line.
 *
 * @param args The arguments after the program's name.
 * @returns The exit status: 0, 1 for a failure, 2 for wrong usage, 130 when interrupted.
 */
export async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  try {
    if (name === undefined || name === "help" || name === "--help" || name === "-h") {
      printLine(helpForAll());
      return name === undefined ? 2 : 0;
    }
    if (name === "--version" || name === "-V") {
      printLine(`whet ${VERSION} (deno ${Deno.version.deno})`);
      return 0;
    }
    const command = Object.hasOwn(commands, name) ? commands[name] : null;
    if (!command) {
      throw new UsageError(`unknown command ${name}; there are ${Object.keys(commands).join(", ")}`);
    }
    if (rest.includes("--help") || rest.includes("-h")) {
      printLine(helpFor(name, command));
      return 0;
    }
    const values = parseFlags(command.flags, rest);
    const run = await command.load();
    const result = await run(values);
    if (values.json && result !== undefined) printLine(JSON.stringify(result));
    return 0;
  } catch (error) {
    return report(error, name);
  }
}

/** Says what went wrong in one line. */
function report(error: unknown, name: string): number {
  if (error instanceof UsageError) {
    const help = Object.hasOwn(commands, name) ? `whet ${name} --help lists the flags` : "see whet --help";
    note(`whet: ${oneLine(error.message)}; ${help}`);
    return 2;
  }
  if (error instanceof Interrupted) {
    note(`whet: ${error.message}`);
    return 130;
  }
  if (error instanceof WhetError) {
    note(`whet: ${oneLine(error.message)}`);
    return 1;
  }
  if (error instanceof Deno.errors.BrokenPipe) return 0;
  if (error instanceof Deno.errors.NotCapable) {
    note(`whet: ${oneLine(error.message)}`);
    return 1;
  }
  if (error instanceof RangeError && /memory|array (buffer )?(length|allocation)/i.test(error.message)) {
    note(
      `whet: out of memory (${
        oneLine(error.message)
      }); try a smaller batch, a shorter sequence or --weights q8`,
    );
    return 1;
  }
  note(`whet: this is a mistake of whet's own, please report it: ${oneLine(String(error))}`);
  if (error instanceof Error && error.stack) note(error.stack);
  return 1;
}

function oneLine(text: string): string {
  return text.replaceAll(/\s*\n\s*/g, " ").trim();
}

function helpForAll(): string {
  const lines = Object.entries(commands).map(([name, { summary }]) => `  ${name.padEnd(10)} ${summary}`);
  return `${INTRODUCTION}${
    lines.join("\n")
  }\n\nwhet COMMAND --help lists a command's flags; whet --version tells the version`;
}

function helpFor(name: string, command: Command): string {
  return `whet ${name}: ${command.summary}\n\nusage: deno run -A mod.ts ${name} ${command.usage}\n\nflags:\n${
    describeFlags(command.flags)
  }\n\npermissions: ${command.permissions}`;
}
