/** A GPU that goes away: whoever works on it is told, and a training run goes on from its checkpoint elsewhere. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { createWasmBackend } from "../src/backend/wasm/backend.ts";
import { createWebGpuBackend } from "../src/backend/webgpu/backend.ts";
import type { Example } from "../src/data/example.ts";
import { WhetError } from "../src/errors.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import type { Backend } from "../src/tensor/backend.ts";
import { train } from "../src/train/trainer.ts";
import { failure, fixture, inTempDir } from "./support/models.ts";
import { adapterTest, findAdapter } from "./support/webgpu.ts";

const MODEL = fixture("d16/model");
const DATA: Example[] = Array.from({ length: 9 }, (_, i) => ({
  prompt: `Q${i}?`,
  response: " yes".repeat(1 + i % 4) + i,
}));
const STEPS = 7;

async function openGpu(): Promise<{ backend: Backend; device: GPUDevice }> {
  const backend = await createWebGpuBackend(await findAdapter());
  return { backend, device: (backend as unknown as { gpu: { device: GPUDevice } }).gpu.device };
}

/** A run's losses by step, and its adapter's numbers if it came to an end. */
interface Run {
  losses: Map<number, number>;
  values: Float32Array[];
}

/**
 * Trains with a checkpoint every three steps, or goes on.
 *
 * @param after Called after each step, and with 0 once the first is under way.
 */
async function run(
  backend: Backend,
  directory: string,
  { resume = false, after = () => {} }: { resume?: boolean; after?: (step: number) => void } = {},
): Promise<Run> {
  using model = await GPT2.load(MODEL, { backend });
  using lora = Lora.create(model, { dropout: 0.2, seed: 5 });
  const losses = new Map<number, number>();
  const steps = train(model, DATA, {
    ...{ lora, steps: STEPS, batchSize: 2, sequenceLength: 24, learningRate: 1e-2, seed: 3, resume },
    checkpoint: { directory, every: 3 },
  });
  for (let next = steps.next(), at = 0;; next = steps.next()) {
    after(at);
    const { value, done } = await next;
    if (done) break;
    losses.set(at = value.step, value.loss);
  }
  const values = lora.bind(backend);
  return {
    losses,
    values: await Promise.all([...values.tensors.keys()].map((name) => values.read(name))),
  };
}

function agree(actual: Run, expected: Run, from: number, what: string): void {
  assertEquals([...actual.losses.keys()], Array.from({ length: STEPS - from }, (_, i) => from + 1 + i), what);
  for (const [step, loss] of actual.losses) {
    assert(Math.abs(loss - expected.losses.get(step)!) < 1e-3, `${what}: step ${step}, ${loss}`);
  }
  for (const [i, numbers] of actual.values.entries()) {
    numbers.forEach((x, j) =>
      assert(Math.abs(x - expected.values[i][j]) < 2e-3, `${what}: ${i}, ${j}: ${x}`)
    );
  }
}

adapterTest(
  "a lost device ends training; its checkpoint is whole, and the run goes on on WASM or another device",
  () =>
    inTempDir(async (directory) => {
      using wasm = await createWasmBackend();
      const whole = await run(wasm, `${directory}/whole`);
      const path = (name: string) => `${directory}/${name}`;
      {
        const { backend, device } = await openGpu();
        using _backend = backend;
        const error = await failure(
          "backend",
          ["step 6: the GPU was lost", "the checkpoint of step 3", path("run"), "--resume", "--backend wasm"],
          // While the sixth step is under way.
          () => run(backend, path("run"), { after: (step) => step === 5 && device.destroy() }),
        );
        assert(error.cause instanceof WhetError);
      }
      await Deno.mkdir(path("copy"));
      const file = "checkpoint.safetensors";
      assertEquals(
        [...Deno.readDirSync(path("run"))].map(({ name }) => name),
        [file],
        "nothing half-written",
      );
      await Deno.copyFile(`${path("run")}/${file}`, `${path("copy")}/${file}`);
      agree(await run(wasm, path("run"), { resume: true }), whole, 3, "on WASM");
      const { backend } = await openGpu();
      using _backend = backend;
      agree(await run(backend, path("copy"), { resume: true }), whole, 3, "on another device");
    }),
);

adapterTest(
  "a device that is lost before the first checkpoint leaves none, and says so",
  () =>
    inTempDir(async (directory) => {
      const { backend, device } = await openGpu();
      using _backend = backend;
      const words = ["step 2: the GPU was lost", "no checkpoint was written yet", "--resume"];
      const lost = () => run(backend, directory, { after: (step) => step === 1 && device.destroy() });
      await failure("backend", words, lost);
      assertEquals([...Deno.readDirSync(directory)], []);
      using wasm = await createWasmBackend();
      assertEquals((await run(wasm, directory, { resume: true })).losses.size, STEPS);
    }),
);

adapterTest(
  "a device that is lost ends generation and scoring, now and later, and holds nothing after disposal",
  async () => {
    const { backend, device } = await openGpu();
    using model = await GPT2.load(MODEL, { backend });
    const tokens = model.generate([1, 2], { temperature: 0, maxTokens: 30 })[Symbol.asyncIterator]();
    await tokens.next();
    device.destroy();
    await failure("backend", ["the GPU was lost", "load the model again"], async () => {
      for (;;) await tokens.next();
    });
    await failure("backend", ["the GPU was lost"], () => model.logits([[1, 2]]));
    await assertRejects(() => GPT2.load(MODEL, { backend }), WhetError, "the GPU was lost");
    model[Symbol.dispose]();
    backend[Symbol.dispose]();
    const { allocations, allocatedBytes, heldBytes } = backend.stats();
    assertEquals([allocations, allocatedBytes, heldBytes], [0, 0, 0]);
  },
);
