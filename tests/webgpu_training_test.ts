/** Training on a GPU, beside training on WebAssembly. */
import { assert, assertEquals } from "@std/assert";
import { createWasmBackend } from "../src/backend/wasm/backend.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import { nanoDialogues } from "../src/nano/nano.ts";
import type { Backend } from "../src/tensor/backend.ts";
import { train } from "../src/train/trainer.ts";
import { gpuTest } from "./support/webgpu.ts";

/** Fifty steps take a software adapter half a minute: they are made with WHET_SLOW=1, three else. */
const STEPS = Deno.env.get("WHET_SLOW") === "1" ? 50 : 3;

/** The losses of a LoRA run on the embedded model and its dialogues. */
async function losses(backend: Backend): Promise<number[]> {
  using model = await GPT2.load("nano", { backend });
  using lora = Lora.create(model, { rank: 8, alpha: 16, dropout: 0.05, seed: 1 });
  const { training } = await nanoDialogues();
  const options = { lora, steps: STEPS, batchSize: 2, sequenceLength: 64, learningRate: 3e-3, seed: 2 };
  return (await Array.fromAsync(train(model, training, options))).map(({ loss }) => loss);
}

gpuTest(`${STEPS} LoRA steps on nano lose what they lose on WebAssembly, within 1e-3`, async (backend) => {
  using wasm = await createWasmBackend();
  const [expected, actual] = [await losses(wasm), await losses(backend)];
  assertEquals(actual.length, STEPS);
  const off = Math.max(...actual.map((loss, i) => Math.abs(loss - expected[i])));
  if (STEPS === 50) {
    console.log(`largest difference ${off}; loss ${expected[0]} → ${expected[49]}, ${actual[49]}`);
  }
  assert(off < 1e-3, `off by ${off}`);
});
