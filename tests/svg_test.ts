import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { stepAxis, valueAxis } from "../src/report/axis.ts";
import { lossCurve, type LossCurveOptions } from "../src/report/loss_curve.ts";
import { type LossPoint, niceWindow, thin, windowMeans } from "../src/report/series.ts";
import { textWidth } from "../src/report/svg_text.ts";
import { escapeText, formatBytes, formatDuration, formatNumber } from "../src/report/text.ts";
import { uniform } from "../src/tensor/random.ts";

/** A run that falls from 10 to 2 with noise. */
function run(
  steps: number,
  loss = (i: number) => 2 + 8 * Math.exp(-i / steps * 9) + uniform(i, [1, 2]),
): LossPoint[] {
  return Array.from({ length: steps }, (_, i) => ({ step: i + 1, loss: loss(i) }));
}

interface Label {
  left: number;
  right: number;
  top: number;
  bottom: number;
  text: string;
}

/** The picture's horizontal texts, each with about the room that it takes. */
function labels(svg: string): Label[] {
  return [...svg.matchAll(/<text x="([-\d.]+)" y="([-\d.]+)" ([^>]*)>([^<]*)<\/text>/g)]
    .filter(([, , , attributes]) => !attributes.includes("rotate"))
    .map(([, x, y, attributes, text]) => {
      const size = Number(/font-size="(\d+)"/.exec(attributes)![1]);
      const width = textWidth(text, size) * 0.9;
      const anchor = /text-anchor="(\w+)"/.exec(attributes)?.[1];
      const left = Number(x) - (anchor === "end" ? width : anchor === "middle" ? width / 2 : 0);
      return { left, right: left + width, top: Number(y) - size * 0.7, bottom: Number(y) + size * 0.2, text };
    });
}

/** Fails unless the picture is well-formed XML, small, finite, and no text lies on another or outside. */
function check(points: readonly LossPoint[], options: LossCurveOptions = {}): string {
  const svg = lossCurve(points, options);
  assert(svg.length < 150_000, `${svg.length} characters`);
  const open: string[] = [];
  for (
    const [, close, name, attributes, empty] of svg.matchAll(/<(\/?)([a-z]+)((?:\s[-:\w]+="[^"<]*")*)(\/?)>/g)
  ) {
    if (close) assertEquals(open.pop(), name);
    else if (!empty) open.push(name);
    for (const number of attributes.matchAll(/\b(?:x|y|d|cx|cy)="([^"]*)"/g)) {
      assert(!/NaN|Infinity|undefined|e\d/.test(number[1]), number[1].slice(0, 200));
    }
  }
  assertEquals(open, []);
  assertEquals(svg.replace(/<[^>]*>/g, "").includes("<"), false);
  const { width = 800, height = 420 } = options;
  const texts = labels(svg);
  for (const [i, a] of texts.entries()) {
    assert(a.left >= 0 && a.right <= width && a.top >= 0 && a.bottom <= height, `outside: ${a.text}`);
    for (const b of texts.slice(i + 1)) {
      const apart = a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
      assert(apart, `"${a.text}" lies on "${b.text}"`);
    }
  }
  return svg;
}

Deno.test("a loss curve names its axes, its marks and itself", () => {
  const svg = check(run(200), {
    title: "Fine-tuning",
    evalPoints: [{ step: 0, loss: 9 }, { step: 200, loss: 3 }],
  });
  for (
    const text of [
      "step",
      "loss (nats per token)",
      "every step",
      "mean over 5 steps",
      "held-out data",
      "Fine-tuning",
    ]
  ) {
    assert(svg.includes(`>${text}</text>`), text);
  }
  assert(/<title id="(\S+)-t">Fine-tuning<\/title>/.test(svg));
  assert(
    /<desc[^>]*>200 steps; the loss, averaged over 5 steps, goes from [\d.]+ to [\d.]+ nats per token\. Held-out/
      .test(svg),
  );
  assert(svg.includes("prefers-color-scheme: dark"));
  assertEquals(svg.match(/<circle/g)!.length, 3); // two evaluations, one in the legend
  assertEquals(lossCurve(run(200)), lossCurve(run(200)));
});

Deno.test("one point, no point, a constant and a single finite loss are pictures too", () => {
  const one = check([{ step: 1, loss: 3 }]);
  assert(/<path class="s0" d="M[\d.]+ [\d.]+h0"/.test(one), "a lonely point is a dot");
  check([]);
  check(run(500, () => 2));
  check(run(500, () => 0));
  check(run(10, (i) => i === 4 ? 1.5 : NaN));
  check(run(10, () => NaN));
});

Deno.test("losses that are not finite are gaps, and the legend counts them", () => {
  const gap = check(run(100, (i) => i >= 40 && i < 50 ? NaN : i === 70 ? Infinity : 2), { show: "steps" });
  const [, path] = /<path class="s0" d="(M[^"]+)" fill="none"/.exec(gap)!;
  assertEquals(path.split("M").length - 1, 3);
  assert(gap.includes("11 steps without a finite loss"));
  assert(!lossCurve(run(100)).includes("finite loss"));
});

