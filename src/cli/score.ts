/**
 * `whet score`: a model's loss, or answers scored by a reward model or a judge.
 *
 * @module
 */
import { BatchStream } from "../data/batches.ts";
import { WhetError } from "../errors.ts";
import { evaluate } from "../score/evaluate.ts";
import { UsageError } from "./flags.ts";
import { openModel } from "./model.ts";
import { printLine } from "./output.ts";
import { loadData, type ScoreValues } from "./score_data.ts";
import { type JudgeResult, scoreByJudge } from "./score_judge.ts";
import { type ComparisonResult, type RewardResult, scoreByReward } from "./score_reward.ts";

/** What `--json` prints for `--model`. */
export interface LossResult {
  /** Mean cross-entropy of the tokens that count, in nats. */
  loss: number;
  /** e to the loss. */
  perplexity: number;
  /** Tokens that count. */
  tokens: number;
}

/** What scores, and the flags that make sense with it. */
const SCORERS = {
  model: ["adapter", "seq-len", "loss-on", "weights", "threads", "strict"],
  "reward-model": ["pairs", "side", "weights", "threads", "strict"],
  judge: ["judge-model", "judge-key-env", "judge-concurrency", "side"],
} as const satisfies Partial<Record<keyof ScoreValues, readonly (keyof ScoreValues)[]>>;

/** Scores a file; see `SCORE` for the flags. */
export async function runScore(
  values: ScoreValues,
): Promise<LossResult | RewardResult | ComparisonResult | JudgeResult> {
  const scorer = whatScores(values);
  if (scorer === "judge") return await scoreByJudge(values);
  if (scorer === "reward-model") return await scoreByReward(values);
  return await scoreByLoss(values);
}

/** The one of the three that was asked for, the flags beside it being its own. */
function whatScores(values: ScoreValues): keyof typeof SCORERS {
  const given = (name: keyof ScoreValues) => values[name] !== undefined && values[name] !== false;
  const names = Object.keys(SCORERS) as (keyof typeof SCORERS)[];
  const [scorer, another] = names.filter(given);
  if (another) throw new UsageError(`--${scorer} and --${another}: one of them at a time`);
  for (const flag of new Set(names.flatMap((name) => [...SCORERS[name]]))) {
    const homes = names.filter((name) => (SCORERS[name] as readonly string[]).includes(flag));
    if (given(flag) && scorer && !homes.includes(scorer)) {
      throw new UsageError(`--${flag} goes with --${homes.join(" or --")}, not with --${scorer}`);
    }
  }
  if (!scorer) {
    throw new UsageError("--model is missing: which model to score with, or else --reward-model or --judge");
  }
  if (values.pairs && values.side) throw new UsageError("--pairs compares both sides: leave --side out");
  if (values.judge && !values["judge-model"]) {
    throw new UsageError("--judge-model is missing: the judge's name at that address");
  }
  return scorer;
}

/** Mean loss and perplexity. */
async function scoreByLoss(values: ScoreValues): Promise<LossResult> {
  const data = await loadData(values);
  using model = await openModel(values.model!, values);
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
