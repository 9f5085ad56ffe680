import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { studyReport } from "../src/report/study_report.ts";
import type { StudyResult } from "../src/report/study_result.ts";

const RESULT: StudyResult = {
  model: "nano",
  data: "450 dialogues, 60 others held out",
  lossBase: 1.2875,
  lossTuned: 0.398,
  perplexityBase: Math.exp(1.2875),
  perplexityTuned: Math.exp(0.398),
  evalTokens: 1189,
  points: Array.from({ length: 200 }, (_, i) => ({ step: i + 1, loss: 0.4 + Math.exp(-i / 30) })),
  evalPoints: [{ step: 0, loss: 1.2875 }, { step: 200, loss: 0.398 }],
  answers: [
    {
      prompt: "\n\nHuman: What sound does an owl make?\n\nAssistant:",
      base: "You ask about owls.",
      tuned: "An owl says hoot.",
    },
    { prompt: "Once upon", base: "", tuned: " a time", reference: "a midnight" },
  ],
  settings: { steps: 200, "learning rate": 0.005, targets: "c_attn" },
  parametersTrained: 14_336,
  parametersTotal: 722_848,
  tokensPerSecond: 5421.4,
  seconds: 41.3,
  environment: { whet: "0.1.0", deno: "2.9.6", backend: "WASM, 2 threads", device: "x86_64" },
};

