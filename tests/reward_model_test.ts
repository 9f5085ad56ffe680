import { assert, assertEquals, assertRejects } from "@std/assert";
import { openWasmBackend } from "../src/backend/wasm/backend.ts";
import { type ErrorCode, WhetError } from "../src/errors.ts";
import { openCheckpoint } from "../src/format/checkpoint.ts";
import { openRepository } from "../src/format/source.ts";
import { GPT2 } from "../src/gpt2.ts";
import { parseDebertaConfig } from "../src/model/deberta_config.ts";
import { packEmbedding } from "../src/model/deberta_place.ts";
import { RewardModel } from "../src/score/reward.ts";
import type { MemoryNeed } from "../src/tensor/backend.ts";
import { uniform } from "../src/tensor/random.ts";
import { ReferenceBackend } from "./support/reference.ts";
import { type DebertaCase, EXPECTED, withModel } from "./support/deberta.ts";
import { failing, failure, fixture } from "./support/models.ts";

const { pairs, cases } = EXPECTED;
const V3 = cases["as DeBERTa-v3"];
const CONVOLUTION = cases["a convolution"];

Deno.test("a batch of unequal lengths gives each pair the bits that it gets alone, whatever the batch", async (t) => {
  const [first, second, third, fourth] = pairs;
  const mixed = [...pairs, third, second, first, fourth, second];
  for (const model of [V3, CONVOLUTION]) {
    for (const weights of ["f32", "q8"] as const) {
      for (const [instructionSet, threads] of [["strict", 1], ["relaxed", 1], ["relaxed", 3]] as const) {
        await t.step(
          `${model === V3 ? "plain" : "convolution"}, ${weights}, ${instructionSet}, ${threads}`,
          () =>
            withModel(model, async (directory) => {
              using backend = await openWasmBackend({ instructionSet, threads, price: 0, least: 0 });
              using reward = await RewardModel.load(directory, { backend, weights });
              const together = await reward.score(mixed);
              const alone: number[] = [];
              for (const pair of mixed) alone.push(...await reward.score([pair]));
              assertEquals([...together], alone);
              for (const batchTokens of [50, 64, 130]) {
                assertEquals(await reward.score(mixed, { batchTokens }), together);
              }
            }),
        );
      }
    }
  }
});

Deno.test("weights of 16, 8 and 4 bits give about the scores of f32", () =>
  withModel(V3, async (directory) => {
    using backend = await openWasmBackend({ instructionSet: "strict", threads: 1 });
    for (const [weights, bound] of [["f16", 2e-3], ["q8", 2e-2], ["q4", 0.5]] as const) {
      using reward = await RewardModel.load(directory, { backend, weights });
      assertEquals(reward.weights, weights);
      const scores = await reward.score(pairs);
      const errors = scores.map((score, i) => Math.abs(score - V3.scores[i]));
      assert(Math.max(...errors) < bound, `${weights}: ${errors}`);
      assert(Math.max(...errors) > 0, `${weights}: they are rounded`);
    }
  }));

Deno.test("what rounding would shift all scores by, a few texts correct at load", () =>
  withModel(V3, async (directory) => {
    using backend = await openWasmBackend({ instructionSet: "strict", threads: 1 });
    const words = "the a knife stone water who wrote book fox dog night walk slowly time lazy brown".split(
      " ",
    );
    const text = (key: number) => {
      const draw = (i: number) => uniform(i, [key, 0]);
      return Array.from({ length: 3 + 7 * draw(0) }, (_, i) => words[Math.floor(16 * draw(i + 1))]).join(" ");
    };
    const many = Array.from({ length: 40 }, (_, i) => ({ prompt: text(i), response: text(i + 40) }));
    const scores = async (weights: "f32" | "q4") => {
      using reward = await RewardModel.load(directory, { backend, weights });
      return await reward.score(many);
    };
    const [exact, rounded] = [await scores("f32"), await scores("q4")];
    const mean = rounded.reduce((sum, score, i) => sum + score - exact[i], 0) / many.length;
    assert(Math.abs(mean) < 0.04, `${mean}`); // without it 0.13
  }));

