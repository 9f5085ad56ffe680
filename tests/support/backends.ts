/**
 * The backends that the conformance suite tests, and where each of them is to be had.
 *
 * @module
 */
import type { Backend } from "../../src/tensor/backend.ts";

/** One backend under test. */
export interface Candidate {
  /** As it stands in the tests' names. */
  name: string;
  /** Makes a fresh one; the caller disposes it. */
  create(): Promise<Backend>;
  /** Whether it is not to be had on this machine; its tests are then shown as ignored. */
  ignore: boolean;
  /**
   * Largest error of an activation that meets a q8 or q4 weight, relative to the largest in its row:
   * 0 where kernels keep activations in floats, 0.5 / 127 where they round them to 8 bits.
   */
  activationStep: number;
}

/** The shape that both homes' modules have, whether or not they are there yet. */
interface Homes {
  createWasmBackend(options: { instructionSet: "strict" | "relaxed" }): Promise<Backend> | Backend;
  createWebGpuBackend(adapter: GPUAdapter): Promise<Backend> | Backend;
}

/**
 * Finds the backends to test. WebGPU is tested on whatever adapter there is, a software one too; with
 * `WHET_EXPECT_WEBGPU=1` it is an error to find none.
 */
export async function candidates(): Promise<Candidate[]> {
  const adapter = await navigator.gpu?.requestAdapter() ?? null;
  const expected = Deno.env.get("WHET_EXPECT_WEBGPU") === "1";
  const home = (name: string) =>
    import(new URL(`../../src/backend/${name}/backend.ts`, import.meta.url).href);
  const wasm = (instructionSet: "strict" | "relaxed"): Candidate => ({
    name: `wasm ${instructionSet}`,
    async create() {
      const { createWasmBackend }: Homes = await home("wasm");
      return await createWasmBackend({ instructionSet });
    },
    ignore: false,
    activationStep: 0,
  });
  return [
    wasm("strict"),
    wasm("relaxed"),
    {
      name: "webgpu",
      async create() {
        // An adapter gives one device: each backend asks for its own.
        const adapter = await navigator.gpu?.requestAdapter();
        if (!adapter) throw new Error("WHET_EXPECT_WEBGPU=1, but no WebGPU adapter was found");
        const { createWebGpuBackend }: Homes = await home("webgpu");
        return await createWebGpuBackend(adapter);
      },
      ignore: adapter === null && !expected,
      activationStep: 0,
    },
  ];
}
