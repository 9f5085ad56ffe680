/**
 * What this machine's graphics card does with Whet's kernels, and what share of its own speed that is:
 *
 *     deno run -A benchmarks/gpu.ts [--json] [--out FILE] [--only WORD]… [--quick] [--runs N] [--seconds N]
 *         [--worker] [--arithmetic f32|f16|i8] [--no-subgroups]
 *     deno bundle -o gpu.js benchmarks/gpu.ts     # one file, that needs nothing and no network
 *
 * Rows are printed as they come, and `--out` is written after each, so that nothing is lost where time runs out.
 * `gpu_torch.py` prints the same rows for PyTorch; `README.md` says what is measured.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { describeBackends } from "../src/backend/select.ts";
import { findAdapter } from "../src/backend/webgpu/adapter.ts";
import { createWebGpuBackend } from "../src/backend/webgpu/backend.ts";
import type { GpuOptions } from "../src/backend/webgpu/gpu.ts";
import { openRemoteBackend } from "../src/backend/webgpu/remote.ts";
import { Bench } from "./gpu/bench.ts";
import { ceilings } from "./gpu/ceilings.ts";
import { kernels, variants } from "./gpu/kernels.ts";
import { models } from "./gpu/models.ts";
import { digits, type GpuRecord, heading, measured, type Row, rowLine } from "./gpu/record.ts";
import type { Backend } from "../src/tensor/backend.ts";
import { VERSION } from "../src/version.ts";

/** The limits that kernels meet; `--json` has all. */
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupsPerDimension",
];

const USAGE = `gpu.ts [--json] [--out FILE] [--only WORD]… [--quick] [--runs N] [--seconds N] [--worker]
    [--arithmetic f32|f16|i8] [--no-subgroups]`;

const values = flags();
if (values.help) {
  console.log(USAGE);
  Deno.exit(0);
}
const { json, out, quick, only, worker } = values;
const runs = whole("runs", values.runs, quick ? 2 : 5);
const seconds = whole("seconds", values.seconds, quick ? 120 : 480);
const arithmetic = (["f32", "f16", "i8"] as const).find((name) => name === values.arithmetic);
if (!arithmetic) wrong(`--arithmetic: expected f32, f16 or i8, got ${values.arithmetic}`);
const gpu = { arithmetic, ...(values["no-subgroups"] ? { subgroups: false } : {}) };
const say = json ? console.error : console.log;

const { webgpu, reason } = await describeBackends();
if (!webgpu) {
  console.error(`gpu: ${reason}; install a Vulkan driver`);
  Deno.exit(1);
}
const record: GpuRecord = {
  program: `Whet ${VERSION}`,
  date: new Date().toISOString().slice(0, 10),
  adapter: webgpu,
  system: `Deno ${Deno.version.deno}, ${Deno.build.os} ${Deno.build.arch}`,
  ...{ worker, ...gpu, quick },
  ceilings: {},
  rows: [],
};
save(); // Before anything is measured: a file that cannot be written is known at once.
say(`${record.program}, ${record.system}, ${record.date}`);
say(`adapter: ${webgpu.description}`);
if (webgpu.software) say("This adapter computes on the CPU: its figures say nothing about graphics cards.");
if (quick) say("Tiny sizes (--quick): the figures mean nothing.");
say(`features: ${webgpu.features.join(", ")}`);
say(`limits: ${LIMITS.map((name) => `${name} ${webgpu.limits[name]}`).join(", ")}\n`);
say(heading());

using bench = new Bench({
  ...{ quick, seconds, runs, only, record },
  ...{ open, gpu },
  onRow(row) {
    say(rowLine(row));
    save();
  },
});
// Whatever hangs, what there is gets printed.
const watchdog = setTimeout(() => {
  console.error("gpu: the time is up");
  finish();
  Deno.exit(0);
}, (seconds + 15) * 1000);
await measureCeilings();
await kernels(bench);
await models(bench);
await variants(bench);
clearTimeout(watchdog);
finish();

/** The card's own figures: always measured, for all others are shares of them. */
async function measureCeilings(): Promise<void> {
  const adapter = await findAdapter();
  const size = quick ? "quick" : webgpu!.software ? "software" : "card";
  try {
    for await (const { name, unit, amount, seconds } of ceilings(adapter!, bench.care, size)) {
      const row = measured({ group: "ceiling", name, unit }, amount, seconds);
      const kind = unit === "GB/s" ? "bandwidth" : "fp32";
      record.ceilings[kind] = Math.max(record.ceilings[kind] ?? 0, row.value!);
      bench.put(row);
    }
  } catch (error) {
    const absent = error instanceof Error ? error.message : String(error);
    bench.put({ group: "ceiling", name: "the rest", unit: "GFLOP/s", absent } satisfies Row);
  }
}

/** As the library does, but for what only measurements and tests choose. */
async function open(options: GpuOptions): Promise<Backend> {
  if (worker) return await openRemoteBackend(options);
  return await createWebGpuBackend((await findAdapter())!, options);
}

function flags() {
  try {
    return parseArgs({
      options: {
        json: { type: "boolean", default: false },
        out: { type: "string" },
        only: { type: "string", multiple: true, default: [] },
        quick: { type: "boolean", default: false },
        worker: { type: "boolean", default: false },
        arithmetic: { type: "string", default: "f32" },
        "no-subgroups": { type: "boolean", default: false },
        runs: { type: "string" },
        seconds: { type: "string" },
        help: { type: "boolean", default: false },
      },
    }).values;
  } catch (error) {
    return wrong((error as Error).message.split(". ")[0]);
  }
}

function save(): void {
  if (!out) return;
  try {
    Deno.writeTextFileSync(out, JSON.stringify(record, null, 2) + "\n");
  } catch (error) {
    console.error(`gpu: --out: ${(error as Error).message}`);
    Deno.exit(1);
  }
}

function finish(): void {
  save();
  if (json) return console.log(JSON.stringify(record));
  if (record.idleMilliseconds === undefined) return;
  say(`\nwaiting for nothing takes ${digits(record.idleMilliseconds)} ms, which is taken off kernels' times`);
}

function whole(flag: string, value: string | undefined, otherwise: number): number {
  if (value === undefined) return otherwise;
  if (/^[1-9]\d{0,4}$/.test(value)) return Number(value);
  return wrong(`--${flag}: expected a whole number of at least 1, got ${value}`);
}

function wrong(message: string): never {
  console.error(`gpu: ${message}\nusage: ${USAGE}`);
  Deno.exit(2);
}
