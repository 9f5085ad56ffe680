/**
 * A reward model to measure with: DeBERTa-v3 large's shape, random weights, the tests' tokenizer.
 *
 * @module
 */
import { safetensorsContent, type TensorToWrite } from "../../src/format/safetensors_write.ts";
import { debertaShapes } from "../../src/model/deberta.ts";
import { parseDebertaConfig } from "../../src/model/deberta_config.ts";

/** config.json of OpenAssistant/reward-model-deberta-v3-large-v2, as far as it matters. */
const LARGE = {
  model_type: "deberta-v2",
  architectures: ["DebertaV2ForSequenceClassification"],
  id2label: { "0": "LABEL_0" },
  label2id: { LABEL_0: 0 },
  vocab_size: 128100,
  hidden_size: 1024,
  num_attention_heads: 16,
  intermediate_size: 4096,
  hidden_act: "gelu",
  max_position_embeddings: 512,
  type_vocab_size: 0,
  layer_norm_eps: 1e-7,
  relative_attention: true,
  max_relative_positions: -1,
  position_buckets: 256,
  norm_rel_ebd: "layer_norm",
  share_att_key: true,
  pos_att_type: ["p2c", "c2p"],
  position_biased_input: false,
  pad_token_id: 0,
  pooler_hidden_act: "gelu",
  pooler_hidden_size: 1024,
};
/** Numbers that are made at once. */
const PIECE = 1 << 20;
const TOKENIZER = new URL("../../tests/fixtures/unigram/spm.model.gz", import.meta.url);

/** Writes the model into a directory. */
export async function writeReward(directory: string, layers: string): Promise<void> {
  const json = { ...LARGE, num_hidden_layers: Number(layers) };
  await Deno.mkdir(directory, { recursive: true });
  await Deno.writeTextFile(`${directory}/config.json`, JSON.stringify(json, null, 2));
  const packed = (await Deno.open(TOKENIZER)).readable.pipeThrough(new DecompressionStream("gzip"));
  await Deno.writeFile(`${directory}/spm.model`, packed);
  const shapes = debertaShapes(parseDebertaConfig(json, "config.json"));
  const tensors = [...shapes].map(([name, shape], index): TensorToWrite => ({
    ...{ name, dtype: "F32", shape, data: () => values(name, shape, index) },
  }));
  await Deno.writeFile(`${directory}/model.safetensors`, ReadableStream.from(safetensorsContent(tensors)));
}

/** Published initialisation, with a louder head, so that scores differ: zeros, ones, and evenly spread numbers. */
function* values(name: string, shape: readonly number[], index: number): Generator<Float32Array> {
  const length = shape.reduce((a, b) => a * b, 1);
  if (shape.length === 1) {
    return yield new Float32Array(length).fill(name.endsWith("LayerNorm.weight") ? 1 : 0);
  }
  const deviation = name.startsWith("classifier") ? 0.1 : name.startsWith("pooler") ? 0.05 : 0.02;
  const width = deviation * Math.sqrt(12);
  let state = (index + 1) * 0x9e3779b9 | 1;
  for (let at = 0; at < length; at += PIECE) {
    yield Float32Array.from({ length: Math.min(PIECE, length - at) }, () => {
      // xorshift32 (Marsaglia 2003)
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return ((state >>> 0) / 2 ** 32 - 0.5) * width;
    });
  }
}
