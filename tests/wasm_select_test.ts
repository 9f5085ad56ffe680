/** Which backend is chosen, on machines with any kind of adapter or none. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import { type BackendName, createBackend, describeBackends } from "../src/backend/select.ts";

/** Puts adapters in the place of this machine's for the length of a test. */
async function withAdapter(info: Partial<GPUAdapterInfo> | null, prove: () => Promise<void>): Promise<void> {
  const adapter = info && {
    info,
    features: new Set(["shader-f16"]),
    limits: Object.create({
      get maxBufferSize() {
        return 268435456;
      },
    }),
    requestDevice: () => Promise.reject(new Error("the driver fails")),
  };
  Object.defineProperty(navigator, "gpu", {
    configurable: true,
    value: { requestAdapter: () => Promise.resolve(adapter) },
  });
  try {
    await prove();
  } finally {
    delete (navigator as { gpu?: GPU }).gpu; // the prototype's getter shows again
  }
}

Deno.test("auto passes over an adapter that computes on the CPU, flagged or only named so", async () => {
  for (
    const info of [
      { description: "SomeCard", isFallbackAdapter: true },
      { description: "llvmpipe (LLVM 15.0.6, 256 bits)" },
      { vendor: "google", architecture: "swiftshader", description: "" },
      { description: "Microsoft Basic Render Driver" },
    ]
  ) {
    await withAdapter(info, async () => {
      using backend = await createBackend("auto");
      assertEquals(backend.name, "wasm");
      const { auto, reason, webgpu } = await describeBackends();
      assertEquals([auto, webgpu?.software], ["wasm", true]);
      assert(reason.includes("CPU"), reason);
    });
  }
});

Deno.test("auto falls back to WebAssembly from a card whose driver fails, and devices says why", async () => {
  await withAdapter({ description: "SomeCard 9000" }, async () => {
    using backend = await createBackend("auto");
    assertEquals(backend.name, "wasm");
    const { auto, reason, webgpu } = await describeBackends();
    assertEquals([auto, webgpu?.software, webgpu?.limits.maxBufferSize], ["wasm", false, 268435456]);
    assert(reason.startsWith("SomeCard 9000 was found but fails"), reason);
    await assertRejects(() => createBackend("webgpu"));
  });
});

Deno.test("without an adapter auto is WebAssembly, and webgpu by name says what to do", async () => {
  await withAdapter(null, async () => {
    using backend = await createBackend("auto", { instructionSet: "strict", threads: 3 });
    assertEquals(backend.description, "SIMD WebAssembly, strict, 3 threads");
    const { auto, reason, webgpu, wasm } = await describeBackends();
    assertEquals([auto, webgpu], ["wasm", null]);
    assert(reason.includes("no adapter"), reason);
    assert(wasm.description.startsWith("SIMD WebAssembly") && wasm.maximumBytes === 2 ** 32);
    const error = await assertRejects(() => createBackend("webgpu"), WhetError);
    assertEquals(error.code, "backend");
    assert(/Vulkan driver.*--backend wasm/.test(error.message), error.message);
  });
});

Deno.test("an unknown backend or arithmetic is refused by name", async () => {
  const error = await assertRejects(() => createBackend("cuda" as BackendName), WhetError);
  assertEquals([error.code, error.message], ["option", "--backend: expected auto, webgpu or wasm, got cuda"]);
  const half = await assertRejects(() => createBackend("wasm", { arithmetic: "bf16" as "f16" }), WhetError);
  assertEquals([half.code, half.message], ["option", "arithmetic: expected f32, f16 or i8, got bf16"]);
});
