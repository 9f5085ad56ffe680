/** The kernels on the least of devices. */
import { assert } from "@std/assert";
import { createWebGpuBackend } from "../src/backend/webgpu/backend.ts";
import type { Backend } from "../src/tensor/backend.ts";
import type { WeightFormat } from "../src/tensor/tensor.ts";
import { adapterTest, findAdapter, numbers } from "./support/webgpu.ts";

/** Calls every kernel once, in the variants that need the most. */
function everything(backend: Backend): void {
  const [T, H, D, V] = [3, 1, 128, 8];
  const C = H * D;
  const tensor = (...shape: number[]) => backend.upload(numbers(shape.reduce((a, b) => a * b, 1)), shape);
  const rows = (...content: number[]) => backend.upload(Uint32Array.from(content));
  for (const b of [tensor(C, C), ...(["f32", "f16", "q8", "q4"] as WeightFormat[]).map(pack)]) {
    const epilogue = { bias: tensor(C), residual: tensor(T, C) };
    backend.matmul({ a: tensor(T, C), b, out: tensor(T, C), activation: "gelu", ...epilogue });
    backend.matmul({ a: tensor(T, C), b, out: tensor(T, C), transposeB: true, accumulate: true });
    backend.embedding({
      wte: b,
      wpe: tensor(T, C),
      tokens: rows(0, 1, 2),
      positions: rows(0, 1, 2),
      out: tensor(T, C),
    });
  }
  function pack(format: WeightFormat) {
    return backend.pack(numbers(C * C), C, C, format);
  }
  backend.matmul({ a: tensor(C, T), b: tensor(C, C), out: tensor(T, C), transposeA: true });
  const [tokens, starts, ends] = [rows(0, 1, 0), rows(0, 0, 0), rows(3, 3, 3)];
  const table = { dWte: tensor(V, C), dWpe: tensor(V, C) };
  backend.embeddingBackward({ tokens, positions: tokens, dOut: tensor(T, C), ...table });
  const norm = { x: tensor(T, C), weight: tensor(C), mean: tensor(T), rstd: tensor(T) };
  backend.layerNorm({ ...norm, bias: tensor(C), out: tensor(T, C), epsilon: 1e-5 });
  const gradients = { dX: tensor(T, C), dWeight: tensor(C), dBias: tensor(C) };
  backend.layerNormBackward({ ...norm, dOut: tensor(T, C), ...gradients });
  const [x, y, z] = [tensor(T, C), tensor(T, C), tensor(T, C)];
  backend.gelu({ x, out: y });
  backend.geluBackward({ x, dOut: y, dX: z });
  backend.dropout({ x, out: y, probability: 0.5, key: [1, 2] });
  backend.add({ a: x, b: y, out: z });
  backend.copy({ x, out: y });
  backend.fill({ out: x, value: 1 });
  const head = { heads: H, scale: 0.1 };
  const forward = { qkv: tensor(T, 3 * C), starts, out: tensor(T, C), logSumExp: tensor(T, H), ...head };
  backend.attention(forward);
  backend.attentionBackward({ ...forward, ends, dOut: tensor(T, C), dQkv: tensor(T, 3 * C) });
  const cache = { keys: tensor(1, 8, C), values: tensor(1, 8, C), slots: starts, positions: rows(0, 1, 2) };
  backend.cachedAttention({ qkv: tensor(T, 3 * C), ...cache, out: tensor(T, C), ...head });
  const [keys, values] = [0, 1].map(() => backend.allocate([1, 8, C], "f16"));
  backend.cachedAttention({ qkv: tensor(T, 3 * C), ...cache, keys, values, out: tensor(T, C), ...head });
  backend.crossEntropy({ logits: tensor(T, V), targets: tokens, loss: tensor(T), gradientScale: 1 });
  const choice = { temperature: 2, topK: 5, topP: 0.9, repetitionPenalty: 2, draw: 0.5 };
  backend.sample({
    logits: tensor(T, V),
    rows: [0, 1, 2].map((slot) => ({ ...choice, slot })),
    seen: backend.upload(new Uint32Array(3), [3, 1]),
    tokens: backend.allocate([T], "u32"),
    logProbs: tensor(T),
  });
  backend.gather({ x, rows: rows(2, 0), out: tensor(2, C) });
  backend.scatterAdd({ dOut: tensor(2, C), rows: rows(2, 0), dX: x });
  backend.sumRows({ x, out: tensor(C) });
  const [square, clip] = [tensor(1), tensor(2)];
  backend.sumOfSquares({ x, out: square });
  backend.clipFactor({ sumOfSquares: square, maxNorm: 1, out: clip });
  const betas = { learningRate: 1e-3, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.1, step: 1 };
  backend.adamw({ parameters: x, gradients: y, m: z, v: tensor(T, C), clip, ...betas });
}

adapterTest("every kernel compiles and runs within the limits that every device has", async () => {
  const adapter = await findAdapter();
  // Asked for no limits, an adapter gives a device with the defaults: 16 KiB of workgroup memory, 8
  // storage buffers, offsets of 256 bytes.
  const least = { info: adapter.info, limits: {}, requestDevice: () => adapter.requestDevice() };
  using backend = await createWebGpuBackend(least as unknown as GPUAdapter);
  everything(backend);
  const done = backend.upload(numbers(1));
  assert((await backend.read(done)).length === 1); // throws what went wrong before
});

adapterTest("an adapter that gives no device is an error that says why", async () => {
  const adapter = await findAdapter();
  const broken = {
    info: adapter.info,
    limits: {},
    requestDevice: () => Promise.reject(new Error("driver asleep")),
  };
  let message = "";
  await createWebGpuBackend(broken as unknown as GPUAdapter).catch((error) => message = error.message);
  assert(message.includes("gives no device") && message.includes("driver asleep"), message);
});
