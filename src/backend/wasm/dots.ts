/**
 * How products with 8-bit weights are computed: by products of bytes where the processor has them (wasm/dots.ts), else, in the
 * strict build and where more than eight bits of activations are asked for by products of 16-bit numbers
 * (wasm/quantized.ts).
 *
 * @module
 */
import { Heap } from "./heap.ts";
import { compile, instantiate, type InstructionSet } from "./instance.ts";
import type { Kernels } from "./kernels.gen.ts";

/**
 * What there is: dot products, which take activations of 8 bits for bytes with or without a sign; `pairs` of products, with
 * activations of 7 bits; or `none`.
 */
export type Dots = "none" | "unsigned" | "signed" | "pairs";

/** In the order of the kernels' answer. */
export const DOTS: readonly Dots[] = ["none", "unsigned", "signed", "pairs"];

/** In words, as they stand in a backend's description. */
export const WORDS: Readonly<Record<Dots, string>> = {
  none: "",
  unsigned: "8-bit dot products",
  signed: "8-bit dot products",
  pairs: "7-bit products",
};

/** What the processor has, as a build's instance finds it. */
export function dotsOf(kernels: Kernels): Dots {
  return DOTS[kernels.dotsOf()];
}

/** The same of a build; `shared` as it is used elsewhere, for each is compiled once. */
export async function findDots(set: InstructionSet, shared = false): Promise<Dots> {
  const { module } = await compile(set, shared);
  return dotsOf(instantiate(module, new Heap(undefined, shared).memory));
}
