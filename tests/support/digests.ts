/**
 * What kernels, training and generation compute on the WebAssembly backend, as one number each: whoever
 * computes the same bits has the same numbers. Run as a program, with `wide` or `narrow` for the tiles of
 * matrix products, it prints them as JSON.
 *
 * @module
 */
import { openWasmBackend, type WasmBackend } from "../../src/backend/wasm/backend.ts";
import { GPT2 } from "../../src/gpt2.ts";
import { Lora } from "../../src/model/lora.ts";
import { train } from "../../src/train/trainer.ts";
import { suite } from "./cases.ts";
import { type Case, Lab } from "./lab.ts";
import { fixture, shake } from "./models.ts";

/** FNV-1a over the bits of 32-bit numbers. */
class Digest {
  #hash = 0x811c9dc5;

  add(numbers: Float32Array | Float64Array | Uint32Array): void {
    const narrow = numbers instanceof Float64Array ? Float32Array.from(numbers) : numbers;
    for (const word of new Uint32Array(narrow.buffer, narrow.byteOffset, narrow.length)) {
      this.#hash = Math.imul(this.#hash ^ word, 0x01000193);
    }
  }

  get value(): number {
    return this.#hash >>> 0;
  }
}

/** Products of many tiles and several blocks of K, which the suite's do not reach. */
const PRODUCTS: Record<string, Case> = Object.fromEntries(
  (["f32", "f16", "q8", "q4", "plain"] as const).flatMap((format) =>
    [[64, 80, 300], [131, 57, 270], [23, 40, 2100], [5, 16, 256]].map(([M, N, K]) => [
      `${format} ${M} × ${N} × ${K}`,
      (lab: Lab) => {
        const tolerance = { absolute: Infinity, relative: 0 };
        const right = (rows: number, columns: number) =>
          format === "plain" ? lab.input([rows, columns]) : lab.packed(rows, columns, format);
        const a = lab.input([M, K]);
        const bias = lab.input([N]);
        lab.backend.matmul({
          a,
          b: right(K, N),
          out: lab.output([M, N], tolerance),
          bias,
          activation: "gelu",
        });
        lab.backend.matmul({ a, b: right(N, K), out: lab.output([M, N], tolerance), transposeB: true });
      },
    ])
  ),
);

/** What some cases put out. */
async function cases(backend: WasmBackend, some: Record<string, Case>): Promise<number> {
  const digest = new Digest();
  for (const run of Object.values(some)) {
    const lab = new Lab(backend, false);
    run(lab);
    const { outputs, unpacked } = await lab.finish();
    for (const { content } of outputs) digest.add(content);
    for (const content of unpacked) digest.add(content);
  }
  return digest.value;
}

/** Some steps of training, then a continuation. */
async function run(backend: WasmBackend): Promise<number> {
  const digest = new Digest();
  using model = await GPT2.load(fixture("d64/model"), { backend });
  using lora = Lora.create(model, { rank: 4, dropout: 0.1, targets: "all-linear", seed: 3 });
  await shake(lora, model);
  const data = [1, 2, 3].map((n) => ({
    tokens: Array.from({ length: 9 * n }, (_, i) => (i * i * 7 + n) % model.config.vocab_size),
  }));
  const options = { lora, steps: 3, batchSize: 2, sequenceLength: 24, learningRate: 1e-2 };
  for await (const { loss, gradNorm } of train(model, data, options)) {
    digest.add(Float32Array.of(loss, gradNorm));
  }
  model.attach(lora);
  const prompt = Array.from({ length: 12 }, (_, i) => i + 5);
  for await (const { token, logProb } of model.generate(prompt, { maxTokens: 8, temperature: 1, seed: 5 })) {
    digest.add(Float32Array.of(token, logProb));
  }
  return digest.value;
}

/**
 * Computes all of it, a fifth of the suite's cases.
 *
 * @param wide The tiles of matrix products.
 * @returns A number for each instruction set and kernel, and for training.
 */
export async function digests(wide: boolean): Promise<Record<string, number>> {
  const all: Record<string, number> = {};
  for (const instructionSet of ["strict", "relaxed"] as const) {
    for (const threads of instructionSet === "relaxed" ? [1, 2] : [1]) {
      const backend = await openWasmBackend({ instructionSet, threads, wide, price: 0, least: 0 });
      await backend.pool?.assemble();
      const name = `${instructionSet}, ${threads} thread${threads > 1 ? "s" : ""}`;
      for (
        const [kernel, some] of Object.entries({ ...suite({ activationStep: () => 0 }), products: PRODUCTS })
      ) {
        const few = Object.fromEntries(Object.entries(some).filter((_, i) => i % (5 * threads) === 0));
        all[`${name}: ${kernel}`] = await cases(backend, few);
      }
      all[`${name}: training`] = await run(backend);
      backend[Symbol.dispose]();
    }
  }
  return all;
}

if (import.meta.main) console.log(JSON.stringify(await digests(Deno.args[0] === "wide")));
