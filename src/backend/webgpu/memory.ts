/**
 * Plain tensors in the device's memory.
 *
 * @module
 */
import { type DType, Tensor } from "../../tensor/tensor.ts";
import type { Gpu } from "./gpu.ts";
import { byteLength } from "./slices.ts";

/** Allocates a tensor whose content is undefined. */
export function allocate(gpu: Gpu, shape: readonly number[], dtype: DType = "f32"): Tensor {
  const memory = gpu.allocate(byteLength(shape, dtype), `a tensor [${shape}]`, true);
  gpu.allocations++;
  return new Tensor(shape, dtype, memory);
}

/** Runs work with a tensor that is free again when it returns, though not before its kernels are done. */
export function temporary(gpu: Gpu, shape: readonly number[], work: (tensor: Tensor) => void): void {
  const length = shape.reduce((product, extent) => product * extent, 1);
  const memory = gpu.allocate(length * 4, `a temporary tensor [${shape}]`, true);
  try {
    work(new Tensor(shape, "f32", memory));
  } finally {
    gpu.release(memory);
  }
}
