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
const modules = new Map<string, Promise<WebAssembly.Module>>();

/** How a module's only import begins: `env`, `memory`, a memory, with a maximum. */
const IMPORT = "\x03env\x06memory\x02\x01";
/** The same of a memory that threads share: nothing else about the module differs. */
const SHARED_IMPORT = "\x03env\x06memory\x02\x03";

function bytesOf(set: InstructionSet, shared = false): Uint8Array<ArrayBuffer> {
  const module = atob(sources[set]);
  const chosen = shared ? module.replace(IMPORT, SHARED_IMPORT) : module;
  // `Uint8Array.from` walks the string by its iterator: 7 to 10 ms instead of 0.2 to 0.8.
  const bytes = new Uint8Array(chosen.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = chosen.charCodeAt(i);
  return bytes;
}

const supported = new Map<InstructionSet, boolean>();

/** Whether this engine can run a build. */
export function supports(set: InstructionSet): boolean {
  const valid = supported.get(set) ?? WebAssembly.validate(bytesOf(set));
  supported.set(set, valid);
  return valid;
}

/**
 * Compiles a build, once in a process.
 *
 * @param set Which build; by default relaxed where the engine can run it.
 * @param shared Whether its memory is shared by threads.
 * @returns The build's name and module.
 * @throws {WhetError} `backend` if the engine cannot run it.
 */
export async function compile(
  set?: InstructionSet,
  shared = false,
): Promise<{ set: InstructionSet; module: WebAssembly.Module }> {
  const chosen = set ?? (supports("relaxed") ? "relaxed" : "strict");
  const key = `${chosen} ${shared}`;
  let module = modules.get(key);
  if (!module) {
    if (!supports(chosen)) {
      const missing = chosen === "relaxed" ? "relaxed SIMD: use the strict instruction set" : "SIMD";
      throw new WhetError("backend", `this engine's WebAssembly has no ${missing}`);
    }
    module = WebAssembly.compile(bytesOf(chosen, shared));
    modules.set(key, module);
  }
  return { set: chosen, module: await module };
}

/** The kernels of a module over a memory. */
export function instantiate(module: WebAssembly.Module, memory: WebAssembly.Memory): Kernels {
  return new WebAssembly.Instance(module, { env: { memory } }).exports as unknown as Kernels;
}
