/**
 * The numbers that all peers compute with.
 *
 * @module
 */

/** Rows, inner and outer extents of the matrix product: GPT-2's first MLP layer for 1024 tokens. */
export const MATMUL = { M: 1024, K: 768, N: 3072 } as const;

/**
 * Numbers in [−1, 1) that are exact in f32.
 *
 * @param length How many.
 * @param seed Which.
 */
export function numbers(length: number, seed: number): Float32Array<ArrayBuffer> {
  const values = new Float32Array(length);
  for (let i = 0; i < length; i++) values[i] = scramble(i, seed) / 2 ** 31 - 1;
  return values;
}

/**
 * Token ids of GPT-2's vocabulary, without the last, which ends a text.
 *
 * @param length How many.
 * @param seed Which.
 */
export function tokens(length: number, seed: number): number[] {
  return Array.from({ length }, (_, i) => (scramble(i, seed) >>> 8) % 50256);
}

/** 24 random bits times 256 (Wang's hash). */
function scramble(i: number, seed: number): number {
  let x = (i ^ Math.imul(seed, 0x9e3779b9)) >>> 0;
  x = (x ^ 61 ^ (x >>> 16)) >>> 0;
  x = Math.imul(x, 9) >>> 0;
  x = (x ^ (x >>> 4)) >>> 0;
  x = Math.imul(x, 0x27d4eb2d) >>> 0;
  return ((x ^ (x >>> 15)) & 0xffffff00) >>> 0;
}
