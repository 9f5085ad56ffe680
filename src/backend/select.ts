/**
 * Which backend: the only place that knows both.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import type { Backend } from "../tensor/backend.ts";

/** What can be asked for. */
export type BackendName = "auto" | "webgpu" | "wasm";

/** How a backend is made. */
export interface BackendSettings {
  /** WASM's instructions [relaxed where the engine has them]. */
  instructionSet?: "relaxed" | "strict";
}

/** A WebGPU adapter, as `whet devices` tells of it. */
export interface AdapterReport {
  /** Its name and driver. */
  description: string;
  /** Who made it. */
  vendor: string;
  /** Its family. */
  architecture: string;
  /** Whether it computes on the CPU; `auto` passes over it. */
  software: boolean;
  /** What it lists of WebGPU's optional features. */
  features: string[];
  /** Its limits that matter here, in bytes or counts. */
  limits: Record<string, number>;
}

/** What `whet devices` tells. */
export interface BackendReport {
  /** What `auto` picks, and why. */
  auto: { backend: "webgpu" | "wasm"; reason: string };
  /** The adapter, or why there is none. */
  webgpu: AdapterReport | { available: false; reason: string };
  /** What WebAssembly can do here. */
  wasm: { instructionSet: "relaxed" | "strict"; sharedMemory: boolean; cores: number };
}

/**
 * Makes a backend.
 *
 * @param name `"auto"` takes a hardware GPU, else WASM; `"webgpu"` takes a software adapter too.
 * @param settings WASM's instructions.
 * @returns The backend; dispose it to free its memory.
 * @throws {WhetError} "option" for another name, "backend" where there is no adapter.
 */
export async function createBackend(name: BackendName, settings: BackendSettings = {}): Promise<Backend> {
  if (!["auto", "webgpu", "wasm"].includes(name)) {
    throw new WhetError("option", `backend: expected auto, webgpu or wasm, got ${JSON.stringify(name)}`);
  }
  const adapter = name === "wasm" ? null : await findAdapter();
  if (adapter && (name === "webgpu" || !isSoftware(adapter))) {
    const { createWebGpuBackend } = await import("./webgpu/backend.ts");
    return await createWebGpuBackend(adapter);
  }
  if (name === "webgpu") throw new WhetError("backend", `${NO_ADAPTER}; --backend wasm works everywhere`);
  const { createWasmBackend } = await import("./wasm/backend.ts");
  return await createWasmBackend(settings);
}

const NO_ADAPTER =
  "no WebGPU adapter was found: install a Vulkan driver (on Debian mesa-vulkan-drivers and libvulkan1, or the card's own)";

async function findAdapter(): Promise<GPUAdapter | null> {
  // Edge runtimes have no navigator.gpu.
  const gpu = (globalThis.navigator as { gpu?: GPU } | undefined)?.gpu;
  return await gpu?.requestAdapter({ powerPreference: "high-performance" }) ?? null;
}

/** Whether an adapter computes on the CPU: ten times slower than WASM, so nobody wants it unasked. */
function isSoftware({ info }: GPUAdapter): boolean {
  return info.isFallbackAdapter ||
    /llvmpipe|lavapipe|swiftshader|basic render/i.test(`${info.description} ${info.device}`);
}

/**
 * Looks at what there is.
 *
 * @returns The adapter, WebAssembly's abilities, what `auto` picks and why.
 */
export async function describeBackends(): Promise<BackendReport> {
  const { supports } = await import("./wasm/instance.ts");
  const adapter = await findAdapter();
  const software = adapter !== null && isSoftware(adapter);
  const auto: BackendReport["auto"] = adapter && !software
    ? { backend: "webgpu", reason: "a hardware adapter was found" }
    : {
      backend: "wasm",
      reason: adapter ? "the only WebGPU adapter computes on the CPU, slower than WASM" : NO_ADAPTER,
    };
  return {
    auto,
    webgpu: adapter ? describeAdapter(adapter, software) : { available: false, reason: NO_ADAPTER },
    wasm: {
      instructionSet: supports("relaxed") ? "relaxed" : "strict",
      sharedMemory: typeof SharedArrayBuffer !== "undefined",
      cores: globalThis.navigator?.hardwareConcurrency ?? 1,
    },
  };
}

function describeAdapter({ info, features, limits }: GPUAdapter, software: boolean): AdapterReport {
  const {
    maxBufferSize,
    maxStorageBufferBindingSize,
    maxComputeWorkgroupStorageSize,
    maxComputeInvocationsPerWorkgroup,
  } = limits;
  return {
    description: info.description || info.device,
    vendor: info.vendor,
    architecture: info.architecture,
    software,
    features: [...features].sort(),
    limits: {
      maxBufferSize,
      maxStorageBufferBindingSize,
      maxComputeWorkgroupStorageSize,
      maxComputeInvocationsPerWorkgroup,
    },
  };
}
