/**
 * The GPU bench, at tiny sizes, on whatever adapter there is: all of its rows run.
 */
import { assert, assertAlmostEquals, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Bench } from "../benchmarks/gpu/bench.ts";
import { idleSeconds, secondsOf } from "../benchmarks/gpu/clock.ts";
import { digits, measured, rowLine } from "../benchmarks/gpu/record.ts";
import type { GpuRecord } from "../benchmarks/gpu/record.ts";
import { adapterTest } from "./support/webgpu.ts";
import { Sandbox } from "./support/sandbox.ts";

const decoder = new TextDecoder();

async function deno(args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args,
    cwd: new URL("../", import.meta.url),
    signal: AbortSignal.timeout(60_000),
  }).output();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

Deno.test("a row's figure is the median of its samples, its share that of the card's own", () => {
  const row = { group: "matmul", name: "2 × 2 × 2", unit: "GFLOP/s", of: "fp32" } as const;
  const { value, low, high, runs, share, milliseconds } = measured(row, 6, [1, 2, 3], { fp32: 12 });
  assertEquals({ value, low, high, runs, share, milliseconds }, {
    ...{ value: 3, low: 2, high: 6, runs: 3, share: 0.25, milliseconds: 2000 },
  });
  assertEquals(measured(row, 6, [1]).share, undefined);
});

Deno.test("the table has three digits that count, and a reason where there is no figure", () => {
  assertEquals([12345, 123.4, 1.234, 0.01234, 0].map(digits), ["12345", "123", "1.23", "0.0123", "0"]);
  const row = { group: "matvec", name: "q8", unit: "GB/s" };
  assertMatch(rowLine({ ...row, absent: "no time was left" }), /^matvec: q8 +\| – +\| no time was left$/);
  assertMatch(rowLine(measured(row, 1, [0.5])), /^matvec: q8 +\| 2 GB\/s +\| 2 – 2 +\| +\| 500/);
});

/** A bench that has no need of a backend. */
function bench(seconds: number, only: string[] = []): Bench {
  const record = { rows: [], ceilings: {} } as unknown as GpuRecord;
  const open = () => Promise.reject(new Error("no backend here"));
  return new Bench({ open, quick: true, seconds, runs: 1, only, record, onRow() {} });
}

Deno.test("a row that fails has its reason, one that is begun too late says so, and others go on", async () => {
  const row = (name: string) => ({ group: "group", name, unit: "GB/s" });
  const one = () => Promise.resolve({ amount: 1, seconds: [1] });
  using going = bench(60, ["first", "third", "FOURTH"]);
  await going.row(row("first"), () => Promise.reject(new Error("it is broken")));
  await going.row(row("second"), one);
  await going.row(row("third"), one);
  await going.kernel(row("fourth"), 1, () => () => {});
  assertEquals(going.record.rows.map(({ name, value, absent }) => [name, value ?? absent]), [
    ["first", "it is broken"],
    ["third", 1],
    ["fourth", "no backend here"],
  ]);
  using late = bench(0);
  await late.row(row("first"), one);
  assertEquals(late.record.rows, [{ ...row("first"), absent: "no time was left" }]);
});

Deno.test("what waiting costs is taken off, and calls are as many as a sample's length asks for", async () => {
  let clock = 0, enqueued = 0;
  const samples: number[] = [];
  const now = () => clock;
  const timed = {
    enqueue: () => void enqueued++,
    flush() {},
    // 11 ms for nothing, half a millisecond for each call; the third time something else is slow.
    settle() {
      clock += 11 + enqueued / 2 + (samples.length === 2 ? 500 : 0);
      samples.push(enqueued);
      enqueued = 0;
      return Promise.resolve();
    },
  };
  assertEquals(await idleSeconds({ settle: () => Promise.resolve(void (clock += 11)) }, now), 0.011);
  const care = { runs: 3, least: 0.1, most: 1000, deadline: 1e6 };
  const seconds = await secondsOf(timed, care, 0.011, now);
  for (const s of seconds) assertAlmostEquals(s, 0.0005, 1e-9);
  assertEquals(seconds.length, 3);
  assert(samples.at(-1)! >= 100 && samples.at(-1)! <= 200, `${samples} calls`);
  // As many as are allowed at most; and with no time left one sample, all the same.
  await secondsOf(timed, { ...care, most: 20 }, 0.011, now);
  assertEquals(samples.at(-1), 20);
  assertEquals((await secondsOf(timed, { ...care, deadline: 0 }, 0.011, now)).length, 1);
});

