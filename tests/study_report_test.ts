import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { scoreChart } from "../src/report/score_chart.ts";
import { studyPictures } from "../src/report/study_files.ts";
import { compareWithOriginal } from "../src/report/study_preset.ts";
import { studyReport } from "../src/report/study_report.ts";
import type { StudyResult } from "../src/report/study_result.ts";

const RESULT: StudyResult = {
  ...{ model: "gpt2", data: "9 examples, 3 others held out", lossBase: 3, lossTuned: 2.5 },
  ...{ perplexityBase: Math.exp(3), perplexityTuned: Math.exp(2.5), evalTokens: 100 },
  points: Array.from({ length: 2000 }, (_, i) => ({ step: i + 1, loss: 3 - i / 4000 })),
  evalPoints: [{ step: 0, loss: 3 }, { step: 2000, loss: 2.5 }],
  answers: Array.from({ length: 50 }, (_, i) => ({
    ...{ prompt: `\n\nHuman: question ${i}?\n\nAssistant:`, base: `plain ${i}`, tuned: `tuned ${i}` },
    ...{ scoreBase: -1, scoreTuned: -1 + (i - 20) / 10 },
  })),
  scores: {
    ...{ judge: "judge", pairs: 50, meanBase: -1, meanTuned: -0.55, difference: 0.45, interval: [0.1, 0.8] },
    ...{ wins: 29, ties: 1, losses: 20, signTest: 0.25, resamples: 10_000 },
  },
  settings: { steps: 2000, rank: 8, alpha: 16, targets: "c_attn", seed: 0 },
  ...{ parametersTrained: 10, parametersTotal: 1000, tokensPerSecond: 5, seconds: 100 },
  times: { "loss, plain": 40, training: 60 },
  environment: { whet: "0.1.0", deno: "2.9.6", backend: "WASM" },
};

/** The page's text as a reader sees it. */
function read(html: string): string {
  return html.replace(/<style>[^<]*<\/style>/g, "").replace(/<svg.*?<\/svg>/gs, "").replace(/<[^>]*>/g, " ")
    .replace(/\s+/g, " ");
}

/** A picture's bars: the rectangles with a colour of the runs', the legend's and the band left out. */
function bars(svg: string): string[] {
  const all = [...svg.matchAll(/<rect class="f\d" [^>]*>/g)].map(String);
  return all.filter((bar) => !/fill-opacity|rx=/.test(bar));
}

Deno.test("of many answers the first ten are shown, the rest folded away, none is lost", () => {
  const html = studyReport(RESULT);
  const [shown, folded] = html.split("<details>");
  assertEquals([shown, folded].map((part) => part.split(`<article class="card"`).length - 1), [10, 40]);
  assertStringIncludes(read(html), "The first 10 of 50 questions");
  assertStringIncludes(folded, "<summary>The other 40</summary>");
  assert(!studyReport({ ...RESULT, answers: RESULT.answers.slice(0, 12) }).includes("<details>"));
});

Deno.test("the page tells the time of each part, the reward's means and how the interval came about", () => {
  const text = read(studyReport(RESULT));
  assertStringIncludes(text, "Time loss, plain 40 s training 1 min 00 s");
  assertStringIncludes(text, "Mean reward −1.000 → −0.550 29 better, 1 equal, 20 worse");
  assertStringIncludes(text, "a bootstrap of their mean (10,000 resamples, percentiles)");
});

Deno.test("with an adapter that was given, nothing is said of steps or pace", () => {
  const text = read(studyReport({
    ...{ ...RESULT, adapter: "some/adapter", points: [], evalPoints: [], tokensPerSecond: 0 },
    scores: undefined,
  }));
  assertStringIncludes(
    text,
    "(perplexity 20.09 to 12.18) with the adapter some/adapter, whose 10 parameters",
  );
  assertStringIncludes(text, "No step was trained: the adapter was there already.");
  assert(!/tokens per second|after \d+ steps/.test(text), text);
});

Deno.test("beside the original stands what is known of it, what is not, and what was done here", () => {
  const comparison = compareWithOriginal(RESULT);
  const text = read(studyReport({ ...RESULT, comparison }));
  assertStringIncludes(text, "Beside the study that this repeats the original here model GPT-2 gpt2");
  assertStringIncludes(text, "steps about 60,000 2,000");
  assertStringIncludes(text, "mean score, plain −0.6233 −1.0000 mean score, fine-tuned −0.5658 −0.5500");
  assertStringIncludes(text, "adapter not known; Whet’s choice rank 8, alpha 16, on c_attn");
  const alone = compareWithOriginal({ ...RESULT, scores: undefined, points: [] });
  assertEquals(alone.filter(({ what }) => /score|judge/.test(what)).map(({ here }) => here), [
    ...["none", "not scored", "not scored"],
  ]);
  const evil = "<script>alert(1)</script>";
  const html = studyReport({
    ...RESULT,
    comparison: [{ what: evil, original: evil, here: evil }],
    adapter: evil,
  });
  assert(!html.includes("<script"));
});

Deno.test("the scores' picture has a bar for each question, from the worst to the best, above or below zero", () => {
  const svg = studyPictures(RESULT)["scores.svg"];
  const found = bars(svg);
  assertEquals(found.length, 50);
  const kinds = found.map((bar) => /class="f(\d)"/.exec(bar)![1]).join("");
  assertMatch(kinds, /^4{20}52{29}$/);
  assertMatch(
    svg,
    /<desc [^>]*>50 questions: 29 better, 1 equal, 20 worse; mean 0\.4500, interval 0\.1000 to 0\.8000\.</,
  );
  assertEquals(Object.keys(studyPictures({ ...RESULT, scores: undefined })), ["loss.svg", "loss-means.svg"]);
});

Deno.test("any scores make a picture without NaN: one, none that differ, huge ones", () => {
  for (const differences of [[0.5], [0, 0, 0], [1e12, -1e12], [1e-9]]) {
    const svg = scoreChart(differences, { interval: [Math.min(...differences), Math.max(...differences)] });
    assertEquals(bars(svg).length, differences.length);
    assert(!/NaN|Infinity|undefined|height="-/.test(svg), svg);
  }
});
