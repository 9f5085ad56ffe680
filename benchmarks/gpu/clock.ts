/**
 * How long work on a GPU takes, seen from outside: many calls at once, and what waiting itself costs taken off.
 *
 * @module
 */
import { median } from "../harness/statistics.ts";

/** How carefully times are taken. */
export interface Care {
  /** Samples of each row. */
  runs: number;
  /** Seconds that a sample lasts at least, so that what waiting costs (11 ms in Deno) matters little. */
  least: number;
  /** Calls of a sample at most. */
  most: number;
  /** When to stop, by `performance.now()`; one sample is always taken. */
  deadline: number;
}

/** Work that is enqueued, and how it is waited for. */
export interface Timed {
  /** Enqueues the work once. */
  enqueue(): void;
  /** Starts what is enqueued. */
  flush(): void;
  /** Waits until all that was enqueued is done. */
  settle(): Promise<void>;
}

/** Calls after which the device gets to work while others are enqueued. */
const FLUSH_EVERY = 32;

/** Seconds that waiting for nothing takes: the median of five. */
export async function idleSeconds({ settle }: Pick<Timed, "settle">): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < 5; i++) {
    const begin = performance.now();
    await settle();
    times.push((performance.now() - begin) / 1000);
  }
  return median(times);
}

/**
 * Times work.
 *
 * @param timed The work; it is done once or twice before it is measured.
 * @param care How carefully.
 * @param idle What {@linkcode idleSeconds} said.
 * @returns Seconds of one call, for each sample.
 */
export async function secondsOf(timed: Timed, care: Care, idle: number): Promise<number[]> {
  const sample = async (calls: number): Promise<number> => {
    const begin = performance.now();
    for (let i = 0; i < calls; i++) {
      timed.enqueue();
      if (i % FLUSH_EVERY === FLUSH_EVERY - 1) timed.flush();
    }
    await timed.settle();
    // Where the work is shorter than the waiting's own noise, a tenth of the whole is the least that is believed.
    const whole = (performance.now() - begin) / 1000;
    return Math.max(whole - idle, whole / 10);
  };
  await sample(1); // pipelines, trials
  let calls = 1;
  for (let last = await sample(1); last < care.least && calls < care.most;) {
    if (performance.now() > care.deadline) break;
    calls = Math.min(care.most, Math.ceil(calls * Math.min(10, Math.max(2, 1.2 * care.least / last))));
    last = await sample(calls);
  }
  const times: number[] = [];
  do times.push(await sample(calls) / calls); while (
    times.length < care.runs && performance.now() < care.deadline
  );
  return times;
}
