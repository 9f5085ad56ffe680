import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { createWasmBackend } from "../src/backend/wasm/backend.ts";
import { Safetensors, writeSafetensors } from "../src/format/safetensors.ts";
import { openRepository } from "../src/format/source.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora, type LoraOptions } from "../src/model/lora.ts";
import { parameterShapes } from "../src/model/transformer.ts";
import type { Backend } from "../src/tensor/backend.ts";
import type { WeightFormat } from "../src/tensor/tensor.ts";
import { train } from "../src/train/trainer.ts";
import { failing, failure, fixture, inTempDir, onEachBackend, shake } from "./support/models.ts";

const SEQUENCES = [[3, 1, 4, 1, 5, 9, 2, 6], [200]];

async function withModel(
  work: (model: GPT2, backend: Backend) => Promise<void> | void,
  { name = "d16", weights = "f32" }: { name?: string; weights?: WeightFormat } = {},
): Promise<void> {
  using backend = await createWasmBackend({ instructionSet: "strict" });
  using model = await GPT2.load(fixture(`${name}/model`), { backend, weights });
  await work(model, backend);
}

async function parametersOf(model: GPT2): Promise<Map<string, Float32Array>> {
  const values = new Map<string, Float32Array>();
  for (const name of parameterShapes(model.config).keys()) values.set(name, await model.parameter(name));
  return values;
}

function difference(actual: Float32Array[], expected: Float32Array[]): number {
  assertEquals(actual.map(({ length }) => length), expected.map(({ length }) => length));
  return Math.max(
    ...actual.map((values, i) =>
      values.reduce((worst, x, j) => Math.max(worst, Math.abs(x - expected[i][j])), 0)
    ),
  );
}

/** The bits, so that −0 and 0 differ. */
const bits = (arrays: Float32Array[]) =>
  arrays.map((values) => new Uint32Array(values.buffer, 0, values.length));

/** Test by test, a model and an adapter that changes it. */
async function adapted(
  work: (model: GPT2, lora: Lora, plain: Float32Array[], backend: Backend) => Promise<void>,
  options: LoraOptions & { weights?: WeightFormat } = {},
): Promise<void> {
  await withModel(async (model, backend) => {
    using lora = Lora.create(model, { targets: "all-linear", rank: 3, seed: 5, ...options });
    await shake(lora, model);
    await work(model, lora, await model.logits(SEQUENCES), backend);
  }, options);
}

// What is created

Deno.test("targets are the ends of layers' names, whole parts only, as PEFT matches a list", () =>
  withModel((model) => {
    const layersOf = (targets: LoraOptions["targets"]) =>
      [...Lora.create(model, { targets }).modules.keys()].map((name) => name.replace("transformer.h.", ""));
    assertEquals(layersOf(undefined), ["0.attn.c_attn", "1.attn.c_attn"]);
    assertEquals(layersOf(["c_proj"]), ["0.attn.c_proj", "0.mlp.c_proj", "1.attn.c_proj", "1.mlp.c_proj"]);
    assertEquals(layersOf(["attn.c_proj"]), ["0.attn.c_proj", "1.attn.c_proj"]);
    assertEquals(layersOf(["h.1.mlp.c_fc", "transformer.h.0.mlp.c_fc"]), ["0.mlp.c_fc", "1.mlp.c_fc"]);
    assertEquals(layersOf(["c_attn", "attn.c_attn"]), ["0.attn.c_attn", "1.attn.c_attn"]);
    assertEquals(layersOf("all-linear").length, 8);
    for (const target of ["proj", "_proj", "attn", "wte", "lm_head", "c_attn.weight", "", "*", "C_ATTN"]) {
      failing(
        "option",
        [`"${target}" matches no layer`, "attn.c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj"],
        () => layersOf(["c_attn", target]),
      );
    }
    failing("option", ["targets"], () => layersOf([]));
    failing("option", ["targets", "a list"], () => layersOf("c_attn" as "all-linear"));
  }));