Deno.test("what a model takes is reckoned ahead, and a backend that has not so much is heard", () =>
  withModel(V3, async (directory) => {
    for (const weights of ["f32", "q8"] as const) {
      using backend = await openWasmBackend({ instructionSet: "strict", threads: 1 });
      let need: MemoryNeed | undefined;
      backend.admit = (its) => Promise.resolve(void (need = its));
      using _reward = await RewardModel.load(directory, { backend, weights });
      const share = need!.weights / backend.stats().allocatedBytes;
      assert(share > 0.8 && share < 1.2, `${weights}: ${share}`);
      assertEquals([need!.name, need!.format, need!.largest.bytes], [directory, weights, 4 * 64 * 48]);

      const held = backend.stats().allocatedBytes;
      backend.admit = () => Promise.reject(new WhetError("resource", "too large"));
      await failure("resource", ["too large"], () => RewardModel.load(directory, { backend, weights }));
      assertEquals(backend.stats().allocatedBytes, held);
    }
  }));

Deno.test("a large embedding, packed by parts, is what it is packed at once", () =>
  withModel(V3, async (directory) => {
    using backend = await openWasmBackend({ instructionSet: "strict", threads: 1 });
    using checkpoint = await openCheckpoint(await openRepository(directory));
    const config = parseDebertaConfig(V3.config, "config.json");
    for (const weights of ["f32", "f16", "q8", "q4"] as const) {
      const pack = async (part: number) => {
        const placing = { backend, config, weights, checkpoint, owned: [] };
        const packed = await packEmbedding(
          placing,
          "deberta.embeddings.word_embeddings.weight",
          undefined,
          part,
        );
        const numbers = await backend.unpack(packed);
        backend.free(packed);
        return numbers;
      };
      assertEquals(await pack(10 * 32), await pack(1 << 23), weights); // 72 rows: 7 parts of 10, one of 2
    }
    assertEquals(backend.stats().allocatedBytes, 0);
  }));

Deno.test("a disposed model throws, and leaves a backend that is shared empty and alive", () =>
  withModel(CONVOLUTION, async (directory) => {
    using backend = await openWasmBackend({ instructionSet: "strict", threads: 1 });
    const reward = await RewardModel.load(directory, { backend });
    const held = backend.stats().allocatedBytes;
    await reward.score(pairs);
    assertEquals(backend.stats().allocatedBytes, held);
    const scoring = reward.score(pairs, { batchTokens: 1 });
    reward[Symbol.dispose]();
    reward[Symbol.dispose]();
    await failure("disposed", [directory, "disposed"], () => scoring);
    await failure("disposed", [directory, "disposed"], () => reward.score(pairs));
    assertEquals(backend.stats().allocatedBytes, 0);
    backend.flush();
  }));

Deno.test("a model ends the backend that it made, and says what it is", () =>
  withModel(V3, async (directory) => {
    const reward = await RewardModel.load(directory, { backend: "wasm", threads: 1 });
    assertEquals([reward.name, reward.weights, reward.backend.name], [directory, "f32", "wasm"]);
    assertEquals([reward.config.vocab_size, reward.tokenizer.vocabSize], [72, 51]);
    assertEquals(reward.config.max_relative_positions, 64);
    reward[Symbol.dispose]();
    failing("disposed", ["disposed"], () => reward.backend.flush());
  }));

