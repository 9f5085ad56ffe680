/**
 * llama.cpp, native code for CPUs, through node-llama-cpp: generation. Its argument is where node-llama-cpp is
 * installed (harness/install.ts says why).
 *
 * @module
 */
import { type Job, serve } from "../harness/serve.ts";
import { nameOf } from "./packages.ts";

await serve(async (job: Job) => {
  const url = new URL("node_modules/node-llama-cpp/dist/index.js", Deno.args[0]);
  const { getLlama } = await import(url.href);
  const llama = await getLlama({ gpu: false, build: "never", progressLogs: false, maxThreads: job.threads });
  const model = await llama.loadModel({ modelPath: job.model });
  const prompt = job.prompt as number[];
  const maxTokens = Number(job.maxTokens);
  const context = await model.createContext({
    contextSize: prompt.length + maxTokens,
    batchSize: prompt.length,
    threads: job.threads,
  });
  const sequence = context.getSequence();
  return {
    version: `${nameOf("node-llama-cpp")} (llama.cpp ${llama.llamaCppRelease.release})`,
    async run() {
      await sequence.clearHistory();
      const begin = performance.now();
      let count = 0;
      for await (const _ of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
        if (++count === maxTokens) break;
      }
      const seconds = (performance.now() - begin) / 1000;
      if (count !== maxTokens) throw new Error(`${count} tokens came instead of ${maxTokens}`);
      return { amount: job.count === "prompt" ? prompt.length : count, seconds };
    },
    async check({ candidates }) {
      await sequence.clearHistory();
      const last = [prompt.at(-1), { generateNext: { probabilities: true } }];
      const outputs = await sequence.controlledEvaluate([...prompt.slice(0, -1), last]);
      const { probabilities } = outputs.at(-1).next;
      return (candidates as number[]).map((token) => Math.log(probabilities.get(token)));
    },
  };
});
