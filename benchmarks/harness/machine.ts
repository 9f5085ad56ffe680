/**
 * The machine in words: what figures depend on, and nothing that tells whose it is.
 *
 * @module
 */
import os from "node:os";

/** What figures depend on. */
export interface Machine {
  /** The CPU's model, as the system says it, and the widest vectors that native peers find in it. */
  cpu: string;
  /** Cores. */
  cores: number;
  /** Memory, in GiB. */
  memory: number;
  /** System and architecture. */
  system: string;
  /** Deno's version. */
  deno: string;
  /** V8's. */
  v8: string;
  /** V8's flags, where there are any. */
  flags?: string;
}

/** Instruction sets that make a difference to native peers, the widest first. */
const VECTORS = ["avx512_bf16", "avx512_vnni", "avx512f", "avx_vnni", "avx2", "fma", "asimddp", "asimd"];

/** Describes this machine. */
export async function describeMachine(): Promise<Machine> {
  const flags = Deno.env.get("DENO_V8_FLAGS");
  const vectors = await vectorSets();
  return {
    cpu: (os.cpus()[0]?.model.trim() || "unknown") + (vectors.length ? ` (${vectors.join(", ")})` : ""),
    cores: navigator.hardwareConcurrency,
    memory: Math.round(Deno.systemMemoryInfo().total / 2 ** 30),
    system: `${Deno.build.os} ${Deno.build.arch}`,
    deno: Deno.version.deno,
    v8: Deno.version.v8,
    ...(flags ? { flags } : {}),
  };
}

async function vectorSets(): Promise<string[]> {
  const text = await Deno.readTextFile("/proc/cpuinfo").catch(() => "");
  const line = /^(?:flags|Features)\s*:(.*)$/m.exec(text)?.[1].trim().split(/\s+/) ?? [];
  return VECTORS.filter((name) => line.includes(name));
}
