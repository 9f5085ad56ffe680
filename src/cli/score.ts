/**
 * `whet score`.
 *
 * @module
 */
import { BatchStream } from "../data/batches.ts";
import { Dialogues } from "../data/dialogues.ts";
import { WhetError } from "../errors.ts";
import { evaluate } from "../score/evaluate.ts";
import type { SCORE } from "./command_flags.ts";
import { UsageError, type Values } from "./flags.ts";
import { openModel, showLoading } from "./model.ts";
import { printLine } from "./output.ts";

/** What `--json` prints. */
export interface ScoreResult {
  /** Mean cross-entropy of the tokens that count, in nats. */
  loss: number;
  /** e to the loss. */
  perplexity: number;
  /** Tokens that count. */
  tokens: number;
}

/** Mean loss and perplexity over a file; see `SCORE` for the flags. */
export async function runScore(values: Values<typeof SCORE>): Promise<ScoreResult> {
  if (values["reward-model"] !== undefined) {
    throw new WhetError(
      "unsupported",
      "reward models are not built yet; score --model M gives loss and perplexity",
    );
  }
  if (values.model === undefined) throw new UsageError("--model is missing: which model to score with");
  const loading = showLoading(values.quiet);
  const data = await Dialogues.load(values.data, loading);
  loading.finish();
  using model = await openModel(values.model, values);
  const { n_positions } = model.config;
  const sequenceLength = values["seq-len"] ?? n_positions;
  if (sequenceLength > n_positions) {
    throw new WhetError(
      "option",
      `sequenceLength (--seq-len): ${sequenceLength} is beyond ${model.name}'s window of ${n_positions}`,
    );
  }
  const batches = new BatchStream(data, model.tokenizer, {
    batchSize: Math.max(1, Math.floor(1024 / sequenceLength)),
    sequenceLength,
    lossOn: values["loss-on"] as "all" | "responses" | undefined,
    shuffle: false,
    epochs: 1,
  });
  const result = await evaluate(model, batches);
  if (!Number.isFinite(result.loss)) {
    throw new WhetError(
      "diverged",
      `${model.name}: the loss is not a number; its weights are broken, or its adapter's`,
    );
  }
  if (!values.json) {
    printLine(
      `loss ${result.loss.toFixed(4)} nats per token, perplexity ${
        result.perplexity.toFixed(2)
      }, ${result.tokens} tokens`,
    );
  }
  return result;
}