Deno.test("an adapter's shapes, scaling and beginning are PEFT's", () =>
  withModel((model) => {
    const lora = Lora.create(model, { rank: 5, alpha: 7, targets: ["c_fc", "mlp.c_proj"], seed: 3 });
    const { A, B, inFeatures, outFeatures, scaling } = lora.modules.get("transformer.h.1.mlp.c_proj")!;
    assertEquals([inFeatures, outFeatures, A.length, B.length, scaling], [128, 32, 5 * 128, 32 * 5, 7 / 5]);
    assertEquals(lora.parameterCount, 2 * (5 * (32 + 128) + 5 * (128 + 32)));
    assert(B.every((x) => x === 0));
    // torch's kaiming_uniform_(A, a=√5): bound √(6 / ((1 + 5) · in)) = 1 / √in, variance bound² / 3.
    const bound = 1 / Math.sqrt(128);
    assert(A.every((x) => Math.abs(x) <= bound));
    assert(Math.max(...A) > 0.97 * bound && Math.min(...A) < -0.97 * bound);
    const mean = A.reduce((a, b) => a + b) / A.length;
    const variance = A.reduce((sum, x) => sum + x * x, 0) / A.length;
    assertAlmostEquals(mean / bound, 0, 5 * Math.sqrt(1 / 3 / A.length));
    assertAlmostEquals(variance / bound ** 2, 1 / 3, 5 * Math.sqrt(4 / 45 / A.length));
    assertEquals(
      Lora.create(model, { rank: 4, alpha: 6, rsLora: true }).modules.values().next().value!.scaling,
      3,
    );
    // The same seed, the same adapter; layers and seeds differ.
    const firstOf = (seed: number) => [...Lora.create(model, { seed }).modules.values()].map(({ A }) => A[0]);
    assertEquals(firstOf(3), firstOf(3));
    assertEquals(new Set([...firstOf(3), ...firstOf(4)]).size, 4);
  }));

Deno.test("options that make no sense are refused by name", () =>
  withModel((model) => {
    const cases: [keyof LoraOptions, unknown[]][] = [
      ["rank", [0, -1, 1.5, NaN, 4097, "8"]],
      ["alpha", [0, -1, Infinity, NaN]],
      ["dropout", [-0.1, 1, NaN]],
      ["seed", [0.5, NaN, Infinity]],
    ];
    for (const [name, values] of cases) {
      for (const value of values) {
        failing("option", [`${name}: expected`, String(value)], () => Lora.create(model, { [name]: value }));
      }
    }
  }));

// Attached, detached, merged

await onEachBackend(
  "a new adapter changes no logit; attached and detached, the model is what it was, to the bit",
  async (backend) => {
    using model = await GPT2.load(fixture("d16/model"), { backend });
    const before = bits(await model.logits([SEQUENCES[0]]));
    using lora = Lora.create(model, { rank: 2, targets: ["c_attn", "mlp.c_proj"] });
    model.attach(lora);
    assertEquals(model.adapter, lora);
    const attached = await model.logits([SEQUENCES[0]]);
    assertEquals(attached, await (async () => (model.detach(), await model.logits([SEQUENCES[0]])))());
    await shake(lora, model);
    model.attach(lora);
    assert(difference(await model.logits([SEQUENCES[0]]), attached) > 0.01, "it does something");
    model.detach();
    assertEquals(model.adapter, null);
    assertEquals(bits(await model.logits([SEQUENCES[0]])), before);
  },
);

Deno.test("attaching twice is attaching once, attaching B over A is B, detaching twice is detaching", () =>
  adapted(async (model, lora, plain) => {
    using other = Lora.create(model, { rank: 1, targets: ["c_fc"], seed: 9 });
    await shake(other, model, 0.5);
    model.attach(lora);
    const withA = await model.logits(SEQUENCES);
    model.attach(lora);
    assertEquals(await model.logits(SEQUENCES), withA);
    model.attach(other);
    const withB = await model.logits(SEQUENCES);
    assertEquals(model.adapter, other);
    model.detach();
    model.detach();
    assertEquals(await model.logits(SEQUENCES), plain);
    model.attach(other);
    assertEquals(await model.logits(SEQUENCES), withB);
    assert(difference(withA, withB) > 0.01);
  }));

