/**
 * What a model needs, beside what the device allows, before any of it is loaded.
 *
 * WebGPU tells the largest buffer and the largest binding, but not how much memory there is: the only way to learn
 * whether a model fits is to ask for that much and to give it back. Memory that nobody writes to costs no time (6 GiB
 * on Mesa's software Vulkan: 0.4 ms).
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import type { MemoryNeed } from "../../tensor/backend.ts";
import { mebibytes } from "./faults.ts";
import type { Gpu } from "./gpu.ts";

/** A need below is not asked for: every device has that much, and what it says else comes soon enough. */
const LITTLE_BYTES = 256 << 20;
/** Bytes of one buffer that is asked for on trial. */
const TRIAL_BYTES = 256 << 20;

/**
 * Refuses what cannot fit.
 *
 * @throws {WhetError} `resource` naming the model, its need, the limit and what to do.
 */
export async function admit(gpu: Gpu, description: string, need: MemoryNeed): Promise<void> {
  const { name, format, weights, working, largest } = need;
  const smaller = format === "q4" || format === "q8"
    ? ""
    : "load it with smaller weights (--weights q8), or ";
  const advice = `${smaller}use --backend wasm`;
  if (largest.bytes > gpu.maxBindingBytes) {
    throw new WhetError(
      "resource",
      `${name} does not fit ${description}: ${largest.name} takes ${
        mebibytes(largest.bytes)
      }, but a kernel sees ` +
        `${mebibytes(gpu.maxBindingBytes)} at once (maxStorageBufferBindingSize); use --backend wasm`,
    );
  }
  const wanted = weights + working;
  if (wanted <= LITTLE_BYTES) return;
  const granted = await room(gpu.device, wanted);
  if (granted >= wanted) return;
  throw new WhetError(
    "resource",
    `${name} does not fit ${description}: it takes ${mebibytes(wanted)} (its ${format} weights ${
      mebibytes(weights)
    }, ` +
      `256 tokens ${mebibytes(working)}), but there is room for ${mebibytes(granted)}; ${advice}`,
  );
}

/** How many of so many bytes a device has room for. */
export async function room(device: GPUDevice, bytes: number): Promise<number> {
  const buffers: GPUBuffer[] = [];
  let granted = 0;
  try {
    while (granted < bytes) {
      const size = Math.ceil(Math.min(bytes - granted, TRIAL_BYTES, device.limits.maxBufferSize) / 256) * 256;
      device.pushErrorScope("out-of-memory");
      buffers.push(device.createBuffer({ size, usage: GPUBufferUsage.STORAGE }));
      if (await device.popErrorScope()) break;
      granted += size;
    }
  } finally {
    for (const buffer of buffers) buffer.destroy();
  }
  return granted;
}
