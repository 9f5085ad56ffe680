import { assert, assertAlmostEquals, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import {
  type AdapterConfig,
  type AdapterFile,
  type AdapterModule,
  readAdapter,
  writeAdapter,
} from "../src/format/peft.ts";
import { type TensorToWrite, writeSafetensors } from "../src/format/safetensors.ts";
import { openRepository } from "../src/format/source.ts";

const FIXTURES = new URL("./fixtures/peft/", import.meta.url);

/** What PEFT itself made of each adapter: module → [scaling, scaling · B A]. */
const EXPECTED: Record<string, Record<string, [number, number[]]>> = JSON.parse(
  await Deno.readTextFile(new URL("expected.json", FIXTURES)),
);

async function inTempDir(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    await work(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function read(directory: string | URL): ReturnType<typeof readAdapter> {
  return await readAdapter(await openRepository(String(directory)));
}

async function refusal(directory: string | URL): Promise<WhetError> {
  const error = await assertRejects(() => read(directory), WhetError);
  assertMatch(error.message, /^[^\n]{1,600}$/);
  return error;
}

function product(
  { A, B, rank, inFeatures, outFeatures, scaling }: AdapterModule & { scaling: number },
): number[] {
  return Array.from({ length: outFeatures * inFeatures }, (_, at) => {
    const row = Math.floor(at / inFeatures), column = at % inFeatures;
    let sum = 0;
    for (let r = 0; r < rank; r++) sum += B[row * rank + r] * A[r * inFeatures + column];
    return scaling * sum;
  });
}

const CONFIG: AdapterConfig = {
  rank: 2,
  alpha: 3,
  dropout: 0.05,
  targets: ["c_proj", "c_attn", "c_proj"],
  rsLora: false,
  rankPattern: {},
  alphaPattern: {},
  baseModel: "openai-community/gpt2",
};

function moduleOf(inFeatures: number, outFeatures: number, rank = 2, first = 1): AdapterModule {
  const A = Float32Array.from({ length: rank * inFeatures }, (_, i) => first + i / 8);
  const B = Float32Array.from({ length: outFeatures * rank }, (_, i) => first - i / 8);
  return { A, B, rank, inFeatures, outFeatures };
}

const ADAPTER: AdapterFile = {
  config: CONFIG,
  modules: new Map([
    ["transformer.h.0.mlp.c_proj", moduleOf(16, 4)],
    ["transformer.h.0.attn.c_attn", moduleOf(4, 12)],
  ]),
};

for (const name of Object.keys(EXPECTED)) {
  Deno.test(`an adapter written by PEFT does what PEFT does with it: ${name}`, async () => {
    const { config, modules } = await read(new URL(name, FIXTURES));
    assertEquals([config.rank, config.alpha, config.baseModel], [2, 3, null]);
    assertEquals([...modules.keys()].sort(), Object.keys(EXPECTED[name]).sort());
    for (const [path, module] of modules) {
      const [scaling, update] = EXPECTED[name][path];
      assertAlmostEquals(module.scaling, scaling, 1e-12);
      const ours = product(module);
      assertEquals(ours.length, update.length);
      update.forEach((value, i) => assertAlmostEquals(ours[i], value, 1e-5));
    }
  });
}

Deno.test("an active variant of PEFT is refused by its field's name", async () => {
  for await (const { name } of Deno.readDir(new URL("refused/", FIXTURES))) {
    const error = await refusal(new URL(`refused/${name}`, FIXTURES));
    assertEquals(error.code, "unsupported");
    // An embedding's adapter differs from a plain one in its tensors only.
    assertMatch(
      error.message,
      name === "embedding" ? /lora_embedding_A has no place/ : new RegExp(`adapter_config.json: ${name} = `),
    );
  }
});

Deno.test("each switch is refused when it is on, and passed over when it is off", () =>
  inTempDir(async (directory) => {
    await writeAdapter(directory, ADAPTER);
    const path = `${directory}/adapter_config.json`;
    const plain = JSON.parse(await Deno.readTextFile(path));
    const on: Record<string, unknown> = {
      use_dora: true,
      lora_bias: true,
      bias: "all",
      modules_to_save: ["score"],
      layer_replication: [[0, 1]],
      layers_to_transform: 0,
      layers_pattern: "h",
      exclude_modules: ["x"],
      trainable_token_indices: { wte: [1] },
      megatron_config: { a: 1 },
      megatron_core: "other",
      eva_config: { rho: 2 },
      corda_config: { corda_method: "ipm" },
      loftq_config: { loftq_bits: 4 },
      use_qalora: true,
      qalora_group_size: 8,
      alora_invocation_tokens: [1],
      target_parameters: ["x"],
      arrow_config: { top_k: 3 },
      invented_in_2031: true,
      runtime_config: { ephemeral_gpu_offload: true },
    };
    const beginnings = [
      "pissa",
      "pissa_niter_16",
      "olora",
      "loftq",
      "eva",
      "corda",
      "lora_ga",
      "mica",
      "new",
    ];
    const cases = [...Object.entries(on), ...beginnings.map((value) => ["init_lora_weights", value])];
    for (const [field, value] of cases as [string, unknown][]) {
      await Deno.writeTextFile(path, JSON.stringify({ ...plain, [field]: value }));
      const error = await refusal(directory);
      assertEquals(error.code, "unsupported");
      assertMatch(error.message, new RegExp(`adapter_config\\.json: ${field} = .* is not implemented`));
    }
    for (const off of [null, false, "", [], {}]) {
      const fields = Object.fromEntries(Object.keys(on).map((field) => [field, off]));
      await Deno.writeTextFile(
        path,
        JSON.stringify({ ...plain, ...fields, bias: "none", runtime_config: { x: false } }),
      );
      assertEquals((await read(directory)).modules.size, 2);
    }
    for (const value of [true, false, null, "gaussian", "orthogonal"]) {
      await Deno.writeTextFile(
        path,
        JSON.stringify({ ...plain, init_lora_weights: value, task_type: "X", revision: "r" }),
      );
      assertEquals((await read(directory)).modules.size, 2);
    }
  }));

Deno.test("a setting that makes no sense is refused by its field's name", () =>
  inTempDir(async (directory) => {
    await writeAdapter(directory, ADAPTER);
    const path = `${directory}/adapter_config.json`;
    const plain = JSON.parse(await Deno.readTextFile(path));
    const cases: [string, unknown][] = [
      ["r", 0],
      ["r", 1.5],
      ["r", "2"],
      ["r", undefined],
      ["lora_alpha", null],
      ["lora_alpha", "3"],
      ["lora_dropout", 1],
      ["lora_dropout", -0.1],
      ["use_rslora", 1],
      ["target_modules", null],
      ["target_modules", []],
      ["target_modules", [1]],
      ["rank_pattern", { c_attn: 0 }],
      ["rank_pattern", [1]],
      ["alpha_pattern", { c_attn: "1" }],
      ["peft_type", 1],
    ];
    for (const [field, value] of cases) {
      await Deno.writeTextFile(path, JSON.stringify({ ...plain, [field]: value }));
      const error = await refusal(directory);
      assertEquals(error.code, "format");
      assertMatch(error.message, new RegExp(`adapter_config\\.json: ${field}: expected .*, got `));
    }
    await Deno.writeTextFile(path, "{");
    assertMatch((await refusal(directory)).message, /adapter_config\.json: not JSON/);
    await Deno.writeTextFile(path, "[]");
    assertMatch((await refusal(directory)).message, /adapter_config\.json: expected a JSON object/);
  }));

Deno.test("a pattern that could backtrack forever is refused at once", () =>
  inTempDir(async (directory) => {
    await writeAdapter(directory, ADAPTER);
    const path = `${directory}/adapter_config.json`;
    const plain = JSON.parse(await Deno.readTextFile(path));
    const patterns = [
      "(a+)+",
      "(.*)*x",
      ".*.*.*x",
      "(.|.)(.|.)(.|.)",
      "(?P<n>a)",
      "\\Ax",
      "(",
      "a".repeat(300) + "|b",
      "(?:a?){9}",
    ];
    for (const pattern of patterns) {
      await Deno.writeTextFile(path, JSON.stringify({ ...plain, alpha_pattern: { [pattern]: 2 } }));
      const error = await refusal(directory);
      assertEquals(error.code, "unsupported");
      assertMatch(error.message, /alpha_pattern: the pattern .* is too involved/);
    }
  }));

Deno.test("a tensor without a place, a partner or the right shape is named", () =>
  inTempDir(async (directory) => {
    await writeAdapter(directory, ADAPTER);
    const prefix = "base_model.model.transformer.h.0.attn.c_attn";
    const tensor = (name: string, shape: number[], value = 1): TensorToWrite => ({
      name,
      dtype: "F32",
      shape,
      data: () => new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value),
    });
    const A = tensor(`${prefix}.lora_A.weight`, [2, 4]), B = tensor(`${prefix}.lora_B.weight`, [12, 2]);
    const cases: [TensorToWrite[], RegExp][] = [
      [[], /holds no LoRA matrices/],
      [[A], /c_attn\.lora_A\.weight has no partner lora_B/],
      [[B], /c_attn\.lora_B\.weight has no partner lora_A/],
      [[tensor(A.name, [3, 4]), B], /lora_A\.weight is \[3, 4\]; .* should be \[2, in\]/],
      [[A, tensor(B.name, [12, 3])], /lora_B\.weight is \[12, 3\]; .* should be \[out, 2\]/],
      [[A, tensor(B.name, [24])], /lora_B\.weight is \[24\]/],
      [[A, tensor(B.name, [0, 2])], /lora_B\.weight is \[0, 2\]/],
      [[A, tensor(B.name, [12, 2], NaN)], /lora_B\.weight holds values that are not finite/],
      [[A, tensor(B.name, [12, 2], Infinity)], /lora_B\.weight holds values that are not finite/],
      [[A, { ...B, dtype: "I32", data: () => new Uint8Array(96) }], /lora_B\.weight is of type I32/],
      [[A, B, tensor(`${prefix}.lora_magnitude_vector`, [12])], /magnitude_vector has no place .* DoRA/],
      [[A, B, tensor(`${prefix}.lora_B.bias`, [12])], /lora_B\.bias has no place .* lora_bias/],
      [[A, B, tensor(`${prefix}.base_layer.bias`, [12])], /base_layer\.bias has no place .* bias =/],
      [
        [A, B, tensor("base_model.model.transformer.ln_f.weight", [4])],
        /ln_f\.weight has no place .* modules_to_save/,
      ],
      [[A, B, tensor(`${prefix}.lora_A.default.weight`, [2, 4])], /an adapter name within/],
      [[A, B, tensor("transformer.h.0.mlp.c_fc.lora_A.weight", [2, 4])], /c_fc\.lora_A\.weight has no place/],
      [[A, B, tensor(`base_model.model.${"x".repeat(500)}.lora_A.weight`, [2, 4])], /has no place/],
      [
        [A, B, tensor("base_model.model.transformer.h.0.mlp.c_fc.lora_A.weight", [2, 4])],
        /c_fc\.lora_A\.weight belongs to no module that target_modules names/,
      ],
    ];
    for (const [tensors, message] of cases) {
      await writeSafetensors(`${directory}/adapter_model.safetensors`, tensors);
      assertMatch((await refusal(directory)).message, message);
    }
    await writeSafetensors(`${directory}/adapter_model.safetensors`, [A, B]);
    assertEquals((await read(directory)).modules.size, 1);
  }));

Deno.test("half-precision adapters are read", () =>
  inTempDir(async (directory) => {
    await writeAdapter(directory, ADAPTER);
    const tensors = [...ADAPTER.modules].flatMap((
      [path, { A, B, rank, inFeatures, outFeatures }],
    ): TensorToWrite[] => [
      {
        name: `base_model.model.${path}.lora_A.weight`,
        dtype: "F16",
        shape: [rank, inFeatures],
        data: () => A,
      },
      {
        name: `base_model.model.${path}.lora_B.weight`,
        dtype: "BF16",
        shape: [outFeatures, rank],
        data: () => B,
      },
    ]);
    await writeSafetensors(`${directory}/adapter_model.safetensors`, tensors);
    const { modules } = await read(directory);
    for (const [path, { A, B }] of ADAPTER.modules) {
      assertEquals(modules.get(path)!.A, A);
      assertEquals(modules.get(path)!.B, B);
    }
  }));

Deno.test("an adapter comes back as it was written", () =>
  inTempDir(async (directory) => {
    const config: AdapterConfig = {
      ...CONFIG,
      rsLora: true,
      alpha: 2.5,
      rankPattern: { "mlp.c_proj": 3 },
      alphaPattern: { "^transformer\\.h\\.0\\.attn": 1, "attn\\.c_\\w+": 8 },
      baseModel: null,
    };
    const modules = new Map(ADAPTER.modules).set("transformer.h.0.mlp.c_proj", moduleOf(16, 4, 3));
    await writeAdapter(`${directory}/a/b`, { config, modules });
    const loaded = await read(`${directory}/a/b`);
    assertEquals(loaded.config, { ...config, targets: ["c_attn", "c_proj"] });
    assertEquals(loaded.modules.get("transformer.h.0.attn.c_attn"), {
      ...modules.get("transformer.h.0.attn.c_attn")!,
      scaling: 8 / Math.sqrt(2),
    });
    assertEquals(loaded.modules.get("transformer.h.0.mlp.c_proj"), {
      ...modules.get("transformer.h.0.mlp.c_proj")!,
      scaling: 2.5 / Math.sqrt(3),
    });
  }));

Deno.test("the same adapter gives the same bytes, whatever the order of its parts", () =>
  inTempDir(async (directory) => {
    await writeAdapter(`${directory}/a`, ADAPTER);
    await writeAdapter(`${directory}/b`, {
      config: { ...CONFIG, targets: ["c_attn", "c_proj"] },
      modules: new Map([...ADAPTER.modules].reverse()),
    });
    for (const file of ["adapter_config.json", "adapter_model.safetensors"]) {
      assertEquals(
        await Deno.readFile(`${directory}/a/${file}`),
        await Deno.readFile(`${directory}/b/${file}`),
      );
    }
  }));

Deno.test("an adapter whose matrices have not its sizes is not written", () =>
  inTempDir(async (directory) => {
    const right = moduleOf(4, 12);
    const wrong = [
      { ...right, A: new Float32Array(7) },
      { ...right, B: new Float32Array(25) },
      moduleOf(4, 12, 3),
    ];
    for (const module of wrong) {
      const modules = new Map([["transformer.h.0.attn.c_attn", module]]);
      const error = await assertRejects(
        () => writeAdapter(directory, { config: CONFIG, modules }),
        WhetError,
      );
      assertEquals(error.code, "mismatch");
      assertMatch(error.message, /module transformer\.h\.0\.attn\.c_attn: .* expected 2 × 4 and 12 × 2/);
    }
    assertEquals([...Deno.readDirSync(directory)], []);
  }));

Deno.test("what is there instead of an adapter is told", () =>
  inTempDir(async (directory) => {
    assertMatch(
      (await refusal(directory)).message,
      /no adapter_config\.json there, expected the directory of a LoRA adapter/,
    );
    await Deno.writeTextFile(`${directory}/config.json`, "{}");
    assertMatch((await refusal(directory)).message, /it is a model, not an adapter/);
    await writeAdapter(directory, ADAPTER);
    await Deno.remove(`${directory}/adapter_config.json`);
    assertMatch((await refusal(directory)).message, /a save is under way or was broken off/);
    await writeAdapter(directory, ADAPTER);
    await Deno.remove(`${directory}/adapter_model.safetensors`);
    assertMatch(
      (await refusal(directory)).message,
      /no adapter_model\.safetensors there; the adapter is not whole/,
    );
    await Deno.writeTextFile(`${directory}/adapter_model.bin`, "");
    const pickled = await refusal(directory);
    assertEquals(pickled.code, "unsupported");
    assertMatch(pickled.message, /in adapter_model\.bin only, which is not read; convert it in Python/);
    await writeAdapter(directory, ADAPTER);
    assertEquals([...Deno.readDirSync(directory)].map(({ name }) => name).sort(), [
      "adapter_config.json",
      "adapter_model.safetensors",
      "config.json",
    ]);
  }));

Deno.test("a reader beside a writer never gets one save's settings with another's weights", () =>
  inTempDir(async (directory) => {
    const save = (round: number) =>
      writeAdapter(directory, {
        config: { ...CONFIG, alpha: round >> 1 }, // Every other save changes the settings too.
        modules: new Map([["transformer.h.0.attn.c_attn", moduleOf(4, 12, 2, round)]]),
      });
    await save(2);
    let writing = true, whole = 0;
    const reader = (async () => {
      while (writing) {
        try {
          const { config, modules } = await read(directory);
          assertEquals(config.alpha, modules.get("transformer.h.0.attn.c_attn")!.A[0] >> 1);
          whole++;
        } catch (error) {
          assert(error instanceof WhetError && /adapter_config\.json/.test(error.message), `${error}`);
        }
      }
    })();
    for (let round = 3; round < 40; round++) await save(round);
    writing = false;
    await reader;
    assert(whole > 0);
  }));

Deno.test("a damaged adapter is read or refused, never worse", () =>
  inTempDir(async (directory) => {
    await writeAdapter(directory, ADAPTER);
    const files = ["adapter_config.json", "adapter_model.safetensors"];
    const sound = await Promise.all(files.map((file) => Deno.readFile(`${directory}/${file}`)));
    let refused = 0;
    for (let round = 0; round < 200; round++) {
      const which = round % 2, bytes = sound[which].slice();
      bytes[(round * 7919) % Math.min(bytes.length, 600)] = (round * 31) % 256;
      await Deno.writeFile(`${directory}/${files[which]}`, bytes);
      try {
        await read(directory);
      } catch (error) {
        if (!(error instanceof WhetError)) throw error;
        refused++;
      }
      await Deno.writeFile(`${directory}/${files[which]}`, sound[which]);
    }
    assert(refused > 50, `${refused} refused`);
  }));
