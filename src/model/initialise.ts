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

/** Normal numbers by Box and Muller (1958), two from each pair of uniform ones. */
function fillNormal(values: Float32Array, deviation: number, key: readonly [number, number]): void {
  for (let i = 0; i < values.length; i += 2) {
    const radius = deviation * Math.sqrt(-2 * Math.log((bits(i, key) + 1) * 2 ** -32));
    const angle = 2 * Math.PI * bits(i + 1, key) * 2 ** -32;
    values[i] = radius * Math.cos(angle);
    if (i + 1 < values.length) values[i + 1] = radius * Math.sin(angle);
  }
}
