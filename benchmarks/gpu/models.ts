/**
 * Whole models' rows: LoRA steps and greedy decoding of GPT-2 124M and 355M with random weights.
 *
 * @module
 */
import { makeBatch } from "../../src/data/batches.ts";
import { GPT2 } from "../../src/gpt2.ts";
import { Lora } from "../../src/model/lora.ts";
import type { WeightFormat } from "../../src/tensor/tensor.ts";
import { AdamW } from "../../src/train/optimizer.ts";
import { runStep } from "../../src/train/step.ts";
import { type Bench, countersOf } from "./bench.ts";
import { FORMATS } from "./kernels.ts";
import type { Row } from "./record.ts";

/** A model's size. */
interface Size {
  name: string;
  shape: { n_layer: number; n_head: number; n_embd: number; n_positions: number; vocab_size: number };
  /** Millions of weights. */
  millions: number;
}

const GPT2_SIZES: readonly Size[] = [
  {
    name: "124M",
    shape: { n_layer: 12, n_head: 12, n_embd: 768, n_positions: 1024, vocab_size: 50257 },
    millions: 124,
  },
  {
    name: "355M",
    shape: { n_layer: 24, n_head: 16, n_embd: 1024, n_positions: 1024, vocab_size: 50257 },
    millions: 355,
  },
];
const TINY: readonly Size[] = [
  {
    name: "tiny",
    shape: { n_layer: 2, n_head: 2, n_embd: 32, n_positions: 64, vocab_size: 100 },
    millions: 0.1,
  },
];

/** Seconds that a million random weights take to make and pack, generously. */
const SECONDS_A_MILLION = 0.06;

/** All rows of whole models. */
export async function models(bench: Bench): Promise<void> {
  for (const size of bench.quick ? TINY : GPT2_SIZES) {
    for (const weights of FORMATS) await oneModel(bench, size, weights);
  }
}

async function oneModel(bench: Bench, size: Size, weights: WeightFormat): Promise<void> {
  const [B, T] = bench.quick ? [2, 16] : [8, 512];
  const [prompt, tokens] = bench.quick ? [8, 8] : [64, 256];
  const decode: Row = {
    group: "decode",
    name: `${size.name} ${weights}, ${tokens} greedy tokens after ${prompt}`,
    unit: "tokens/s",
  };
  const lora: Row = {
    group: "LoRA",
    name: `${size.name} ${weights}, r = 8 on c_attn, ${B} × ${T} tokens, a step`,
    unit: "tokens/s",
  };
  const wanted = [decode, ...(weights === "f32" ? [lora] : [])].filter((row) => bench.wants(row));
  if (wanted.length === 0) return;
  if (bench.left < size.millions * SECONDS_A_MILLION) {
    for (const row of wanted) bench.put({ ...row, absent: "no time was left to make the model" });
    return;
  }
  let model: GPT2;
  try {
    model = await GPT2.random(size.shape, { backend: await bench.backend(), weights });
  } catch (error) {
    for (const row of wanted) {
      bench.put({ ...row, absent: error instanceof Error ? error.message : String(error) });
    }
    return bench[Symbol.dispose]();
  }
  using _model = model;
  await bench.row(decode, () => decoding(bench, model, prompt, tokens));
  if (wanted.includes(lora)) await bench.row(lora, () => training(bench, model, B, T));
}

/** Greedy tokens after a prompt, whose forward pass is in the time. */
async function decoding(bench: Bench, model: GPT2, promptLength: number, maxTokens: number) {
  const { backend } = model;
  const prompt = Array.from({ length: promptLength }, (_, i) => i * 101 % model.config.vocab_size);
  let total = 0;
  const run = async (): Promise<number> => {
    const begin = performance.now();
    let count = 0;
    for await (const _ of model.generate(prompt, { maxTokens, temperature: 0 })) count++;
    total += count;
    // A model may well say the end of its text, which another run says at the same place.
    return (performance.now() - begin) / 1000 / count;
  };
  await run();
  total = 0;
  const before = backend.stats();
  const { seconds } = await repeat(bench, run);
  const counters = countersOf(before, backend.stats(), total);
  return { amount: 1, seconds, counters: { ...counters, stall: await stallOf(run) } };
}

/** LoRA steps: forward, backward, clipping, AdamW, and the loss read back. */
async function training(bench: Bench, model: GPT2, B: number, T: number) {
  const { backend } = model;
  using lora = Lora.create(model, { rank: 8, targets: ["c_attn"] });
  model.attach(lora);
  const parameters = lora.bind(backend);
  for (const tensor of parameters.tensors.values()) tensor.requiresGradient = true;
  using optimizer = new AdamW(parameters, {
    betas: [0.9, 0.999],
    epsilon: 1e-8,
    weightDecay: 0,
    maxGradNorm: 1,
  });
  const { vocab_size } = model.config;
  const batch = makeBatch(Array.from({ length: B }, (_, b) => ({
    tokens: Uint32Array.from({ length: T }, (_, i) => (i * 7919 + b * 101) % vocab_size),
    counts: new Uint8Array(T).fill(1, 1),
  })));
  let step = 0;
  const run = async (): Promise<number> => {
    const begin = performance.now();
    const { loss } = await runStep(model, optimizer, [batch], { step: ++step, learningRate: 1e-4, seed: 0 });
    if (!Number.isFinite(loss)) throw new Error(`the loss of step ${step} is ${loss}`);
    return (performance.now() - begin) / 1000;
  };
  try {
    await run();
    await run();
    const before = backend.stats();
    const { seconds, done } = await repeat(bench, run);
    const counters = countersOf(before, backend.stats(), done);
    return { amount: B * T, seconds, counters: { ...counters, stall: await stallOf(run) } };
  } finally {
    model.detach();
  }
}

/** Runs as often as there are samples, or until the row's time is up. */
async function repeat(
  { care }: Bench,
  run: () => Promise<number>,
): Promise<{ seconds: number[]; done: number }> {
  const seconds: number[] = [];
  do seconds.push(await run()); while (seconds.length < care.runs && performance.now() < care.deadline);
  return { seconds, done: seconds.length };
}

/** Milliseconds that a timer comes late at most while something runs: what a server's callers would wait beside. */
async function stallOf(run: () => Promise<unknown>): Promise<number> {
  let [last, longest] = [performance.now(), 0];
  const tick = () => {
    const now = performance.now();
    longest = Math.max(longest, now - last - 1);
    last = now;
  };
  const timer = setInterval(tick, 1);
  try {
    await run();
  } finally {
    clearInterval(timer);
  }
  tick();
  return longest;
}
