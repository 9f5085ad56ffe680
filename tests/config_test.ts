import { assertAlmostEquals, assertEquals } from "@std/assert";
import { formatConfig, parseConfig } from "../src/model/config.ts";
import { initialValues, normalQuantile } from "../src/model/initialise.ts";
import { parameterShapes } from "../src/model/transformer.ts";
import { failing } from "./support/models.ts";

/** config.json as openai-community published it; what follows differs. */
const PUBLISHED = {
  activation_function: "gelu_new",
  architectures: ["GPT2LMHeadModel"],
  attn_pdrop: 0.1,
  bos_token_id: 50256,
  embd_pdrop: 0.1,
  eos_token_id: 50256,
  initializer_range: 0.02,
  layer_norm_epsilon: 1e-05,
  model_type: "gpt2",
  n_ctx: 1024,
  n_embd: 768,
  n_head: 12,
  n_layer: 12,
  n_positions: 1024,
  n_special: 0,
  predict_special_tokens: true,
  resid_pdrop: 0.1,
  summary_activation: null,
  summary_first_dropout: 0.1,
  summary_proj_to_labels: true,
  summary_type: "cls_index",
  summary_use_proj: true,
  task_specific_params: { "text-generation": { do_sample: true, max_length: 50 } },
  vocab_size: 50257,
};

Deno.test("the four published GPT-2s have their published numbers of parameters", () => {
  const sizes = [
    [{}, 124_439_808],
    [{ n_embd: 1024, n_head: 16, n_layer: 24 }, 354_823_168],
    [{ n_embd: 1280, n_head: 20, n_layer: 36 }, 774_030_080],
    [{ n_embd: 1600, n_head: 25, n_layer: 48, output_past: true }, 1_557_611_200],
  ] as const;
  for (const [fields, expected] of sizes) {
    const config = parseConfig({ ...PUBLISHED, ...fields }, "config.json");
    let count = 0;
    for (const shape of parameterShapes(config).values()) count += shape.reduce((a, b) => a * b, 1);
    assertEquals(count, expected);
    assertEquals(config.n_inner, 4 * config.n_embd);
  }
});

Deno.test("what a config does not say is GPT-2 124M's", () => {
  const { eos_token_id: _, bos_token_id: __, ...rest } = parseConfig(PUBLISHED, "config.json");
  assertEquals(parseConfig({}, "config"), rest);
});

Deno.test("n_ctx of old configs stands for n_positions, which wins where both are", () => {
  assertEquals(parseConfig({ n_ctx: 77 }, "config").n_positions, 77);
  assertEquals(parseConfig({ n_ctx: 77, n_positions: 99 }, "config").n_positions, 99);
});

Deno.test("null stands for a default, as transformers writes it", () => {
  assertEquals(parseConfig({ n_inner: null, eos_token_id: null, n_embd: 24 }, "config").n_inner, 96);
});

Deno.test("a special token beyond the vocabulary is none", () => {
  assertEquals(parseConfig({ vocab_size: 100, eos_token_id: 50256 }, "config").eos_token_id, undefined);
});

Deno.test("a config that is not true or not supported is refused by its file and field", () => {
  const cases: [unknown, string][] = [
    [[], "expected a JSON object"],
    [null, "expected a JSON object"],
    ["gpt2", "expected a JSON object"],
    [{ vocab_size: 0 }, "vocab_size"],
    [{ vocab_size: "50257" }, "vocab_size"],
    [{ vocab_size: 1e9 }, "vocab_size"],
    [{ n_positions: -1 }, "n_positions"],
    [{ n_ctx: 1.5 }, "n_positions"],
    [{ n_embd: 1e12 }, "n_embd"],
    [{ n_layer: 1e6 }, "n_layer"],
    [{ n_layer: NaN }, "n_layer"],
    [{ n_inner: 2 ** 40 }, "n_inner"],
    [{ n_embd: 770, n_head: 12 }, "not a multiple of n_head (12)"],
    [{ layer_norm_epsilon: 0 }, "layer_norm_epsilon"],
    [{ initializer_range: "0.02" }, "initializer_range"],
    [{ scale_attn_weights: 1 }, "scale_attn_weights"],
    [{ eos_token_id: -1 }, "eos_token_id"],
    [{ bos_token_id: [1] }, "bos_token_id"],
    [{ activation_function: "relu" }, 'activation_function is "relu"'],
    [{ activation_function: "gelu" }, 'activation_function is "gelu"'],
    [{ add_cross_attention: true }, "add_cross_attention"],
    [{ quantization_config: { bits: 4 } }, "quantization_config"],
    [{ tie_word_embeddings: false }, "tie_word_embeddings"],
    [{ model_type: "llama" }, 'model_type is "llama"'],
    [{ model_type: "deberta-v2" }, "a reward model's"],
    [{ model_type: 7 }, "model_type is 7"],
  ];
  for (const [fields, words] of cases) {
    failing(
      "format",
      ["models/mine/config.json: ", words],
      () => parseConfig(fields, "models/mine/config.json"),
    );
  }
});