Deno.test("progress is told after each batch, an abort heard before each; no pairs have no scores", () =>
  withModel(V3, async (directory) => {
    using backend = new ReferenceBackend();
    using reward = await RewardModel.load(directory, { backend });
    assertEquals(await reward.score([], { onProgress: () => assert(false) }), new Float32Array(0));
    const told: number[][] = [];
    const lengths = pairs.map(({ ids }) => ids.length); // 44, 8, 18, 64, 64
    assertEquals(lengths, [44, 8, 18, 64, 64]);
    await reward.score(pairs, { batchTokens: 64, onProgress: (...now) => told.push(now) });
    assertEquals(told, [[2, 5], [3, 5], [4, 5], [5, 5]]);

    const already = AbortSignal.abort(new Error("enough"));
    await assertRejects(() => reward.score(pairs, { signal: already }), Error, "enough");
    const controller = new AbortController();
    const stop = (done: number) => done === 3 && controller.abort(new Error("stop"));
    const scoring = reward.score(pairs, { batchTokens: 64, onProgress: stop, signal: controller.signal });
    await assertRejects(() => scoring, Error, "stop");
    assertEquals((await reward.score(pairs)).length, 5);

    // deno-lint-ignore no-explicit-any -- what JavaScript may give
    const wrong: any = [{ prompt: "a", response: "b" }, { prompt: "a" }];
    await failure("option", ["pairs[1].response", "undefined"], () => reward.score(wrong));
    await failure("option", ["batchTokens", "0"], () => reward.score(pairs, { batchTokens: 0 }));
  }));

/** A model whose files are changed is refused, in words, and leaves nothing in a backend that is shared. */
async function refused(
  t: Deno.TestContext,
  claim: string,
  code: ErrorCode,
  words: readonly string[],
  change: Partial<DebertaCase["config"]> | ((model: DebertaCase) => void),
): Promise<void> {
  await t.step(claim, async () => {
    const model = structuredClone(V3);
    if (typeof change === "function") change(model);
    else Object.assign(model.config, change);
    await withModel(model, async (directory) => {
      using backend = new ReferenceBackend();
      await failure(code, [directory, ...words], () => RewardModel.load(directory, { backend }));
      assertEquals(backend.stats().allocatedBytes, 0);
    });
  });
}

Deno.test("a language model and a reward model are told apart by config.json, with the loader to use", async () => {
  await failure(
    "format",
    ["config.json", "GPT2.load", "--model"],
    () => RewardModel.load(fixture("d16/model")),
  );
  await withModel(V3, async (directory) => {
    const words = ["config.json", "deberta-v2", "RewardModel.load", "--reward-model"];
    await failure("format", words, () => GPT2.load(directory));
  });
});

Deno.test("what is no reward model that Whet runs is refused by name", async (t) => {
  const format = (claim: string, words: string[], change: Parameters<typeof refused>[4]) =>
    refused(t, claim, "format", words, change);
  await format("the first DeBERTa", ['model_type is "deberta"', "first"], { model_type: "deberta" });
  await format("BERT", ['"bert"'], { model_type: "bert", architectures: [] });
  await format("a GPT-2 by its architecture", ["GPT2.load"], {
    model_type: undefined,
    architectures: ["GPT2LMHeadModel"],
  });
  await format("a masked language model", ["DebertaV2ForMaskedLM"], {
    architectures: ["DebertaV2ForMaskedLM"],
  });
  await format("several labels", ["3 labels", "yes, no, maybe"], {
    id2label: { 0: "yes", 1: "no", 2: "maybe" },
  });
  await format("two labels where nothing is said", ["2 labels"], { id2label: undefined });
  await format("another activation", ["hidden_act", '"silu"', "gelu"], { hidden_act: "silu" });
  await format("another activation of the pooler", ["pooler_hidden_act", '"mish"'], {
    pooler_hidden_act: "mish",
  });
  await format("a convolution with tanh", ["conv_act", '"tanh"'], { conv_kernel_size: 3 });
  await format("a convolution in groups", ["conv_groups", "2"], {
    conv_kernel_size: 3,
    conv_act: "gelu",
    conv_groups: 2,
  });
  await format("a convolution of even width", ["conv_kernel_size", "4"], {
    conv_kernel_size: 4,
    conv_act: "gelu",
  });
  await format("another width of heads", ["attention_head_size", "16"], { attention_head_size: 16 });
  await format("another width of the pooler", ["pooler_hidden_size", "16"], { pooler_hidden_size: 16 });
  await format("heads that do not divide", ["hidden_size (32)", "(5)"], { num_attention_heads: 5 });
  await format("a term that there is none of", ["pos_att_type", "p2p"], { pos_att_type: "c2p|p2p" });
  await format("one type", ["type_vocab_size is 1"], { type_vocab_size: 1 });
  await format("buckets without room", ["position_buckets (64)"], {
    position_buckets: 64,
    max_relative_positions: 20,
  });
  await format("a size that is none", ["num_hidden_layers", "1.5"], { num_hidden_layers: 1.5 });
  await format("a switch that is none", ["share_att_key", '"yes"'], { share_att_key: "yes" });
  await format("an epsilon that is none", ["layer_norm_eps", "0"], { layer_norm_eps: 0 });
  await format("quantised by others", ["quantization_config"], {
    quantization_config: { quant_method: "bnb" },
  });
  await refused(t, "a vocabulary too small for the tokenizer", "mismatch", ["51 tokens", "50"], {
    vocab_size: 50,
  });
});

