/**
 * A LoRA step of a 124M: rank 8 on c_attn, 4 sequences of 256 tokens, every one a target but the first. Its speed, and
 * the memory of a process that takes two.
 *
 * @module
 */
import { type Answering, peakAnew, pytorch, whet } from "../harness/contestants.ts";
import { tokens } from "../harness/inputs.ts";
import type { Contestant, Context, Work } from "../harness/work.ts";

/** How far the first steps' losses may be from Whet's in f32, by how the base is stored. */
const TOLERANCES: readonly (readonly [RegExp, number])[] = [
  [/f32|fp32/, 2e-3],
  [/f16|bf16|q8/, 2e-2],
  [/q4/, 0.2],
];

/** Contestants by name, and how they are opened. */
const OPEN: Record<string, (context: Context) => Promise<Answering>> = {
  "Whet f32": (context) => openWhet(context, "f32"),
  "Whet f16": (context) => openWhet(context, "f16"),
  "Whet q8": (context) => openWhet(context, "q8"),
  "Whet q4": (context) => openWhet(context, "q4"),
  "PyTorch + PEFT fp32": (context) => openPyTorch(context, "fp32"),
  "PyTorch + PEFT bf16": (context) => openPyTorch(context, "bf16"),
};

/** Its speed. */
export function lora({ threads }: Context): Work {
  return {
    name: "lora",
    title: `LoRA step, 124M, r = 8 on c_attn, 4 × 256 tokens, ${threads} threads`,
    unit: "tokens/s",
    better: "more",
    contestants: Object.entries(OPEN).map(([name, open]) => ({ name, open })),
    comparisons: [
      { whet: "Whet f32", beside: "PyTorch + PEFT fp32", target: 0.85 },
      { whet: "Whet q8", beside: "PyTorch + PEFT fp32", target: 1.5 },
      { whet: "Whet q8", beside: "PyTorch + PEFT bf16" },
      { whet: "Whet q4", beside: "PyTorch + PEFT fp32" },
      { whet: "Whet f16", beside: "PyTorch + PEFT fp32" },
    ],
    judge(name, answer, reference) {
      if (!reference) return null;
      const [, tolerance] = TOLERANCES.find(([pattern]) => pattern.test(name))!;
      const losses = answer as number[], expected = reference as number[];
      const agrees = losses.every((loss, i) => Math.abs(loss - expected[i]) < tolerance);
      return agrees ? null : `its losses are ${losses.join(", ")}, not ${expected.join(", ")}`;
    },
  };
}

/** Its memory. */
export function loraMemory(): Work {
  const names = ["Whet f32", "Whet q8", "PyTorch + PEFT fp32"];
  return {
    name: "lora-memory",
    title: "the same, peak resident memory",
    unit: "MB",
    better: "less",
    ratio: "whet/other",
    warmups: 0,
    contestants: names.map((name): Contestant => ({
      name,
      open: (context) => peakAnew(context, () => jobOf(context), OPEN[name], 2),
    })),
    comparisons: [
      { whet: "Whet f32", beside: "PyTorch + PEFT fp32", target: 0.6 },
      { whet: "Whet q8", beside: "PyTorch + PEFT fp32" },
    ],
  };
}

async function openWhet(context: Context, weights: string): Promise<Answering> {
  return await whet(context, { ...await jobOf(context), weights });
}

async function openPyTorch(context: Context, dtype: string): Promise<Answering> {
  return await pytorch(context, { ...await jobOf(context), dtype });
}

async function jobOf({ files, quick }: Context) {
  const [B, T] = quick ? [2, 64] : [4, 256];
  return {
    job: "lora",
    model: await files.model(),
    adapter: await files.adapter(),
    sequences: Array.from({ length: B }, (_, b) => tokens(T, b)),
  };
}
