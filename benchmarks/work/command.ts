/**
 * Whole processes: from start to first token, and the memory of a generation, with the model on disk in q8 and the
 * file cache warm.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { peer, python, PYTHON_ENV } from "../harness/contestants.ts";
import { peakMemory } from "../harness/process.ts";
import type { Sample } from "../harness/statistics.ts";
import type { Contestant, Context, Work } from "../harness/work.ts";

/** About 64 tokens. */
const PROMPT =
  "\n\nHuman: My grandmother gave me an old pocket knife that is so dull that it hardly cuts butter. " +
  "I have a coarse stone, a fine one, and a leather belt at home. In which order should I use them, at which " +
  "angle, and how can I tell that it is sharp?\n\nAssistant:";

/** Until the first token is printed. */
export function start({ threads }: Context): Work {
  return {
    name: "start",
    title: "process start to first token, 124M on disk, warm file cache",
    unit: "s",
    better: "less",
    ratio: "other/whet",
    contestants: [
      ofWhet("q8", timeToFirst, ["--max-tokens", "1"]),
      ofWhet("f32", timeToFirst, ["--max-tokens", "1"]),
      {
        name: "transformers fp32",
        async open(context) {
          const command = new Deno.Command(python(context), {
            args: [fileURLToPath(peer("first_token.py")), await context.files.model(), PROMPT, `${threads}`],
            env: PYTHON_ENV,
            stdout: "piped",
            stderr: "piped",
          });
          return { run: () => timeToFirst(command), [Symbol.asyncDispose]: () => Promise.resolve() };
        },
      },
    ],
    comparisons: [
      { whet: "Whet q8", beside: "transformers fp32", target: 8 },
      { whet: "Whet f32", beside: "transformers fp32" },
    ],
  };
}

/** Of 128 tokens after about 64. */
export function memory(): Work {
  return {
    name: "memory",
    title: "peak resident memory of a generation, 128 tokens after 64",
    unit: "MB",
    better: "less",
    warmups: 0,
    contestants: ["q8", "f32"].map((weights) => ofWhet(weights, peakOf, ["--max-tokens", "128"])),
    comparisons: [{ whet: "Whet q8", target: 350 }, { whet: "Whet f32" }],
  };
}

/** `whet generate`, greedily, as a user types it. */
function ofWhet(
  weights: string,
  measure: (command: Deno.Command) => Promise<Sample>,
  flags: readonly string[],
): Contestant {
  return {
    name: `Whet ${weights}`,
    async open({ files, threads }) {
      const model = await (weights === "q8" ? files.quantized() : files.model());
      const program = fileURLToPath(new URL("../../mod.ts", import.meta.url));
      const command = new Deno.Command(Deno.execPath(), {
        args: [
          ...["run", "-A", program, "generate", "--model", model, "--weights", weights, "--backend", "wasm"],
          ...["--threads", `${threads}`, "--temperature", "0", "--prompt", PROMPT, ...flags],
        ],
        env: { NO_COLOR: "1" },
        stdout: "piped",
        stderr: "piped",
      });
      return { run: () => measure(command), [Symbol.asyncDispose]: () => Promise.resolve() };
    },
  };
}

async function timeToFirst(command: Deno.Command): Promise<Sample> {
  const begin = performance.now();
  const process = command.spawn();
  let seconds = NaN;
  for await (const _ of process.stdout) seconds ||= (performance.now() - begin) / 1000;
  await succeed(process);
  return { amount: seconds, seconds: 1 };
}

async function peakOf(command: Deno.Command): Promise<Sample> {
  const process = command.spawn();
  let ended = false, peak = 0;
  process.status.finally(() => ended = true);
  const output = Array.fromAsync(process.stdout);
  while (!ended) {
    // Between its end and our noticing there is no such process; the last look was a moment before.
    peak = await peakMemory(process.pid).catch((error) => {
      if (error instanceof Deno.errors.NotFound) return peak;
      throw error;
    }) || peak;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await output;
  await succeed(process);
  return { amount: peak / 1e6, seconds: 1 };
}

async function succeed(process: Deno.ChildProcess): Promise<void> {
  const said = (await new Response(process.stderr).text()).trim().split("\n").at(-1);
  const { code } = await process.status;
  if (code !== 0) throw new Error(said || `it ended with exit status ${code}`);
}
