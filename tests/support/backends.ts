/**
 * The backends that the conformance suite tests, and where each of them is to be had.
 *
 * @module
 */
import type { Dots } from "../../src/backend/wasm/dots.ts";
import type { InstructionSet } from "../../src/backend/wasm/instance.ts";
import type { Backend } from "../../src/tensor/backend.ts";
import type { WeightFormat } from "../../src/tensor/tensor.ts";

/** One backend under test. */
export interface Candidate {
  /** As it stands in the tests' names. */
  name: string;
  /** Makes a fresh one; the caller disposes it. */
  create(): Promise<Backend>;
  /** Whether it is not to be had on this machine; its tests are then shown as ignored. */
  ignore: boolean;
  /**
   * Largest error of an activation that meets a weight of a format, relative to the largest in its row: 0 where kernels keep
   * activations in floats; on WASM q4 rounds them to 8 bits (the transpose's, to 12), q8 to 12 without products of bytes, 8 by
   * dot products and 7 in pairs; and weights that are summed over their other way to 13, by products of bytes to 8.
   */
  activationStep(format: WeightFormat, transposed: boolean): number;
}

/** {@linkcode Candidate.activationStep} of 8-bit weights by products of bytes. */
export function bytesStep(dots: Dots, transposed: boolean): number {
  return 0.5 / (dots === "pairs" ? 63 : 127) + (transposed ? 0.5 / 127 : 0);
}

/**
 * Finds the backends to test. WebGPU is tested on whatever adapter there is, a software one too, but not
 * through OpenGL; with `WHET_EXPECT_WEBGPU=1` it is an error to find none. With `WHET_TEST_WIDE=1` WebAssembly
 * computes products 16 columns at once, which the clock decides else; `WHET_TEST_WEBGPU` holds options of WebGPU's
 * backend as JSON, say `{"shapes":{"workgroups":256,"plain":false}}` for the products of a card.
 */
export async function candidates(): Promise<Candidate[]> {
  // Where there is no Vulkan, Metal or Direct3D, Deno 2.9 offers OpenGL, which Mesa may well run in software;
  // it compiles one of the larger kernels in 24 to 52 s. Whoever wants it tested sets the variable to "gl".
  if (!Deno.env.has("DENO_WEBGPU_BACKEND")) Deno.env.set("DENO_WEBGPU_BACKEND", "vulkan,metal,dx12");
  const adapter = await navigator.gpu?.requestAdapter() ?? null;
  const expected = Deno.env.get("WHET_EXPECT_WEBGPU") === "1";
  const wide = Deno.env.get("WHET_TEST_WIDE") === "1" || undefined;
  const { findDots } = await import("../../src/backend/wasm/dots.ts");
  const relaxed = await findDots("relaxed").catch((): Dots => "none");
  const dots: Record<InstructionSet, Dots> = { strict: "none", relaxed };
  const wasm = (instructionSet: "strict" | "relaxed"): Candidate => ({
    name: `wasm ${instructionSet}`,
    async create() {
      const { openWasmBackend } = await import("../../src/backend/wasm/backend.ts");
      return await openWasmBackend({ instructionSet, threads: 1, wide });
    },
    ignore: false,
    activationStep(format, transposed) {
      if (format !== "q8" && format !== "q4") return 0;
      if (format === "q8" && dots[instructionSet] !== "none") {
        return bytesStep(dots[instructionSet], transposed);
      }
      return 0.5 / (format === "q4" && !transposed ? 127 : 2047) + 0.5 / 4064;
    },
  });
  return [
    wasm("strict"),
    wasm("relaxed"),
    {
      ...wasm("relaxed"),
      name: "wasm relaxed, 3 threads",
      async create() {
        const { openWasmBackend } = await import("../../src/backend/wasm/backend.ts");
        // However little there is to do, it is shared out.
        const eager = { price: 0, least: 0 };
        const backend = await openWasmBackend({ instructionSet: "relaxed", threads: 3, wide, ...eager });
        await backend.pool?.assemble();
        return backend;
      },
    },
    {
      name: "webgpu",
      async create() {
        // An adapter gives one device: each backend asks for its own.
        const adapter = await navigator.gpu?.requestAdapter();
        if (!adapter) throw new Error("WHET_EXPECT_WEBGPU=1, but no WebGPU adapter was found");
        const { createWebGpuBackend } = await import("../../src/backend/webgpu/backend.ts");
        return await createWebGpuBackend(adapter, JSON.parse(Deno.env.get("WHET_TEST_WEBGPU") ?? "{}"));
      },
      ignore: adapter === null && !expected,
      activationStep: () => 0,
    },
  ];
}
