/**
 * 50 pairs of about 200 tokens, scored by a DeBERTa-v3 large of random weights, each side with its best batching: Whet
 * lays pairs end to end and pads nothing; transformers sorts by length, pads to the longest of a batch, and takes the batch
 * size that is fastest here. Its speed, and the memory of a process that does it once.
 *
 * @module
 */
import { mean } from "../../src/score/statistics.ts";
import { type Answering, peakAnew, pytorch, whet } from "../harness/contestants.ts";
import type { Contestant, Context, Work } from "../harness/work.ts";

/**
 * How far scores may be from Whet's in f32: any of them, with the same numbers; in 8 bits their root mean square, for the range
 * of all scores (single ones are off by up to 0.024 of it).
 */
const TOLERANCE = { exact: 1e-3, q8: 0.02 };

/** Contestants by name, and how they are opened. */
const OPEN: Record<string, (context: Context) => Promise<Answering>> = {
  "Whet f32": (context) => openWhet(context, "f32"),
  "Whet q8": (context) => openWhet(context, "q8"),
  "transformers fp32": async (context) => {
    const { job, model, ids } = await jobOf(context);
    return await pytorch(context, { job, model, ids, dtype: "fp32" });
  },
};

/** Its speed. */
export function reward({ threads }: Context): Work {
  return {
    name: "reward",
    title: `50 pairs of about 200 tokens, DeBERTa-v3 large, ${threads} threads`,
    unit: "pairs/s",
    better: "more",
    contestants: Object.entries(OPEN).map(([name, open]) => ({ name, open })),
    comparisons: [
      { whet: "Whet f32", beside: "transformers fp32", target: 0.7 },
      { whet: "Whet q8", beside: "transformers fp32", target: 1.3 },
    ],
    judge(name, answer, reference) {
      if (!reference) return null;
      const scores = answer as number[], expected = reference as number[];
      const off = scores.map((score, i) => score - expected[i]);
      const range = Math.max(...expected) - Math.min(...expected);
      const [actual, allowed] = name.endsWith("q8")
        ? [Math.sqrt(mean(off.map((x) => x * x))), TOLERANCE.q8 * range]
        : [Math.max(...off.map(Math.abs)), TOLERANCE.exact];
      return actual < allowed ? null : `its scores are ${actual} off, of a range of ${range}`;
    },
  };
}

/** Its memory. */
export function rewardMemory(): Work {
  return {
    name: "reward-memory",
    title: "the same, peak resident memory of a process that does it once",
    unit: "MB",
    better: "less",
    ratio: "whet/other",
    warmups: 0,
    contestants: Object.entries(OPEN).map(([name, open]): Contestant => ({
      name,
      open: (context) => peakAnew(context, () => jobOf(context), open, 1),
    })),
    comparisons: [
      { whet: "Whet q8", target: 1000 },
      { whet: "Whet q8", beside: "transformers fp32" },
      { whet: "Whet f32", beside: "transformers fp32" },
    ],
  };
}

async function openWhet(context: Context, weights: string): Promise<Answering> {
  const { job, model, pairs } = await jobOf(context);
  return await whet(context, { job, model, pairs, weights });
}

async function jobOf({ files, quick }: Context) {
  return { job: "reward", model: await files.reward(), ...await files.rewardPairs(quick ? 4 : 50) };
}
