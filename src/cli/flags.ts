/**
 * A command's flags: told once, from which parsing, checks and `--help` come.
 *
 * @module
 */
import { parseArgs } from "./parse_args.ts";

/** Wrong usage: the command line says it and exits with 2. */
export class UsageError extends Error {}

/** What a flag takes. */
export type Kind = "text" | "texts" | "whole" | "number" | "switch";

/** One flag. */
export interface Flag {
  /** What it takes; `texts` may be given several times, `switch` takes nothing. */
  kind: Kind;
  /** How its value is called in the help, such as DIR. */
  value?: string;
  /** What it does. */
  help: string;
  /** The values that there are. */
  choices?: readonly string[];
  /** Shown in the help as what happens without it. */
  standard?: string;
  /** Whether the command makes no sense without it. */
  required?: boolean;
}

/** Flags by name, without the dashes. */
export type Flags = Readonly<Record<string, Flag>>;

type Value<F extends Flag> = F["kind"] extends "text" ? string
  : F["kind"] extends "texts" ? string[]
  : F["kind"] extends "switch" ? boolean
  : number;

/** What parsing gives: a switch is always there, others where they were given. */
export type Values<F extends Flags> = {
  [Name in keyof F]: F[Name]["kind"] extends "switch" ? boolean
    : F[Name]["required"] extends true ? Value<F[Name]>
    : Value<F[Name]> | undefined;
};

/** Flags of every command. */
export const COMMON = {
  backend: {
    kind: "text",
    value: "NAME",
    choices: ["auto", "webgpu", "wasm"],
    help: "where to compute",
    standard: "auto",
  },
  json: { kind: "switch", help: "print one JSON object, and nothing else, on standard output" },
  quiet: { kind: "switch", help: "no progress and no notes" },
  help: { kind: "switch", help: "show this" },
} as const satisfies Flags;

/** Flags of commands that take a model. */
export const MODEL = {
  model: {
    kind: "text",
    value: "M",
    help: "a directory, a URL, a Hub id such as openai-community/gpt2, or nano",
    required: true,
  },
  weights: {
    kind: "text",
    value: "FORMAT",
    choices: ["f32", "f16", "q8", "q4"],
    help: "how the model's weights are stored",
    standard: "f32",
  },
  threads: { kind: "whole", value: "N", help: "threads of the WASM backend", standard: "1" },
  strict: { kind: "switch", help: "WASM without relaxed instructions: the same bits on every machine" },
} as const satisfies Flags;

/** The adapter beside a model. */
export const ADAPTER = {
  adapter: {
    kind: "text",
    value: "DIR",
    help: "a LoRA adapter in PEFT's format: a directory, a URL or a Hub id",
  },
} as const satisfies Flags;

/**
 * Parses a command's arguments.
 *
 * @param flags The flags that there are.
 * @param args What was given.
 * @returns The values by flag name.
 * @throws {UsageError} Naming the flag that is unknown, missing, given twice or has a wrong value.
 */
export function parseFlags<F extends Flags>(flags: F, args: readonly string[]): Values<F> {
  const names = Object.keys(flags);
  const ofKind = (...kinds: Kind[]) => names.filter((name) => kinds.includes(flags[name].kind));
  const dashed = args.map((arg) => /^-[^-\d.]/.test(arg) ? `-${arg}` : arg);
  const raw = parseArgs(joinNegatives(dashed, names), {
    boolean: ofKind("switch"),
    string: ofKind("text", "texts", "whole", "number"),
    collect: names.filter((name) => flags[name].kind !== "switch"),
    unknown: (arg: string, name?: string) => {
      if (name === undefined) throw new UsageError(`unexpected argument ${arg}`);
      throw new UsageError(`unknown flag --${name}${didYouMean(name, names)}`);
    },
  });
  const values: Record<string, unknown> = {};
  for (const name of names) values[name] = readValue(name, flags[name], raw[name]);
  return values as Values<F>;
}

/** `--lr -1` as `--lr=-1`, which the parser would take for a flag of its own. */
function joinNegatives(args: readonly string[], names: readonly string[]): string[] {
  const joined: string[] = [];
  for (const arg of args) {
    const before = joined.at(-1);
    if (/^-[\d.]/.test(arg) && before !== undefined && names.includes(before.replace(/^--/, ""))) {
      joined[joined.length - 1] = `${before}=${arg}`;
    } else {
      joined.push(arg);
    }
  }
  return joined;
}

function readValue(name: string, flag: Flag, raw: unknown): unknown {
  if (flag.kind === "switch") return raw === true;
  const given = raw as string[] | undefined ?? [];
  if (given.length === 0) {
    if (flag.required) throw new UsageError(`--${name} is missing: ${flag.help}`);
    return undefined;
  }
  if (flag.kind === "texts") return given.map((text) => checkText(name, flag, text));
  if (given.length > 1) throw new UsageError(`--${name} is given ${given.length} times; give it once`);
  const text = checkText(name, flag, given[0]);
  if (flag.kind === "text") return text;
  const number = Number(text);
  if (text.trim() === "" || !Number.isFinite(number)) {
    throw new UsageError(`--${name}: expected a number, got ${JSON.stringify(text)}`);
  }
  if (flag.kind === "whole" && !Number.isSafeInteger(number)) {
    throw new UsageError(`--${name}: expected a whole number, got ${JSON.stringify(text)}`);
  }
  return number;
}

function checkText(name: string, flag: Flag, text: string): string {
  if (text === "" && name !== "prompt") {
    throw new UsageError(`--${name}: expected ${flag.value ?? "a value"} after it`);
  }
  if (flag.choices && !flag.choices.includes(text)) {
    throw new UsageError(`--${name}: expected ${flag.choices.join(", ")}, got ${JSON.stringify(text)}`);
  }
  return text;
}

function didYouMean(name: string, names: readonly string[]): string {
  const close = names.find((known) => known.startsWith(name) || name.startsWith(known)) ??
    names.find((known) => known.replaceAll("-", "") === name.replaceAll(/[-_]/g, "").toLowerCase());
  return close ? `; did you mean --${close}?` : "";
}

/** The flags as help text, a line each. */
export function describeFlags(flags: Flags): string {
  const rows = Object.entries(flags).map(([name, flag]) => {
    const value = flag.kind === "switch" ? "" : ` ${flag.choices?.join("|") ?? flag.value ?? "N"}`;
    const standard = flag.standard === undefined ? "" : ` [${flag.standard}]`;
    return [`  --${name}${value}`, `${flag.help}${standard}${flag.required ? " (required)" : ""}`];
  });
  const width = Math.min(34, Math.max(...rows.map(([left]) => left.length))) + 2;
  return rows.map(([left, right]) =>
    left.length + 2 > width ? `${left}\n${" ".repeat(width)}${right}` : left.padEnd(width) + right
  ).join("\n");
}