adapterTest("the bench in one file runs every row offline, and writes what it prints", async () => {
  await using sandbox = new Sandbox();
  const [program, out] = [`${sandbox.directory}/gpu.js`, `${sandbox.directory}/gpu.json`];
  const bundled = await deno(["bundle", "--quiet", "--frozen", "-o", program, "benchmarks/gpu.ts"]);
  assertEquals(bundled.code, 0, bundled.stderr);
  const { code, stdout, stderr } = await sandbox.run(
    ...["run", "-A", program, "--quick", "--json", "--out", out],
  );
  assertEquals(code, 0, stderr);
  const record: GpuRecord = JSON.parse(stdout);
  assertEquals(JSON.parse(await Deno.readTextFile(out)), record);
  // Halves are not to be had everywhere.
  const missing = record.rows.filter(({ absent }) => absent && !/no shader-f16/.test(absent));
  assertEquals(missing, []);
  const found = record.rows.filter(({ absent }) => !absent);
  assert(found.every(({ value, low, high }) => low! > 0 && low! <= value! && value! <= high!));
  const groups = Object.entries(Object.groupBy(record.rows, ({ group }) => group))
    .map(([group, rows]) => [group, rows!.length]);
  assertEquals(Object.fromEntries(groups), {
    ...{
      ceiling: 4,
      matmul: 17,
      matvec: 4,
      attention: 4,
      rows: 7,
      loss: 2,
      sampling: 6,
      elements: 6,
      variants: 6,
    },
    ...{ decode: 4, LoRA: 1 },
  });
  assert(record.ceilings.fp32! > 0 && record.ceilings.bandwidth! > 0);
  assert(found.every(({ of, share }) => !of || share! > 0));
  // What is counted, though not how much of it, which is other tests' business.
  for (const { counters } of record.rows.filter(({ group }) => group === "decode" || group === "LoRA")) {
    assert(counters!.dispatches >= 1 && counters!.submissions > 0 && counters!.megabytes > 0);
    assert(counters!.stall! >= 0);
  }
});

adapterTest(
  "in a worker too, --only takes the rows with one of the words in their name",
  async () => {
    const { code, stdout } = await deno([
      ...["run", "-A", "--no-check", "benchmarks/gpu.ts", "--quick", "--json", "--runs", "1"],
      ...["--only", "GELU", "--only", "nothing has this word", "--worker"],
    ]);
    assertEquals(code, 0);
    const { rows }: GpuRecord = JSON.parse(stdout);
    assertEquals(rows.filter(({ group }) => group !== "ceiling").map(({ name }) => name), [
      "GELU, 4096 numbers",
      "GELU backward, 4096 numbers",
    ]);
    assert(rows.every(({ runs }) => runs === 1));
  },
);

const program = (...args: string[]) => deno(["run", "-A", "--no-check", "benchmarks/gpu.ts", ...args]);

Deno.test("a flag that makes no sense is wrong usage, and --help says which there are", async () => {
  const soon = await program("--seconds", "soon");
  const [line, usage] = soon.stderr.split("\n");
  assertEquals([soon.code, line], [2, "gpu: --seconds: expected a whole number of at least 1, got soon"]);
  assertStringIncludes(usage, "usage: gpu.ts [--json]");
  const unknown = await program("--fast");
  assertEquals([unknown.code, unknown.stderr.split("\n")[0]], [2, "gpu: Unknown option '--fast'"]);
  const help = await program("--help");
  assertEquals([help.code, help.stderr], [0, ""]);
  assertStringIncludes(help.stdout, "--no-subgroups");
});

adapterTest("a file that cannot be written is told before anything is measured", async () => {
  const { code, stdout, stderr } = await program("--quick", "--out", "/nonexistent/gpu.json");
  assertEquals([code, stdout], [1, ""]);
  assertMatch(stderr, /^gpu: --out: [^\n]*\n$/);
});
