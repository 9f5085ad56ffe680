/**
 * The peers from npm, and their versions: named here alone, and imported only by programs of `benchmarks/peers/`,
 * dynamically, so that neither the library, nor `deno check`, nor the lock file knows of them.
 *
 * @module
 */

/** Package → version. */
export const PACKAGES = {
  "@jax-js/jax": "0.1.25",
  "onnxruntime-web": "1.30.0",
  "onnxruntime-node": "1.30.0",
  "@tensorflow/tfjs-core": "4.22.0",
  "@tensorflow/tfjs-backend-wasm": "4.22.0",
  "@huggingface/transformers": "4.3.1",
  "node-llama-cpp": "3.22.1",
} as const;

/** One of them. */
export type PackageName = keyof typeof PACKAGES;

/**
 * A package's specifier.
 *
 * @param name The package.
 * @param path A path within it.
 */
export function specifier(name: PackageName, path = ""): string {
  return `npm:${name}@${PACKAGES[name]}${path}`;
}

/** A package as the table names it. */
export function nameOf(name: PackageName): string {
  return `${name} ${PACKAGES[name]}`;
}
