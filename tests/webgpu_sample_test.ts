/** The choice of tokens on devices with little and with much room, out of what the parts of a row come to. */
import { assertEquals } from "@std/assert";
import { createWebGpuBackend } from "../src/backend/webgpu/backend.ts";
import type { Backend, SampleRow } from "../src/tensor/backend.ts";
import { midway, PLAIN, sampleRow } from "./support/sampling.ts";
import { adapterTest, findAdapter, numbers } from "./support/webgpu.ts";

/** Tokens chosen from rows of logits. */
async function chosen(
  backend: Backend,
  logits: Float32Array,
  rows: readonly Omit<SampleRow, "slot">[],
): Promise<number[]> {
  const [N, V] = [rows.length, logits.length / rows.length];
  const tokens = backend.allocate([N], "u32");
  const logProbs = backend.allocate([N]);
  backend.sample({
    logits: backend.upload(logits, [N, V]),
    rows: rows.map((row, slot) => ({ ...row, slot })),
    tokens,
    logProbs,
  });
  return [...await backend.readU32(tokens)];
}

/** A device with all that the adapter allows, one without subgroups, and the least of devices. */
const DEVICES = {
  "all that the adapter has": async () => await createWebGpuBackend(await findAdapter()),
  "no subgroups": async () => await createWebGpuBackend(await findAdapter(), { subgroups: false }),
  "256 threads, 16 KiB": async () => {
    const adapter = await findAdapter();
    const least = { info: adapter.info, limits: {}, requestDevice: () => adapter.requestDevice() };
    return await createWebGpuBackend(least as unknown as GPUAdapter);
  },
};

for (const [device, make] of Object.entries(DEVICES)) {
  adapterTest(
    `the choice from a whole vocabulary is the reference's, on a device with ${device}`,
    async () => {
      using backend = await make();
      for (const V of [12_345]) {
        const logits = numbers(6 * V).map((x, i) => 8 * x - 30 + (i % 7) / 8);
        const row = (n: number) => logits.subarray(n * V, (n + 1) * V);
        const rows = [
          { ...PLAIN, temperature: 0 },
          { ...PLAIN, topK: 4, temperature: 0.7 }, // no more than there are parts
          { ...PLAIN, topK: 12, topP: 0.8 },
          { ...PLAIN, topK: 700 },
          { ...PLAIN, topP: 0.9, temperature: 2 },
          PLAIN,
        ].map((choice, n) => midway(row(n), { ...choice, draw: (n * 0.37 + 0.2) % 1 }));
        const expected = rows.map((choice, n) => sampleRow(row(n), choice).token);
        assertEquals(await chosen(backend, logits, rows), expected, `of ${V}`);
        // A row alone is another variant.
        for (const n of [0, 2, 5]) assertEquals(await chosen(backend, row(n), [rows[n]]), [expected[n]]);
      }
    },
  );

  adapterTest(`of likeliest tokens the lowest id is taken, on a device with ${device}`, async () => {
    using backend = await make();
    const V = 5000;
    const equals = [[4999], [1024, 4096], [1023, 1024], [0, 1], [7, 263, 519], [3000, 2999, 255, 256]];
    const logits = new Float32Array(equals.length * V).fill(-1);
    equals.forEach((tokens, n) => tokens.forEach((token) => logits[n * V + token] = n % 2 ? 0 : 3));
    logits[3 * V] = -0; // is 0
    const greedy = { ...PLAIN, temperature: 0, draw: 0.9 };
    const tokens = await chosen(backend, logits, equals.map(() => greedy));
    assertEquals(tokens, equals.map((all) => Math.min(...all)));
  });
}
