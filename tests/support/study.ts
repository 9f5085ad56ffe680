/**
 * A small study: nano, a few steps, a few questions, and a stand-in for a reward model.
 *
 * @module
 */
import { nanoDialogues } from "../../src/nano/nano.ts";
import type { StudyOptions } from "../../src/report/study.ts";
import type { StudyResult } from "../../src/report/study_result.ts";
import type { ScoredPair, Scorer } from "../../src/score/scorer.ts";

/** The study's options; sampled answers, so that seeds count. */
export async function SMALL(): Promise<StudyOptions> {
  const { training, held } = await nanoDialogues();
  return {
    data: training.slice(0, 60),
    evalData: held.slice(0, 12),
    lora: { rank: 2, dropout: 0.1, targets: ["c_attn"] },
    training: { steps: 10, batchSize: 1, sequenceLength: 64, learningRate: 1e-2, evalEvery: 4 },
    ...{ questions: 6, maxTokens: 8, temperature: 0.9, topP: 0.95, seed: 5 },
  };
}

/** Scores an answer by its letters, in place of a reward model. */
export class StandIn implements Scorer {
  readonly name: string = "stand-in";
  /** Pairs that it was asked to score. */
  readonly asked: ScoredPair[] = [];

  /** @param happened Called when pairs were scored. */
  constructor(readonly happened: () => void = () => {}) {}

  score(pairs: readonly ScoredPair[]): Promise<Float32Array> {
    this.asked.push(...pairs);
    this.happened();
    return Promise.resolve(Float32Array.from(pairs, ({ prompt, response }) => {
      let sum = prompt.length % 7 / 7;
      for (const character of response) sum += Math.sin(character.codePointAt(0)!);
      return sum;
    }));
  }
}

/** All of a study but the time that it took. */
export function withoutTimes(result: StudyResult): Partial<StudyResult> {
  const { seconds: _, times: __, tokensPerSecond: ___, ...rest } = result;
  return rest;
}

/** What a study left in its directory, times aside. */
export async function leftBehind(out: string): Promise<Record<string, unknown>> {
  const metrics = (await Deno.readTextFile(`${out}/metrics.jsonl`)).trimEnd().split("\n").map((line) => {
    const { seconds: _, tokens_per_second: __, ...rest } = JSON.parse(line);
    return rest;
  });
  const pictures: Record<string, string> = {};
  for (const name of ["loss.svg", "loss-means.svg", "scores.svg"]) {
    pictures[name] = await Deno.readTextFile(`${out}/${name}`);
  }
  return {
    result: withoutTimes(JSON.parse(await Deno.readTextFile(`${out}/study.json`))),
    adapter: await Deno.readFile(`${out}/adapter/adapter_model.safetensors`),
    ...{ metrics, pictures },
  };
}
