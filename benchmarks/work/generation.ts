/**
 * Generation with a 124M: greedy decoding, and the forward pass of a long prompt.
 *
 * @module
 */
import { llamaCpp, npm, pytorch, whet } from "../harness/contestants.ts";
import { tokens } from "../harness/inputs.ts";
import type { Comparison, Contestant, Context, Work } from "../harness/work.ts";

/** The log-probabilities of these tokens after the prompt must agree; over tokens they vary by 0.5. */
const CANDIDATES = [0, 11, 198, 262, 1000, 2000, 5000, 10000, 20000, 30000, 40000, 50255];
/** How far they may be from Whet's in f32, by how the weights are stored; llama.cpp has its cache in f16. */
const TOLERANCES: readonly (readonly [RegExp, number])[] = [
  [/llama.*f32|f16/, 1e-2],
  [/f32|fp32/, 1e-3],
  [/q8/i, 5e-2],
  [/q4/, 0.7],
];

/** What one contestant is asked for. */
interface Task {
  prompt: number;
  maxTokens: number;
  count: "prompt" | "tokens";
}

/** 128 tokens, one by one, after a prompt of 64, whose forward pass is in the time. */
export function decoding({ quick, threads }: Context): Work {
  const task: Task = { prompt: 64, maxTokens: quick ? 16 : 128, count: "tokens" };
  return generation(
    "decoding",
    `greedy decoding, ${task.maxTokens} tokens after 64, ${threads} threads`,
    task,
    [
      { whet: "Whet f32", beside: "transformers fp32", target: 2 },
      { whet: "Whet q8", beside: "transformers fp32", target: 5 },
      { whet: "Whet q4", beside: "transformers fp32", target: 8 },
      { whet: "Whet f16", beside: "transformers fp32" },
      { whet: "Whet q8", beside: "llama.cpp Q8_0 (native)", target: 0.9 },
      { whet: "Whet f32", beside: "llama.cpp f32 (native)" },
      { whet: "Whet f32", beside: "transformers.js fp32 (native)" },
    ],
  );
}

/** A prompt of 512 tokens, up to the first token after it. */
export function prefill({ threads }: Context): Work {
  const task: Task = { prompt: 512, maxTokens: 1, count: "prompt" };
  return generation("prefill", `prefill of 512 tokens, ${threads} threads`, task, [
    { whet: "Whet f32", beside: "transformers fp32", target: 0.85 },
    { whet: "Whet q8", beside: "transformers fp32", target: 1.5 },
    { whet: "Whet q4", beside: "transformers fp32" },
    { whet: "Whet f16", beside: "transformers fp32" },
    { whet: "Whet q8", beside: "llama.cpp Q8_0 (native)", target: 0.7 },
    { whet: "Whet f32", beside: "llama.cpp f32 (native)" },
    { whet: "Whet f32", beside: "transformers.js fp32 (native)" },
  ]);
}

function generation(name: string, title: string, task: Task, comparisons: readonly Comparison[]): Work {
  const job = { ...task, job: "generate", prompt: tokens(task.prompt, 3) };
  const ofWhet = (weights: string): Contestant => ({
    name: `Whet ${weights}`,
    open: async (context) => await whet(context, { ...job, model: await context.files.model(), weights }),
  });
  const ofLlama = (type: "f32" | "q8_0", name: string): Contestant => ({
    name,
    open: async (context) => await llamaCpp(context, { ...job, model: await context.files.gguf(type) }),
  });
  return {
    name,
    title,
    unit: "tokens/s",
    better: "more",
    warmups: 2,
    contestants: [
      ...["f32", "f16", "q8", "q4"].map(ofWhet),
      {
        name: "transformers fp32",
        open: async (context) => await pytorch(context, { ...job, model: await context.files.model() }),
      },
      ofLlama("q8_0", "llama.cpp Q8_0 (native)"),
      ofLlama("f32", "llama.cpp f32 (native)"),
      {
        name: "transformers.js fp32 (native)",
        open: async (context) =>
          await npm(context, "transformers_js.ts", { ...job, model: await context.files.onnx() }),
      },
    ],
    comparisons,
    question: { candidates: CANDIDATES },
    judge(name, answer, reference) {
      if (!reference) return null;
      const [, tolerance] = TOLERANCES.find(([pattern]) => pattern.test(name))!;
      const expected = reference as number[];
      const error = Math.max(...(answer as number[]).map((value, i) => Math.abs(value - expected[i])));
      return error < tolerance ? null : `its log-probabilities are off by ${error}`;
    },
  };
}
