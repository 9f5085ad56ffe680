/**
 * The compiled kernels: which of the two builds an engine can run, and an instance over a memory.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import { type Kernels, RELAXED, STRICT } from "./kernels.gen.ts";

/**
 * `strict` computes the same bits on every machine; `relaxed` uses the machine's fused multiply-add and is
 * about twice as fast.
 */
export type InstructionSet = "relaxed" | "strict";

const sources: Record<InstructionSet, string> = { relaxed: RELAXED, strict: STRICT };
const modules = new Map<InstructionSet, Promise<WebAssembly.Module>>();

function bytesOf(set: InstructionSet): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(sources[set]), (character) => character.charCodeAt(0));
}

/** Whether this engine can run a build. */
export function supports(set: InstructionSet): boolean {
  return WebAssembly.validate(bytesOf(set));
}

/**
 * Compiles a build, once in a process.
 *
 * @param set Which build; by default relaxed where the engine can run it.
 * @returns The build's name and module.
 * @throws {WhetError} `backend` if the engine cannot run it.
 */
export async function compile(
  set?: InstructionSet,
): Promise<{ set: InstructionSet; module: WebAssembly.Module }> {
  const chosen = set ?? (supports("relaxed") ? "relaxed" : "strict");
  let module = modules.get(chosen);
  if (!module) {
    if (!supports(chosen)) {
      const missing = chosen === "relaxed" ? "relaxed SIMD: use the strict instruction set" : "SIMD";
      throw new WhetError("backend", `this engine's WebAssembly has no ${missing}`);
    }
    module = WebAssembly.compile(bytesOf(chosen));
    modules.set(chosen, module);
  }
  return { set: chosen, module: await module };
}

/** The kernels of a module over a memory. */
export function instantiate(module: WebAssembly.Module, memory: WebAssembly.Memory): Kernels {
  return new WebAssembly.Instance(module, { env: { memory } }).exports as unknown as Kernels;
}
