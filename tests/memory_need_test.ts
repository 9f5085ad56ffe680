/** What a model needs, beside what a backend has, before any of it is loaded. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { createWasmBackend } from "../src/backend/wasm/backend.ts";
import { admit, room } from "../src/backend/webgpu/admit.ts";
import { WhetError } from "../src/errors.ts";
import { GPT2 } from "../src/gpt2.ts";
import { parseConfig } from "../src/model/config.ts";
import { memoryNeed } from "../src/model/memory.ts";
import type { MemoryNeed } from "../src/tensor/backend.ts";
import { failure, fixture } from "./support/models.ts";
import { deviceTest, gpuTest } from "./support/webgpu.ts";

const XL = parseConfig({ n_embd: 1600, n_layer: 48, n_head: 25 }, "config");
const GIB = 2 ** 30;

Deno.test("GPT-2's sizes take what their published counts of parameters say", () => {
  const millions = (shape: Record<string, number>) =>
    memoryNeed("m", parseConfig(shape, "config"), "f32").weights / 4e6;
  const close = (actual: number, expected: number) =>
    assert(Math.abs(actual - expected) < 0.01, `${actual}, not ${expected}`);
  close(millions({}), 124.44);
  close(millions({ n_embd: 1024, n_layer: 24, n_head: 16 }), 354.82);
  close(memoryNeed("m", XL, "f32").weights / 4e6, 1557.61);
});

Deno.test("a backend takes what was reckoned, and little more", async () => {
  for (const weights of ["f32", "f16", "q8", "q4"] as const) {
    using backend = await createWasmBackend();
    using model = await GPT2.random({ vocab_size: 640, n_positions: 64, n_embd: 64, n_head: 2, n_layer: 3 }, {
      backend,
      weights,
    });
    const need = memoryNeed("m", model.config, weights);
    const taken = backend.stats().allocatedBytes;
    assert(
      taken >= need.weights && taken < need.weights * 1.3,
      `${weights}: ${taken}, reckoned ${need.weights}`,
    );
  }
});

Deno.test("WebAssembly refuses what its 4 GiB cannot hold, and says what would fit", async () => {
  using backend = await createWasmBackend();
  await failure("resource", [
    "gpt2-xl does not fit",
    "4096.0 MiB",
    "f32 weights take 5941.8 MiB",
    "--weights q8",
  ], () => backend.admit!(memoryNeed("gpt2-xl", XL, "f32")));
  await backend.admit!(memoryNeed("gpt2-xl", XL, "q8"));
  const huge = { ...memoryNeed("huge", XL, "q4"), weights: 5 * GIB };
  await failure("resource", ["take a smaller model"], () => backend.admit!(huge));
});

for (const load of ["load", "random"] as const) {
  gpuTest(
    `GPT2.${load} refuses a model whose tensors no kernel sees whole, before it takes any memory`,
    async (backend) => {
      const before = backend.stats();
      const words = [
        "does not fit",
        "its position embedding takes 5120 bytes",
        "4096 bytes at once",
        "--backend wasm",
      ];
      await failure(
        "resource",
        words,
        () =>
          load === "load"
            ? GPT2.load(fixture("d16/model"), { backend })
            : GPT2.random({ vocab_size: 97, n_positions: 40, n_embd: 32, n_head: 2, n_layer: 1 }, {
              backend,
            }),
      );
      assertEquals(backend.stats(), before);
    },
    { maxBindingBytes: 4096 },
  );
}

deviceTest(
  "a device is asked for the memory that a model needs, and gets it back",
  {},
  async (gpu, device) => {
    // A stand-in for a small card: buffers of more than 1 GiB in all are refused, as drivers do it.
    let held = 0, scope: GPUError | null = null;
    const create = device.createBuffer.bind(device);
    device.createBuffer = (descriptor) => {
      const buffer = create({ ...descriptor, size: 256 });
      held += descriptor.size;
      if (held > GIB) scope = new GPUOutOfMemoryError("too much");
      const destroy = buffer.destroy.bind(buffer);
      buffer.destroy = () => {
        held -= descriptor.size;
        destroy();
      };
      return buffer;
    };
    device.pushErrorScope = () => void (scope = null);
    device.popErrorScope = () => Promise.resolve(scope);

    assertEquals(await room(device, 1000), 1024);
    assertEquals(await room(device, GIB), GIB);
    assertEquals(await room(device, 3 * GIB), GIB);
    assertEquals(held, 0);
    const need: MemoryNeed = { ...memoryNeed("gpt2-xl", XL, "f16"), largest: { name: "x", bytes: 4 } };
    const words = [
      "gpt2-xl does not fit a card of 1 GiB: it takes 3",
      "its f16 weights 2975.9 MiB",
      "256 tokens 92.4 MiB",
      "there is room for 1024.0 MiB",
      "--weights q8",
      "--backend wasm",
    ];
    await failure("resource", words, () => admit(gpu, "a card of 1 GiB", need));
    const quantised = await assertRejects(() => admit(gpu, "a card", { ...need, format: "q4" }), WhetError);
    assert(!quantised.message.includes("--weights") && quantised.message.includes("--backend wasm"));
    await admit(gpu, "a card of 1 GiB", { ...need, weights: GIB / 2 });
    assertEquals(held, 0);
  },
);
