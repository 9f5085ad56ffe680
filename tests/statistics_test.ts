/**
 * The statistics of comparisons: against exact values, and by the properties that they have.
 */
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { bootstrapMean, mean, signTest, standardError, wilson } from "../src/score/statistics.ts";
import { uniform } from "../src/tensor/random.ts";
import { WhetError } from "../src/errors.ts";

Deno.test("mean and standard error are the textbook's, and NaN where there are none", () => {
  assertEquals(mean([2, 4, 4, 4, 5, 5, 7, 9]), 5);
  assertAlmostEquals(standardError([2, 4, 4, 4, 5, 5, 7, 9]), Math.sqrt(32 / 7 / 8), 1e-15);
  assertEquals(standardError(Float32Array.of(3, 3, 3)), 0);
  assertEquals([mean([]), standardError([]), standardError([1])], [NaN, NaN, NaN]);
});

Deno.test("the sign test equals the exact binomial sum, near 1/2 and in the far tail", () => {
  // Exact fractions of whole numbers, rounded once.
  const known: [number, number, number][] = [
    [9, 1, 0.021484375],
    [1, 0, 1],
    [6, 0, 0.03125],
    [30, 20, 0.20263875106454066],
    [600, 500, 0.0028195449914364275],
    [6000, 5000, 1.5489950994864186e-21],
  ];
  for (const [wins, losses, p] of known) {
    assertAlmostEquals(signTest(wins, losses) / p, 1, 1e-11, `${wins} to ${losses}`);
  }
  // 2 / 2^1200 is beyond the range of numbers, and so is nothing else on the way there.
  assertEquals(signTest(1200, 0), 0);
  assertEquals(signTest(1000, 0), 2 ** -999);
});

Deno.test("the sign test is even-handed, falls with the lead, and is 1 for a draw", () => {
  assertEquals(signTest(0, 0), 1);
  for (const n of [1, 2, 7, 50, 333]) {
    let before = Infinity;
    for (let wins = Math.ceil(n / 2); wins <= n; wins++) {
      const p = signTest(wins, n - wins);
      assertEquals(p, signTest(n - wins, wins));
      assert(p > 0 && p <= 1 && p <= before, `${wins} of ${n}: ${p}`);
      before = p;
    }
    if (n % 2 === 0) assertEquals(signTest(n / 2, n / 2), 1);
    assertEquals(before, n > 1 ? 2 ** (1 - n) : 1);
  }
});

Deno.test("Wilson's interval equals the formula's values", () => {
  const known: [number, number, number, number, number][] = [
    [40, 50, 0.95, 0.6696289406777459, 0.887562499842239],
    [0, 10, 0.95, 0, 0.27753279986288915],
    [10, 10, 0.99, 0.6011459066950919, 1],
    [1500, 2354, 0.9, 0.6207641581443698, 0.6533473029986261],
    [3, 7, 0.5, 0.3106034777497514, 0.5552572159915451],
  ];
  for (const [successes, trials, level, low, high] of known) {
    const got = wilson(successes, trials, level);
    assertAlmostEquals(got[0], low, 1e-12);
    assertAlmostEquals(got[1], high, 1e-12);
  }
  assertEquals(wilson(40, 50), wilson(40, 50, 0.95));
});

Deno.test("Wilson's interval holds the share, mirrors, narrows with trials and widens with the level", () => {
  assertEquals(wilson(0, 0), [0, 1]);
  for (const trials of [1, 2, 9, 50, 2354]) {
    for (const successes of new Set([0, 1, Math.floor(trials / 3), trials - 1, trials])) {
      const share = successes / trials;
      const [low, high] = wilson(successes, trials);
      assert(0 <= low && low <= share && share <= high && high <= 1 && low < high, `${successes}/${trials}`);
      const mirrored = wilson(trials - successes, trials);
      assertAlmostEquals(1 - mirrored[1], low, 1e-14);
      assertAlmostEquals(1 - mirrored[0], high, 1e-14);
      const tenfold = wilson(10 * successes, 10 * trials);
      assert(tenfold[1] - tenfold[0] < high - low);
      const surer = wilson(successes, trials, 0.9999999);
      assert(surer[0] <= low && high <= surer[1] && surer[1] - surer[0] > high - low);
    }
  }
});

Deno.test("a bootstrap interval is the same for a seed, another for another, and follows shift and scale", () => {
  const xs = Array.from({ length: 40 }, (_, i) => uniform(i, [1, 2]) - 0.4);
  const seeded = (seed: number, data: ArrayLike<number> = xs) =>
    bootstrapMean(data, { seed, resamples: 2000 });
  const [low, high] = seeded(3);
  assertEquals(seeded(3), [low, high]);
  assert(seeded(4)[0] !== low);
  assert(low < mean(xs) && mean(xs) < high);
  const moved = seeded(3, xs.map((x) => 2 * x + 5));
  assertAlmostEquals(moved[0], 2 * low + 5, 1e-12);
  assertAlmostEquals(moved[1], 2 * high + 5, 1e-12);
  const wide = bootstrapMean(xs, { seed: 3, resamples: 2000, level: 0.99 });
  assert(wide[0] < low && high < wide[1]);
  const one = bootstrapMean(xs, { seed: 3, resamples: 1 });
  assertEquals(one[0], one[1]);
});

Deno.test("a bootstrap interval of many numbers is the normal one, as the theory says", () => {
  const xs = Array.from({ length: 400 }, (_, i) => uniform(i, [5, 6]) + uniform(i, [7, 8]));
  const [low, high] = bootstrapMean(xs, { seed: 0 });
  const width = 2 * 1.959964 * standardError(xs) * Math.sqrt(399 / 400);
  assertAlmostEquals((high - low) / width, 1, 0.03);
  assertAlmostEquals((low + high) / 2, mean(xs), width * 0.03);
});

Deno.test("a bootstrap interval of equal numbers is that number, and of none NaN", () => {
  assertEquals(bootstrapMean([0.25, 0.25, 0.25], { seed: 1 }), [0.25, 0.25]);
  assertEquals(bootstrapMean([7], { seed: 1 }), [7, 7]);
  assertEquals(bootstrapMean([], { seed: 1 }), [NaN, NaN]);
});

Deno.test("what makes no sense is refused by name", () => {
  const refused = (work: () => unknown, words: string) => {
    assertEquals(assertThrows(work, WhetError, words).code, "option");
  };
  refused(() => signTest(-1, 2), "wins: expected a whole number");
  refused(() => signTest(1, 0.5), "losses: expected a whole number");
  refused(() => wilson(3, 2), "successes: 3 are more than the 2 trials");
  refused(() => wilson(1, NaN), "trials: expected");
  refused(() => wilson(1, 2, 95), "level: expected a number between 0 and 1");
  refused(() => bootstrapMean([1], { seed: 0, level: 1 }), "level: expected");
  refused(() => bootstrapMean([1], { seed: 0, resamples: 0 }), "resamples: expected");
});