Deno.test("a config that is written is read again as it was", () => {
  for (
    const fields of [
      PUBLISHED,
      { n_embd: 20, n_head: 5, n_inner: 7, scale_attn_by_inverse_layer_idx: true, scale_attn_weights: false },
      { vocab_size: 300, n_positions: 10, eos_token_id: 299, bos_token_id: 298 },
    ]
  ) {
    const config = parseConfig(fields, "given");
    for (const dtype of ["float32", "float16"] as const) {
      const written = JSON.parse(formatConfig(config, config.eos_token_id ?? -1, dtype));
      assertEquals(parseConfig(written, "written"), config);
      assertEquals([written.torch_dtype, written.n_ctx], [dtype, config.n_positions]);
    }
  }
});

Deno.test("the normal distribution's quantiles are right to 1 part in a million, far out too", () => {
  // Standard values, to more digits than are wanted here.
  const known = [
    [0.5, 0],
    [0.6, 0.2533471031357997],
    [0.925, 1.439531470938456],
    [0.93, 1.475791028179170],
    [0.975, 1.959963984540054],
    [0.999, 3.090232306167814],
    [1 - 1e-6, 4.753424308822899],
    [1 - 1e-9, 5.997807015007687],
  ];
  for (const [p, z] of known) {
    assertAlmostEquals(normalQuantile(p), z, 1e-6 * Math.max(1, z));
    assertAlmostEquals(normalQuantile(1 - p), -z, 1e-6 * Math.max(1, z));
  }
});

Deno.test("initial weights are normal with GPT-2's deviations, independent, and depend on their key alone", () => {
  const config = parseConfig({ n_layer: 8, initializer_range: 0.05 }, "config");
  const N = 100_000;
  for (
    const [name, deviation] of [["h.3.attn.c_attn.weight", 0.05], ["h.3.mlp.c_proj.weight", 0.0125]] as const
  ) {
    const values = initialValues(config, name, N, [7, 3]);
    const moment = (power: number) => values.reduce((sum, x) => sum + (x / deviation) ** power, 0) / N;
    // Five standard errors each: of the mean, the variance, the skewness, the fourth moment.
    assertAlmostEquals(moment(1), 0, 5 * Math.sqrt(1 / N));
    assertAlmostEquals(moment(2), 1, 5 * Math.sqrt(2 / N));
    assertAlmostEquals(moment(3), 0, 5 * Math.sqrt(15 / N));
    assertAlmostEquals(moment(4), 3, 5 * Math.sqrt(96 / N));
    const within = (limit: number) => values.filter((x) => Math.abs(x) < limit * deviation).length / N;
    assertAlmostEquals(within(1), 0.682689, 5 * Math.sqrt(0.25 / N));
    assertAlmostEquals(within(3), 0.997300, 5 * Math.sqrt(0.0027 / N));
    const product = values.reduce((sum, x, i) => sum + x * (values[i + 1] ?? 0), 0) / N / deviation ** 2;
    assertAlmostEquals(product, 0, 5 * Math.sqrt(1 / N));
    assertEquals(initialValues(config, name, 10, [7, 3]), values.slice(0, 10));
    assertEquals(initialValues(config, name, 10, [8, 3])[0] === values[0], false);
    assertEquals(initialValues(config, name, 10, [7, 4])[0] === values[0], false);
  }
  assertEquals(initialValues(config, "h.0.mlp.c_fc.bias", 3, [0, 0]), Float32Array.of(0, 0, 0));
  assertEquals(initialValues(config, "h.0.ln_1.weight", 2, [0, 0]), Float32Array.of(1, 1));
  assertEquals(initialValues(config, "ln_f.bias", 2, [0, 0]), Float32Array.of(0, 0));
});
