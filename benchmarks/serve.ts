/**
 * What serving costs, and whether it holds: a q8 GPT-2 124M of random weights, made anew, behind `whet serve`.
 *
 * `deno run -A benchmarks/serve.ts` prints a table on standard error and the figures as JSON on standard output, in about
 * ten minutes on two cores; `--quick` tries all of it with two layers, in one.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { GPT2, Lora } from "../mod.ts";
import { crowd } from "./serve/crowd.ts";
import { edge } from "./serve/edge.ts";
import { registered } from "./serve/registered.ts";
import { throughput } from "./serve/throughput.ts";

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    only: { type: "string", multiple: true },
    model: { type: "string" },
    seconds: { type: "string" },
  },
});
const { quick } = values;
const SIZES = quick
  ? { layers: 2, adapters: 8, registered: 50, held: 16, tokens: 4, runs: 2, seconds: 6 }
  : { layers: 12, adapters: 64, registered: 1000, held: 200, tokens: 32, runs: 5, seconds: 60 };
const seconds = Number(values.seconds ?? SIZES.seconds);

/** Memory that counts as flat: MiB that the last quarter may hold beyond the second. */
const FLAT = 32;

/** A line of the table. */
interface Row {
  work: string;
  figure: string;
  wanted: string;
  holds: boolean;
}

/** Writes adapters that all say something else. */
async function writeAdapters(model: string, directory: string, count: number, rank: number): Promise<string> {
  using base = await GPT2.load(model, { backend: "wasm" });
  for (let i = 0; i < count; i++) {
    using lora = Lora.create(base, { rank, seed: i });
    for (const { B } of lora.modules.values()) B.forEach((_, j) => B[j] = 0.05 * Math.sin(j * (i + 1)));
    await lora.save(`${directory}/a${i}`);
  }
  return directory;
}

async function makeModel(directory: string): Promise<string> {
  using model = await GPT2.random({ n_layer: SIZES.layers }, { seed: 1, backend: "wasm", weights: "q8" });
  await model.save(directory);
  return directory;
}

const directory = await Deno.makeTempDir({ prefix: "whet-serve-" });
const rows: Row[] = [];
const figures: Record<string, unknown> = { sizes: { ...SIZES, seconds } };
const wanted = (name: string) => !values.only || values.only.some((word) => name.includes(word));
const measure = async (name: string, work: () => Promise<Row[]>) => {
  if (!wanted(name)) return;
  console.error(`${name} …`);
  rows.push(...await work());
};
try {
  const model = values.model ?? await makeModel(`${directory}/model`);
  const adapters = await writeAdapters(model, `${directory}/adapters`, Math.max(40, SIZES.adapters), 8);
  await measure("edge", async () => {
    const result = figures.edge = await edge(model, SIZES.tokens, SIZES.runs);
    return [
      row(
        "edge function: process start to first token",
        `${result.seconds.toFixed(2)} s`,
        "1.5 s",
        result.seconds <= 1.5,
      ),
      row(
        "edge function: most memory",
        `${result.mib.toFixed(0)} MiB`,
        "450 MB",
        result.mib * 1.048576 < 450,
      ),
    ];
  });
  await measure("throughput", async () => {
    const { adapters: count, tokens, runs } = SIZES;
    const result = figures.throughput = await throughput(model, adapters, count, tokens, runs);
    const times = ({ one, other, ratio }: typeof result.sixteen) =>
      `${ratio.toFixed(2)} × (${one.toFixed(1)} : ${other.toFixed(1)} tokens/s)`;
    return [
      row("16 streams against one", times(result.sixteen), "3 ×", result.sixteen.ratio >= 3),
      row(`${count} adapters against base`, times(result.adapters), "0.9 ×", result.adapters.ratio >= 0.9),
    ];
  });
  await measure("registered", async () => {
    const many = await writeAdapters(model, `${directory}/many`, SIZES.registered, 2);
    const result = figures.registered = await registered(model, many, SIZES.registered, SIZES.held);
    const { wrong, answers, different, mib, budget, loaded } = result;
    return [row(
      `${SIZES.registered} adapters registered, ${SIZES.held} in memory`,
      `${wrong} of ${answers} wrong, ${different} different; ${loaded} loaded, ${
        mib.toFixed(0)
      } of ${budget} MiB`,
      "none wrong, within budget",
      wrong === 0 && different > 0.9 * SIZES.registered && mib <= budget && result.evictions > 0,
    )];
  });
  await measure("crowd", async () => {
    const result = figures.crowd = await crowd(model, adapters, seconds);
    const { answers, wrong, left, slow, refused, health } = result;
    const { second_quarter_mib: before, last_quarter_mib: after } = result;
    return [
      row(
        `200 clients for ${seconds} s`,
        `${wrong} of ${answers} answers wrong; ${left} left, ${slow} slow, ${refused} refused`,
        "none wrong",
        wrong === 0 && answers > 0 && result.open_after === 0,
      ),
      row("… memory", `${before.toFixed(0)} → ${after.toFixed(0)} MiB`, "flat", after - before <= FLAT),
      row(
        "… health checks",
        `${health.failed} of ${health.checks} failed; 99 % in ${health.p99.toFixed(0)} ms, all in ${
          health.longest.toFixed(0)
        } ms`,
        "none failed (99 % in 50 ms)",
        health.failed === 0 && health.p99 <= 50,
      ),
    ];
  });
  figures.rows = rows;
  console.error("\n| work | measured | at least | |\n|---|---|---|---|");
  for (const { work, figure, wanted, holds } of rows) {
    console.error(`| ${work} | ${figure} | ${wanted} | ${holds ? "holds" : "FALLS SHORT"} |`);
  }
  if (quick) console.error("\nTwo layers and a moment: the figures mean nothing.");
  console.log(JSON.stringify(figures, null, 2));
} finally {
  await Deno.remove(directory, { recursive: true });
}

function row(work: string, figure: string, wanted: string, holds: boolean): Row {
  return { work, figure, wanted, holds };
}