Deno.test("merged is attached, to 1e-5; merged twice is twice as much", () =>
  adapted(async (model, lora) => {
    model.attach(lora);
    const attached = await model.logits(SEQUENCES);
    const before = await model.parameter("h.1.mlp.c_fc.weight");
    await model.merge(lora);
    assertEquals(model.adapter, null);
    const merged = await model.logits(SEQUENCES);
    assert(difference(merged, attached) < 1e-5, String(difference(merged, attached)));
    const once = await model.parameter("h.1.mlp.c_fc.weight");
    await model.merge(lora);
    const twice = await model.parameter("h.1.mlp.c_fc.weight");
    for (const i of [0, 77, once.length - 1]) {
      assert(once[i] !== before[i]);
      assertAlmostEquals(twice[i] - before[i], 2 * (once[i] - before[i]), 1e-6);
    }
  }));

Deno.test("merging one adapter leaves another attached", () =>
  adapted(async (model, lora) => {
    using other = Lora.create(model, { rank: 1, targets: ["c_attn"], seed: 2 });
    await shake(other, model);
    model.attach(other);
    await model.merge(lora);
    assertEquals(model.adapter, other);
    const both = await model.logits(SEQUENCES);
    await model.merge(other);
    assert(difference(await model.logits(SEQUENCES), both) < 1e-5);
  }));

for (const [weights, tolerance] of [["f16", 2e-3], ["q8", 0.1], ["q4", 0.8]] as const) {
  Deno.test(`an adapter merged into ${weights} weights gives about what it gives attached`, () =>
    adapted(async (model, lora, plain) => {
      model.attach(lora);
      const attached = await model.logits(SEQUENCES);
      await model.merge(lora);
      const merged = await model.logits(SEQUENCES);
      const off = difference(merged, attached), effect = difference(attached, plain);
      assert(off > 0 && off < tolerance * effect, `off by ${off}, the adapter's effect is ${effect}`);
      assertEquals(model.weights, weights);
    }, { weights }));
}

Deno.test("an adapter is merged into trained weights as well", () =>
  adapted(async (model, lora, plain) => {
    await model.unfreeze();
    assert(difference(await model.logits(SEQUENCES), plain) < 1e-5);
    model.attach(lora);
    const attached = await model.logits(SEQUENCES);
    await model.unfreeze();
    await model.merge(lora);
    assert(difference(await model.logits(SEQUENCES), attached) < 1e-5);
  }));

Deno.test("neither attaching nor training nor detaching an adapter changes a bit of the base", () =>
  withModel(async (model) => {
    const before = await parametersOf(model);
    const plain = bits(await model.logits(SEQUENCES));
    using lora = Lora.create(model, { rank: 2, targets: "all-linear", dropout: 0.25 });
    const start = structuredClone(lora.modules.get("transformer.h.0.attn.c_attn")!.A);
    for await (
      const { step, loss } of train(model, [{ tokens: [1, 2, 3, 4, 5] }], {
        lora,
        steps: 3,
        learningRate: 1e-2,
      })
    ) {
      assert(step > 0 && loss > 0);
    }
    assert(
      difference(
        await model.logits(SEQUENCES),
        [...bits(await model.logits(SEQUENCES))].map((x) => new Float32Array(x.buffer)),
      ) === 0,
    );
    const A = await lora.bind(model.backend).read("transformer.h.0.attn.c_attn.lora_A.weight");
    assert(A.some((x, i) => x !== start[i]), "it was trained");
    model.detach();
    assertEquals(await parametersOf(model), before);
    assertEquals(bits(await model.logits(SEQUENCES)), plain);
  }));

