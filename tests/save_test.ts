import { assert, assertEquals } from "@std/assert";
import { createWasmBackend } from "../src/backend/wasm/backend.ts";
import { openCheckpoint } from "../src/format/checkpoint.ts";
import { openRepository } from "../src/format/source.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import { parameterShapes } from "../src/model/transformer.ts";
import type { WeightFormat } from "../src/tensor/tensor.ts";
import { train } from "../src/train/trainer.ts";
import {
  failure,
  fixture,
  inTempDir,
  onEachBackend,
  readModel,
  shake,
  writeModel,
} from "./support/models.ts";

const SEQUENCES = [[3, 1, 4, 1, 5, 9, 2, 6], [200, 0]];
const OPTIONS = { backend: "wasm", instructionSet: "strict" } as const;

const files = (directory: string) => [...Deno.readDirSync(directory)].map(({ name }) => name).sort();

await onEachBackend(
  "a model that is saved is loaded again to the bit",
  (backend) =>
    inTempDir(async (directory) => {
      for (const name of backend.name === "webgpu" ? ["d20"] : ["d16", "d20", "d64", "d80"]) {
        using model = await GPT2.load(fixture(`${name}/model`), { backend });
        await model.save(`${directory}/${name}`);
        using again = await GPT2.load(`${directory}/${name}`, { backend });
        assertEquals(again.config, model.config);
        for (const parameter of parameterShapes(model.config).keys()) {
          assertEquals(await again.parameter(parameter), await model.parameter(parameter), parameter);
        }
        const text = "What is this? <|endoftext|>Ünïcode 😀\n";
        assertEquals(again.tokenizer.encode(text), model.tokenizer.encode(text));
        assertEquals(again.tokenizer.endOfText, model.tokenizer.endOfText);
      }
    }),
);

Deno.test("what is saved twice is the same bytes, in one file with transformers' names", () =>
  inTempDir(async (directory) => {
    using model = await GPT2.load(fixture("d20/model"), OPTIONS);
    await model.save(directory);
    const once = await Deno.readFile(`${directory}/model.safetensors`);
    assertEquals(files(directory), [
      "config.json",
      "merges.txt",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
      "vocab.json",
    ]);
    await model.save(directory);
    assertEquals(await Deno.readFile(`${directory}/model.safetensors`), once);
    using checkpoint = await openCheckpoint(await openRepository(directory));
    assertEquals(
      new Set(checkpoint.names()),
      new Set([...parameterShapes(model.config).keys()].map((name) => `transformer.${name}`)),
    );
  }));

Deno.test("an adapter that is attached is no part of what is saved; one that is merged is", () =>
  inTempDir(async (directory) => {
    using model = await GPT2.load(fixture("d16/model"), OPTIONS);
    using lora = Lora.create(model, { rank: 2, targets: "all-linear" });
    await shake(lora, model);
    const plain = await model.logits(SEQUENCES);
    model.attach(lora);
    await model.save(directory);
    const logitsOf = async () => {
      using saved = await GPT2.load(directory, OPTIONS);
      return await saved.logits(SEQUENCES);
    };
    assertEquals(await logitsOf(), plain);
    await model.merge(lora);
    await model.save(directory);
    assertEquals(await logitsOf(), await model.logits(SEQUENCES));
  }));

Deno.test("trained weights are saved as they are", () =>
  inTempDir(async (directory) => {
    using model = await GPT2.load(fixture("d16/model"), OPTIONS);
    for await (const _ of train(model, [{ tokens: [1, 2, 3, 4] }], { steps: 2, learningRate: 1e-2 }));
    await model.save(directory);
    using again = await GPT2.load(directory, OPTIONS);
    for (const name of ["wte.weight", "wpe.weight", "h.1.ln_2.bias", "h.0.mlp.c_fc.weight", "ln_f.weight"]) {
      assertEquals(await again.parameter(name), await model.parameter(name), name);
    }
  }));

Deno.test("weights are saved as they are stored, or as plain numbers of the type that is asked for", () =>
  inTempDir(async (directory) => {
    const cases: [WeightFormat, { dtype?: "F32" | "F16" | "BF16" }, string, string][] = [
      ["f32", {}, "F32", "float32"],
      ["f32", { dtype: "F16" }, "F16", "float16"],
      ["f16", {}, "F16", "float16"],
      ["f16", { dtype: "F32" }, "F32", "float32"],
      ["q8", {}, "I8", "float32"],
      ["q8", { dtype: "F32" }, "F32", "float32"],
      ["q4", {}, "U8", "float32"],
      ["q4", { dtype: "BF16" }, "BF16", "bfloat16"],
    ];
    for (const [weights, options, stored, named] of cases) {
      using model = await GPT2.load(fixture("d16/model"), { ...OPTIONS, weights });
      await model.save(directory, options);
      {
        using checkpoint = await openCheckpoint(await openRepository(directory));
        assertEquals(checkpoint.dtype("transformer.wte.weight"), stored);
      }
      const config = JSON.parse(await Deno.readTextFile(`${directory}/config.json`));
      assertEquals([config.torch_dtype, "quantization_config" in config], [named, /8/.test(stored)]);
      using again = await GPT2.load(directory, OPTIONS);
      assertEquals(again.weights, options.dtype ? "f32" : weights);
      for (const name of ["h.1.attn.c_attn.weight", "wpe.weight"]) {
        const [actual, expected] = [await again.parameter(name), await model.parameter(name)];
        const size = Math.max(...expected.map(Math.abs));
        const tolerance = { F32: 0, F16: size / 1024, BF16: size / 256 }[options.dtype ?? "F32"];
        assert(actual.every((x, i) => Math.abs(x - expected[i]) <= tolerance), `${weights} ${name}`);
      }
    }
  }));

