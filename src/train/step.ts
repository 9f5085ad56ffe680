/**
 * One step of training: micro-batches forward and back, then the optimizer.
 *
 * @module
 */
import type { Batch } from "../data/batches.ts";
import type { LanguageModel } from "../model/language_model.ts";
import type { Lora } from "../model/lora.ts";
import { Ops } from "../tensor/ops.ts";
import { bits } from "../tensor/random.ts";
import { Tape } from "../tensor/tape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { AdamW } from "./optimizer.ts";

/** Which numbers dropout draws from, apart from the seed. */
const DROPOUT = 0xd20;

/**
 * Runs one optimizer step.
 *
 * @param model The model.
 * @param optimizer Holds what is trained.
 * @param parts The step's micro-batches.
 * @param options The step, from 1; its learning rate; the seed of dropout; the adapter [the one attached].
 * @returns Mean loss of the tokens that count, and the gradients' norm before clipping.
 */
export async function runStep(
  model: LanguageModel,
  optimizer: AdamW,
  parts: readonly Batch[],
  { step, learningRate, seed, adapter = model.adapter }: {
    step: number;
    learningRate: number;
    seed: number;
    adapter?: Lora | null;
  },
): Promise<{ loss: number; gradNorm: number }> {
  const { backend, arena } = model;
  // Over all micro-batches: a token counts the same in whichever of them it is.
  const targets = parts.reduce((sum, part) => sum + part.targets.length, 0);
  const [[total], [gradNorm]] = await arena.scope(() => {
    const total = arena.temporary([1]);
    backend.fill({ out: total, value: 0 });
    optimizer.gradients.zero();
    for (const [index, part] of parts.entries()) {
      const place = [bits(step, [seed >>> 0, DROPOUT]), index * 65536] as [number, number];
      const dropoutKey = (): [number, number] => [place[0], place[1]++];
      addGradients(model, optimizer, part, { total, gradientScale: 1 / targets, dropoutKey, adapter });
    }
    const clip = optimizer.step(step, learningRate);
    return Promise.all([backend.read(total), backend.read(clip)]);
  });
  return { loss: total / targets, gradNorm };
}

/**
 * Runs a batch forward and back: adds its summed loss to `total` and its gradients to the optimizer's.
 *
 * @param model The model.
 * @param optimizer Whose parameters are differentiated.
 * @param batch The batch.
 * @param options `total`, (1); `gradientScale`, the weight of a token's loss; `dropoutKey`, a key for each mask;
 * `adapter`, the one to compute with [the one attached].
 */
export function addGradients(
  model: LanguageModel,
  { parameters, gradients }: AdamW,
  batch: Batch,
  { total, gradientScale, dropoutKey, adapter = model.adapter }: {
    total: Tensor;
    gradientScale: number;
    dropoutKey: () => [number, number];
    adapter?: Lora | null;
  },
): void {
  const { arena, backend } = model;
  const { wte } = model.networkWith(adapter);
  arena.scope(() => {
    const tape = new Tape(arena);
    for (const [name, tensor] of parameters.tensors) tape.bind(tensor, gradients.tensors.get(name)!);
    const ops = new Ops(arena, tape, dropoutKey);
    const hidden = model.hiddenStates(ops, batch, batch.rows, adapter);
    const loss = ops.crossEntropy(hidden, wte, arena.upload(batch.targets), gradientScale);
    backend.sumRows({ x: loss.slice(0, [loss.length, 1]), out: total });
    tape.backward(loss);
  });
}