Deno.test("an adapter for another model is refused, names the layer, and what was attached stays", () =>
  adapted(async (model, lora, _, backend) => {
    using other = await GPT2.load(fixture("d20/model"), { backend });
    using tooLong = Lora.create(other, { targets: ["h.2.mlp.c_fc"] });
    using tooWide = Lora.create(other, {});
    model.attach(lora);
    failing("mismatch", [model.name, "no layer transformer.h.2.mlp.c_fc"], () => model.attach(tooLong));
    failing("mismatch", ["transformer.h.0.attn.c_attn is 40 × 120", "32 × 96"], () => model.attach(tooWide));
    await failure("mismatch", ["40 × 120"], () => model.merge(tooWide));
    assertEquals(model.adapter, lora);
  }));

// Memory and life

Deno.test("an adapter's memory is taken when it is attached and given back when it is disposed", () =>
  withModel(async (model, backend) => {
    const before = backend.stats().allocatedBytes;
    const lora = Lora.create(model, { rank: 2 });
    assertEquals(backend.stats().allocatedBytes, before);
    model.attach(lora);
    assertEquals(backend.stats().allocatedBytes - before, 4 * lora.parameterCount);
    model.detach();
    model.attach(lora);
    lora[Symbol.dispose]();
    lora[Symbol.dispose]();
    assertEquals(backend.stats().allocatedBytes, before);
    await failure("disposed", [lora.name, "detach it"], () => model.logits(SEQUENCES));
    await failure("disposed", [lora.name], () => model.logProbs(SEQUENCES));
    await failure("disposed", [lora.name], async () => {
      for await (const _ of model.generate([1])) break;
    });
    failing("disposed", [lora.name, "was disposed"], () => model.attach(lora));
    await failure("disposed", [lora.name], () => model.merge(lora));
    await failure("disposed", [lora.name], () => lora.save("/nowhere"));
    await failure("disposed", [lora.name], () => lora.unbind());
    model.detach();
    assertEquals((await model.logits(SEQUENCES)).length, 2);
  }));

Deno.test("model and adapter may be disposed in either order", async () => {
  for (const shared of [true, false]) {
    for (const adapterFirst of [true, false]) {
      using backend = await createWasmBackend();
      const model = await GPT2.load(fixture("d16/model"), { backend: shared ? backend : "wasm" });
      const lora = await Lora.load(fixture("d16/lora/attn"));
      model.attach(lora);
      const generation = model.generate([1, 2], { maxTokens: 5 })[Symbol.asyncIterator]();
      await generation.next();
      for (const it of adapterFirst ? [lora, model] : [model, lora]) it[Symbol.dispose]();
      await generation.return?.();
      assertEquals(backend.stats().allocatedBytes, 0);
    }
  }
});

Deno.test("an adapter that was only attached outlives its model; one that was trained must be saved or unbound before", async () => {
  const load = () => GPT2.load(fixture("d16/model"), { backend: "wasm", instructionSet: "strict" });
  using attached = await Lora.load(fixture("d16/lora/attn"));
  const logits: Float32Array[][] = [];
  for (let i = 0; i < 2; i++) {
    using model = await load();
    model.attach(attached);
    logits.push(await model.logits(SEQUENCES));
  }
  assertEquals(logits[0], logits[1]);

  const trained = await Lora.load(fixture("d16/lora/attn"));
  {
    using model = await load();
    await shake(trained, model);
    model.attach(trained);
    logits.push(await model.logits(SEQUENCES));
    await trained.unbind();
    await failure("disposed", ["unbound", "attach it again"], () => model.logits(SEQUENCES));
  }
  {
    using model = await load();
    model.attach(trained);
    assertEquals(await model.logits(SEQUENCES), logits[2]);
    await shake(trained, model);
  }
  using model = await load();
  failing("disposed", [trained.name, "save it"], () => model.attach(trained));
  await failure("disposed", [trained.name, "save it"], () => trained.save("/nowhere"));
});

