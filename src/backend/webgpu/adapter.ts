/**
 * Which of a machine's adapters is taken.
 *
 * @module
 */

/** The fastest hardware adapter, else a software one; null where there is none. */
export async function findAdapter(): Promise<GPUAdapter | null> {
  const gpu = globalThis.navigator?.gpu;
  if (!gpu) return null;
  const restore = quietLoader();
  try {
    const fastest = await gpu.requestAdapter({ powerPreference: "high-performance" });
    if (fastest && !isSoftware(fastest)) return fastest;
    return await gpu.requestAdapter() ?? fastest;
  } catch {
    return null;
  } finally {
    restore();
  }
}

/**
 * Without XDG_RUNTIME_DIR (containers, services) Mesa writes two lines of complaint to standard error at
 * every look for an adapter. Where the environment may be written, it gets a value for that long.
 */
function quietLoader(): () => void {
  const name = "XDG_RUNTIME_DIR";
  if (globalThis.Deno?.build.os !== "linux") return () => {};
  if (Deno.permissions.querySync({ name: "env", variable: name }).state !== "granted" || Deno.env.get(name)) {
    return () => {};
  }
  Deno.env.set(name, "/nonexistent");
  return () => Deno.env.delete(name);
}

/** Whether an adapter computes on the CPU, whether or not its implementation says so. */
export function isSoftware({ info }: Pick<GPUAdapter, "info">): boolean {
  const words = [info.vendor, info.architecture, info.device, info.description].join(" ");
  return info.isFallbackAdapter === true ||
    /llvmpipe|lavapipe|softpipe|swiftshader|basic render|\bwarp\b|software|\bcpu\b/i.test(words);
}

/** Why there is no adapter. */
export function missingAdapter(): string {
  return globalThis.navigator?.gpu ? "WebGPU finds no adapter on this machine" : "this runtime has no WebGPU";
}
