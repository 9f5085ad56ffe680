/**
 * What the card itself gives, by kernels of three lines: multiplications and additions in registers, and bytes moved.
 *
 * @module
 */
import { type Care, idleSeconds, secondsOf, type Timed } from "./clock.ts";

/** Kernels by name, with what one call of them does. */
interface Ceiling {
  /** Its row's name. */
  name: string;
  /** GFLOP/s or GB/s. */
  unit: "GFLOP/s" | "GB/s";
  /** GFLOP or GB of a call. */
  amount: number;
  /** Seconds of a call. */
  seconds: number[];
}

const THREADS = 256;

/** Vectors that a thread multiplies and adds at once, and how often without a loop's test between. */
const VECTORS = 8, UNROLLED = 16;

/** a = a · x + y, in registers: what it comes to stays near 1. */
function fmaSource(loops: number): string {
  const each = (line: (i: number) => string) => Array.from({ length: VECTORS }, (_, i) => line(i)).join("\n");
  const turn = each((i) => `a${i} = fma(a${i}, x, y);`);
  return `
    @group(0) @binding(0) var<storage, read_write> out: array<vec4f>;
    @compute @workgroup_size(${THREADS}) fn main(@builtin(global_invocation_id) id: vec3u) {
      let x = vec4f(0.999 - f32(id.x % 7u) * 1e-6);
      let y = vec4f(1e-3);
      ${each((i) => `var a${i} = vec4f(f32(id.x % 5u) + ${i}.0);`)}
      for (var i = 0u; i < ${loops}u; i++) {
        ${Array(UNROLLED).fill(turn).join("\n")}
      }
      out[id.x] = ${Array.from({ length: VECTORS }, (_, i) => `a${i}`).join(" + ")};
    }`;
}

const COPY = `
  @group(0) @binding(0) var<storage, read_write> out: array<vec4f>;
  @group(0) @binding(1) var<storage, read> x: array<vec4f>;
  @compute @workgroup_size(${THREADS})
  fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    let i = id.y * groups.x * ${THREADS}u + id.x;
    if (i < arrayLength(&x)) { out[i] = x[i]; }
  }`;

/** Each thread adds up eight vectors; what is written is an eighth of an eighth's worth of nothing. */
const READ = `
  @group(0) @binding(0) var<storage, read_write> out: array<vec4f>;
  @group(0) @binding(1) var<storage, read> x: array<vec4f>;
  @compute @workgroup_size(${THREADS})
  fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
    let n = arrayLength(&x) / 8u;
    let i = id.y * groups.x * ${THREADS}u + id.x;
    if (i >= n) { return; }
    let sum = x[i] + x[i + n] + x[i + 2u * n] + x[i + 3u * n] +
      x[i + 4u * n] + x[i + 5u * n] + x[i + 6u * n] + x[i + 7u * n];
    if (sum.x == 12345.678) { out[i] = sum; }
  }`;

/**
 * Measures the card.
 *
 * @param adapter One that has given no device yet.
 * @param care How carefully.
 * @param size How much a call does: all that a card needs, little for what computes on the CPU, or next to nothing.
 * @returns One ceiling after the other.
 */
export async function* ceilings(
  adapter: GPUAdapter,
  care: Care,
  size: "card" | "software" | "quick",
): AsyncGenerator<Ceiling> {
  const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
  const device = await adapter.requestDevice({
    requiredLimits: { maxBufferSize, maxStorageBufferBindingSize },
  });
  let fault = "";
  device.addEventListener("uncapturederror", (event) => {
    event.preventDefault();
    fault ||= (event as GPUUncapturedErrorEvent).error.message;
  });
  const wish = { card: 1 << 28, software: 1 << 24, quick: 1 << 16 }[size];
  const bytes = Math.floor(Math.min(wish, maxBufferSize, maxStorageBufferBindingSize) / 4096) * 4096;
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const [x, out] = [0, 1].map(() => device.createBuffer({ size: bytes, usage }));
  const { queue } = device;
  let encoder: GPUCommandEncoder | undefined;
  const flush = () => {
    queue.submit(encoder ? [encoder.finish()] : []);
    encoder = undefined;
  };
  const settle = async () => {
    flush();
    await queue.onSubmittedWorkDone();
    if (fault) throw new Error(fault);
  };
  const idle = await idleSeconds({ settle });

  const kernel = (code: string, inputs: GPUBuffer[], groups: number): Timed => {
    const module = device.createShaderModule({ code });
    const pipeline = device.createComputePipeline({
      layout: "auto",
      compute: { module, entryPoint: "main" },
    });
    const entries = [out, ...inputs].map((buffer, binding) => ({ binding, resource: { buffer } }));
    const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
    const across = Math.min(groups, 65535);
    return {
      enqueue() {
        encoder ??= device.createCommandEncoder();
        const pass = encoder.beginComputePass();
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, group);
        pass.dispatchWorkgroups(across, Math.ceil(groups / across));
        pass.end();
      },
      flush,
      settle,
    };
  };
  const copies: Timed = {
    enqueue() {
      encoder ??= device.createCommandEncoder();
      encoder.copyBufferToBuffer(x, 0, out, 0, bytes);
    },
    flush,
    settle,
  };

  const vectors = bytes / 16;
  const [groups, loops] = { card: [4096, 16], software: [64, 16], quick: [4, 1] }[size];
  const flops = groups * THREADS * loops * VECTORS * UNROLLED * 4 * 2;
  const kinds: [name: string, unit: Ceiling["unit"], amount: number, make: () => Timed][] = [
    ["fp32 fused multiply-add", "GFLOP/s", flops / 1e9, () => kernel(fmaSource(loops), [], groups)],
    ["copy by command", "GB/s", 2 * bytes / 1e9, () => copies],
    ["copy by kernel", "GB/s", 2 * bytes / 1e9, () => kernel(COPY, [x], Math.ceil(vectors / THREADS))],
    ["read by kernel", "GB/s", bytes / 1e9, () => kernel(READ, [x], Math.ceil(vectors / 8 / THREADS))],
  ];
  try {
    for (const [name, unit, amount, make] of kinds) {
      yield { name, unit, amount, seconds: await secondsOf(make(), care, idle) };
    }
  } finally {
    device.destroy();
  }
}
