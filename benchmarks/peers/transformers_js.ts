/**
 * transformers.js, which computes with onnxruntime-node under Deno: generation.
 *
 * @module
 */
import { serve } from "../harness/serve.ts";
import { nameOf, PACKAGES, specifier } from "./packages.ts";

await serve(async ({ model: directory, threads, prompt: ids, maxTokens, count }) => {
  const { AutoModelForCausalLM, env, Tensor } = await import(specifier("@huggingface/transformers"));
  env.allowRemoteModels = false;
  env.localModelPath = "";
  const model = await AutoModelForCausalLM.from_pretrained(directory, {
    dtype: "fp32",
    device: "cpu",
    session_options: { intraOpNumThreads: threads },
  });
  const prompt = ids as number[];
  const tensor = (values: bigint[]) => new Tensor("int64", BigInt64Array.from(values), [1, values.length]);
  const inputs = {
    input_ids: tensor(prompt.map(BigInt)),
    attention_mask: tensor(prompt.map(() => 1n)),
  };
  return {
    version: `${nameOf("@huggingface/transformers")} (onnxruntime-node ${PACKAGES["onnxruntime-node"]})`,
    async run() {
      const begin = performance.now();
      const out = await model.generate({
        ...inputs,
        max_new_tokens: maxTokens,
        do_sample: false,
        eos_token_id: null,
      });
      const seconds = (performance.now() - begin) / 1000;
      const made = out.dims[1] - prompt.length;
      if (made !== maxTokens) throw new Error(`${made} tokens came instead of ${maxTokens}`);
      return { amount: count === "prompt" ? prompt.length : made, seconds };
    },
    async check({ candidates }) {
      const { logits } = await model(inputs);
      const last = (logits.data as Float32Array).subarray(-model.config.vocab_size);
      const total = Math.log(last.reduce((sum, logit) => sum + Math.exp(logit), 0));
      return (candidates as number[]).map((token) => last[token] - total);
    },
  };
});