Deno.test("runs of any length and range stay small and readable", () => {
  check(run(100_000));
  check(run(100_000, (i) => 10 ** (6 * Math.sin(i / 9000))));
  check(run(1000, (i) => 1e300 * (1 + i)));
  check(run(1000, (i) => -5 + uniform(i, [3, 4]) * 1e-9));
  check(run(60_000), { show: "means", window: 1000 });
  const series = [1, 2, 3, 4, 5].map((i) => ({
    name: `run ${i}`,
    points: run(100_000, (j) => i + uniform(j, [i, 9]) * 20),
  }));
  check(run(100_000, (j) => 20 * uniform(j, [0, 9])), { series });
});

Deno.test("small pictures, long titles and many names keep their texts apart", () => {
  const evalPoints = [{ step: 100, loss: 3.01 }, { step: 300, loss: 3 }];
  for (const [width, height] of [[320, 240], [480, 300], [1200, 700]]) {
    check(run(300), { width, height, evalPoints });
  }
  check(run(50), { title: "word ".repeat(100) });
  check(run(50), { title: "W".repeat(300) });
  check(run(300, () => 2), {
    series: ["a", "b", "c"].map((name) => ({ name: name.repeat(80), points: run(300, () => 2) })),
  });
});

Deno.test("names and titles cannot leave their place", () => {
  const evil = `</title><script>alert(1)</script>"'&\u0000\ud800`;
  const svg = check(run(5), { title: evil, name: evil, series: [{ name: evil, points: run(5) }] });
  assert(!svg.includes("<script"));
});

Deno.test("steps in any order, twice, or from the middle of a run are drawn in order", () => {
  const points = run(200);
  assertEquals(check(points.toReversed()), check(points));
  const late = check(points.map(({ step, loss }) => ({ step: step + 50_000, loss })));
  assert(late.includes(">50,100</text>"));
});

Deno.test("means cover every step once and follow the window", () => {
  const means = windowMeans(run(10, (i) => i), 4);
  assertEquals(means, [{ step: 2.5, loss: 1.5 }, { step: 6.5, loss: 5.5 }, { step: 9.5, loss: 8.5 }]);
  assertEquals(windowMeans(run(9, (i) => i), 4), [{ step: 2.5, loss: 1.5 }, { step: 7, loss: 6 }]);
  assertEquals(windowMeans([{ step: 1, loss: NaN }, { step: 2, loss: 4 }], 2), [{ step: 1.5, loss: 4 }]);
  assertEquals(windowMeans([{ step: 1, loss: NaN }], 3)[0].loss, NaN);
  assertEquals(windowMeans([], 5), []);
  assertEquals([1, 80, 200, 1000, 60_000].map(niceWindow), [1, 2, 5, 20, 1000]);
});

Deno.test("thinning keeps the lowest, the highest, the first and the last", () => {
  const points = run(50_000, (i) => i === 31_234 ? 99 : i === 777 ? -99 : uniform(i, [5, 6]));
  const few = thin(points, 300);
  assert(few.length <= 1200, `${few.length}`);
  for (const i of [0, 777, 31_234, 49_999]) assert(few.includes(points[i]), `step ${i + 1}`);
  assert(few.every(({ step }, i) => i === 0 || few[i - 1].step < step));
  const gap = thin(run(5000, (i) => i > 1000 && i < 4000 ? NaN : 1), 100);
  assert(gap.some(({ loss }) => Number.isNaN(loss)));
});

Deno.test("ticks are round numbers within the axis, and a thousandfold range is logarithmic", () => {
  const y = valueAxis([1.93, 10.8], 6);
  assertEquals(y.ticks.map(({ label }) => label), ["2", "4", "6", "8", "10"]);
  for (const { value } of y.ticks) assert(y.place(value) >= 0 && y.place(value) <= 1);
  assertEquals(valueAxis([0.001, 5], 5).logarithmic, true);
  assertEquals(valueAxis([0, 5000], 5).logarithmic, false);
  assertAlmostEquals(valueAxis([0.5, 0.501], 4).place(0.5005), 0.5, 1e-6);
  const steps = stepAxis([1, 60_000], () => 6);
  assertEquals(steps.ticks.map(({ label }) => label), [
    "0",
    "10,000",
    "20,000",
    "30,000",
    "40,000",
    "50,000",
    "60,000",
  ]);
  assertEquals(stepAxis([1, 3], () => 20).ticks.map(({ label }) => label), ["1", "2", "3"]);
});

Deno.test("numbers, times and sizes are written for people", () => {
  assertEquals(
    [43835, 2.10391, -0.6233, 0, 3.21e-5, 1e20, Infinity, NaN].map((value) => formatNumber(value)),
    [
      "43,835",
      "2.104",
      "−0.6233",
      "0",
      "3.21e-5",
      "1e20",
      "∞",
      "not a number",
    ],
  );
  assertEquals([-1, 0.42, 9.96, 59.6, 185, 7620, 59 * 3600, NaN].map(formatDuration), [
    "0 s",
    "0.4 s",
    "10 s",
    "1 min 00 s",
    "3 min 05 s",
    "2 h 07 min",
    "2 d 11 h",
    "unknown",
  ]);
  assertEquals([0, 999, 1400, 548_105_171, 2e15].map(formatBytes), [
    "0 B",
    "999 B",
    "1.4 kB",
    "548 MB",
    "2000 TB",
  ]);
  assertEquals(
    escapeText(`<a href="x">&'\u0007\ud800\n`),
    "&lt;a href=&quot;x&quot;&gt;&amp;&#39;\ufffd\ufffd\n",
  );
});
