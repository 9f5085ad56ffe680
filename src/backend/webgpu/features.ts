/**
 * What a device offers beyond what every device has, and what of it works.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";

/** Features that kernels make use of. */
export interface GpuFeatures {
  /** Reductions within subgroups: WGSL's `subgroupAdd` and `subgroupMax`. */
  readonly subgroups: boolean;
  /** WGSL's `f16`. */
  readonly f16: boolean;
  /** Timestamps of passes. */
  readonly timestamps: boolean;
  /** Whether WGSL says `enable subgroups;` before it uses them: naga (Deno 2.9) knows the functions, not the directive. */
  readonly enablesSubgroups: boolean;
}

/** What every device has. */
export const NO_FEATURES: GpuFeatures = {
  subgroups: false,
  f16: false,
  timestamps: false,
  enablesSubgroups: false,
};

/** What a device lets a workgroup have. */
export interface GroupLimits {
  /** Threads, along the first axis. */
  readonly threads: number;
  /** Bytes of memory that they share. */
  readonly bytes: number;
}

const groupLimitsOf = new WeakMap<GPUDevice, GroupLimits>();

/** What a device lets a workgroup have; asked of it once, for that takes longer than one would think. */
export function groupLimits(device: GPUDevice): GroupLimits {
  let found = groupLimitsOf.get(device);
  if (!found) {
    const { limits } = device;
    const threads = Math.min(limits.maxComputeInvocationsPerWorkgroup, limits.maxComputeWorkgroupSizeX);
    groupLimitsOf.set(device, found = { threads, bytes: limits.maxComputeWorkgroupStorageSize });
  }
  return found;
}

/** Whether a device runs workgroups of 1024 threads that share so many bytes. */
export function runsLargeGroups(device: GPUDevice, bytes: number): boolean {
  const limits = groupLimits(device);
  return limits.threads >= 1024 && limits.bytes >= bytes;
}

/** An adapter's device with all limits and those features that it grants. */
export async function requestDevice(adapter: GPUAdapter): Promise<GPUDevice> {
  const requiredLimits: Record<string, number> = {};
  for (const name in adapter.limits) {
    const value = adapter.limits[name as keyof GPUSupportedLimits];
    if (typeof value === "number") requiredLimits[name] = value;
  }
  const listed = (["subgroups", "shader-f16", "timestamp-query"] as GPUFeatureName[])
    .filter((name) => adapter.features?.has(name));
  // Deno 2.9 grants subgroups that it does not list; an adapter that refuses features may be asked again.
  const wishes = [new Set(["subgroups" as GPUFeatureName, ...listed]), new Set(listed)];
  for (const wish of wishes) {
    try {
      return await adapter.requestDevice({ requiredLimits, requiredFeatures: [...wish] });
    } catch {
      // The last request says what is wrong.
    }
  }
  return await adapter.requestDevice({ requiredLimits });
}

/**
 * What of a device's features is used.
 *
 * @param device Just made: nothing else is under way on it.
 * @param subgroups False does without, true does not; by default a small kernel finds out whether they add up.
 * @throws {WhetError} `backend` if subgroups are demanded and do not work.
 */
export async function findFeatures(device: GPUDevice, subgroups?: boolean): Promise<GpuFeatures> {
  const has = (name: string) => device.features?.has(name as GPUFeatureName) ?? false;
  const others = { f16: has("shader-f16"), timestamps: has("timestamp-query") };
  if (subgroups !== false && has("subgroups")) {
    for (const enablesSubgroups of [true, false]) {
      if (await addsUp(device, enablesSubgroups)) return { ...others, subgroups: true, enablesSubgroups };
    }
  }
  if (subgroups) throw new WhetError("backend", "this GPU's device has no subgroups that add up");
  return { ...NO_FEATURES, ...others };
}

/** Threads of the kernel that tries subgroups. */
const THREADS = 128;

/** Whether the sums and maxima of whatever subgroups there are come together to those of a workgroup. */
async function addsUp(device: GPUDevice, enable: boolean): Promise<boolean> {
  const code = `${enable ? "enable subgroups;" : ""}
    @group(0) @binding(0) var<storage, read_write> out: array<vec4f>;
    @compute @workgroup_size(${THREADS})
    fn main(@builtin(local_invocation_index) i: u32) {
      let first = subgroupExclusiveAdd(1u) == 0;
      let sum = subgroupAdd(vec2f(f32(i) + 1, 1));
      out[i] = select(vec4f(), vec4f(sum, subgroupMax(f32(i)), 1), first);
    }`;
  const usage = GPUBufferUsage;
  const size = THREADS * 16;
  device.pushErrorScope("validation");
  const out = device.createBuffer({ size, usage: usage.STORAGE | usage.COPY_SRC });
  const reader = device.createBuffer({ size, usage: usage.MAP_READ | usage.COPY_DST });
  try {
    const module = device.createShaderModule({ label: "subgroups", code });
    const pipeline = device.createComputePipeline({ layout: "auto", compute: { module } });
    if (await device.popErrorScope()) return false;
    const entries = [{ binding: 0, resource: { buffer: out } }];
    const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(1);
    pass.end();
    encoder.copyBufferToBuffer(out, 0, reader, 0, size);
    device.queue.submit([encoder.finish()]);
    await reader.mapAsync(GPUMapMode.READ);
    const found = new Float32Array(reader.getMappedRange());
    const [sum, count, largest] = [0, 1, 2].map((j) => {
      const column = found.filter((_, i) => i % 4 === j);
      return j === 2 ? Math.max(...column) : column.reduce((a, b) => a + b);
    });
    return sum === THREADS * (THREADS + 1) / 2 && count === THREADS && largest === THREADS - 1;
  } catch {
    return false;
  } finally {
    out.destroy();
    reader.destroy();
  }
}
