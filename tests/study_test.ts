/**
 * `study()` as a library has it: in memory and in a directory, with a judge, with an adapter.
 */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import { study, type StudyOptions } from "../src/report/study.ts";
import { summarise } from "../src/report/study_judge.ts";
import type { ScoredPair, Scorer } from "../src/score/scorer.ts";
import { inTempDir } from "./support/cli.ts";
import { leftBehind, SMALL, StandIn, withoutTimes } from "./support/study.ts";

/** The quickest study that has all parts. */
async function tiny(options: StudyOptions = {}): Promise<StudyOptions> {
  const small = await SMALL();
  return { ...small, questions: 2, maxTokens: 4, training: { ...small.training, steps: 3 }, ...options };
}

async function failure(options: StudyOptions): Promise<WhetError> {
  const error = await assertRejects(() => study(options), WhetError);
  assert(!error.message.includes("\n"), error.message);
  return error;
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

Deno.test("two studies give the same figures, answers and scores, in memory and in a directory", () =>
  inTempDir(async (out) => {
    const notes: string[] = [];
    const onNote = (text: string) => notes.push(text);
    const first = await study({ ...await SMALL(), rewardModel: new StandIn() });
    const second = await study({ ...await SMALL(), rewardModel: new StandIn(), out, onNote });
    assertEquals(withoutTimes(second.result), withoutTimes(first.result));
    const { scores, answers, points, evalPoints, times, settings } = first.result;
    assertEquals(points.map(({ step }) => step), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assertEquals(evalPoints.map(({ step }) => step), [0, 4, 8, 10]);
    assertEquals(
      [evalPoints[0].loss, evalPoints[3].loss],
      [first.result.lossBase, first.result.lossTuned],
    );
    assert(first.result.lossTuned < first.result.lossBase);
    assertEquals([answers.length, scores?.pairs, scores?.judge], [6, 6, "stand-in"]);
    assertEquals(scores!.wins + scores!.ties + scores!.losses, 6);
    assert(scores!.interval[0] <= scores!.difference && scores!.difference <= scores!.interval[1]);
    assertEquals(
      Object.keys(times!),
      ["loss, plain", "answers, plain", "training", "loss, fine-tuned", "answers, fine-tuned", "scores"],
    );
    assertEquals([settings.rank, settings.optimizer, settings["top-p"]], [2, "Adam", 0.95]);
    // What was written is what was returned, and what a second call returns without computing.
    const written = await leftBehind(out);
    assertEquals(written.result, JSON.parse(JSON.stringify(withoutTimes(second.result))));
    assertEquals(await Deno.readTextFile(`${out}/report.html`), second.report);
    const steps: number[] = [];
    const judge = new StandIn();
    const onStep = ({ step }: { step: number }) => steps.push(step);
    const third = await study({ ...await SMALL(), rewardModel: judge, out, onStep, onNote });
    assertEquals([third.result, third.report], [second.result, second.report]);
    assertEquals([steps, judge.asked], [[], []]);
    assert(notes.includes(`going on with the study in ${out}`), notes.join("\n"));
    for (const { lora } of [first, second, third]) lora[Symbol.dispose]();
  }));

Deno.test("an answer depends on its question and the seed, not on how many others there are", async () => {
  const [two, one] = [await study(await tiny()), await study(await tiny({ questions: 1 }))];
  assertEquals(one.result.answers, two.result.answers.slice(0, 1));
  const other = await study(await tiny({ seed: 6 }));
  assert(other.result.answers[0].prompt !== two.result.answers[0].prompt);
  for (const { lora } of [two, one, other]) lora[Symbol.dispose]();
});

Deno.test("without a reward model it says so, and one may score the same answers later", () =>
  inTempDir(async (out) => {
    const notes: string[] = [];
    const plain = await study(await tiny({ out, onNote: (text) => notes.push(text) }));
    plain.lora[Symbol.dispose]();
    assertEquals(plain.result.scores, undefined);
    assert(
      notes.includes("no reward model was given: answers are not scored, only likelihoods are reported"),
    );
    assertMatch(plain.report, /No reward model was given/);
    const judge = new StandIn();
    const scored = await study(
      await tiny({ out, rewardModel: judge, onStep: () => assert(false, "a step") }),
    );
    scored.lora[Symbol.dispose]();
    assertEquals(scored.result.answers.map(({ base, tuned }) => [base, tuned]), [
      ...plain.result.answers.map(({ base, tuned }) => [base, tuned]),
    ]);
    assertEquals(judge.asked.length, 4);
    for (const rewardModel of [undefined, { name: "other", score: () => Promise.reject() } as Scorer]) {
      const { code, message } = await failure(await tiny({ out, rewardModel }));
      assertEquals(code, "mismatch");
      assertMatch(message, /scores\.json holds scores by stand-in, this study has (no reward model|other); /);
    }
  }));

Deno.test("a directory with another study is left alone, unless it is to be overwritten", () =>
  inTempDir(async (out) => {
    const first = await study(await tiny({ out }));
    first.lora[Symbol.dispose]();
    const before = await Deno.readTextFile(`${out}/study.json`);
    using merged = await GPT2.load("nano");
    await merged.merge(await Lora.load(`${out}/adapter`));
    const cases: [StudyOptions, RegExp][] = [
      [{ training: { steps: 4 } }, /holds a study with training\.batchSize 1, this one has 4; use the same/],
      [{ maxTokens: 5 }, /with answers\.maxTokens 4, this one has 5;/],
      [{ questions: 3 }, /with questions 2, this one has 3;/],
      [{ lora: { rank: 3, targets: ["c_attn"] } }, /with training\.lora\.rank 2, this one has 3;/],
      [{ model: merged }, /with model\.digest "/],
      [{ evalData: (await SMALL()).evalData!.slice(1) }, /with heldOut "12 examples .*", this one has "11 /],
    ];
    for (const [options, expected] of cases) {
      const { code, message } = await failure(await tiny({ out, ...options }));
      assertEquals(code, "mismatch");
      assertMatch(message, expected);
    }
    assertEquals(await Deno.readTextFile(`${out}/study.json`), before);
    const anew = await study(await tiny({ out, questions: 1, overwrite: true }));
    anew.lora[Symbol.dispose]();
    assertEquals(JSON.parse(await Deno.readTextFile(`${out}/study.json`)).answers.length, 1);
  }));

Deno.test("a damaged part, a changed adapter and lost steps are errors that say what to do", () =>
  inTempDir(async (out) => {
    const again = async () => (await study(await tiny({ out }))).lora[Symbol.dispose]();
    await again();
    const path = `${out}/parts/loss-base.json`, whole = await Deno.readTextFile(path);
    for (const damaged of [whole.slice(0, 9), "{}", '{"loss":"x","tokens":1,"seconds":1}']) {
      await Deno.writeTextFile(path, damaged);
      const { code, message } = await failure(await tiny({ out }));
      assertEquals([code, message], ["format", `${path}: damaged; remove it to have that part done anew`]);
    }
    await Deno.remove(path);
    await again();
    const metrics = await Deno.readTextFile(`${out}/metrics.jsonl`);
    await Deno.writeTextFile(`${out}/metrics.jsonl`, metrics.slice(metrics.indexOf("\n") + 1));
    assertMatch(
      (await failure(await tiny({ out }))).message,
      /metrics\.jsonl: not the 3 steps of this study/,
    );
    await Deno.writeTextFile(`${out}/metrics.jsonl`, metrics);
    using model = await GPT2.load("nano");
    await Lora.create(model, { rank: 2, seed: 9 }).save(`${out}/adapter`);
    const changed = await failure(await tiny({ out }));
    assertEquals(changed.code, "mismatch");
    assertMatch(changed.message, /adapter is not the adapter that this study trained; /);
  }));

Deno.test("two processes, or calls, do not work on one directory at a time", () =>
  inTempDir(async (out) => {
    let second: Promise<WhetError> | undefined;
    const options = await tiny({ out });
    const { lora } = await study({ ...options, onStep: () => void (second ??= failure(options)) });
    lora[Symbol.dispose]();
    assertMatch((await second!).message, /another process is at work on the study there/);
  }));

Deno.test("an adapter is compared without any training, whichever way it came", () =>
  inTempDir(async (directory) => {
    using model = await GPT2.load("nano");
    const trained = await study(await tiny({ model }));
    await trained.lora.save(directory);
    using adapter = await Lora.load(directory);
    const { evalData, lora: _, training, data: __, ...rest } = await tiny({
      model,
      adapter,
      out: `${directory}/out`,
    });
    const { steps: ___, ...how } = training!;
    const onStep = () => assert(false, "a step");
    const compared = await study({ ...rest, evalData, training: { ...how, lossOn: "all" }, onStep });
    assertEquals(compared.lora, adapter);
    const { result, report } = compared;
    assertEquals([result.lossBase, result.lossTuned], [trained.result.lossBase, trained.result.lossTuned]);
    assertEquals(result.answers, trained.result.answers);
    assertEquals([result.points, result.evalPoints, result.adapter], [[], [], directory]);
    assertMatch(report, /No step was trained: the adapter was there already/);
    assertEquals(await exists(`${directory}/out/adapter`), false);
    trained.lora[Symbol.dispose]();
  }));

Deno.test("a reward model that cannot be had ends the study before it begins, one that can is in memory only for a while", async () => {
  const absent = { name: "absent", load: () => Promise.reject(new WhetError("network", "not there")) };
  const happened: unknown[] = [];
  const { message } = await failure(
    await tiny({ rewardModel: absent, onProgress: (at) => happened.push(at) }),
  );
  assertEquals([message, happened], ["not there", []]);

  class Large extends StandIn implements Disposable {
    [Symbol.dispose]() {
      happened.push("disposed");
    }
  }
  const load = () => {
    happened.push("loaded");
    return Promise.resolve(new Large(() => happened.push("scored")));
  };
  const { lora, result } = await study(await tiny({ rewardModel: { name: "large", load } }));
  lora[Symbol.dispose]();
  assertEquals(happened, ["loaded", "scored", "disposed", "loaded", "scored", "disposed"]);
  assertEquals(result.scores?.judge, "large");
});

Deno.test("a score that is not a number is an error, not a figure", async () => {
  const name = "broken";
  const score = (pairs: readonly ScoredPair[]) => Promise.resolve(new Float32Array(pairs.length).fill(NaN));
  const error = await failure(await tiny({ rewardModel: { name, score } }));
  assertEquals(error.code, "diverged");
  assertMatch(error.message, /broken: its score of question 1 is not a number/);
  // One that is loaded for the study is tried before anything is trained.
  const parts: unknown[] = [];
  const load = () => Promise.resolve({ name, score });
  const early = await failure(
    await tiny({ rewardModel: { name, load }, onProgress: (at) => parts.push(at) }),
  );
  assertMatch(early.message, /broken: its score of a trial answer is not a number; its weights are broken/);
  assertEquals(parts, []);
});

Deno.test("aborted, it throws the reason, and the next call goes on", () =>
  inTempDir(async (out) => {
    const controller = new AbortController();
    const reason = new Error("enough");
    const onProgress = ({ part }: { part: string }) => part === "answers, plain" && controller.abort(reason);
    const thrown = await assertRejects(async () =>
      await study(await tiny({ out, onProgress, signal: controller.signal }))
    );
    assertEquals(thrown, reason);
    const parts: string[] = [];
    const rest = await study(
      await tiny({ out, onProgress: ({ part, done }) => parts.push(`${part} ${done}`) }),
    );
    const whole = await study(await tiny());
    assertEquals(withoutTimes(rest.result), withoutTimes(whole.result));
    assertEquals(parts[0], "answers, plain 2");
    for (const { lora } of [rest, whole]) lora[Symbol.dispose]();
  }));

Deno.test("scores are summed up by pairs: a tie is neither won nor lost", () => {
  const scores = { judge: "j", base: [0, 1, 2, 3], tuned: [1, 1, 1.5, 5], seconds: 0 };
  const summary = summarise(scores, 1)!;
  const { meanBase, meanTuned, difference, wins, ties, losses, signTest } = summary;
  assertEquals([meanBase, meanTuned, difference], [1.5, 2.125, 0.625]);
  assertEquals([wins, ties, losses, signTest], [2, 1, 1, 1]);
  assertEquals(summarise(scores, 1), summary);
  assertEquals(summarise({ ...scores, base: [], tuned: [] }, 1), undefined);
});
