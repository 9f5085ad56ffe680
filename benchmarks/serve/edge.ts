/**
 * The edge function's cold start.
 *
 * @module
 */
import { median } from "../harness/statistics.ts";
import { pause, post, statusOf } from "./site.ts";

/**
 * Starts `examples/edge.ts` some times.
 *
 * @param model The model's directory, whose files are in the system's cache.
 * @param tokens Tokens of the answer.
 * @param runs How many times.
 * @returns Seconds from the start of the process to the first token, the median; MiB that one held at most.
 */
export async function edge(model: string, tokens: number, runs: number) {
  const starts: { seconds: number; mib: number }[] = [];
  for (let run = 0; run < runs; run++) starts.push(await once(model, tokens));
  return {
    seconds: median(starts.map(({ seconds }) => seconds)),
    mib: Math.max(...starts.map(({ mib }) => mib)),
  };
}

async function once(model: string, tokens: number) {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr; // Free, in all likelihood, when it is closed.
  listener.close();
  const begin = performance.now();
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      ...["serve", "--no-check", "-A", "--host", "127.0.0.1", "--port", `${port}`],
      new URL("../../examples/edge.ts", import.meta.url).href,
    ],
    ...{ env: { WHET_MODEL: model }, stdin: "null", stdout: "null", stderr: "null" },
  }).spawn();
  try {
    let response: Response | null = null;
    while (!response) {
      response = await post(`http://127.0.0.1:${port}`, { seed: 1, max_tokens: tokens }).catch(() => null);
      if (!response) await pause(5);
    }
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    let events = "";
    while (!events.includes("data: ")) events += (await reader.read()).value ?? "data: ";
    const seconds = (performance.now() - begin) / 1000;
    for (let part = await reader.read(); !part.done; part = await reader.read()) events += part.value;
    if (!events.endsWith("data: [DONE]\n\n")) {
      throw new Error(`the answer is not whole: ${events.slice(-200)}`);
    }
    return { seconds, mib: await statusOf(child.pid, "VmHWM") };
  } finally {
    child.kill("SIGKILL");
    await child.status;
  }
}
