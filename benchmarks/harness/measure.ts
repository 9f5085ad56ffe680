/**
 * Runs a work's contestants in turn, so that what changes in the machine hits all alike.
 *
 * @module
 */
import { type Sample, summarise, type Summary } from "./statistics.ts";
import { Absent, type Contestant, type Context, type Entrant, type Work } from "./work.ts";

/** What came out for a contestant. */
export interface Result extends Partial<Summary> {
  /** Its name. */
  name: string;
  /** Name and version of what it runs. */
  version?: string;
  /** Its runs. */
  samples?: Sample[];
  /** Why there is no figure: it failed. */
  failed?: string;
  /** Why there is no figure: it cannot be had here. */
  absent?: string;
}

/** Milliseconds between two runs: threads that wait by spinning go to sleep. */
const PAUSE = 250;

/**
 * Measures.
 *
 * @param work What.
 * @param contestants Who of it.
 * @param context With what.
 * @param note Takes lines about how it goes.
 * @returns A result for each contestant, in their order. None of them keeps the others from theirs.
 */
export async function measure(
  work: Work,
  contestants: readonly Contestant[],
  context: Context,
  note: (line: string) => void,
): Promise<Result[]> {
  await using entrants = new AsyncDisposableStack();
  const results = contestants.map(({ name }): Result => ({ name, samples: [] }));
  const ready = new Map<Result, Entrant>();
  /** Does a part of a contestant's work; it leaves if that fails. */
  const attempt = async (result: Result, part: () => Promise<void>) => {
    try {
      await part();
    } catch (error) {
      ready.delete(result);
      delete result.samples;
      const message = error instanceof Error ? error.message : String(error);
      result[error instanceof Absent ? "absent" : "failed"] = withoutPaths(message);
      note(`  ${result.name}: ${message}`);
    }
  };

  for (const [i, result] of results.entries()) {
    await attempt(result, async () => {
      const entrant = entrants.use(await contestants[i].open(context));
      result.version = entrant.version;
      for (let i = 0; i < (work.warmups ?? 1); i++) await entrant.run();
      ready.set(result, entrant);
    });
  }
  for (let run = 0; run < context.runs; run++) {
    // There and back, so that a drift of the machine favours nobody.
    const order = run % 2 ? [...ready].reverse() : [...ready];
    for (const [result, entrant] of order) {
      await attempt(result, async () => {
        await new Promise((resolve) => setTimeout(resolve, context.pause ?? PAUSE));
        const sample = await entrant.run();
        result.samples!.push(sample);
        note(`  ${result.name}: ${(sample.amount / sample.seconds).toPrecision(4)} ${work.unit}`);
      });
    }
  }
  let reference: unknown;
  for (const [result, entrant] of work.judge ? [...ready] : []) {
    await attempt(result, async () => {
      const answer = await entrant.check!(work.question ?? {});
      if (result.name === work.contestants[0].name) reference = answer;
      const wrong = work.judge!(result.name, answer, reference);
      if (wrong) throw new Error(`it does something else: ${wrong}`);
    });
  }
  for (const [result] of ready) Object.assign(result, summarise(result.samples!, work.statistic ?? "median"));
  return results;
}

/** A message for the table: its machine's folders are nobody's business. */
function withoutPaths(message: string): string {
  return message.replaceAll(/(file:\/\/)?(\/[\w.@+-]+){2,}\/?/g, "…").split("\n")[0].slice(0, 160);
}
