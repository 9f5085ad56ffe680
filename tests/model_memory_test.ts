import { assert, assertEquals, assertRejects } from "@std/assert";
import { createWasmBackend } from "../src/backend/wasm/backend.ts";
import { WhetError } from "../src/errors.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import type { Backend } from "../src/tensor/backend.ts";
import { train } from "../src/train/trainer.ts";
import { failing, failure, fixture, inTempDir, onEachBackend, shake } from "./support/models.ts";

const MODEL = fixture("d16/model");
const SEQUENCES = [[3, 1, 4, 1, 5, 9, 2, 6], [200]];
const EXAMPLES = [{ tokens: [1, 2, 3, 4, 5, 6] }];

/** A backend whose n-th call of a method, or its promise, fails. */
function failingAt(backend: Backend, method: string, n: number): Backend {
  return new Proxy(backend, {
    get(target, name) {
      const value = Reflect.get(target, name);
      if (typeof value !== "function") return value;
      return (...args: unknown[]) => {
        if (name === method && n-- === 0) throw new WhetError("resource", `no memory to ${method}`);
        return value.apply(target, args);
      };
    },
  });
}

async function drain(values: AsyncIterable<unknown>): Promise<number> {
  let count = 0;
  for await (const _ of values) count++;
  return count;
}

await onEachBackend("whatever a model did, its end gives all memory back", async (backend) => {
  const model = await GPT2.load(MODEL, { backend });
  const own = backend.stats().allocatedBytes;
  assert(own >= 4 * model.parameterCount);
  const lora = Lora.create(model, { rank: 2, targets: ["c_attn"] });
  model.attach(lora);
  const withAdapter = backend.stats().allocatedBytes;
  await model.logits(SEQUENCES);
  await model.logProbs(SEQUENCES);
  assertEquals(await drain(model.generate([[1, 2], [3]], { maxTokens: 3, temperature: 0 })), 6);
  for await (const _ of model.generate([1, 2], { maxTokens: 9 })) break;
  assertEquals(await drain(train(model, EXAMPLES, { lora, steps: 2 })), 2);
  for await (const _ of train(model, EXAMPLES, { lora, steps: 5 })) break;
  assertEquals(backend.stats().allocatedBytes, withAdapter);
  await model.merge(lora);
  assertEquals(backend.stats().allocatedBytes, withAdapter);
  lora[Symbol.dispose]();
  assertEquals(backend.stats().allocatedBytes, own);
  await drain(train(model, EXAMPLES, { steps: 1 }));
  await model.logits(SEQUENCES);
  assertEquals(model.arena.size, 0);
  model[Symbol.dispose]();
  model[Symbol.dispose]();
  assertEquals([backend.stats().allocatedBytes, backend.stats().allocations], [0, 0]);
});

Deno.test("every method of a disposed model says that it was disposed, on a backend that is shared or was its own", () =>
  inTempDir(async (directory) => {
    using shared = await createWasmBackend();
    for (const backend of [shared, "wasm"] as const) {
      const model = await GPT2.load(MODEL, { backend });
      const lora = Lora.create(model, {});
      model[Symbol.dispose]();
      const words = [model.name, "disposed"];
      await failure("disposed", words, () => model.logits([]));
      await failure("disposed", words, () => model.logits(SEQUENCES));
      await failure("disposed", words, () => model.logProbs([]));
      await failure("disposed", words, () => model.logProbs(SEQUENCES));
      await failure("disposed", words, () => drain(model.generate("Hi")));
      await failure("disposed", words, () => drain(train(model, EXAMPLES, { steps: 1 })));
      await failure("disposed", words, () => model.merge(lora));
      await failure("disposed", words, () => model.unfreeze());
      await failure("disposed", words, () => model.parameter("wte.weight"));
      await failure("disposed", words, () => model.save(`${directory}/out`));
      failing("disposed", words, () => model.attach(lora));
      failing("disposed", words, () => model.detach());
      failing("disposed", words, () => model.linears());
      failing("disposed", words, () => Lora.create(model, {}));
      assertEquals([...Deno.readDirSync(directory)], [], "nothing was written");
      // What is no memory stays readable.
      assertEquals([model.adapter, model.config.n_layer, model.tokenizer.encode("").length], [null, 2, 0]);
      model[Symbol.dispose]();
    }
    assertEquals(shared.stats().allocatedBytes, 0);
  }));

Deno.test("two models on one backend do not know of each other", async () => {
  using backend = await createWasmBackend();
  using one = await GPT2.load(MODEL, { backend });
  const before = backend.stats().allocatedBytes;
  const expected = await one.logits(SEQUENCES);
  {
    using two = await GPT2.load(fixture("d20/model"), { backend });
    const [a, b] = await Promise.all([one.logits(SEQUENCES), two.logits(SEQUENCES)]);
    assertEquals(a, expected);
    assertEquals(b.map(({ length }) => length), [8 * 257, 257]);
    const generation = two.generate([5], { maxTokens: 30 })[Symbol.asyncIterator]();
    await generation.next(); // abandoned
  }
  assertEquals(backend.stats().allocatedBytes, before);
  assertEquals(await one.logits(SEQUENCES), expected);
});