/** The page's elements, checked to be opened and closed in order. */
function elements(html: string): string[] {
  const single = new Set(["meta", "br", "img", "rect", "path", "circle"]);
  const open: string[] = [];
  const seen: string[] = [];
  const body = html.replace(/^<!DOCTYPE html>/, "").replace(/<style>[^<]*<\/style>/g, "");
  for (
    const [, close, name, empty] of body.matchAll(/<(\/?)([a-z][a-z0-9]*)(?:\s[-:\w]+="[^"<]*")*\s*(\/?)>/g)
  ) {
    if (close) assertEquals(open.pop(), name);
    else if (!empty && !single.has(name)) open.push(name);
    if (!close) seen.push(name);
  }
  assertEquals(open, []);
  assert(!/<(?![/a-z!])/.test(body), "a bracket that begins no element");
  return seen;
}

/** The page's text as a reader sees it. */
function read(html: string): string {
  return html.replace(/<style>[^<]*<\/style>/g, "").replace(/<svg.*?<\/svg>/gs, "").replace(/<[^>]*>/g, " ")
    .replace(/\s+/g, " ").replace(/ ([.,])/g, "$1");
}

Deno.test("a report is one well-formed page without scripts, links or outside resources", () => {
  const html = studyReport(RESULT);
  const seen = elements(html);
  for (const name of ["script", "link", "iframe", "img", "object", "a"]) assert(!seen.includes(name), name);
  assert(!/url\(|@import|\bon[a-z]+="/.test(html));
  assertEquals(
    [...html.matchAll(/https?:\/\/[^"\s<]+/g)].map(String),
    Array(2).fill("http://www.w3.org/2000/svg"),
  );
  assertStringIncludes(html, `content="default-src 'none'; style-src 'unsafe-inline'"`);
  assertEquals(seen.filter((name) => name === "h1").length, 1);
  assertEquals(seen.filter((name) => name === "svg").length, 2);
  assertEquals(
    [...html.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id).length,
    new Set(html.match(/ id="[^"]+"/g)).size,
  );
  assertEquals(studyReport(RESULT), html);
});

Deno.test("the summary says the outcome in words, up, down and unchanged", () => {
  assertStringIncludes(
    read(studyReport(RESULT)),
    "the loss of nano fell from 1.2875 to 0.3980 nats per token (perplexity 3.62 to 1.49) after 200 steps of " +
      "fine-tuning, which trained 14,336 of the model's 722,848 parameters (2.0 %). The whole study took 41 s.",
  );
  assertStringIncludes(read(studyReport({ ...RESULT, lossTuned: 1.5 })), "rose from 1.2875 to 1.5000");
  assertStringIncludes(read(studyReport({ ...RESULT, lossTuned: 1.2875 })), "stayed at 1.2875 nats");
  assertStringIncludes(
    read(studyReport({ ...RESULT, parametersTrained: 722_848 })),
    "trained all 722,848 parameters",
  );
});

Deno.test("losses, settings and the run stand in tables with headings", () => {
  const text = read(studyReport(RESULT));
  assertStringIncludes(text, "Loss (nats per token) 1.2875 0.3980 −0.8895 −69.1 %");
  assertStringIncludes(text, "Means over 1,189 tokens of held-out text.");
  assertStringIncludes(text, "learning rate 0.005");
  assertStringIncludes(text, "backend WASM, 2 threads device x86_64 Whet 0.1.0 Deno 2.9.6");
  assertMatch(studyReport(RESULT), /<th scope="row">learning rate<\/th>/);
});

Deno.test("answers stand side by side; transcripts by turn, other prompts as they are, silence in words", () => {
  const text = read(studyReport(RESULT));
  assertStringIncludes(
    text,
    "Human What sound does an owl make? Plain You ask about owls. Fine-tuned An owl says hoot.",
  );
  assert(!text.includes("Assistant An owl"));
  assertStringIncludes(text, "Once upon Plain (nothing: the model ended its turn at once) Fine-tuned a time");
  assertStringIncludes(text, "The data's own answer: a midnight");
  assertStringIncludes(read(studyReport({ ...RESULT, answers: [] })), "No question was asked.");
});

Deno.test("whatever models and data say is text, never markup", () => {
  const evil = `</p><script>alert("1")</script><img src=x onerror='alert(1)'>&amp;\u0000`;
  const html = studyReport({
    ...RESULT,
    model: evil,
    data: evil,
    answers: [{ prompt: `\n\nHuman: ${evil}\n\nAssistant:`, base: evil, tuned: evil, reference: evil }, {
      ...{ prompt: evil, base: evil, tuned: evil },
    }],
    settings: { [evil]: evil },
    environment: { whet: evil, deno: evil, backend: evil, device: evil },
    scores: { ...SCORES, judge: evil },
  }, { title: evil });
  const seen = elements(html);
  assert(!seen.includes("script") && !seen.includes("img"));
  assert(!html.includes("\u0000"));
  assertEquals(html.split("&lt;script&gt;alert(&quot;1&quot;)").length - 1 > 15, true);
});

const SCORES = {
  judge: "reward-model",
  pairs: 50,
  meanBase: -0.6233,
  meanTuned: -0.5658,
  difference: 0.0575,
  interval: [0.01, 0.149] as [number, number],
  wins: 27,
  ties: 2,
  losses: 21,
  signTest: 0.47,
};

Deno.test("reward scores are reported with their interval if there are any, else their absence is", () => {
  const without = read(studyReport(RESULT));
  assertStringIncludes(without, "No reward model was given");
  assert(!without.includes("Reward scores"));
  const scored = studyReport({
    ...RESULT,
    scores: SCORES,
    answers: [{ ...RESULT.answers[0], scoreBase: -1.25, scoreTuned: 0.5 }],
  });
  elements(scored);
  const text = read(scored);
  assert(!text.includes("No reward model"));
  assertStringIncludes(text, "mean score went from −0.6233 to −0.5658 over 50 questions");
  assertStringIncludes(text, "−0.6233 −0.5658 +0.0575 +0.0100 to +0.1490 p = 0.47");
  assertStringIncludes(text, "answers score higher");
  assertStringIncludes(text, "better in 27 (54 %), equal in 2, worse in 21");
  assertStringIncludes(text, "Plain reward −1.250");
  const verdict = (low: number, high: number, more: Partial<typeof SCORES> = {}) =>
    read(studyReport({ ...RESULT, scores: { ...SCORES, interval: [low, high], ...more } }));
  assertStringIncludes(verdict(-0.1, 0.1), "The interval holds zero");
  assertStringIncludes(verdict(-0.2, -0.1, { signTest: 0.01 }), "answers score lower: the interval");
  assertStringIncludes(
    verdict(0.1, 0.2, { signTest: 0.51 }),
    "the sign test does not tell the two models apart",
  );
  const one = verdict(0.5, 0.5, { pairs: 1, wins: 1, ties: 0, losses: 0, signTest: 1 });
  assertStringIncludes(one, "over 1 question.");
  assertStringIncludes(one, "So few questions tell nothing");
  const same = { wins: 0, ties: 50, losses: 0, signTest: 1 };
  assertStringIncludes(verdict(0, 0, same), "Both models' answers score the same");
  assertStringIncludes(
    read(studyReport({ ...RESULT, answers: [] })),
    "No question was asked: there are no answers",
  );
});

Deno.test("a run of one step, of none, or without finite figures still makes a page", () => {
  const one = studyReport({ ...RESULT, points: [{ step: 1, loss: 2 }], evalPoints: [] });
  assertEquals(elements(one).filter((name) => name === "svg").length, 1);
  assertStringIncludes(read(one), "after 1 step of");
  assertStringIncludes(read(studyReport({ ...RESULT, points: [], evalPoints: [] })), "No step was trained.");
  const odd = studyReport({ ...RESULT, lossTuned: NaN, perplexityTuned: Infinity, perplexityBase: 0 });
  elements(odd);
  assert(!/>[^<]*(NaN|undefined)[^<]*</.test(odd));
});

Deno.test("a run of sixty thousand steps makes a page that any mail takes", () => {
  const points = Array.from({ length: 60_000 }, (_, i) => ({ step: i + 1, loss: 2 + Math.sin(i * 12.9898) }));
  const html = studyReport({ ...RESULT, points });
  assert(html.length < 200_000, `${html.length} characters`);
  assertStringIncludes(read(html), "means over windows of 1,000 steps");
});
