/**
 * `deno task bench:kernels`: times of the kernels and of the work that they are for, on this machine.
 *
 * @module
 */
import { makeBatch } from "../src/data/batches.ts";
import { createWasmBackend } from "../src/backend/wasm/backend.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import { AdamW } from "../src/train/optimizer.ts";
import { runStep } from "../src/train/step.ts";

const backend = await createWasmBackend();

for (const format of ["f32", "f16", "q8", "q4"] as const) {
  const [M, K, N] = [1024, 768, 3072];
  const a = backend.upload(new Float32Array(M * K).fill(0.5), [M, K]);
  const b = backend.pack(new Float32Array(K * N).fill(0.25), K, N, format);
  const out = backend.allocate([M, N]);
  Deno.bench(`matmul 1024 × 768 × 3072, ${format}`, { group: "matmul", baseline: format === "f32" }, () => {
    backend.matmul({ a, b, out });
  });
  const row = backend.upload(new Float32Array(K).fill(0.5), [1, K]);
  const single = backend.allocate([1, N]);
  Deno.bench(`matrix-vector 768 × 3072, ${format}`, { group: "vector", baseline: format === "f32" }, () => {
    backend.matmul({ a: row, b, out: single });
  });
}

// Two of GPT-2's twelve layers: a sixth of the blocks' work, all of the vocabulary's.
const model = await GPT2.random({ n_layer: 2 }, { backend });
const lora = Lora.create(model, { rank: 8 });
model.attach(lora);
const parameters = lora.bind(backend);
for (const tensor of parameters.tensors.values()) tensor.requiresGradient = true;
const optimizer = new AdamW(parameters, {
  betas: [0.9, 0.999],
  epsilon: 1e-8,
  weightDecay: 0,
  maxGradNorm: 1,
});
const sequence = {
  tokens: Uint32Array.from({ length: 256 }, (_, i) => (i * 7919) % 50257),
  counts: new Uint8Array(256).fill(1, 1),
};
const batch = makeBatch([sequence, sequence]);
Deno.bench("LoRA step, 2 layers 768 wide, 2 × 256 tokens", { group: "train" }, async () => {
  await runStep(model, optimizer, [batch], { step: 1, learningRate: 1e-4, seed: 0 });
});

Deno.bench("16 tokens after 16, 2 layers 768 wide", { group: "generate" }, async () => {
  const prompt = Array.from(sequence.tokens.subarray(0, 16));
  for await (const _ of model.generate(prompt, { maxTokens: 16, temperature: 0 }));
});
