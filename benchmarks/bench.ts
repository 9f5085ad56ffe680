/**
 * `deno task bench [NAME…]`: Whet beside its peers, in one run.
 *
 *     --python PYTHON   one that has torch, transformers and peft [$WHET_PYTHON]
 *     --data FILE       HH-RLHF dialogues [../shared/data/hh-rlhf-sample.jsonl.gz]
 *     --runs N          runs of each contestant [5]
 *     --threads N       threads of all that can have several [2]
 *     --only WORD       only contestants with it in their name; may be given several times
 *     --quick           a model of two layers and two runs, only to see that all work; nothing is written
 *     --out DIRECTORY   where results.json and README.md are written [benchmarks; with --quick nowhere]
 *
 * Prints the table, and writes it as JSON and as a section of the page. `README.md` says what each work measures.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Files } from "./harness/files.ts";
import { describeMachine } from "./harness/machine.ts";
import { measure } from "./harness/measure.ts";
import { type BenchRecord, merge, render, replaceSection, type WorkRecord } from "./harness/report.ts";
import type { Context, Work } from "./harness/work.ts";
import { memory, start } from "./work/command.ts";
import { dialogues } from "./work/dialogues.ts";
import { decoding, prefill } from "./work/generation.ts";
import { lora, loraMemory } from "./work/lora.ts";
import { matmul, matmulSingle } from "./work/matmul.ts";
import { reward, rewardMemory } from "./work/reward.ts";

/** All works, in the order of the table. */
const WORKS: readonly ((context: Context) => Work)[] = [
  matmul,
  matmulSingle,
  lora,
  loraMemory,
  dialogues,
  decoding,
  prefill,
  start,
  memory,
  reward,
  rewardMemory,
];

const root = fileURLToPath(new URL("../", import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: "string", default: Deno.env.get("WHET_PYTHON") },
    data: { type: "string", default: `${root}../shared/data/hh-rlhf-sample.jsonl.gz` },
    runs: { type: "string" },
    threads: { type: "string", default: "2" },
    only: { type: "string", multiple: true, default: [] },
    quick: { type: "boolean", default: false },
    out: { type: "string" },
  },
});
const { quick, only, data, python } = values;
const note = (line: string) => console.error(line);

await using files = new Files({ data, quick, note });
const context: Context = {
  files,
  quick,
  python: python || null,
  runs: count("runs", values.runs ?? (quick ? "2" : "5")),
  threads: count("threads", values.threads),
};
const works = WORKS.map((work) => work(context));
const chosen = positionals.length > 0 ? works.filter(({ name }) => positionals.includes(name)) : works;
const unknown = positionals.filter((name) => !works.some((work) => work.name === name));
if (unknown.length > 0) {
  fail(`unknown: ${unknown.join(", ")}; there are ${works.map(({ name }) => name).join(", ")}`);
}

// Ctrl-C: children end with their standard input, the files here.
Deno.addSignalListener("SIGINT", () => {
  files.remove();
  Deno.exit(130);
});

const out = values.out ?? (quick ? null : `${root}benchmarks`);
const machine = await describeMachine();
const order = works.map(({ name }) => name);
let record = out && await read(`${out}/results.json`);
const measured: WorkRecord[] = [];
for (const work of chosen) {
  const contestants = work.contestants.filter(({ name }) =>
    only.length === 0 || only.some((word) => name.toLowerCase().includes(word.toLowerCase()))
  );
  if (contestants.length === 0) continue;
  note(`${work.name}: ${work.title}`);
  const results = await measure(work, contestants, context, note);
  measured.push({
    name: work.name,
    title: work.title,
    unit: work.unit,
    better: work.better,
    ratio: work.ratio ?? "whet/other",
    statistic: work.statistic ?? "median",
    runs: context.runs,
    threads: context.threads,
    quick,
    date: new Date().toISOString().slice(0, 10),
    results,
    comparisons: work.comparisons,
  });
  // After each work, so that an hour's work is not lost with the last one.
  if (out) {
    record = merge(record || null, machine, measured.splice(0), order);
    await write(out, record);
  }
}
const shown = out ? record : merge(null, machine, measured, order);
if (shown) {
  const names = new Set(chosen.map(({ name }) => name));
  console.log(render({ machine, works: shown.works.filter(({ name }) => names.has(name)) }));
}

async function read(path: string): Promise<BenchRecord | null> {
  try {
    return JSON.parse(await Deno.readTextFile(path));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

async function write(directory: string, record: BenchRecord): Promise<void> {
  await Deno.mkdir(directory, { recursive: true });
  await Deno.writeTextFile(`${directory}/results.json`, JSON.stringify(record, null, 2) + "\n");
  const path = `${directory}/README.md`;
  const page = await Deno.readTextFile(path).catch(() => "");
  await Deno.writeTextFile(path, replaceSection(page, render(record)));
}

function count(flag: string, value: string): number {
  if (/^[1-9]\d{0,3}$/.test(value)) return Number(value);
  return fail(`--${flag}: expected a whole number of at least 1, got ${value}`);
}

function fail(message: string): never {
  console.error(`bench: ${message}`);
  files.remove();
  Deno.exit(2);
}
