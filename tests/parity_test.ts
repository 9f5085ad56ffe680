/**
 * Whet against PyTorch: `tests/fixtures/parity`, which `tests/reference/make_fixtures.py` writes and describes.
 */
import { assert, assertEquals } from "@std/assert";
import { makeBatch } from "../src/data/batches.ts";
import type { EncodedExample } from "../src/data/encode.ts";
import { Safetensors } from "../src/format/safetensors.ts";
import { openRepository } from "../src/format/source.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import type { Backend } from "../src/tensor/backend.ts";
import { AdamW } from "../src/train/optimizer.ts";
import { addGradients } from "../src/train/step.ts";
import { train } from "../src/train/trainer.ts";
import { candidates } from "./support/backends.ts";

interface Case {
  sequences: number[][];
  batch: { tokens: number[]; targets: number[] }[];
  generation: { lora: string | null; prompt: number[]; tokens: number[] }[];
  full: { loss: number } | null;
  loras: Record<string, { rank: number; alpha: number; targets: string[]; rsLora: boolean; loss: number }>;
  training: Training[];
}

interface Training {
  lora: string | null;
  steps: number;
  learningRate: number;
  warmupSteps: number;
  betas: [number, number];
  epsilon: number;
  weightDecay: number;
  maxGradNorm: number;
  batches: { tokens: number[]; targets: number[] }[][];
  learningRates: number[];
  losses: number[];
  gradNorms: number[];
}

const parity = new URL("./fixtures/parity/", import.meta.url);
const path = (name: string) => new URL(name, parity).pathname;
const CASES = ["d16", "d20", "d64", "d80"];

async function readCase(name: string): Promise<{ facts: Case; expected: Map<string, Float32Array> }> {
  const facts: Case = JSON.parse(await Deno.readTextFile(path(`${name}/case.json`)));
  const source = (await (await openRepository(path(name))).open("expected.safetensors"))!;
  const file = await Safetensors.open(source);
  const expected = new Map<string, Float32Array>();
  for (const key of file.names()) expected.set(key, await file.readF32(key));
  source.close();
  return { facts, expected };
}

/** Largest absolute difference. */
function difference(actual: Float32Array, expected: Float32Array): number {
  assertEquals(actual.length, expected.length);
  return actual.reduce(
    (worst, x, i) => Math.max(worst, Number.isFinite(x) ? Math.abs(x - expected[i]) : Infinity),
    0,
  );
}

/** Largest difference relative to the largest entry. */
function relativeDifference(actual: Float32Array, expected: Float32Array): number {
  return difference(actual, expected) / expected.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-6);
}

function encode(sequences: Case["batch"]): EncodedExample[] {
  return sequences.map(({ tokens, targets }) => ({
    tokens: Uint32Array.from(tokens),
    counts: Uint8Array.from(tokens, (_, i) => targets.includes(i) ? 1 : 0),
  }));
}

/** The gradients of the mean loss over a batch, by parameter name. */
async function gradientsOf(model: GPT2, lora: Lora | null, facts: Case) {
  const parameters = lora ? lora.bind(model.backend) : await model.unfreeze();
  using optimizer = new AdamW(parameters, {
    betas: [0.9, 0.999],
    epsilon: 1e-8,
    weightDecay: 0,
    maxGradNorm: 0,
  });
  for (const tensor of parameters.tensors.values()) tensor.requiresGradient = true;
  const batch = makeBatch(encode(facts.batch));
  const total = model.backend.upload(Float32Array.of(0));
  addGradients(model, optimizer, batch, {
    total,
    gradientScale: 1 / batch.targets.length,
    dropoutKey: () => [0, 0],
  });
  for (const tensor of parameters.tensors.values()) tensor.requiresGradient = false;
  const gradients = new Map<string, Float32Array>();
  for (const name of parameters.tensors.keys()) gradients.set(name, await optimizer.gradients.read(name));
  const [sum] = await model.backend.read(total);
  model.backend.free(total);
  return { loss: sum / batch.targets.length, gradients };
}

async function withModel(
  backend: Backend,
  name: string,
  work: (model: GPT2) => Promise<void>,
): Promise<void> {
  using model = await GPT2.load(path(`${name}/model`), { backend });
  await work(model);
}

