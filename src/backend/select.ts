/**
 * Which home the kernels get: a graphics card through WebGPU where there is one, WebAssembly else.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import type { Backend } from "../tensor/backend.ts";
import type { InstructionSet } from "./wasm/instance.ts";
import type { TurboDescription } from "./wasm/turbo.ts";
import { findAdapter, isSoftware, missingAdapter } from "./webgpu/adapter.ts";

/** Which backend is wanted. */
export type BackendName = "auto" | "webgpu" | "wasm";

/** How a backend is opened. */
export interface BackendOptions {
  /** WebAssembly's instruction set; by default relaxed where the engine has it. */
  instructionSet?: InstructionSet;
  /** Threads that WebAssembly computes with; by default as many as there are cores. */
  threads?: number;
  /**
   * Whether WebGPU computes in a worker [no]: Deno's event loop stands still while it waits for a device, which a
   * server's must not. Errors come a call later, and then for good.
   */
  worker?: boolean;
  /** What WebGPU multiplies matrices with; see `ProductOptions`. */
  arithmetic?: "f32" | "f16" | "i8";
}

/** An adapter that WebGPU found, for people to read. */
export interface WebGpuDescription {
  /** The adapter in its driver's words. */
  description: string;
  /** Whether it computes on the CPU: slower than WebAssembly, and never chosen by `auto`. */
  software: boolean;
  /** Optional features, as WebGPU names them. */
  features: string[];
  /** Limits, as WebGPU names them. */
  limits: Record<string, number>;
}

/** What WebAssembly can do here, for people to read. */
export interface WasmDescription {
  /** The kernels' home in words. */
  description: string;
  /** The instruction set that is chosen by default; absent where the engine has no SIMD at all. */
  instructionSet?: InstructionSet;
  /** Whether V8 computes matrix products with 256 bits: only if this process was started with its flags for that. */
  turbo: TurboDescription;
  /** The most memory that it can use, in bytes. */
  maximumBytes: number;
}

/** What `whet devices` prints. */
export interface BackendDescriptions {
  /** The backend that `auto` picks. */
  auto: "webgpu" | "wasm";
  /** Why it does. */
  reason: string;
  /** The adapter that `webgpu` would use, or null. */
  webgpu: WebGpuDescription | null;
  /** WebAssembly. */
  wasm: WasmDescription;
}

const INSTALL =
  "install a Vulkan driver (Debian, Ubuntu: libvulkan1 and the card's own driver, or mesa-vulkan-drivers), " +
  "or use --backend wasm, which works everywhere";

/**
 * Opens a backend.
 *
 * @param name `auto` picks a hardware WebGPU adapter that works, else WebAssembly; `webgpu` takes a software
 * adapter too; `wasm` works everywhere.
 * @param options How.
 * @returns The backend; dispose it to free its memory.
 * @throws {WhetError} `backend` if what is asked for is not to be had, `option` for an unknown name or arithmetic.
 *
 * @example
 * ```ts
 * import { createBackend } from "./select.ts";
 *
 * using backend = await createBackend("wasm");
 * console.log(backend.description);
 * ```
 */
export async function createBackend(
  name: BackendName = "auto",
  options: BackendOptions = {},
): Promise<Backend> {
  const { arithmetic = "f32" } = options;
  if (!["f32", "f16", "i8"].includes(arithmetic)) {
    throw new WhetError("option", `arithmetic: expected f32, f16 or i8, got ${arithmetic}`);
  }
  switch (name) {
    case "wasm":
      return await openWasm(options);
    case "webgpu": {
      const adapter = await findAdapter();
      if (!adapter) throw new WhetError("backend", `${missingAdapter()}; ${INSTALL}`);
      return await openWebGpu(adapter, options);
    }
    case "auto": {
      const adapter = await findAdapter();
      if (!adapter || isSoftware(adapter)) return await openWasm(options);
      try {
        return await openWebGpu(adapter, options);
      } catch {
        // A card whose driver fails must not keep anyone from working; `webgpu` by name says why it fails.
        return await openWasm(options);
      }
    }
    default:
      throw new WhetError("option", `--backend: expected auto, webgpu or wasm, got ${name}`);
  }
}

/**
 * Describes what there is on this machine.
 *
 * @returns What was found, and what `auto` picks and why.
 */
export async function describeBackends(): Promise<BackendDescriptions> {
  const [{ supports }, { describe }, { cores }, { describeTurbo }, { findDots }] = await Promise.all([
    ...[import("./wasm/instance.ts"), import("./wasm/backend.ts")] as const,
    ...[import("./wasm/pool.ts"), import("./wasm/turbo.ts"), import("./wasm/dots.ts")] as const,
  ]);
  const instructionSet = (["relaxed", "strict"] as const).find(supports);
  const turbo = instructionSet
    ? await describeTurbo(instructionSet, cores() > 1)
    : { active: false, gain: 0 };
  const wasm: WasmDescription = {
    description: instructionSet
      ? describe(instructionSet, cores(), await findDots(instructionSet, cores() > 1), turbo.active)
      : "WebAssembly without SIMD: cannot be used",
    ...{ instructionSet, turbo },
    maximumBytes: 65536 * 65536,
  };
  const adapter = await findAdapter();
  if (!adapter) return { auto: "wasm", reason: missingAdapter(), webgpu: null, wasm };
  const webgpu = describeAdapter(adapter);
  if (webgpu.software) {
    const reason =
      `the only WebGPU adapter, ${webgpu.description}, computes on the CPU, which WebAssembly does faster`;
    return { auto: "wasm", reason, webgpu, wasm };
  }
  try {
    (await openWebGpu(adapter))[Symbol.dispose]();
  } catch (error) {
    const reason = `${webgpu.description} was found but fails: ${
      error instanceof Error ? error.message : error
    }`;
    return { auto: "wasm", reason, webgpu, wasm };
  }
  return {
    auto: "webgpu",
    reason: `${webgpu.description} is a graphics card that WebGPU can use`,
    webgpu,
    wasm,
  };
}

async function openWasm(options: BackendOptions): Promise<Backend> {
  const { createWasmBackend } = await import("./wasm/backend.ts");
  return await createWasmBackend(options);
}

async function openWebGpu(
  adapter: GPUAdapter,
  { worker, arithmetic }: BackendOptions = {},
): Promise<Backend> {
  if (worker) {
    const { openRemoteBackend } = await import("./webgpu/remote.ts");
    return await openRemoteBackend({ arithmetic });
  }
  const { createWebGpuBackend } = await import("./webgpu/backend.ts");
  return await createWebGpuBackend(adapter, { arithmetic });
}

function describeAdapter(adapter: GPUAdapter): WebGpuDescription {
  const { info, limits } = adapter;
  const names = Object.entries(Object.getOwnPropertyDescriptors(Object.getPrototypeOf(limits)))
    .filter(([, property]) => property.get).map(([name]) => name as keyof GPUSupportedLimits);
  return {
    description: info.description || [info.vendor, info.architecture, info.device].filter(Boolean).join(" "),
    software: isSoftware(adapter),
    features: [...adapter.features].sort(),
    limits: Object.fromEntries(
      names.map((name) => [name, limits[name]]).filter(([, value]) => typeof value === "number"),
    ),
  };
}
