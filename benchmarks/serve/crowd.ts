/**
 * 200 clients: a tenth is cut off in the middle, a tenth reads a byte a second.
 *
 * @module
 */
import type { Health } from "./health.ts";
import { bodyOf, pause, post, type Question, read, Site } from "./site.ts";

const CLIENTS = 200;
/** Different questions. */
const QUESTIONS = 40;

/**
 * Lets them loose.
 *
 * @param model The model's directory.
 * @param directory One with adapters a0, a1, ….
 * @param seconds How long.
 */
export async function crowd(model: string, directory: string, seconds: number) {
  await using site = await Site.start(model, "--adapters", directory, "--timeout", `${seconds + 60}`);
  const questions = Array.from({ length: QUESTIONS }, (_, i): Question => ({
    seed: i,
    max_tokens: 4 + i % 12,
    ...(i % 3 ? { model: `a${i}` } : {}),
  }));
  const alone: string[] = [];
  for (const question of questions) alone.push((await site.ask(question)).text);

  const counts = {
    answers: 0,
    wrong: 0,
    refused: 0,
    left: 0,
    slow: 0,
  };
  const begin = performance.now();
  const end = begin + seconds * 1000;
  const client = async (n: number) => {
    for (let round = 0; performance.now() < end; round++) {
      const i = (n * 7 + round) % QUESTIONS;
      const response = await post(site.url, questions[i]);
      if (response.status === 429) {
        counts.refused++;
        await response.body!.cancel();
        await pause(1000 * Number(response.headers.get("retry-after")));
      } else if (n % 10 === 3) {
        const reader = response.body!.getReader();
        await reader.read();
        await reader.cancel();
        counts.left++;
      } else {
        counts.answers++;
        if ((await read(response)).text !== alone[i]) counts.wrong++;
      }
    }
  };
  const dawdler = async (n: number) => {
    const { hostname, port } = new URL(site.url);
    using connection = await Deno.connect({ hostname, port: Number(port) });
    const body = bodyOf(questions[n % QUESTIONS]);
    const head = `POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n`;
    await connection.write(new TextEncoder().encode(`${head}content-length: ${body.length}\r\n\r\n${body}`));
    while (performance.now() < end && await connection.read(new Uint8Array(1)) !== null) await pause(1000);
    counts.slow++;
  };
  const health = new Worker(new URL("./health.ts", import.meta.url), { type: "module" });
  health.postMessage(site.url);
  let over = false;
  const memory: { at: number; mib: number }[] = [];
  const watch = async () => {
    while (!over) {
      memory.push({ at: (performance.now() - begin) / (end - begin), mib: await site.resident() });
      await pause(250);
    }
  };
  const watching = watch();
  await Promise.all(Array.from({ length: CLIENTS }, (_, n) => n % 10 === 7 ? dawdler(n) : client(n)));
  for (let tries = 0; await site.metric("whet_texts_open") > 0 && tries < 100; tries++) await pause(100);
  over = true;
  await watching;
  const seen = new Promise<Health>((resolve) => health.onmessage = ({ data }) => resolve(data));
  health.postMessage(null);
  const most = (from: number, to: number) =>
    Math.max(...memory.filter(({ at }) => at >= from && at < to).map(({ mib }) => mib));
  return {
    ...counts,
    health: await seen,
    open_after: await site.metric("whet_texts_open"),
    second_quarter_mib: most(0.25, 0.5),
    last_quarter_mib: most(0.75, 1),
    after_mib: await site.resident(),
  };
}
