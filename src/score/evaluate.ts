/**
 * Mean loss over data, token by token.
 *
 * @module
 */
import type { Batch } from "../data/batches.ts";
import type { LanguageModel } from "../model/language_model.ts";
import type { Lora } from "../model/lora.ts";
import { Ops } from "../tensor/ops.ts";

/** How well a model predicts data. */
export interface Evaluation {
  /** Mean cross-entropy of the tokens that count, in nats. */
  loss: number;
  /** e to the loss. */
  perplexity: number;
  /** Tokens that count. */
  tokens: number;
}

/**
 * Evaluates a model; nothing is dropped and nothing changes.
 *
 * @param model The model.
 * @param batches Batches of the data.
 * @param adapter The adapter to compute with [the one attached, if any].
 * @returns Mean loss and perplexity; NaN where no token counts.
 */
export async function evaluate(
  model: LanguageModel,
  batches: Iterable<Batch> | AsyncIterable<Batch>,
  adapter: Lora | null = model.adapter,
): Promise<Evaluation> {
  let sum = 0, tokens = 0;
  for await (const batch of batches) {
    if (batch.targets.length === 0) continue;
    for (const loss of await losses(model, batch, adapter)) sum += loss;
    tokens += batch.targets.length;
  }
  const loss = sum / tokens;
  return { loss, perplexity: Math.exp(loss), tokens };
}

/** Each target's loss, (N), in nats. */
async function losses(model: LanguageModel, batch: Batch, adapter: Lora | null): Promise<Float32Array> {
  const { arena } = model;
  const { wte } = model.networkWith(adapter);
  return await arena.scope(() => {
    const ops = new Ops(arena);
    const hidden = model.hiddenStates(ops, batch, batch.rows, adapter);
    return model.backend.read(ops.crossEntropy(hidden, wte, arena.upload(batch.targets), 0));
  });
}
