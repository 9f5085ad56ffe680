/**
 * Tests that need a WebGPU adapter: whatever there is, a software one too.
 *
 * @module
 */
import type { Backend } from "../../src/tensor/backend.ts";
import { createWebGpuBackend, type GpuOptions } from "../../src/backend/webgpu/backend.ts";
import { Gpu } from "../../src/backend/webgpu/gpu.ts";

/** Whether `WHET_EXPECT_WEBGPU=1` makes it a failure to find no adapter. */
const expected = Deno.env.get("WHET_EXPECT_WEBGPU") === "1";

/** Whether there is an adapter. */
const found = (await navigator.gpu?.requestAdapter() ?? null) !== null;

/** A fresh adapter; it gives one device. */
export async function findAdapter(): Promise<GPUAdapter> {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) throw new Error("WHET_EXPECT_WEBGPU=1, but no WebGPU adapter was found");
  return adapter;
}

/** Declares a test; shown as ignored where there is no adapter, failed instead with `WHET_EXPECT_WEBGPU=1`. */
export function adapterTest(claim: string, prove: () => Promise<void>): void {
  Deno.test(`webgpu: ${claim}`, { ignore: !found && !expected }, prove);
}

/** Declares a test on a backend of its own; what goes wrong on the device after the last read fails it too. */
export function gpuTest(
  claim: string,
  prove: (backend: Backend) => Promise<void> | void,
  options: GpuOptions = {},
): void {
  adapterTest(claim, async () => {
    using backend = await createWebGpuBackend(await findAdapter(), options);
    await prove(backend);
    await backend.read(backend.allocate([1]));
  });
}

/** Declares a test on a bare device with kernels of its own. */
export function deviceTest(
  claim: string,
  sources: Record<string, string>,
  prove: (gpu: Gpu, device: GPUDevice) => Promise<void>,
): void {
  adapterTest(claim, async () => {
    const device = await (await findAdapter()).requestDevice();
    using gpu = new Gpu(device, sources);
    await prove(gpu, device);
  });
}

/** Numbers without pattern between −1 and 1, the same every time. */
export function numbers(length: number, seed = 1): Float32Array {
  return Float32Array.from({ length }, (_, i) => Math.sin(i * i * 0.37 + i * 1.7 + seed));
}