Deno.test("how relative positions are bucketed does not matter where attention knows none", async () => {
  const cramped = { position_buckets: 64, max_relative_positions: 20 };
  const { config, shapes, scores } = cases["no relative attention, but terms, which scale"];
  await withModel({ config: { ...config, ...cramped }, shapes }, async (directory) => {
    using backend = new ReferenceBackend();
    using reward = await RewardModel.load(directory, { backend });
    const found = await reward.score(pairs);
    assert(found.every((score, i) => Math.abs(score - scores[i]) < 1e-6), String(found));
  });
});

Deno.test("a checkpoint that is not the config's is refused, with the tensor's name", async (t) => {
  const layer = "deberta.encoder.layer.1.output.dense.weight";
  await refused(
    t,
    "a missing tensor",
    "format",
    [layer, "missing"],
    ({ shapes }) => void delete shapes[layer],
  );
  await refused(
    t,
    "a layer too many",
    "format",
    ["deberta.encoder.layer.2", "no place", "DeBERTa"],
    ({ shapes }) => {
      shapes["deberta.encoder.layer.2.output.dense.bias"] = [32];
    },
  );
  await refused(t, "another shape", "format", [layer, "[32, 40]", "[32, 48]"], ({ shapes }) => {
    shapes[layer] = [32, 40];
  });
  await refused(t, "a classifier of two labels", "format", ["classifier.weight", "[2, 32]"], ({ shapes }) => {
    shapes["classifier.weight"] = [2, 32];
  });
  const beside = structuredClone(V3);
  beside.shapes["deberta.embeddings.position_embeddings.weight"] = [64, 32];
  beside.shapes["lm_predictions.lm_head.dense.weight"] = [32, 32];
  beside.shapes["deberta.embeddings.position_ids"] = [1, 64];
  await t.step("but what pre-training left is passed over", () =>
    withModel(beside, async (directory) => {
      using backend = new ReferenceBackend();
      using reward = await RewardModel.load(directory, { backend });
      const [score] = await reward.score(pairs.slice(0, 1));
      assert(Math.abs(score - V3.scores[0]) < 1e-6);
    }));
});

Deno.test("a directory without config.json or tokenizer, an empty source, a storage format that is none", async () => {
  await withModel(V3, async (directory) => {
    await failure(
      "option",
      ["weights", '"q5"'],
      () => RewardModel.load(directory, { weights: "q5" as "q4" }),
    );
    await Deno.remove(`${directory}/tokenizer.json`);
    await failure("format", [directory, "tokenizer.json", "spm.model"], () => RewardModel.load(directory));
    await Deno.remove(`${directory}/config.json`);
    await failure("format", [directory, "config.json"], () => RewardModel.load(directory));
  });
  await failure("option", ["empty source"], () => RewardModel.load(""));
  await failure("option", ["nano", "language model"], () => RewardModel.load("nano"));
});
