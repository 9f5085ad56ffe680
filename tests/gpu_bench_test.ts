/**
 * The GPU bench, at tiny sizes, on whatever adapter there is: all of its rows run.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
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

adapterTest("the bench in one file runs every row offline, and writes what it prints", async () => {
  await using sandbox = new Sandbox();
  const [program, out] = [`${sandbox.directory}/gpu.js`, `${sandbox.directory}/gpu.json`];
  const bundled = await deno(["bundle", "--quiet", "--frozen", "-o", program, "benchmarks/gpu.ts"]);
  assertEquals(bundled.code, 0, bundled.stderr);
  const { code, stdout, stderr } = await deno(["run", "-A", program, "--quick", "--json", "--out", out]);
  assertEquals(code, 0, stderr);
  const record: GpuRecord = JSON.parse(stdout);
  assertEquals(JSON.parse(await Deno.readTextFile(out)), record);
  assertEquals(record.rows.flatMap(({ name, absent }) => absent ? [`${name}: ${absent}`] : []), []);
  assert(record.rows.every(({ value, low, high }) => low! > 0 && low! <= value! && value! <= high!));
  const groups = Object.entries(Object.groupBy(record.rows, ({ group }) => group))
    .map(([group, rows]) => [group, rows!.length]);
  assertEquals(Object.fromEntries(groups), {
    ...{ ceiling: 4, matmul: 17, matvec: 4, attention: 4, rows: 7, loss: 2, sampling: 6, elements: 6 },
    ...{ decode: 4, LoRA: 1 },
  });
  assert(record.ceilings.fp32! > 0 && record.ceilings.bandwidth! > 0);
  assert(record.rows.every(({ of, share }) => !of || share! > 0));
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

Deno.test("a flag that makes no sense is wrong usage", async () => {
  const { code, stderr } = await deno(["run", "-A", "--no-check", "benchmarks/gpu.ts", "--seconds", "soon"]);
  assertEquals([code, stderr], [2, "gpu: --seconds: expected a whole number of at least 1, got soon\n"]);
});
