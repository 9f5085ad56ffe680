/**
 * How products with 8-bit weights are computed: by the processor's dot product of bytes where it has one (wasm/dots.ts),
 * else by products of 16-bit numbers (wasm/quantized.ts).
 *
 * @module
 */
import { Heap } from "./heap.ts";
import { compile, instantiate, type InstructionSet } from "./instance.ts";
import type { Kernels } from "./kernels.gen.ts";

/** What the dot product takes its second operand's bytes for; `none` where it holds seven bits, or there is none. */
export type Dots = "none" | "unsigned" | "signed";

/** In the order of the kernels' answer. */
const DOTS: readonly Dots[] = ["none", "unsigned", "signed"];

/** What four bytes of weights are combined with, to be what the dot product takes them for. */
export const FLIP: Readonly<Record<Dots, number>> = { none: 0, unsigned: 0x80808080, signed: 0 };

/** What the processor has, as a build's instance finds it. */
export function dotsOf(kernels: Kernels): Dots {
  return DOTS[kernels.dotsOf()];
}

/** The same of a build; `shared` as it is used elsewhere, for each is compiled once. */
export async function findDots(set: InstructionSet, shared = false): Promise<Dots> {
  const { module } = await compile(set, shared);
  return dotsOf(instantiate(module, new Heap(undefined, shared).memory));
}
