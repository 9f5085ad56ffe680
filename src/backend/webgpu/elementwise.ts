/**
 * Kernels that treat every element alike, and moves of rows. Tensors longer than a binding are worked
 * through in stretches.
 *
 * @module
 */
import type * as K from "../../tensor/backend.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Gpu } from "./gpu.ts";
import type { Constants } from "./template.ts";
import { type Bindings, slice } from "./slices.ts";

/** Threads of an elementwise workgroup. */
const THREADS = 256;
const NO_CONSTANTS: Constants = {};
/** The variant of a kernel that takes a number for an element. */
export const SCALARS: Constants = { VECTORS: false, ELEMENT: "f32", WORD: "u32" };
/** The variant that takes a vector of four, where the length allows it. */
export const QUADS: Constants = { VECTORS: true, ELEMENT: "vec4f", WORD: "vec4u" };

/**
 * Runs a kernel over tensors of one length.
 *
 * @param name Its file in `kernels/`.
 * @param length The tensors' elements.
 * @param tensors Those that are worked through together, by the names in the WGSL.
 * @param params Its parameters beside `length` and `first`, the index of a stretch's first element.
 * @param constants Which variant; one that is not of VECTORS takes numbers one by one whatever the length.
 * @param others What every stretch sees whole.
 */
export function elementwise(
  gpu: Gpu,
  name: string,
  length: number,
  tensors: Readonly<Record<string, Tensor>>,
  params: Readonly<Record<string, number>> = {},
  constants: Constants = NO_CONSTANTS,
  others?: Bindings,
): void {
  const step = gpu.maxBindingBytes / 4;
  for (let first = 0; first < length; first += step) {
    const count = Math.min(step, length - first);
    const bindings: Record<string, ReturnType<typeof slice> | undefined> = { ...others };
    for (const key in tensors) bindings[key] = slice(tensors[key], first, count);
    const quads = count % 4 === 0 && constants.VECTORS !== false;
    const width = quads ? count / 4 : count;
    const grid = [Math.ceil(width / THREADS)] as const;
    const plain = quads ? QUADS : SCALARS;
    const variant = constants === NO_CONSTANTS ? plain : { ...plain, ...constants };
    gpu.run(name, bindings, { length: width, first, ...params }, grid, variant);
  }
}

/** Whether two tensors are the same stretch of memory. */
export function isSame(a: Tensor, b: Tensor): boolean {
  return a.memory === b.memory && a.offset === b.offset && a.length === b.length;
}

/** out = a + b; out may be either. */
export function add(gpu: Gpu, { a, b, out }: K.AddArgs): void {
  const tensors: Record<string, Tensor> = { out };
  if (!isSame(a, out)) tensors.a = a;
  if (!isSame(b, out)) tensors.b = b;
  const constants = { A: tensors.a ? "a" : "out", B: tensors.b ? "b" : "out" };
  elementwise(gpu, "add", out.length, tensors, {}, constants);
}

/** out = x. */
export function copy(gpu: Gpu, { x, out }: { x: Tensor; out: Tensor }): void {
  if (!isSame(x, out)) elementwise(gpu, "copy", out.length, { x, out });
}

/** out = value. */
export function fill(gpu: Gpu, { out, value }: { out: Tensor; value: number }): void {
  const bits = out.dtype === "u32" ? value : new Uint32Array(Float32Array.of(value).buffer)[0];
  elementwise(gpu, "fill", out.length, { out }, { bits });
}

/** out = gelu(x). */
export function gelu(gpu: Gpu, { x, out, exact }: K.GeluArgs): void {
  elementwise(gpu, exact ? "gelu_exact" : "gelu_forward", out.length, { x, out });
}

/** dX = dOut · gelu′(x). */
export function geluBackward(gpu: Gpu, { x, dOut, dX, accumulate }: K.GeluBackwardArgs): void {
  elementwise(gpu, "gelu_backward", dX.length, { x, dOut, dX }, { accumulate: Number(accumulate ?? false) });
}

/** Inverted dropout; out may be x. */
export function dropout(gpu: Gpu, { x, out, probability, key, accumulate }: K.DropoutArgs): void {
  const inPlace = isSame(x, out);
  const params = {
    key0: key[0] >>> 0,
    key1: key[1] >>> 0,
    threshold: Math.ceil(probability * 2 ** 24),
    scale: 1 / (1 - probability),
    accumulate: Number(accumulate ?? false),
  };
  elementwise(gpu, "dropout", out.length, inPlace ? { out } : { x, out }, params, {
    ...SCALARS,
    X: inPlace ? "out" : "x",
  });
}

/** One step of AdamW; constants of the step are rounded to f32 once, from double precision. */
export function adamw(gpu: Gpu, args: K.AdamWArgs): void {
  const { parameters, gradients, m, v, clip, learningRate, beta1, beta2, epsilon, weightDecay, step } = args;
  const params = {
    learningRate,
    beta1,
    oneMinusBeta1: 1 - beta1,
    beta2,
    oneMinusBeta2: 1 - beta2,
    correction1: 1 / (1 - beta1 ** step),
    correction2: 1 / (1 - beta2 ** step),
    epsilon,
    decay: learningRate * weightDecay,
  };
  elementwise(gpu, "adamw", parameters.length, { parameters, gradients, m, v }, params, undefined, {
    clip: slice(clip),
  });
}

/** out[i] = x[rows[i]]. */
export function gather(gpu: Gpu, { x, rows, out }: K.GatherArgs): void {
  const [N, C] = out.shape;
  const bindings = { x: slice(x), rows: slice(rows), out: slice(out) };
  gpu.run("gather", bindings, { length: N * C, C }, [Math.ceil(N * C / THREADS)]);
}

/** dX[rows[i]] += dOut[i]. */
export function scatterAdd(gpu: Gpu, { dOut, rows, dX }: K.ScatterAddArgs): void {
  const [N, C] = dOut.shape;
  const bindings = { dOut: slice(dOut), rows: slice(rows), dX: slice(dX) };
  gpu.run("scatter_add", bindings, { length: N * C, C }, [Math.ceil(N * C / THREADS)]);
}
