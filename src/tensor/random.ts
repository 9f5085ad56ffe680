/**
 * Counter-based random numbers: the i-th number of a key is a function of i and the key alone, so
 * that results depend neither on the order of work nor on how often it was interrupted. The same
 * few integer operations stand in the WGSL and WASM kernels.
 *
 * @module
 */

/** MurmurHash3's 32-bit finaliser (Austin Appleby, public domain): every input bit reaches every output bit. */
export function mix(x: number): number {
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/** The i-th 32 random bits of a key. */
export function bits(i: number, key: readonly [number, number]): number {
  return mix(mix(mix((i + 0x9e3779b9) >>> 0) ^ key[0]) ^ key[1]);
}

/** The i-th number of a key, uniform in [0, 1): the upper 24 of its random bits, so that f32 holds it exactly. */
export function uniform(i: number, key: readonly [number, number]): number {
  return (bits(i, key) >>> 8) * 2 ** -24;
}
