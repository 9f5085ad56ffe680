/**
 * Streams together against one, and adapters against none.
 *
 * @module
 */
import { median } from "../harness/statistics.ts";
import { type Question, Site } from "./site.ts";

/** Tokens per second of some streams together. */
async function pace(site: Site, questions: readonly Question[]): Promise<number> {
  const begin = performance.now();
  const answers = await Promise.all(questions.map((question) => site.ask(question)));
  return answers.reduce((sum, { tokens }) => sum + tokens, 0) / ((performance.now() - begin) / 1000);
}

/** How much faster one goes than the other, in turn: A B B A …, the median of the pairs. */
async function ratio(runs: number, one: () => Promise<number>, other: () => Promise<number>) {
  const pairs: [number, number][] = [];
  for (let run = 0; run < runs; run++) {
    if (run % 2 === 0) {
      const a = await one();
      pairs.push([a, await other()]);
    } else {
      const b = await other();
      pairs.push([await one(), b]);
    }
  }
  const of = (value: (pair: [number, number]) => number) => median(pairs.map(value));
  return { one: of(([a]) => a), other: of(([, b]) => b), ratio: of(([a, b]) => a / b) };
}

/**
 * Measures.
 *
 * @param model The model's directory.
 * @param directory One with adapters a0, a1, ….
 * @param count How many adapters are in flight.
 * @param tokens Tokens of each stream.
 * @param runs Pairs of runs.
 */
export async function throughput(
  model: string,
  directory: string,
  count: number,
  tokens: number,
  runs: number,
) {
  const flags = ["--slots", `${count}`, "--cache-mb", "1024", "--adapter-mb", "1024"];
  await using site = await Site.start(model, "--adapters", directory, ...flags);
  const base = (seed: number): Question => ({ seed, max_tokens: tokens });
  const adapted = (seed: number): Question => ({ ...base(seed), model: `a${seed}` });
  const many = (count: number, question: (seed: number) => Question) =>
    Array.from({ length: count }, (_, i) => question(i));
  const loading = many(count, (seed) => ({ ...adapted(seed), max_tokens: 2 }));
  await pace(site, loading); // Also warms up.
  const sixteen = await ratio(runs, () => pace(site, many(16, base)), () => pace(site, many(1, base)));
  const adapters = await ratio(
    runs,
    () => pace(site, many(count, adapted)),
    () => pace(site, many(count, base)),
  );
  return { sixteen, adapters };
}
