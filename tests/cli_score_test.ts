/**
 * `whet score` with a reward model and with a judge: what is printed, what is left out, wrong usage.
 */
import { assert, assertAlmostEquals, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { type ComparisonResult, reportRewards, type RewardResult } from "../src/cli/score_reward.ts";
import { SCORE } from "../src/cli/command_flags.ts";
import { parseFlags, UsageError } from "../src/cli/flags.ts";
import { runScore } from "../src/cli/score.ts";
import { Dialogues } from "../src/data/dialogues.ts";
import type { Example } from "../src/data/example.ts";
import { WhetError } from "../src/errors.ts";
import { preference, scoreStretches, selectComparisons, selectPairs } from "../src/score/pairs.ts";
import type { ScoredPair, Scorer } from "../src/score/scorer.ts";
import { wilson } from "../src/score/statistics.ts";
import { inTempDir, MODEL, refused, whet } from "./support/cli.ts";
import { rated, standIn } from "./support/judge_server.ts";

const ask = (text: string) => `\n\nHuman: ${text}\n\nAssistant:`;
const pair = (question: string, chosen: string, rejected: string) => ({
  chosen: `${ask(question)} ${chosen}`,
  rejected: `${ask(question)} ${rejected}`,
});

/** Scores an answer by its length, and remembers how many came at a time. */
function ruler(score = ({ response }: ScoredPair) => response.length) {
  const calls: number[] = [], seen: ScoredPair[] = [];
  const scorer: Scorer & Disposable = {
    name: "a ruler",
    score(pairs, { onProgress, signal } = {}) {
      signal?.throwIfAborted();
      calls.push(pairs.length);
      seen.push(...pairs);
      onProgress?.(pairs.length, pairs.length);
      return Promise.resolve(Float32Array.from(pairs, score));
    },
    [Symbol.dispose]() {
      calls.push(-1);
    },
  };
  return { scorer, calls, seen };
}

const EXAMPLES: Example[] = [
  pair("a", "good", "bad"),
  { prompt: "1, 2,", response: " 3 " },
  { text: `${ask("b")} first${ask("c")} second ` },
  { text: "no dialogue" },
  { tokens: [1, 2] },
  { chosen: "\n\nHuman: d" },
  { chosen: `${ask("e")} yes\n\nHuman: and`, rejected: `${ask("e")} no` },
  { chosen: `${ask("f")} alone` },
  { chosen: `${ask("g")} x`, rejected: `${ask("h")} y` },
  pair("i", "", "empty"),
];

Deno.test("the last answer is taken, with all before it as the prompt; what has none is left out and counted", () => {
  const { pairs, at, leftOut } = selectPairs(EXAMPLES);
  assertEquals(pairs, [
    { prompt: ask("a"), response: "good" },
    { prompt: "1, 2,", response: " 3 " },
    { prompt: `${ask("b")} first${ask("c")}`, response: "second" },
    { prompt: ask("f"), response: "alone" },
    { prompt: ask("g"), response: "x" },
    { prompt: ask("i"), response: "" },
  ]);
  assertEquals(at, [0, 1, 2, 7, 8, 9]);
  assertEquals(leftOut, [
    { reason: "there is no answer of the assistant", count: 2, first: 3 },
    { reason: "token ids are no text", count: 1, first: 4 },
    { reason: "the dialogue ends with a question", count: 1, first: 6 },
  ]);
  const rejected = selectPairs(EXAMPLES, "rejected");
  assertEquals(rejected.pairs.map(({ response }) => response), ["bad", "no", "y", "empty"]);
  assertEquals(rejected.leftOut, [{ reason: 'there is no "rejected" answer', count: 6, first: 1 }]);
});

Deno.test("answers are compared only where both follow the same prompt", () => {
  const { chosen, rejected, at, leftOut } = selectComparisons(EXAMPLES);
  assertEquals(at, [0, 9]);
  assertEquals(chosen.map(({ response }) => response), ["good", ""]);
  assertEquals(rejected.map(({ response }) => response), ["bad", "empty"]);
  assertEquals(chosen.map(({ prompt }) => prompt), rejected.map(({ prompt }) => prompt));
  assertEquals(leftOut.map(({ count, first }) => [count, first]), [[6, 1], [1, 6], [1, 8]]);
  assertMatch(leftOut[2].reason, /do not follow the same prompt/);
});

Deno.test("preference counts a tie apart, and its figures are those of the pairs", () => {
  const chosen = [3, 1, 2, 2, 5], rejected = [1, 1, 4, 0, 4];
  const { interval, ...rest } = preference(chosen, rejected);
  assertEquals(interval, wilson(3, 5));
  assertEquals(rest, {
    ...{ accuracy: 0.6, n: 5, wins: 3, ties: 1, losses: 1, meanMargin: 0.6 },
    standardError: Math.sqrt(((1.4 ** 2) * 2 + 0.6 ** 2 + 2.6 ** 2 + 0.4 ** 2) / 4 / 5),
  });
  const { accuracy, n, ties } = preference([], []);
  assertEquals([accuracy, n, ties], [NaN, 0, 0]);
});

Deno.test("stretches come in order, with progress over all; a score that is no number is told", async () => {
  const { scorer, calls } = ruler();
  const pairs = Array.from({ length: 7 }, (_, i) => ({ prompt: "", response: "x".repeat(i) }));
  const got: number[] = [], done: number[] = [];
  for await (
    const { start, scores } of scoreStretches(scorer, pairs, { stretch: 3, onProgress: (n) => done.push(n) })
  ) {
    assertEquals(start, got.length);
    got.push(...scores);
  }
  assertEquals([got, calls], [[0, 1, 2, 3, 4, 5, 6], [3, 3, 1]]);
  assertEquals([...new Set(done)], [3, 6, 7]);
  const broken = ruler(() => NaN).scorer;
  const error = await assertRejects(() => scoreStretches(broken, pairs).next(), WhetError, "is not a number");
  assertEquals(error.code, "diverged");
});

const silent = { json: true, quiet: true, side: undefined };

Deno.test("a reward model's result is mean, standard error and the scores in the data's order", async () => {
  const { scorer, calls } = ruler();
  const open = () => Promise.resolve(scorer);
  const data = Dialogues.from(EXAMPLES);
  const result = await reportRewards(open, data, { ...silent, pairs: false }) as RewardResult;
  assertEquals(result.scores, [4, 3, 6, 5, 1, 0]);
  assertAlmostEquals(result.mean, 19 / 6, 1e-12);
  assertAlmostEquals(result.standard_error!, Math.sqrt((87 - 361 / 6) / 5 / 6), 1e-12);
  assertEquals([result.n, result.left_out, calls], [6, 4, [6, -1]]);
  const other = await reportRewards(open, data, {
    ...silent,
    pairs: false,
    side: "rejected",
  }) as RewardResult;
  assertEquals(other.scores, [3, 2, 1, 5]);
  const one = Dialogues.from([EXAMPLES[1]]);
  const single = await reportRewards(open, one, { ...silent, pairs: false }) as RewardResult;
  assertEquals([single.mean, single.standard_error], [3, null]);
});

Deno.test("a comparison scores both answers of each pair side by side, in stretches that end together", async () => {
  const { scorer, calls, seen } = ruler();
  const words = Array.from({ length: 40 }, (_, i) => pair(`${i}`, "x".repeat(i % 3), "x"));
  const result = await reportRewards(() => Promise.resolve(scorer), Dialogues.from(words), {
    ...silent,
    pairs: true,
  }) as ComparisonResult;
  assertEquals([result.wins, result.ties, result.losses, result.n], [13, 13, 14, 40]);
  assertEquals([result.accuracy, result.interval], [13 / 40, wilson(13, 40)]);
  assertAlmostEquals(result.mean_margin, -1 / 40, 1e-12);
  assertEquals(result.scores, words.map((_, i) => i % 3));
  assertEquals(result.scores_rejected, words.map(() => 1));
  assertEquals([result.mean_rejected, result.left_out], [1, 0]);
  assertEquals(calls, [32, 32, 16, -1]);
  for (let i = 0; i < seen.length; i += 2) assertEquals(seen[i].prompt, seen[i + 1].prompt);
});

Deno.test("data without an answer are refused before a model is loaded; an abort frees the model", async () => {
  const nothing = Dialogues.from([{ text: "a" }, { tokens: [1] }]);
  const open = () => Promise.reject(new Error("loaded for nothing"));
  const values = { ...silent, pairs: false };
  const error = await assertRejects(() => reportRewards(open, nothing, values), WhetError);
  assertEquals(error.code, "format");
  assertEquals(
    error.message,
    "none of the 2 examples can be scored: 1: there is no answer of the assistant (first: example 1); " +
      "1: token ids are no text (first: example 2)",
  );
  const { scorer, calls } = ruler();
  const reason = new Error("stop"), signal = AbortSignal.abort(reason);
  const data = Dialogues.from(EXAMPLES);
  const aborted = await assertRejects(() =>
    reportRewards(() => Promise.resolve(scorer), data, values, { signal })
  );
  assertEquals([aborted, calls], [reason, [-1]]);
});

Deno.test("flags that do not go together are wrong usage", async () => {
  const judge = ["--judge", "http://localhost:1", "--judge-model", "m"];
  const cases: [string[], RegExp][] = [
    [[], /^--model is missing: which model to score with, or else --reward-model or --judge$/],
    [["--model", MODEL, "--reward-model", "r"], /^--model and --reward-model: one of them at a time$/],
    [["--reward-model", "r", ...judge], /^--reward-model and --judge: one of them at a time$/],
    [["--model", MODEL, "--pairs"], /^--pairs goes with --reward-model, not with --model$/],
    [["--model", MODEL, "--side", "chosen"], /^--side goes with --reward-model or --judge, not with/],
    [["--model", MODEL, "--judge-model", "m"], /^--judge-model goes with --judge, not with --model$/],
    [
      ["--reward-model", "r", "--adapter", "a"],
      /^--adapter goes with --model, not with --reward-model/,
    ],
    [["--reward-model", "r", "--seq-len", "9"], /^--seq-len goes with --model, not with/],
    [["--reward-model", "r", "--pairs", "--side", "rejected"], /^--pairs compares both sides: leave/],
    [["--reward-model", "r", "--side", "left"], /^--side: expected chosen, rejected, got "left"$/],
    [[...judge, "--pairs"], /^--pairs goes with --reward-model, not with --judge$/],
    [[...judge, "--weights", "q8"], /^--weights goes with --model or --reward-model, not with --judge/],
    [["--judge", "http://localhost:1"], /^--judge-model is missing: the judge's name/],
    [["--judge", "localhost", "--judge-model", "m"], /^url \(--judge\): expected an http\(s\) address/],
    [
      [...judge, "--judge-concurrency", "0"],
      /^--judge-concurrency: expected a whole number of at least 1/,
    ],
    [
      [...judge, "--judge-key-env", "sk-proj-1"],
      /^--judge-key-env: expected the name of an .*variable, not/,
    ],
  ];
  const run = async (flags: string[]) =>
    await runScore(parseFlags(SCORE, ["--data", "/nowhere.jsonl", ...flags]));
  for (const [flags, message] of cases) {
    assertMatch((await assertRejects(() => run(flags), UsageError)).message, message);
  }
  const message =
    /^whet: --pairs goes with --reward-model, not with --judge; whet score --help lists the flags\n$/;
  await refused(["score", "--data", "/nowhere.jsonl", ...judge, "--pairs"], { code: 2, message });
});

Deno.test("a judge's ratings are printed by line, its mean last; what it says unclearly is shown", () =>
  inTempDir(async (directory) => {
    const data = `${directory}/data.jsonl`;
    const answers = ["ten", "two", "odd", "five"];
    await Deno.writeTextFile(
      data,
      answers.map((answer) => JSON.stringify(pair("q", answer, "worst"))).join("\n") + '\n{"text":"none"}\n',
    );
    const says: Record<string, string> = {
      ...{ ten: "[[10]]", two: "[[2]]", odd: "eight\u001b[31m of 10", five: "[[5]]", worst: "[[1]]" },
    };
    await using server = standIn(({ text, headers }) =>
      headers.get("authorization") === "Bearer sk-secret"
        ? rated(says[/<answer>\n(\w+)/.exec(text)![1]])
        : new Response("", { status: 401 })
    );
    const score = ["score", "--data", data, "--judge", `${server.url}/v1`, "--judge-model", "m"];
    const keyed = [...score, "--judge-key-env", "WHET_KEY"], env = { WHET_KEY: "sk-secret\n" };
    const net = `--allow-net=${new URL(server.url).host}`;
    const [plain, object, rejected] = await Promise.all([
      whet(keyed, { env }),
      whet([...keyed, "--json", "--quiet", "--judge-concurrency", "2"], {
        env,
        permissions: [`--allow-read=${directory}`, net, "--allow-env=WHET_KEY"],
      }),
      whet([...keyed, "--json", "--quiet", "--side", "rejected"], { env }),
    ]);
    assertEquals([plain.code, object.code, rejected.code], [0, 0, 0], plain.stderr + object.stderr);
    assertEquals(plain.stdout.split("\n"), [
      `${data}, line 1: 10`,
      `${data}, line 2: 2`,
      `${data}, line 3: unreadable`,
      `${data}, line 4: 5`,
      "mean rating 5.6667 ± 2.3333, 3 answers, 1 unreadable",
      "",
    ]);
    assertMatch(plain.stderr, /^1 of 5 examples are left out: 1: there is no answer .* line 5\)\n/);
    assertMatch(plain.stderr, /line 3: the reply has no clear rating: "eight \[31m of 10"\n/);
    assert(!/sk-secret/.test(plain.stderr + plain.stdout));
    const { mean, standard_error, ...rest } = JSON.parse(object.stdout);
    assertAlmostEquals(mean, 17 / 3, 1e-12);
    assertAlmostEquals(standard_error, 7 / 3, 1e-12);
    assertEquals(rest, { ratings: [10, 2, null, 5], n: 3, unreadable: 1, left_out: 1 });
    assertEquals(object.stderr, "");
    assertEquals(JSON.parse(rejected.stdout).ratings, [1, 1, 1, 1]);

    const before = server.requests.length, quiet = "--quiet";
    await Promise.all([
      refused([...score, quiet], {
        code: 1,
        message: /^whet: 127\.0\.0\.1:\d+: answered 401: it wants a key; /,
      }),
      refused([...keyed, quiet], {
        code: 1,
        message: /^whet: --judge-key-env: WHET_KEY is not set; put the/,
      }),
      refused([...keyed, quiet], {
        ...{ code: 1, env, permissions: [`--allow-read=${directory}`, net] },
        message: /^whet: --judge-key-env: no permission to read WHET_KEY; add --allow-env=WHET_KEY\n$/,
      }),
      refused([...score, quiet], {
        ...{ code: 1, permissions: [`--allow-read=${directory}`] },
        message: /^whet: 127\.0\.0\.1:\d+: no permission to reach it: add --allow-net=127\.0\.0\.1:\d+\n$/,
      }),
    ]);
    assert(server.requests.length - before <= 4);
  }));

Deno.test({
  name: "Ctrl-C ends a judge's work at once, with one line that says how far it came",
  ignore: Deno.build.os === "windows",
  fn: () =>
    inTempDir(async (directory) => {
      const data = `${directory}/data.jsonl`;
      const line = JSON.stringify(pair("q", "a", "b"));
      await Deno.writeTextFile(data, `${line}\n`.repeat(9));
      const busy = Promise.withResolvers<void>();
      let calls = 0;
      await using server = standIn(async () => {
        if (++calls <= 2) return rated("[[5]]");
        busy.resolve();
        await new Promise((resolve) => setTimeout(resolve, 3000));
        return rated("[[5]]");
      });
      const child = new Deno.Command(Deno.execPath(), {
        args: ["run", "--no-prompt", "-A", new URL("../mod.ts", import.meta.url).pathname, "score"].concat(
          ["--data", data, "--judge", server.url, "--judge-model", "m", "--judge-concurrency", "1", "--json"],
        ),
        ...{ stdin: "null", stdout: "piped", stderr: "piped" },
      }).spawn();
      await busy.promise;
      const began = performance.now();
      child.kill("SIGINT");
      const { code, stdout, stderr } = await child.output();
      assert(performance.now() - began < 2000);
      assertEquals([code, stdout.length], [130, 0]);
      assertMatch(new TextDecoder().decode(stderr), /whet: stopped after 2 ratings; nothing is written\n$/);
    }),
});

/** A tiny reward model with its tokenizer, the pairs that it was tried on, and PyTorch's scores of them. */
async function rewardModel(directory: string): Promise<{ pairs: ScoredPair[]; saved: number[] }> {
  const from = new URL("fixtures/deberta/", import.meta.url);
  await Deno.mkdir(directory);
  for (const file of ["saved/config.json", "saved/model.safetensors", "tokenizer.json"]) {
    await Deno.copyFile(new URL(file, from), `${directory}/${file.split("/").at(-1)}`);
  }
  return JSON.parse(await Deno.readTextFile(new URL("expected.json", from)));
}

Deno.test("a reward model from a directory gives each line the score that PyTorch gives it", () =>
  inTempDir(async (directory) => {
    const model = `${directory}/model`, data = `${directory}/data.jsonl`, pairs = `${directory}/pairs.jsonl`;
    const expected = await rewardModel(model);
    // A line's fields may not be empty.
    const full = expected.pairs.flatMap((pair, i) => pair.prompt && pair.response ? [i] : []);
    const lines = full.map((i) => `${JSON.stringify(expected.pairs[i])}\n`);
    await Deno.writeTextFile(data, lines.join("") + '{"text":"none"}\n');
    const twins = [pair("is it?", "it is", "no"), pair("is it?", "no", "it is"), pair("why", "so", "so")];
    await Deno.writeTextFile(pairs, twins.map((pair) => JSON.stringify(pair)).join("\n"));
    const score = ["score", "--reward-model", model, "--backend", "wasm", "--threads", "1", "--data"];
    const [plain, object, compared, comparedPlain] = await Promise.all([
      whet([...score, data]),
      whet([...score, data, "--json", "--quiet"], { permissions: [`--allow-read=${directory}`] }),
      whet([...score, pairs, "--pairs", "--json", "--quiet"]),
      whet([...score, pairs, "--pairs", "--quiet"]),
    ]);
    const codes = [plain, object, compared, comparedPlain].map(({ code }) => code);
    assertEquals(codes, [0, 0, 0, 0], plain.stderr + object.stderr + compared.stderr);
    const { mean, scores, n, left_out } = JSON.parse(object.stdout) as RewardResult;
    assertEquals([n, left_out, object.stderr], [full.length, 1, ""]);
    for (const [at, i] of full.entries()) assertAlmostEquals(scores[at], expected.saved[i], 1e-4);
    assertAlmostEquals(mean, scores.reduce((sum, score) => sum + score) / n, 1e-12);
    const printed = plain.stdout.trimEnd().split("\n");
    assertEquals(
      printed.slice(0, -1),
      scores.map((score, i) => `${data}, line ${i + 1}: ${score.toFixed(4)}`),
    );
    assertMatch(
      printed.at(-1)!,
      new RegExp(`^mean reward ${mean.toFixed(4)} ± \\d\\.\\d{4}, ${n} answers$`),
    );
    assertMatch(
      plain.stderr,
      /^1 of \d examples are left out: 1: there is no answer of the assistant \(first: /,
    );

    const comparison = JSON.parse(compared.stdout) as ComparisonResult;
    const { wins, ties, losses, accuracy, mean_margin, scores_rejected } = comparison;
    assertEquals([wins, ties, losses, accuracy], [1, 1, 1, 1 / 3]);
    assertEquals([comparison.scores[0], comparison.scores[1]], [scores_rejected[1], scores_rejected[0]]);
    assertAlmostEquals(mean_margin, 0, 1e-12);
    assertMatch(comparedPlain.stdout, /line 3: chosen (\S+), rejected \1, margin 0\.0000\n/);
    assertMatch(
      comparedPlain.stdout,
      /\npreference accuracy 33\.3 % \(95 % interval 6\.1 to 79\.2\), 3 pairs: 1 won, 1 tied, 1 lost; mean margin /,
    );

    await Deno.writeTextFile(`${directory}/none.jsonl`, '{"prompt":"a","response":"b"}\n');
    await refused([...score, `${directory}/none.jsonl`, "--pairs", "--quiet"], {
      code: 1,
      message: /^whet: none of the 1 examples can be scored: 1: there is no "rejected" answer \(first: /,
    });
    await refused(["score", "--reward-model", MODEL, "--data", data, "--quiet"], {
      code: 1,
      message: /^whet: \S+config\.json: it describes a GPT-2, .*; here a reward model is wanted/,
    });
  }));

Deno.test({
  name: "Ctrl-C ends a reward model's work after the batch, and says how far it came",
  ignore: Deno.build.os === "windows",
  fn: () =>
    inTempDir(async (directory) => {
      await rewardModel(`${directory}/model`);
      const line = JSON.stringify({ prompt: "is it? ".repeat(9), response: "it is" });
      await Deno.writeTextFile(`${directory}/data.jsonl`, `${line}\n`.repeat(20_000));
      const child = new Deno.Command(Deno.execPath(), {
        args: ["run", "--no-prompt", "-A", new URL("../mod.ts", import.meta.url).pathname, "score"].concat(
          ["--data", `${directory}/data.jsonl`, "--reward-model", `${directory}/model`, "--backend", "wasm"],
          ["--threads", "1"],
        ),
        ...{ stdin: "null", stdout: "piped", stderr: "piped" },
      }).spawn();
      const reader = child.stdout.getReader();
      const first = new TextDecoder().decode((await reader.read()).value);
      assertMatch(first, /^\S+data\.jsonl, line 1: -?\d\.\d{4}\n/);
      child.kill("SIGINT");
      while (!(await reader.read()).done);
      const { code } = await child.status;
      const stderr = await new Response(child.stderr).text();
      assertEquals(code, 130, stderr);
      assertMatch(stderr, /whet: stopped after \d+ of 20000 answers; nothing is written\n$/);
    }),
});
