/** What goes wrong on the device becomes an exception that names the kernel. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import type { Gpu } from "../src/backend/webgpu/gpu.ts";
import { WhetError } from "../src/errors.ts";
import { deviceTest } from "./support/webgpu.ts";

const PARAMS = "struct Params { n: u32 }\n@group(0) @binding(0) var<uniform> p: Params;\n";
const OUT = "@group(0) @binding(1) var<storage, read_write> out: array<f32>;\n";

const sources = {
  good: `${PARAMS}${OUT}@compute @workgroup_size(1) fn main() { out[0] = f32(p.n); }`,
  broken: `${PARAMS}${OUT}@compute @workgroup_size(1) fn main( { out[0] = 1; }`,
  mistyped: `${PARAMS}${OUT}@compute @workgroup_size(1) fn main() { out[0] = p.n; }`,
  huge: `${PARAMS}${OUT}@compute @workgroup_size(4096) fn main() { out[0] = f32(p.n); }`,
};

function run(gpu: Gpu, name: keyof typeof sources, n = 7) {
  const allocation = gpu.allocate(4, "four bytes");
  const out = { block: allocation.block, offset: 0, bytes: 4 };
  gpu.run(name, { out }, { n }, [1, 1]);
  return out;
}

/** Fails the way that it says it does, and keeps failing. */
async function fails(
  gpu: Gpu,
  work: () => Promise<unknown>,
  code: string,
  ...words: string[]
): Promise<void> {
  const error = await assertRejects(work, WhetError);
  assertEquals(error.code, code);
  for (const word of words) assert(error.message.includes(word), `"${error.message}" does not say ${word}`);
  assert(!error.message.includes("\n"));
  assertEquals(assertThrows(() => run(gpu, "good"), WhetError), error);
  assertEquals(assertThrows(() => gpu.flush(), WhetError), error);
}

deviceTest("a kernel that works, works", sources, async (gpu) => {
  assertEquals([...await gpu.read(run(gpu, "good"))], [7]);
});

for (const name of ["broken", "mistyped", "huge"] as const) {
  deviceTest(`a ${name} kernel is named at the next read`, sources, async (gpu) => {
    await fails(gpu, async () => await gpu.read(run(gpu, name)), "backend", `kernel ${name}`);
  });
}

deviceTest("a missing kernel, parameter or right to overlap is refused at once", sources, async (gpu) => {
  const out = await Promise.resolve(run(gpu, "good"));
  assertThrows(() => gpu.run("nothing", {}, {}, [1]), WhetError, "kernels/nothing.wgsl");
  assertThrows(() => gpu.run("good", { out }, { m: 1 }, [1]), WhetError, "no value for n");
  assertEquals([...await gpu.read(out)], [7]);
});

deviceTest("a refused submission is described by its kernels and sizes", sources, async (gpu) => {
  const out = run(gpu, "good", 12);
  out.block.buffer.destroy();
  await fails(gpu, () => gpu.read(out), "backend", "WebGPU refused good (n=12)");
});

deviceTest("a fault after the last flush is thrown by a flush or a read to come", sources, async (gpu) => {
  run(gpu, "broken");
  gpu.flush();
  await new Promise((resolve) => setTimeout(resolve, 50));
  await fails(gpu, () => Promise.resolve().then(() => gpu.flush()), "backend", "kernel broken");
});

deviceTest("memory that cannot be bound is named by kernel, binding and size", sources, async (gpu) => {
  const { block } = gpu.allocate(1024, "a tensor");
  gpu.run("good", { out: { block, offset: 100, bytes: 4 } }, { n: 1 }, [1, 1]);
  const read = () => gpu.read({ block, offset: 0, bytes: 4 });
  await fails(gpu, read, "backend", "kernel good", "out: 924 bytes at 100");
});

/** Lets the next error scope that is opened tell of an error that no software adapter makes by itself. */
function forge(device: GPUDevice, error: GPUError): void {
  const pop = device.popErrorScope.bind(device);
  device.popErrorScope = () => {
    device.popErrorScope = pop;
    return pop().then(() => error);
  };
}

deviceTest("no memory is said in bytes", sources, async (gpu, device) => {
  const kept = run(gpu, "good");
  forge(device, new GPUOutOfMemoryError("not enough"));
  gpu.allocate(3 << 20, "a tensor");
  const work = () => gpu.read(kept);
  await fails(gpu, work, "resource", "3.0 MiB", "256 bytes being in use", "out of memory", "not enough");
});

deviceTest("no memory for a submission is said with its kernels and sizes", sources, async (gpu, device) => {
  const kept = run(gpu, "good", 12);
  forge(device, new GPUOutOfMemoryError("not enough"));
  gpu.flush();
  await fails(gpu, () => gpu.read(kept), "resource", "good (n=12)", "out of memory", "smaller batch");
});

deviceTest("a compiler that fails is said with its kernel", sources, async (gpu, device) => {
  const { block } = gpu.allocate(4, "four bytes");
  const out = { block, offset: 0, bytes: 4 };
  forge(device, new GPUInternalError("no registers left"));
  gpu.run("good", { out }, { n: 1 }, [1, 1]);
  await fails(gpu, () => gpu.read(out), "backend", "compiling kernel good");
});

deviceTest(
  "a device that is gone is lost, also where only an error says so",
  sources,
  async (gpu, device) => {
    const kept = run(gpu, "good");
    forge(device, new GPUValidationError("Parent device is lost"));
    gpu.flush();
    await fails(
      gpu,
      () => gpu.read(kept),
      "backend",
      "the GPU was lost (Parent device is lost)",
      "--backend wasm",
    );
  },
);

deviceTest("an error outside of every scope is not lost", sources, async (gpu, device) => {
  const kept = run(gpu, "good");
  device.createBuffer({ size: 4, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.MAP_WRITE });
  await new Promise((resolve) => setTimeout(resolve, 20));
  await fails(gpu, () => Promise.resolve().then(() => gpu.read(kept)), "backend");
});

deviceTest("a lost device is said to be lost, by reads under way too", sources, async (gpu, device) => {
  const kept = run(gpu, "good");
  const late = gpu.read(kept);
  device.destroy();
  const error = await assertRejects(() => late, WhetError);
  assertEquals([error.code, error.message.startsWith("the GPU was lost")], ["backend", true]);
  await device.lost;
  await fails(gpu, () => Promise.resolve().then(() => gpu.read(kept)), "backend", "lost", "--backend wasm");
});