await onEachBackend(
  "a model may end while it works: what is under way ends too, with its result or the reason",
  async (backend) => {
    const many = Array.from({ length: 60 }, (_, i) => Array.from({ length: 40 }, (_, t) => (i + t) % 250));
    const model = await GPT2.load(MODEL, { backend });
    const lora = Lora.create(model, { rank: 1 });
    await shake(lora, model);
    const generation = model.generate([1], { maxTokens: 20, temperature: 0 })[Symbol.asyncIterator]();
    await generation.next();
    const work = [
      model.logits(many),
      model.logProbs(many),
      model.merge(lora),
      model.unfreeze(),
      generation.next(),
      drain(train(model, EXAMPLES, { steps: 50 })),
    ];
    await Promise.resolve();
    model[Symbol.dispose]();
    const outcomes = await Promise.allSettled(work);
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") {
        assert(
          outcome.reason instanceof WhetError && outcome.reason.code === "disposed",
          String(outcome.reason),
        );
      }
    }
    assertEquals(outcomes.slice(0, 4).map(({ status }) => status), Array(4).fill("rejected"));
    await generation.return?.();
    lora[Symbol.dispose]();
    assertEquals(backend.stats().allocatedBytes, 0);
  },
);

Deno.test("weights that cannot be made trainable stay as they were", async () => {
  using backend = await createWasmBackend();
  for (const [method, n] of [["allocate", 0], ["allocate", 1], ["unpack", 3], ["write", 5]] as const) {
    const switching = { backend: backend as Backend };
    const model = await GPT2.load(MODEL, { backend: through(switching) });
    const expected = await model.logits(SEQUENCES);
    const before = backend.stats().allocatedBytes;
    switching.backend = failingAt(backend, method, n);
    await failure("resource", [`no memory to ${method}`], () => model.unfreeze());
    switching.backend = backend;
    assertEquals(backend.stats().allocatedBytes, before);
    assertEquals(await model.logits(SEQUENCES), expected);
    const [a, b] = await Promise.all([model.unfreeze(), model.unfreeze()]);
    assertEquals(a, b);
    model[Symbol.dispose]();
    assertEquals(backend.stats().allocatedBytes, 0);
  }
  using half = await GPT2.load(MODEL, { backend, weights: "f16" });
  await failure("option", ['"f32"', '"f16"'], () => half.unfreeze());
});

/** A backend that passes every call on to another, which may change. */
function through(to: { backend: Backend }): Backend {
  return new Proxy(to.backend, {
    get(_, name) {
      const value = Reflect.get(to.backend, name);
      return typeof value === "function" ? value.bind(to.backend) : value;
    },
  });
}

Deno.test("a merge that fails at its first matrix changes nothing; later, it ends the model, never leaves half", async () => {
  using backend = await createWasmBackend();
  for (
    const [method, n, half] of [["unpack", 0, false], ["pack", 0, false], ["read", 1, true], [
      "pack",
      3,
      true,
    ]] as const
  ) {
    const switching = { backend: backend as Backend };
    const model = await GPT2.load(MODEL, { backend: through(switching) });
    using lora = Lora.create(model, { rank: 1, targets: "all-linear" });
    await shake(lora, model);
    const expected = await model.logits(SEQUENCES);
    switching.backend = failingAt(backend, method, n);
    await failure(
      "resource",
      [`no memory to ${method}`, ...(half ? ["half merged", "load it again"] : [])],
      () => model.merge(lora),
    );
    switching.backend = backend;
    if (half) await failure("disposed", [model.name], () => model.logits(SEQUENCES));
    else assertEquals(await model.logits(SEQUENCES), expected);
    model[Symbol.dispose]();
    lora[Symbol.dispose]();
    assertEquals(backend.stats().allocatedBytes, 0);
  }
});

Deno.test("a kernel that fails under scoring or generating leaves nothing behind, and the next call works", async () => {
  using backend = await createWasmBackend();
  const switching = { backend: backend as Backend };
  using model = await GPT2.load(MODEL, { backend: through(switching) });
  const before = backend.stats().allocatedBytes;
  const expected = await model.logits(SEQUENCES);
  const calls = [
    () => model.logits(SEQUENCES),
    () => model.logProbs(SEQUENCES),
    () => drain(model.generate([[1, 2, 3], [4]], { maxTokens: 4, temperature: 0 })),
  ];
  for (const call of calls) {
    for (
      const [method, n] of [["matmul", 0], ["matmul", 7], ["allocate", 3], ["read", 0], [
        "gather",
        0,
      ]] as const
    ) {
      switching.backend = failingAt(backend, method, n);
      await assertRejects(call, WhetError, `no memory to ${method}`);
      switching.backend = backend;
      assertEquals(
        [model.arena.size, backend.stats().allocatedBytes],
        [0, before],
        `${call} failing to ${method}`,
      );
    }
    await call();
  }
  assertEquals(await model.logits(SEQUENCES), expected);
});

Deno.test("merging, making trainable and attaching may overlap: each adapter is merged once, none is lost", async () => {
  using backend = await createWasmBackend({ instructionSet: "strict" });
  const run = async (overlap: boolean) => {
    using model = await GPT2.load(MODEL, { backend });
    using A = Lora.create(model, { rank: 1, targets: "all-linear", seed: 1 });
    using B = Lora.create(model, { rank: 2, targets: ["c_proj"], seed: 2 });
    using C = Lora.create(model, { rank: 1, targets: ["c_fc"], seed: 3 });
    for (const lora of [A, B, C]) await shake(lora, model);
    const steps = [
      () => model.merge(A),
      () => model.merge(B),
      () => Promise.resolve(model.attach(C)),
      () => model.unfreeze(),
      () => model.merge(A),
      () => model.unfreeze(),
    ];
    if (overlap) await Promise.all(steps.map((step) => step()));
    else for (const step of steps) await step();
    return await model.logits(SEQUENCES);
  };
  assertEquals(await run(true), await run(false));
  assertEquals(backend.stats().allocatedBytes, 0);
});
