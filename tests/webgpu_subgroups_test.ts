/** Kernels that reduce over a workgroup, within subgroups and without. */
import { assertEquals, assertRejects } from "@std/assert";
import { createWebGpuBackend } from "../src/backend/webgpu/backend.ts";
import type { Gpu } from "../src/backend/webgpu/gpu.ts";
import { WGSL } from "../src/backend/webgpu/kernels.gen.ts";
import { Tensor } from "../src/tensor/tensor.ts";
import { slice } from "../src/backend/webgpu/slices.ts";
import { WhetError } from "../src/errors.ts";
import type { Backend } from "../src/tensor/backend.ts";
import { suite } from "./support/cases.ts";
import { compare } from "./support/lab.ts";
import { adapterTest, deviceTest, findAdapter } from "./support/webgpu.ts";

/** The backend's device. */
const gpuOf = (backend: Backend) => (backend as unknown as { gpu: Gpu }).gpu;

/** What reduces, and how many of its cases tell enough. */
const KERNELS = { layerNorm: 9, layerNormBackward: 9, crossEntropy: 9, sumOfSquares: 9, cachedAttention: 9 };

for (const subgroups of [false, true]) {
  adapterTest(`kernels agree with the reference ${subgroups ? "within" : "without"} subgroups`, async () => {
    using backend = await createWebGpuBackend(await findAdapter(), subgroups ? {} : { subgroups });
    // Where a device has none, there is no other path.
    if (gpuOf(backend).features.subgroups !== subgroups) return;
    const all = suite({ activationStep: () => 0 });
    for (const [kernel, count] of Object.entries(KERNELS)) {
      const cases = Object.entries(all[kernel]);
      const few = cases.filter((_, i) => i % Math.ceil(cases.length / count) === 0);
      await compare(backend, Object.fromEntries(few));
    }
  });
}

adapterTest("subgroups that a device does not have cannot be demanded", async () => {
  const adapter = await findAdapter();
  const plain = {
    info: adapter.info,
    limits: {},
    requestDevice: (given: GPUDeviceDescriptor) =>
      given.requiredFeatures ? Promise.reject(new TypeError("no features")) : adapter.requestDevice(),
  };
  const make = () => createWebGpuBackend(plain as unknown as GPUAdapter, { subgroups: true });
  const error = await assertRejects(make, WhetError, "no subgroups");
  assertEquals(error.code, "backend");
});

/** The functions of subgroups, played by workgroup memory. */
const PLAYED = `
var<workgroup> stage: array<vec2f, THREADS>;
var<private> here: u32;

// Which of its subgroup thread i is, and which is its subgroup.
fn place(i: u32) -> vec2u {
  if (p.apart != 0) {
    let count = (THREADS + p.size - 1) / p.size;
    return vec2u(i / count, i % count);
  }
  return vec2u(i % p.size, i / p.size);
}
fn playedLane() -> u32 {
  return place(here).x;
}
fn playedSum(value: vec2f) -> vec2f {
  stage[here] = value;
  workgroupBarrier();
  var sum = vec2f();
  for (var i = 0u; i < THREADS; i++) {
    sum += select(vec2f(), stage[i], place(i).y == place(here).y);
  }
  workgroupBarrier();
  return sum;
}
fn playedMax(value: f32) -> f32 {
  stage[here] = vec2f(value);
  workgroupBarrier();
  var largest = value;
  for (var i = 0u; i < THREADS; i++) {
    largest = max(largest, select(value, stage[i].x, place(i).y == place(here).y));
  }
  workgroupBarrier();
  return largest;
}
`;

/** Where `reduce` begins to add up pairs of numbers. */
const [single, ...paired] = WGSL.reduce.replaceAll("subgroupAdd(1u)", "u32(playedSum(vec2f(1)).x)")
  .replaceAll("subgroupExclusiveAdd(1u)", "playedLane()").replaceAll("subgroupMax(", "playedMax(")
  .split(/(?=fn sumPairsAcross)/);

const SOURCES = {
  reduce: single.replaceAll(/subgroupAdd\((\w+)\)/g, "playedSum(vec2f($1)).x") +
    paired.join("").replaceAll("subgroupAdd(", "playedSum("),
  reduced: `
//#import reduce
const THREADS = 64u;
struct Params {
  size: u32,
  apart: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> out: array<vec4f>;
${PLAYED}
@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) thread: u32) {
  here = thread;
  let sum = sumAcross(thread, f32(thread + 1));
  let largest = maxAcross(thread, -f32(thread + 3));
  out[thread] = vec4f(sum, largest, sumPairsAcross(thread, vec2f(f32(thread), 1)));
}`,
};

deviceTest(
  "reductions are right whatever the size of subgroups and whoever is in one",
  SOURCES,
  async (gpu) => {
    for (const size of [4, 8, 16, 24, 32, 48, 64, 128]) {
      for (const apart of [0, 1]) {
        const memory = gpu.allocate(64 * 16, "the results");
        const out = slice(new Tensor([64, 4], "f32", memory));
        gpu.run("reduced", { out }, { size, apart }, [1], { SUBGROUPS: true, PAIRS: true });
        const found = await gpu.read(out);
        const expected = Array.from({ length: 64 }, () => [2080, -3, 2016, 64]).flat();
        assertEquals([...found], expected, `${size} threads, apart: ${apart}`);
      }
    }
  },
);