for (const candidate of await candidates()) {
  const test = (claim: string, work: (backend: Backend) => Promise<void>) =>
    Deno.test({
      name: `${candidate.name}: ${claim}`,
      ignore: candidate.ignore,
      async fn() {
        using backend = await candidate.create();
        await work(backend);
      },
    });

  for (const name of CASES) {
    test(`${name}: logits are transformers', with and without adapters, merged or attached`, async (backend) => {
      const { facts, expected } = await readCase(name);
      await withModel(backend, name, async (model) => {
        const check = async (prefix: string) => {
          for (const [i, logits] of (await model.logits(facts.sequences)).entries()) {
            const off = difference(logits, expected.get(`${prefix}logits.${i}`)!);
            assert(off < 1e-4, `${prefix}logits.${i} is off by ${off}`);
          }
        };
        await check("");
        for (const adapter of Object.keys(facts.loras)) {
          using lora = await Lora.load(path(`${name}/lora/${adapter}`));
          model.attach(lora);
          await check(`${adapter}.`);
          model.detach();
        }
        await check("");
        const [last] = Object.keys(facts.loras).slice(-1);
        using lora = await Lora.load(path(`${name}/lora/${last}`));
        await model.merge(lora);
        await check(`${last}.`);
      });
    });

    test(`${name}: losses and gradients are PyTorch's`, async (backend) => {
      const { facts, expected } = await readCase(name);
      await withModel(backend, name, async (model) => {
        for (const [adapter, { loss: expectedLoss }] of Object.entries(facts.loras)) {
          using lora = await Lora.load(path(`${name}/lora/${adapter}`));
          model.attach(lora);
          const { loss, gradients } = await gradientsOf(model, lora, facts);
          assert(Math.abs(loss - expectedLoss) < 1e-4, `loss ${loss}, expected ${expectedLoss}`);
          assertEquals(
            gradients.size,
            [...expected.keys()].filter((key) => key.startsWith(`${adapter}.gradient.`)).length,
          );
          for (const [parameter, gradient] of gradients) {
            const off = relativeDifference(
              gradient,
              expected.get(`${adapter}.gradient.base_model.model.${parameter}`)!,
            );
            assert(off < 1e-3, `${adapter} ${parameter} is off by ${off}`);
          }
          model.detach();
        }
        if (!facts.full) return;
        const { loss, gradients } = await gradientsOf(model, null, facts);
        assert(Math.abs(loss - facts.full.loss) < 1e-4, `loss ${loss}, expected ${facts.full.loss}`);
        for (const [parameter, gradient] of gradients) {
          const off = relativeDifference(gradient, expected.get(`gradient.transformer.${parameter}`)!);
          assert(off < 1e-3, `${parameter} is off by ${off}`);
        }
      });
    });

    test(`${name}: ten AdamW steps go as in PyTorch`, async (backend) => {
      const { facts, expected } = await readCase(name);
      for (const training of facts.training) {
        await withModel(backend, name, async (model) => {
          using lora = training.lora === null ? null : await Lora.load(path(`${name}/lora/${training.lora}`));
          const { steps, learningRate, warmupSteps, betas, epsilon, weightDecay, maxGradNorm } = training;
          const sequences = training.batches.flat();
          const batchSize = training.batches[0].length;
          let step = 0;
          for await (
            const { loss, gradNorm, learningRate: rate } of train(
              model,
              sequences.map(({ tokens }) => ({ tokens })),
              {
                ...{ steps, learningRate, warmupSteps, betas, epsilon, weightDecay, maxGradNorm, batchSize },
                ...{
                  schedule: "linear",
                  packing: false,
                  shuffle: false,
                  sequenceLength: model.config.n_positions,
                },
                ...(lora ? { lora } : {}),
              },
            )
          ) {
            const what = `${training.lora ?? "all weights"}, step ${step + 1}`;
            assert(Math.abs(rate - training.learningRates[step]) < 1e-9, `${what}: learning rate ${rate}`);
            assert(
              Math.abs(loss - training.losses[step]) < 1e-4,
              `${what}: loss ${loss}, expected ${training.losses[step]}`,
            );
            const norm = training.gradNorms[step];
            assert(
              Math.abs(gradNorm - norm) < 1e-3 * norm,
              `${what}: gradient norm ${gradNorm}, expected ${norm}`,
            );
            step++;
          }
          assertEquals(step, steps);
          if (!lora) return;
          for (const parameter of lora.bind(model.backend).tensors.keys()) {
            const trained = expected.get(`${training.lora}.trained.base_model.model.${parameter}`)!;
            const off = difference(await lora.bind(model.backend).read(parameter), trained);
            assert(off < 1e-3, `${training.lora} ${parameter} is off by ${off} after training`);
          }
        });
      }
    });

    test(`${name}: greedy continuations are transformers'`, async (backend) => {
      const { facts } = await readCase(name);
      await withModel(backend, name, async (model) => {
        for (const { lora: adapter, prompt, tokens } of facts.generation) {
          using lora = adapter === null ? null : await Lora.load(path(`${name}/lora/${adapter}`));
          if (lora) model.attach(lora);
          const generated: number[] = [];
          for await (
            const { token } of model.generate(prompt, { temperature: 0, maxTokens: tokens.length })
          ) {
            generated.push(token);
          }
          assertEquals(generated, tokens);
          model.detach();
        }
      });
    });
  }
}
