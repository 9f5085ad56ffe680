import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { commands } from "../src/cli/commands.ts";
import { describeFlags, type Flags, parseFlags, UsageError } from "../src/cli/flags.ts";

const FLAGS = {
  name: { kind: "text", value: "NAME", help: "a name", required: true },
  stop: { kind: "texts", value: "TEXT", help: "texts" },
  mode: { kind: "text", choices: ["fast", "slow"], help: "a choice" },
  steps: { kind: "count", help: "from 1" },
  seed: { kind: "whole", help: "from 0" },
  lr: { kind: "positive", help: "above 0" },
  share: { kind: "number", below: 1, help: "below 1" },
  port: { kind: "whole", most: 65535, help: "at most" },
  length: { kind: "count", least: 2, help: "at least 2" },
  quiet: { kind: "switch", help: "a switch" },
  "no-packing": { kind: "switch", help: "another" },
} as const satisfies Flags;

const parse = (...args: string[]) => parseFlags(FLAGS, ["--name", "n", ...args]);

Deno.test("values are read as their flag takes them", () => {
  const values = parse(
    ...["--stop", "a", "--steps", "3", "--stop=b=c", "--seed=0", "--lr", "2e-4", "--share", "0", "--quiet"],
    ...["--mode=slow", "--length", "2"],
  );
  assertEquals(values, {
    ...{ name: "n", stop: ["a", "b=c"], mode: "slow", steps: 3, seed: 0, lr: 2e-4, share: 0 },
    ...{ port: undefined, length: 2, quiet: true, "no-packing": false },
  });
  assertEquals(parse("--no-packing")["no-packing"], true);
});

Deno.test("a text may begin with a dash, hold line breaks, or be a number", () => {
  const name = (...args: string[]) => parseFlags(FLAGS, args).name;
  assertEquals(name("--name", "- item"), "- item");
  assertEquals(name("--name", "-5 degrees"), "-5 degrees");
  assertEquals(name("--name", "\n\nHuman: Hi\n\nAssistant:"), "\n\nHuman: Hi\n\nAssistant:");
  assertEquals(name("--name=--quiet"), "--quiet");
  assertEquals(name("--name=\n--x"), "\n--x");
  assertEquals(name("--name", "12"), "12");
  assertEquals(name("--name", "true"), "true");
  assertEquals(name("--name", "-"), "-");
});

Deno.test("wrong usage is told with the flag, what it takes and what it got", () => {
  const cases: [string[], string][] = [
    [["--steps", "0"], '--steps: expected a whole number of at least 1, got "0"'],
    [["--steps", "-1"], '--steps: expected a whole number of at least 1, got "-1"'],
    [["--steps", "1.5"], '--steps: expected a whole number of at least 1, got "1.5"'],
    [["--steps", "1e400"], "--steps: expected a whole number"],
    [["--steps", "9007199254740993"], "--steps: expected a whole number"],
    [["--steps", "ten"], "--steps: expected a whole number"],
    [["--steps", " "], "--steps: expected a whole number"],
    [["--steps", "NaN"], "--steps: expected a whole number"],
    [["--steps"], "--steps: expected N after it"],
    [["--steps="], "--steps: expected N after it"],
    [["--steps", "--quiet"], "--steps: expected N after it"],
    [["--seed", "-1"], "--seed: expected a whole number of at least 0"],
    [["--lr", "0"], '--lr: expected a number above 0, got "0"'],
    [["--lr", "abc"], '--lr: expected a number above 0, got "abc"'],
    [["--lr", "Infinity"], "--lr: expected a number above 0"],
    [["--share", "1"], '--share: expected a number of at least 0 and below 1, got "1"'],
    [["--port", "65536"], "--port: expected a whole number of at least 0 and at most 65535"],
    [["--length", "1"], "--length: expected a whole number of at least 2"],
    [["--mode", "FAST"], '--mode: expected fast, slow, got "FAST"'],
    [["--mode"], "--mode: expected fast|slow after it"],
    [["--steps", "1", "--steps", "1"], "--steps is given 2 times; give it once"],
    [["--quiet=yes"], '--quiet: it takes no value, got "yes"'],
    [["--step", "1"], "unknown flag --step; did you mean --steps?"],
    [["--no_packing"], "unknown flag --no_packing; did you mean --no-packing?"],
    [["--frobnicate"], "unknown flag --frobnicate"],
    [["--lr.x", "1"], "unknown flag --lr.x"],
    [["--__proto__", "1"], "unknown flag --__proto__"],
    [["--constructor", "1"], "unknown flag --constructor"],
    [["-q"], "unknown flag -q"],
    [["extra"], 'unexpected argument "extra"'],
    [["--", "extra"], 'unexpected argument "extra"'],
    [["-"], 'unexpected argument "-"'],
  ];
  for (const [args, message] of cases) assertThrows(() => parse(...args), UsageError, message);
  assertThrows(() => parseFlags(FLAGS, []), UsageError, "--name is missing: a name");
  assertThrows(() => parseFlags(FLAGS, ["--name", ""]), UsageError, "--name: expected NAME after it");
});

Deno.test("every command has the flags of all, and its help lists each of its flags", () => {
  const names = ["train", "generate", "chat", "score", "merge", "quantize", "study", "serve", "devices"];
  assertEquals(Object.keys(commands).sort(), names.sort());
  for (const [name, { flags }] of Object.entries(commands)) {
    const text = describeFlags(flags);
    for (const flag of [...Object.keys(flags), "help", "json", "backend", "quiet"]) {
      assertStringIncludes(text, `  --${flag}`, name);
    }
    if (name === "devices") continue;
    for (const flag of ["model", "weights", "threads"]) assertStringIncludes(text, `  --${flag} `, name);
  }
  const promised = ["model", "data", "out", "method", "rank", "alpha", "targets", "steps", "epochs"];
  promised.push("batch-size", "seq-len", "lr", "seed", "loss-on", "eval-data", "checkpoint-every", "resume");
  for (const flag of promised) assertEquals(flag in commands.train.flags, true, flag);
});