Deno.test("two models on one backend share an adapter; models on two must pass it on", async () => {
  using backend = await createWasmBackend({ instructionSet: "strict" });
  using one = await GPT2.load(fixture("d16/model"), { backend });
  using two = await GPT2.load(fixture("d16/model"), { backend });
  using elsewhere = await GPT2.load(fixture("d16/model"), { backend: "wasm", instructionSet: "strict" });
  using lora = Lora.create(one, { rank: 2 });
  await shake(lora, one);
  one.attach(lora);
  two.attach(lora);
  const logits = await one.logits(SEQUENCES);
  assertEquals(await two.logits(SEQUENCES), logits);
  failing("mismatch", ["another backend", "unbind()"], () => elsewhere.attach(lora));
  one.detach();
  two.detach();
  await lora.unbind();
  elsewhere.attach(lora);
  assertEquals(await elsewhere.logits(SEQUENCES), logits);
});

// Files

Deno.test("an adapter is saved and loaded to the bit, attached or not, trained or new", () =>
  inTempDir((directory) =>
    adapted(async (model, lora) => {
      const values = async (of: Lora) => {
        const { tensors } = of.bind(model.backend);
        const all = new Map<string, Float32Array>();
        for (const name of tensors.keys()) all.set(name, await of.bind(model.backend).read(name));
        return all;
      };
      model.attach(lora);
      await lora.save(directory);
      using again = await Lora.load(directory);
      assertEquals(await values(again), await values(lora));
      assertEquals({ ...again.config, targets: [] }, { ...lora.config, targets: [] });
      const logits = await model.logits(SEQUENCES);
      model.attach(again);
      assertEquals(await model.logits(SEQUENCES), logits);
      // Saved unchanged, the bytes are the same.
      const bytes = await Deno.readFile(`${directory}/adapter_model.safetensors`);
      await again.save(`${directory}/again`);
      assertEquals(await Deno.readFile(`${directory}/again/adapter_model.safetensors`), bytes);
      using fresh = Lora.create(model, { rsLora: true, dropout: 0.1, alpha: 3, rank: 7 });
      await fresh.save(directory);
      using loaded = await Lora.load(directory);
      assertEquals(loaded.config, fresh.config);
      assertEquals([...loaded.modules], [...fresh.modules]);
    })
  ));

Deno.test("an adapter of a bare GPT2Model, whose layers lack `transformer.`, is one of the whole model", () =>
  inTempDir((directory) =>
    withModel(async (model) => {
      for (const adapter of ["attn", "all-rs"]) {
        const from = fixture(`d16/lora/${adapter}`);
        const source = await (await openRepository(from)).open("adapter_model.safetensors");
        using file = await Safetensors.open(source!);
        await Deno.mkdir(directory, { recursive: true });
        await writeSafetensors(
          `${directory}/adapter_model.safetensors`,
          file.names().map((name) => ({
            name: name.replace("model.transformer.", "model."),
            dtype: "F32" as const,
            shape: file.info(name).shape,
            data: () => file.readF32(name),
          })),
        );
        const config = JSON.parse(await Deno.readTextFile(`${from}/adapter_config.json`));
        for (const targets of [config.target_modules, "h\\.\\d+\\.(attn|mlp)\\.c_(attn|proj|fc)"]) {
          const own = { ...config, target_modules: targets, alpha_pattern: { "^h.0.attn.c_attn": 20 } };
          await Deno.writeTextFile(`${directory}/adapter_config.json`, JSON.stringify(own));
          using lora = await Lora.load(directory);
          using whole = await Lora.load(from);
          assertEquals([...lora.modules.keys()], [...whole.modules.keys()]);
          const scaling = (of: Lora, layer: number) =>
            of.modules.get(`transformer.h.${layer}.attn.c_attn`)!.scaling;
          assertEquals(scaling(lora, 0), scaling(whole, 0) * 20 / config.lora_alpha);
          assertEquals(scaling(lora, 1), scaling(whole, 1));
          model.attach(lora);
          const logits = await model.logits(SEQUENCES);
          await lora.save(`${directory}/saved`);
          using again = await Lora.load(`${directory}/saved`);
          model.attach(again);
          assertEquals(await model.logits(SEQUENCES), logits);
        }
      }
    })
  ));
