/**
 * GPT-2's published initialisation.
 *
 * @module
 */
import { bits } from "../tensor/random.ts";
import type { GPT2Config } from "./config.ts";

/**
 * Initial values of one parameter (Radford et al. 2019): weights normal with deviation
 * `initializer_range`, those that end a residual branch divided by sqrt(2 · n_layer); biases zero;
 * layer normalisations the identity.
 *
 * @param config The model's shape.
 * @param name The parameter's name, such as `h.0.attn.c_attn.weight`.
 * @param length How many numbers.
 * @param key Seed, and the parameter's index.
 * @returns The values.
 */
export function initialValues(
  config: GPT2Config,
  name: string,
  length: number,
  key: readonly [number, number],
): Float32Array {
  const values = new Float32Array(length);
  if (name.endsWith(".bias")) return values;
  if (/ln_[12f]\.weight$/.test(name)) return values.fill(1);
  const residual = name.endsWith("c_proj.weight") ? 1 / Math.sqrt(2 * config.n_layer) : 1;
  fillNormal(values, config.initializer_range * residual, key);
  return values;
}

/** Normal numbers by inversion, each from 32 random bits: at most 6.3 deviations from the mean. */
function fillNormal(values: Float32Array, deviation: number, key: readonly [number, number]): void {
  for (let i = 0; i < values.length; i++) {
    values[i] = deviation * normalQuantile((bits(i, key) + 0.5) * 2 ** -32);
  }
}

/**
 * The value below which a standard normal number lies with probability p: PPND7 of Wichura (1988),
 * algorithm AS 241, to about 1 part in 10⁷. Nothing but sums, products, quotients and roots, which
 * every machine rounds alike; `Math.log` and `Math.cos` need not give the same bits everywhere.
 *
 * @param p Above 0 and below 1.
 */
export function normalQuantile(p: number): number {
  const q = p - 0.5;
  if (Math.abs(q) <= 0.425) {
    const r = 0.180625 - q * q;
    return q * (((59.10937472 * r + 159.29113202) * r + 50.434271938) * r + 3.3871327179) /
      (((67.1875636 * r + 78.757757664) * r + 17.895169469) * r + 1);
  }
  const r = Math.sqrt(-logarithm(q < 0 ? p : 1 - p));
  const z = r <= 5
    ? (((0.17023821103 * (r - 1.6) + 1.3067284816) * (r - 1.6) + 2.75681539) * (r - 1.6) + 1.4234372777) /
      ((0.1202113297 * (r - 1.6) + 0.7370016425) * (r - 1.6) + 1)
    : (((0.017337203997 * (r - 5) + 0.42868294337) * (r - 5) + 3.0812263860) * (r - 5) + 6.657905115) /
      ((0.012258202635 * (r - 5) + 0.24197894225) * (r - 5) + 1);
  return q < 0 ? -z : z;
}

/** ln x of a number above 2⁻³⁴ and at most 1: 2 artanh((m − 1) / (m + 1)) − k ln 2, with x = m / 2ᵏ and m about 1. */
function logarithm(x: number): number {
  let k = 0;
  for (; x < 2 ** -8; x *= 256) k += 8;
  for (; x < Math.SQRT1_2; x *= 2) k++;
  const t = (x - 1) / (x + 1), u = t * t; // |t| ≤ 0.172
  const series = 1 + u * (1 / 3 + u * (1 / 5 + u * (1 / 7 + u / 9)));
  return 2 * t * series - k * Math.LN2;
}