Deno.test("a model without a vocabulary is saved without one, and takes another's files away", () =>
  inTempDir(async (directory) => {
    {
      using model = await GPT2.load(fixture("d16/model"), OPTIONS);
      await model.save(directory);
    }
    await Deno.writeTextFile(`${directory}/README.md`, "mine");
    await Deno.writeTextFile(`${directory}/model.safetensors.index.json`, "{}");
    using model = await GPT2.random(
      { vocab_size: 50, n_positions: 8, n_embd: 8, n_head: 2, n_layer: 1 },
      OPTIONS,
    );
    await model.save(directory);
    assertEquals(files(directory), ["README.md", "config.json", "model.safetensors"]);
    using again = await GPT2.load(directory, OPTIONS);
    assertEquals(await again.logits([[1, 49]]), await model.logits([[1, 49]]));
  }));

Deno.test("a model is saved over the directory that it was loaded from", () =>
  inTempDir(async (directory) => {
    await writeModel(directory, await readModel("d16"), { vocabulary: "d16" });
    using model = await GPT2.load(directory, OPTIONS);
    const expected = await model.logits(SEQUENCES);
    await model.save(directory);
    using again = await GPT2.load(directory, OPTIONS);
    assertEquals(await again.logits(SEQUENCES), expected);
  }));

Deno.test("a save that cannot be leaves what was there as it was", () =>
  inTempDir(async (directory) => {
    using backend = await createWasmBackend();
    const model = await GPT2.load(fixture("d16/model"), { backend });
    await model.save(`${directory}/m`);
    const before = await Promise.all(
      files(`${directory}/m`).map((name) => Deno.readFile(`${directory}/m/${name}`)),
    );
    await Deno.writeTextFile(`${directory}/file`, "");
    await failure("option", [`${directory}/file`], () => model.save(`${directory}/file`));
    const saving = model.save(`${directory}/m`, { dtype: "F16" });
    model[Symbol.dispose](); // under way
    await failure("disposed", [model.name], () => saving);
    const after = await Promise.all(
      files(`${directory}/m`).map((name) => Deno.readFile(`${directory}/m/${name}`)),
    );
    assertEquals(after, before);
  }));

// Python

const python = Deno.env.get("WHET_PYTHON");

/** What transformers and PEFT make of the files; see `reference/check_adapter.py`. */
async function inPython(base: string, adapter: string): Promise<{ logits: Float32Array[]; texts: string[] }> {
  const script = new URL("reference/check_adapter.py", import.meta.url).pathname;
  const { code, stdout, stderr } = await new Deno.Command(python!, {
    args: [script, base, adapter, JSON.stringify(SEQUENCES)],
    env: { HF_HUB_OFFLINE: "1" },
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  assertEquals(code, 0, text(stderr));
  const { logits, texts } = JSON.parse(text(stdout));
  return { logits: logits.map((rows: number[][]) => Float32Array.from(rows.flat())), texts };
}

function assertClose(actual: Float32Array[], expected: Float32Array[]): void {
  for (const [i, values] of actual.entries()) {
    assertEquals(values.length, expected[i].length);
    for (const [j, x] of values.entries()) {
      assert(Math.abs(x - expected[i][j]) < 1e-4, `${x}, not ${expected[i][j]}`);
    }
  }
}

Deno.test({
  name: "what is saved here, adapters and models, computes the same in PEFT and transformers (WHET_PYTHON)",
  ignore: !python,
  fn: () =>
    inTempDir(async (directory) => {
      const [base, out, merged] = ["base", "lora", "merged"].map((part) => `${directory}/${part}`);
      using model = await GPT2.load(fixture("d20/model"), OPTIONS);
      await model.save(base);
      const plain = await model.logits(SEQUENCES);
      const whole = await inPython(base, "none");
      assertClose(whole.logits, plain);
      assertEquals(whole.texts, SEQUENCES.map((tokens) => model.tokenizer.decode(tokens)));
      for (
        const options of [
          { rank: 3, alpha: 5, targets: ["c_proj"] },
          { rank: 1, targets: ["attn.c_proj", "h.1.mlp.c_fc"], dropout: 0.1 },
          { rank: 2, rsLora: true, targets: "all-linear" },
        ] as const
      ) {
        using lora = Lora.create(model, options);
        await shake(lora, model);
        model.attach(lora);
        const attached = await model.logits(SEQUENCES);
        assert(attached[0].some((x, i) => Math.abs(x - plain[0][i]) > 1e-2));
        await lora.save(out);
        assertClose((await inPython(base, out)).logits, attached);
        if (options.targets !== "all-linear") continue;
        await model.merge(lora);
        await model.save(merged);
        assertClose((await inPython(merged, "none")).logits, attached);
      }
    }),
});
