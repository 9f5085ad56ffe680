/** What the trial of an adapter finds is remembered, in this process and the next ones. */
import { assert, assertEquals } from "@std/assert";
import type { Gpu } from "../src/backend/webgpu/gpu.ts";
import { WGSL } from "../src/backend/webgpu/kernels.gen.ts";
import { UNMEASURED } from "../src/backend/webgpu/matmul_shapes.ts";
import { nameOf, settleProducts, type Trial } from "../src/backend/webgpu/matmul_trial.ts";
import { keep, recall } from "../src/backend/webgpu/remembered.ts";
import { inTempDir } from "./support/models.ts";
import { deviceTest } from "./support/webgpu.ts";

/** Runs with a cache directory of its own. */
function withCache(work: (directory: string) => Promise<void>): Promise<void> {
  return inTempDir(async (directory) => {
    const before = Deno.env.get("XDG_CACHE_HOME");
    Deno.env.set("XDG_CACHE_HOME", directory);
    try {
      await work(directory);
    } finally {
      if (before === undefined) Deno.env.delete("XDG_CACHE_HOME");
      else Deno.env.set("XDG_CACHE_HOME", before);
    }
  });
}

/** Lets a device be of a card, of which nothing is known. */
async function disguise(device: GPUDevice, description: string): Promise<string> {
  const info = { vendor: "acme", architecture: "", device: "", description } as GPUAdapterInfo;
  Object.defineProperty(device, "adapterInfo", { value: info });
  return await nameOf(info, {});
}

/** A question that is soon answered. */
const TRIAL: Trial = {
  size: [64, 64, 64],
  matrices: 1,
  candidates: [{ small: "32x64" }, { small: "64x64" }],
  force: ({ small }) => ({ tile: small }),
};

/** Sets how products are made; returns how many kernels ran for it. */
async function settle(gpu: Gpu, budget = 60_000): Promise<number> {
  const before = gpu.stats().dispatches;
  await settleProducts(gpu, {}, [TRIAL], budget);
  return gpu.stats().dispatches - before;
}

deviceTest("what a whole trial finds is kept for the next process", WGSL, async (gpu, device) => {
  await withCache(async () => {
    const name = await disguise(device, "a card that has time");
    assert(await settle(gpu) > 0);
    assertEquals(await recall(name), { ...gpu.products.shapes });
  });
});

deviceTest("what a trial finds that was cut short is for this process alone", WGSL, async (gpu, device) => {
  await withCache(async () => {
    const name = await disguise(device, "a card that has none");
    assertEquals(await settle(gpu, -1), 0);
    assertEquals([gpu.products.shapes, await recall(name)], [UNMEASURED, undefined]);
  });
});

deviceTest("what was kept of an adapter is taken, and nothing tried", WGSL, async (gpu, device) => {
  await withCache(async () => {
    const name = await disguise(device, "a card tried before");
    const shapes = { ...UNMEASURED, medium: "128x64", workgroups: 512 } as const;
    await keep(name, shapes);
    assertEquals(await settle(gpu), 0);
    assertEquals(gpu.products.shapes, shapes);
  });
});

for (
  const [what, kept] of Object.entries({
    "of shapes that no trial finds": { ...UNMEASURED, medium: "9x9" },
    "that lacks one": { ...UNMEASURED, small: undefined },
    "that is no shapes": "128x128",
  })
) {
  deviceTest(
    `a file ${what} is not believed; the adapter is tried, once a process`,
    WGSL,
    async (gpu, device) => {
      await withCache(async () => {
        await keep(await disguise(device, `a card with a file ${what}`), kept);
        assert(await settle(gpu) > 0);
        assertEquals(await settle(gpu), 0);
      });
    },
  );
}

Deno.test("what is kept comes back by its own name alone, whole, from a file that need not be", () =>
  withCache(async (directory) => {
    assertEquals(await recall("a card"), undefined);
    await keep("a card", { n: 1 });
    assertEquals(await recall("a card"), { n: 1 });
    assertEquals(await recall("a-card"), undefined, "the same file");
    const [{ name }, ...others] = [...Deno.readDirSync(`${directory}/whet`)];
    assertEquals([name, others], ["a-card.json", []]);
    Deno.writeTextFileSync(`${directory}/whet/${name}`, "{");
    assertEquals(await recall("a card"), undefined);
    Deno.removeSync(`${directory}/whet`, { recursive: true });
    Deno.writeTextFileSync(`${directory}/whet`, "in the way");
    await keep("a card", 1);
    assertEquals(await recall("a card"), undefined);
  }));

Deno.test({
  name: "without permission nothing is kept, and nobody asked",
  permissions: { env: ["XDG_CACHE_HOME", "HOME"], read: false, write: false },
  async fn() {
    await keep("a card", { n: 1 });
    assertEquals(await recall("a card"), undefined);
  },
});
