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
  /** Seconds that a sample lasts, half of it at least: so that what waiting costs (11 ms in Deno) matters little. */
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

/**
 * Seconds that waiting for nothing takes: the median of five.
 *
 * @param timed How it is waited.
 * @param now The time in milliseconds.
 */
export async function idleSeconds(
  { settle }: Pick<Timed, "settle">,
  now = () => performance.now(),
): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < 5; i++) {
    const begin = now();
    await settle();
    times.push((now() - begin) / 1000);
  }
  return median(times);
}

/**
 * Times work.
 *
 * @param timed The work; it is done twice before it is measured, for pipelines and trials.
 * @param care How carefully.
 * @param idle What {@linkcode idleSeconds} said.
 * @param now The time in milliseconds.
 * @returns Seconds of one call, for each sample.
 */
export async function secondsOf(
  timed: Timed,
  care: Care,
  idle: number,
  now = () => performance.now(),
): Promise<number[]> {
  const sample = async (calls: number): Promise<number> => {
    const begin = now();
    for (let i = 0; i < calls; i++) {
      timed.enqueue();
      if (i % FLUSH_EVERY === FLUSH_EVERY - 1) timed.flush();
    }
    await timed.settle();
    // Where the work is shorter than the waiting's own noise, a tenth of the whole is the least that is believed.
    const whole = (now() - begin) / 1000;
    return Math.max(whole - idle, whole / 10);
  };
  await sample(1);
  await sample(1);
  let calls = 1, times: number[] = [];
  while (times.length < care.runs) {
    const last = await sample(calls);
    const late = now() > care.deadline;
    if (last < care.least / 2 && calls < care.most && !late) {
      calls = Math.min(care.most, Math.ceil(calls * Math.min(10, Math.max(2, care.least / last))));
      times = []; // were of fewer calls, slow for another reason
      continue;
    }
    times.push(last / calls);
    if (late) break;
  }
  return times;
}
