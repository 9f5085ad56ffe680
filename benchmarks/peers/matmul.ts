/**
 * What is the same in all peers that multiply matrices.
 *
 * @module
 */
import { MATMUL, numbers } from "../harness/inputs.ts";
import type { Session } from "../harness/serve.ts";

/** A product's inputs, f32, row-major: a (M, K), b (K, N). */
export const operands = () => ({
  a: numbers(MATMUL.M * MATMUL.K, 1),
  b: numbers(MATMUL.K * MATMUL.N, 2),
});

/** So many products are one run, after one that is not measured: threads that went to sleep since the last run wake. */
const REPEATS = 20;

/**
 * A session that multiplies.
 *
 * @param version The peer's name and version.
 * @param multiply Computes the product as often as it is told, and waits for the last.
 * @param product Gives the last product, (M, N).
 */
export function matmulSession(
  version: string | undefined,
  multiply: (times: number) => Promise<void>,
  product: () => Promise<ArrayLike<number>>,
): Session {
  return {
    version,
    async run() {
      await multiply(1);
      const begin = performance.now();
      await multiply(REPEATS);
      const seconds = (performance.now() - begin) / 1000;
      return { amount: 2e-9 * MATMUL.M * MATMUL.K * MATMUL.N * REPEATS, seconds };
    },
    async check({ places }) {
      const out = await product();
      return (places as number[]).map((i) => out[i]);
    },
  };
}
