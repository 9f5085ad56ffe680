/**
 * The few statistics that comparisons of answers rest on.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { bits } from "../tensor/random.ts";

/**
 * The arithmetic mean.
 *
 * @param xs Numbers.
 * @returns Their mean; NaN if there are none.
 */
export function mean(xs: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < xs.length; i++) sum += xs[i];
  return sum / xs.length;
}

/**
 * The standard error of the mean: the sample's standard deviation (n − 1) over √n.
 *
 * @param xs Numbers.
 * @returns The standard error; NaN with fewer than two.
 */
export function standardError(xs: ArrayLike<number>): number {
  const n = xs.length, centre = mean(xs);
  let squares = 0;
  for (let i = 0; i < n; i++) squares += (xs[i] - centre) ** 2;
  return n < 2 ? NaN : Math.sqrt(squares / (n - 1) / n);
}

/** How {@linkcode bootstrapMean} draws. */
export interface BootstrapOptions {
  /** The same seed gives the same interval. */
  seed: number;
  /** Samples drawn [10,000]. */
  resamples?: number;
  /** The interval's confidence, between 0 and 1 [0.95]. */
  level?: number;
}

/**
 * A percentile bootstrap interval of the mean (Efron and Tibshirani 1993, chapter 13): means of samples
 * as large as the data, drawn from them with replacement.
 *
 * @param differences The data, such as the paired differences of two models' scores.
 * @param options Seed, number of samples, level.
 * @returns The interval's ends; NaN twice if there are no data.
 * @throws {WhetError} `option`, if the level or the number of samples makes no sense.
 *
 * @example
 * ```ts
 * import { bootstrapMean } from "./statistics.ts";
 *
 * const [low, high] = bootstrapMean([0.1, -0.2, 0.4, 0.3], { seed: 7 });
 * console.log(low < 0.15 && 0.15 < high); // true
 * ```
 */
export function bootstrapMean(
  differences: ArrayLike<number>,
  { seed, resamples = 10_000, level = 0.95 }: BootstrapOptions,
): [low: number, high: number] {
  checkLevel(level);
  if (!Number.isSafeInteger(resamples) || resamples < 1) {
    throw new WhetError("option", `resamples: expected a whole number of at least 1, got ${resamples}`);
  }
  const n = differences.length;
  if (n === 0) return [NaN, NaN];
  const means = new Float64Array(resamples);
  for (let r = 0; r < resamples; r++) {
    // A key of its own for each sample: counters of 32 bits would not do for all the draws.
    const key = [seed, r] as const;
    let sum = 0;
    for (let i = 0; i < n; i++) sum += differences[Math.floor(bits(i, key) * 2 ** -32 * n)];
    means[r] = sum / n;
  }
  means.sort();
  return [quantile(means, (1 - level) / 2), quantile(means, (1 + level) / 2)];
}

/** A quantile of ascending numbers, between neighbours by proportion (Hyndman and Fan 1996, type 7). */
function quantile(ascending: Float64Array, share: number): number {
  const place = share * (ascending.length - 1), below = Math.floor(place);
  const low = ascending[below], high = ascending[Math.min(below + 1, ascending.length - 1)];
  return low + (place - below) * (high - low);
}

/**
 * The two-sided exact sign test: how likely a fair coin splits as unevenly as wins and losses do, or
 * more so. Ties are left out beforehand.
 *
 * @param wins How many comparisons were won.
 * @param losses How many were lost.
 * @returns The p-value; 1 without any.
 * @throws {WhetError} `option`, if a number is not a count.
 *
 * @example
 * ```ts
 * import { signTest } from "./statistics.ts";
 *
 * console.log(signTest(9, 1)); // 0.021484375
 * ```
 */
export function signTest(wins: number, losses: number): number {
  checkCount("wins", wins);
  checkCount("losses", losses);
  const n = wins + losses, fewer = Math.min(wins, losses);
  // The likelihood of the split itself, C(n, fewer) / 2ⁿ: halved on the way wherever it is above 1, so that
  // nothing overflows, and exact as long as C(n, fewer) is.
  let split = 1, halvings = n;
  for (let i = 1; i <= fewer; i++) {
    split = split * (n - fewer + i) / i;
    while (split > 1 && halvings > 0) {
      split /= 2;
      halvings--;
    }
  }
  split *= 2 ** -halvings;
  // And of the more uneven ones: C(n, k − 1) = C(n, k) · k / (n − k + 1).
  let tail = 0;
  for (let k = fewer, term = split; k >= 0 && term > 0; k--) {
    tail += term;
    term *= k / (n - k + 1);
  }
  return Math.min(1, 2 * tail);
}

/**
 * The interval of a share (Wilson 1927): unlike the plain one it stays within 0 and 1 and holds near them.
 *
 * @param successes How many of the trials succeeded.
 * @param trials How many there were.
 * @param level The interval's confidence, between 0 and 1.
 * @returns The interval's ends; 0 and 1 without any trial.
 * @throws {WhetError} `option`, if there are more successes than trials, or the level makes no sense.
 *
 * @example
 * ```ts
 * import { wilson } from "./statistics.ts";
 *
 * console.log(wilson(40, 50).map((end) => end.toFixed(3))); // [ "0.670", "0.888" ]
 * ```
 */
export function wilson(successes: number, trials: number, level = 0.95): [low: number, high: number] {
  checkCount("trials", trials);
  checkCount("successes", successes);
  checkLevel(level);
  if (successes > trials) {
    throw new WhetError("option", `successes: ${successes} are more than the ${trials} trials`);
  }
  if (trials === 0) return [0, 1];
  const z = normalQuantile((1 + level) / 2), share = successes / trials;
  const spread = z * Math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2);
  const centre = share + z * z / (2 * trials), scale = 1 + z * z / trials;
  // The ends that rounding would push past what they are.
  const low = successes === 0 ? 0 : (centre - spread) / scale;
  const high = successes === trials ? 1 : (centre + spread) / scale;
  return [low, high];
}

/**
 * Where the standard normal distribution reaches a probability of at least one half: Newton's method on
 * Φ(x) = ½ + φ(x) (x + x³/3 + x⁵/(3·5) + …); from 0 it climbs to the place and never past it, for Φ is
 * concave there.
 */
function normalQuantile(probability: number): number {
  let x = 0;
  for (let round = 0; round < 100; round++) {
    const density = Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);
    let series = 0;
    for (let term = x, k = 3; series + term !== series; k += 2) {
      series += term;
      term *= x * x / k;
    }
    const step = (probability - 0.5 - density * series) / density;
    if (!(step > 1e-14 * (1 + x))) break;
    x += step;
  }
  return x;
}

function checkCount(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new WhetError("option", `${name}: expected a whole number of at least 0, got ${value}`);
  }
}

function checkLevel(level: number): void {
  if (!(level > 0 && level < 1)) {
    throw new WhetError("option", `level: expected a number between 0 and 1, such as 0.95, got ${level}`);
  }
}
