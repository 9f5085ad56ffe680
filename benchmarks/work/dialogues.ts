/**
 * One pass over 200 dialogues with LoRA, the loss on the assistant's turns, each side with its best batching: Whet fills
 * batches of 1024 tokens with whole dialogues and pads nothing; PyTorch sorts by length, pads to the longest of a
 * batch, and takes the batch size that is fastest here.
 *
 * The pass is done once, in as many parts as there are runs, the contestants' parts in turn; its figure is all real
 * tokens (padding does not count) over all the time.
 *
 * @module
 */
import { pytorch, whet } from "../harness/contestants.ts";
import type { Contestant, Context, Work } from "../harness/work.ts";

/** The pass. */
export function dialogues({ quick }: Context): Work {
  const count = quick ? 20 : 200;
  const jobOf = async ({ files, runs }: Context) => {
    const { jsonl, encoded, tokens } = await files.dialogues(count);
    return {
      job: "dialogues",
      model: await files.model(),
      adapter: await files.adapter(),
      parts: runs,
      ...{ dialogues: jsonl, encoded, tokens },
    };
  };
  const ofWhet = (weights: string): Contestant => ({
    name: `Whet ${weights}`,
    open: async (context) => await whet(context, { ...await jobOf(context), weights }),
  });
  return {
    name: "dialogues",
    title: `one pass over ${count} HH-RLHF dialogues, loss on assistant turns`,
    unit: "tokens/s",
    better: "more",
    statistic: "whole",
    warmups: 0,
    contestants: [
      ofWhet("f32"),
      ofWhet("q8"),
      {
        name: "PyTorch + PEFT fp32",
        open: async (context) => await pytorch(context, { ...await jobOf(context) }),
      },
    ],
    comparisons: [
      { whet: "Whet f32", beside: "PyTorch + PEFT fp32", target: 1.2 },
      { whet: "Whet q8", beside: "PyTorch + PEFT fp32", target: 2 },
    ],
  };
}
