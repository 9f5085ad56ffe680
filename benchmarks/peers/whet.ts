/**
 * Whet on WebAssembly, with default flags: all the jobs.
 *
 * @module
 */
import { createBackend } from "../../src/backend/select.ts";
import { Dialogues } from "../../src/data/dialogues.ts";
import { GPT2 } from "../../src/gpt2.ts";
import { Lora } from "../../src/model/lora.ts";
import type { WeightFormat } from "../../src/tensor/tensor.ts";
import { RewardModel } from "../../src/score/reward.ts";
import type { ScoredPair } from "../../src/score/scorer.ts";
import { train } from "../../src/train/trainer.ts";
import { VERSION } from "../../src/version.ts";
import { MATMUL } from "../harness/inputs.ts";
import { type Job, serve, type Session } from "../harness/serve.ts";
import { matmulSession, operands } from "./matmul.ts";

const JOBS: Record<string, (job: Job) => Promise<Session>> = {
  matmul,
  lora,
  dialogues,
  generate,
  reward,
};

await serve(async (job) => ({ ...await JOBS[job.job](job), version: `Whet ${VERSION}` }));

/** f32 × f32, B packed ahead like any frozen weight. */
async function matmul({ threads }: Job): Promise<Session> {
  const backend = await createBackend("wasm", { threads });
  const { M, K, N } = MATMUL;
  const { a, b } = operands();
  const args = {
    a: backend.upload(a, [M, K]),
    b: backend.pack(b, K, N, "f32"),
    out: backend.allocate([M, N]),
  };
  // Reading waits for everything before; a single element, lest the copy is measured.
  const last = args.out.slice(0, [1]);
  return matmulSession(undefined, async (times) => {
    for (let i = 0; i < times; i++) backend.matmul(args);
    await backend.read(last);
  }, async () => {
    backend.matmul(args);
    return await backend.read(args.out);
  });
}

/** A LoRA step of B sequences of T tokens, all of them targets but the first. */
async function lora(job: Job): Promise<Session> {
  const model = await load(job);
  const data = (job.sequences as number[][]).map((tokens) => ({ tokens }));
  const losses: number[] = [];
  const steps = train(model, data, {
    lora: await Lora.load(String(job.adapter)),
    steps: 1000,
    batchSize: data.length,
    sequenceLength: data[0].tokens.length,
    learningRate: 1e-3,
    schedule: "constant",
    shuffle: false,
  });
  return {
    async run() {
      const begin = performance.now();
      const { value } = await steps.next();
      losses.push(value!.loss);
      return { amount: value!.tokens, seconds: (performance.now() - begin) / 1000 };
    },
    check: () => Promise.resolve(losses),
  };
}

/** One pass over dialogues, the loss on the assistant's turns, in `parts` runs. */
async function dialogues(job: Job): Promise<Session> {
  const model = await load(job);
  const data = await Dialogues.load(String(job.dialogues));
  const open = async () =>
    train(model, data, {
      lora: await Lora.load(String(job.adapter)),
      epochs: 1,
      // Nothing is padded: a batch has room for 1024 tokens, of a few dialogues or of one that is long.
      batchSize: 1,
      sequenceLength: 1024,
      learningRate: 1e-3,
      schedule: "constant",
      lossOn: "responses",
    });
  for await (const { step } of await open()) if (step === 2) break;
  const steps = await open();
  const part = Number(job.tokens) / Number(job.parts);
  let parts = 0, done = 0;
  return {
    async run() {
      const before = done;
      const begin = performance.now();
      const end = ++parts === job.parts ? Infinity : part * parts;
      while (done < end) {
        const { value } = await steps.next();
        if (!value) break;
        done += value.tokens;
      }
      return { amount: done - before, seconds: (performance.now() - begin) / 1000 };
    },
  };
}

/** `prompt` in, `maxTokens` greedy tokens out; what counts is the prompt's tokens or those. */
async function generate(job: Job): Promise<Session> {
  const model = await load(job);
  const prompt = job.prompt as number[];
  const maxTokens = Number(job.maxTokens);
  return {
    async run() {
      const begin = performance.now();
      let count = 0;
      for await (const _ of model.generate(prompt, { maxTokens, temperature: 0 })) count++;
      const seconds = (performance.now() - begin) / 1000;
      if (count !== maxTokens) throw new Error(`${count} tokens came instead of ${maxTokens}`);
      return { amount: job.count === "prompt" ? prompt.length : count, seconds };
    },
    async check({ candidates }) {
      const { vocab_size: V } = model.config;
      const logits = (await model.logits([prompt]))[0].subarray(-V);
      const total = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
      return (candidates as number[]).map((token) => logits[token] - total);
    },
  };
}

function load({ model, weights, threads }: Job): Promise<GPT2> {
  return GPT2.load(String(model), { backend: "wasm", weights: weights as WeightFormat, threads });
}

/** The scores of all pairs. */
async function reward(job: Job): Promise<Session> {
  const { threads, weights } = job;
  const model = await RewardModel.load(String(job.model), {
    ...{ backend: "wasm", threads, weights: weights as WeightFormat },
  });
  const pairs = job.pairs as ScoredPair[];
  let scores: number[] = [];
  return {
    async run() {
      const begin = performance.now();
      scores = [...await model.score(pairs)];
      return { amount: pairs.length, seconds: (performance.now() - begin) / 1000 };
    },
    check: () => Promise.resolve(scores),
  };
}
