/**
 * A command's flags: told once, from which parsing, checks and `--help` come.
 *
 * @module
 */
import { parseArgs } from "node:util";

/** Wrong usage: the command line says it and exits with 2. */
export class UsageError extends Error {}

/** What a flag takes. */
export type Kind = "text" | "texts" | "switch" | keyof typeof NUMBERS;

/** The kinds of numbers: none is negative. */
const NUMBERS = {
  count: { whole: true, least: 1 },
  whole: { whole: true, least: 0 },
  number: { whole: false, least: 0 },
  positive: { whole: false, least: Number.MIN_VALUE },
} as const;

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
  /** The smallest number, if not its kind's. */
  least?: number;
  /** The largest number. */
  most?: number;
  /** All numbers are below this. */
  below?: number;
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
  const { tokens } = parseArgs({
    args: [...args],
    options: Object.fromEntries(
      names.map((name) => [name, { type: flags[name].kind === "switch" ? "boolean" : "string" }]),
    ),
    ...{ strict: false, allowPositionals: true, tokens: true },
  });
  const given = new Map<string, string[]>();
  for (const token of tokens) {
    if (token.kind === "option-terminator") continue;
    if (token.kind === "positional") {
      throw new UsageError(`unexpected argument ${JSON.stringify(token.value)}`);
    }
    const { name, rawName, value, inlineValue } = token;
    const flag = Object.hasOwn(flags, name) && rawName === `--${name}` ? flags[name] : null;
    if (!flag) throw new UsageError(`unknown flag ${rawName}${didYouMean(name, names)}`);
    if (flag.kind === "switch" && inlineValue) {
      throw new UsageError(`--${name}: it takes no value, got ${JSON.stringify(value)}`);
    }
    // `--steps --lr 1` lacks a value; one that begins with two dashes is written `--prompt=--`.
    if (flag.kind !== "switch" && (!value || !inlineValue && value.startsWith("--"))) {
      throw new UsageError(`--${name}: expected ${flag.value ?? flag.choices?.join("|") ?? "N"} after it`);
    }
    given.set(name, [...given.get(name) ?? [], value ?? ""]);
  }
  return Object.fromEntries(
    names.map((name) => [name, readValue(name, flags[name], given.get(name) ?? [])]),
  ) as Values<F>;
}

function readValue(name: string, flag: Flag, given: readonly string[]): unknown {
  if (flag.kind === "switch") return given.length > 0;
  if (given.length === 0) {
    if (flag.required) throw new UsageError(`--${name} is missing: ${flag.help}`);
    return undefined;
  }
  if (flag.kind === "texts") return given.map((text) => checkText(name, flag, text));
  if (given.length > 1) throw new UsageError(`--${name} is given ${given.length} times; give it once`);
  const text = checkText(name, flag, given[0]);
  if (flag.kind === "text") return text;
  const { whole, ...kind } = NUMBERS[flag.kind as keyof typeof NUMBERS];
  const { least = kind.least, most = Infinity, below = Infinity } = flag;
  const number = text.trim() === "" ? NaN : Number(text);
  const right = whole ? Number.isSafeInteger(number) : Number.isFinite(number);
  if (!right || number < least || number > most || number >= below) {
    const from = flag.kind === "positive" ? "above 0" : `of at least ${least}`;
    const to = most < Infinity ? ` and at most ${most}` : below < Infinity ? ` and below ${below}` : "";
    throw new UsageError(
      `--${name}: expected a ${whole ? "whole " : ""}number ${from}${to}, got ${JSON.stringify(text)}`,
    );
  }
  return number;
}

function checkText(name: string, flag: Flag, text: string): string {
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
