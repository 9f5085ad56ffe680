/**
 * DeBERTa's forward pass (He et al. 2021; v3: He et al. 2023) up to the pooler, over ops that only infer.
 *
 * Names are those of the published checkpoints. Shapes: T rows (tokens of all sequences, end to end), C channels
 * (`hidden_size`), E channels of the token embedding, H heads, V vocabulary entries, P reachable relative positions.
 *
 * @module
 */
import type { Dense, Norm, Ops, RelativePositions, Sequences } from "../tensor/ops.ts";
import type { EndToEnd } from "../tensor/sequences.ts";
import type { Matrix, Tensor } from "../tensor/tensor.ts";
import type { Activation, DebertaConfig } from "./deberta_config.ts";
import { relativeEmbeddingRows } from "./deberta_positions.ts";

/** Token embedding, and what is added to it. */
export interface DebertaEmbeddings {
  /** (V, E). */
  word_embeddings: Matrix;
  /** (places, E): what is added for a place and a type, or one row of zeros; see {@linkcode rowsOfPlaces}. */
  places: Tensor;
  /** (C, E), where E is not C. */
  embed_proj?: Dense;
  /** After all that. */
  LayerNorm: Norm;
}

/** One layer: attention and feed-forward network, each beside a residual and before a layer normalisation. */
export interface DebertaLayer {
  /** qkv: query_proj, key_proj and value_proj at once, (3C, C); output: (C, C). */
  attention: { qkv: Dense; positions: RelativePositions; output: Dense; LayerNorm: Norm };
  /** (intermediate_size, C). */
  intermediate: Dense;
  /** (C, intermediate_size). */
  output: Dense;
  /** After the feed-forward network. */
  LayerNorm: Norm;
}

/** The convolution beside the first layer. */
export interface DebertaConvolution {
  /** A matrix (C, C) for each neighbour, from the first to the last; the first has the bias. */
  taps: readonly Dense[];
  /** After its sum with the layer's output. */
  LayerNorm: Norm;
}

/** The network's weights. */
export interface DebertaWeights {
  /** What tokens become. */
  embeddings: DebertaEmbeddings;
  /** The layers. */
  layer: readonly DebertaLayer[];
  /** Beside the first layer, in models that have it. */
  conv?: DebertaConvolution;
  /** (C, C), of a sequence's first token. */
  pooler: Dense;
}

/** What goes in: T tokens. */
export interface DebertaInput {
  /** u32 (T). */
  tokens: Tensor;
  /** u32 (T): rows of `places`. */
  places: Tensor;
  /** Each row's sequence. */
  sequences: Sequences;
  /** u32 (N): each sequence's first row. */
  first: Tensor;
  /** For each of the convolution's taps u32 (T): see {@linkcode neighboursOf}. */
  neighbours: readonly Tensor[];
}

/** Rows of zeros before the rows that the convolution takes neighbours from: so many, so that views stay aligned. */
const MARGIN = 64;

/** The parameters' names and shapes, as a checkpoint has them. */
export function debertaShapes(config: DebertaConfig): Map<string, readonly number[]> {
  const { vocab_size: V, hidden_size: C, embedding_size: E, intermediate_size } = config;
  const shapes = new Map<string, readonly number[]>();
  const norm = (name: string) => shapes.set(`${name}.weight`, [C]).set(`${name}.bias`, [C]);
  const dense = (name: string, out: number, width: number) =>
    shapes.set(`${name}.weight`, [out, width]).set(`${name}.bias`, [out]);

  const embeddings = "deberta.embeddings";
  shapes.set(`${embeddings}.word_embeddings.weight`, [V, E]);
  if (config.position_biased_input) {
    shapes.set(`${embeddings}.position_embeddings.weight`, [config.max_position_embeddings, E]);
  }
  if (config.type_vocab_size > 0) {
    shapes.set(`${embeddings}.token_type_embeddings.weight`, [config.type_vocab_size, E]);
  }
  if (E !== C) shapes.set(`${embeddings}.embed_proj.weight`, [C, E]);
  norm(`${embeddings}.LayerNorm`);

  for (let i = 0; i < config.num_hidden_layers; i++) {
    const layer = `deberta.encoder.layer.${i}`;
    for (const name of projections(config)) dense(`${layer}.attention.self.${name}`, C, C);
    dense(`${layer}.attention.output.dense`, C, C);
    norm(`${layer}.attention.output.LayerNorm`);
    dense(`${layer}.intermediate.dense`, intermediate_size, C);
    dense(`${layer}.output.dense`, C, intermediate_size);
    norm(`${layer}.output.LayerNorm`);
  }
  if (config.relative_attention) {
    shapes.set("deberta.encoder.rel_embeddings.weight", [relativeEmbeddingRows(config), C]);
    if (config.norm_rel_ebd === "layer_norm") norm("deberta.encoder.LayerNorm");
  }
  if (config.conv_kernel_size > 0) {
    shapes.set("deberta.encoder.conv.conv.weight", [C, C, config.conv_kernel_size]);
    shapes.set("deberta.encoder.conv.conv.bias", [C]);
    norm("deberta.encoder.conv.LayerNorm");
  }
  dense("pooler.dense", C, C);
  dense("classifier", 1, C);
  return shapes;
}

/** An attention's projections: those of the content, and of positions where these have their own. */
function projections({ relative_attention, share_att_key, pos_att_type }: DebertaConfig): string[] {
  const own = relative_attention && !share_att_key;
  return [
    ...["query_proj", "key_proj", "value_proj"],
    ...(own && pos_att_type.includes("c2p") ? ["pos_key_proj"] : []),
    ...(own && pos_att_type.includes("p2c") ? ["pos_query_proj"] : []),
  ];
}

/** How many places the embedding tells apart, and types in each: a token's row is place · types + type. */
export function placesOf(config: DebertaConfig, longest: number): { places: number; types: number } {
  return {
    places: config.position_biased_input ? longest : 1,
    types: config.type_vocab_size > 0 ? 2 : 1,
  };
}

/** The network. */
export class Deberta {
  /**
   * @param config Its shape.
   * @param weights Its weights.
   */
  constructor(readonly config: DebertaConfig, readonly weights: DebertaWeights) {}

  /** What the pooler makes of each sequence's first token, before its activation; (N, C). */
  forward(ops: Ops, { tokens, places, sequences, first, neighbours }: DebertaInput): Tensor {
    const { config } = this;
    const { embeddings, layer, conv, pooler } = this.weights;
    const embedded = ops.scope(() =>
      embed(
        ops,
        config,
        embeddings,
        ops.embedding(embeddings.word_embeddings, embeddings.places, tokens, places),
      )
    );
    // The convolution beside the first layer takes all of that one's rows.
    const early = layer.length > (conv ? 1 : 0);
    let x = embedded;
    for (const [index, each] of layer.entries()) {
      const before = x;
      const last = index === layer.length - 1;
      x = ops.scope(() => {
        const output = encode(ops, config, each, before, sequences, last && early ? first : undefined);
        return conv && index === 0 ? convolve(ops, config, conv, embedded, output, neighbours) : output;
      });
      ops.discard(before);
    }
    return ops.dense(early ? x : ops.gather(x, first), pooler);
  }
}

/** What goes into the first layer, (T, C), of tokens with their places, (T, E). */
export function embed(
  ops: Ops,
  config: DebertaConfig,
  { embed_proj, LayerNorm }: DebertaEmbeddings,
  x: Tensor,
): Tensor {
  return ops.layerNorm(embed_proj ? ops.dense(x, embed_proj) : x, LayerNorm, config.layer_norm_eps);
}

/**
 * A layer, (T, C), or (N, C), of the sequences' first rows.
 *
 * @param first u32 (N): these, where they alone go on after the attention.
 */
export function encode(
  ops: Ops,
  config: DebertaConfig,
  { attention, intermediate, output, LayerNorm }: DebertaLayer,
  x: Tensor,
  sequences: Sequences,
  first?: Tensor,
): Tensor {
  const { num_attention_heads: H, hidden_act, layer_norm_eps: epsilon } = config;
  const qkv = ops.dense(x, attention.qkv); // (T, 3C)
  const scale = attentionScale(config);
  let attended = ops.disentangledAttention(
    qkv,
    sequences,
    attention.positions,
    H,
    scale,
    first !== undefined,
  );
  if (first) [attended, x] = [ops.gather(attended, first), ops.gather(x, first)];
  x = ops.layerNorm(ops.dense(attended, attention.output, x), attention.LayerNorm, epsilon);

  const inner = activate(ops, ops.dense(x, intermediate), hidden_act); // (T, intermediate_size)
  return ops.layerNorm(ops.dense(inner, output, x), LayerNorm, epsilon);
}

/** LayerNorm(output + act(convolution of x over each sequence)), (T, C). */
export function convolve(
  ops: Ops,
  config: DebertaConfig,
  { taps, LayerNorm }: DebertaConvolution,
  x: Tensor,
  output: Tensor,
  neighbours: readonly Tensor[],
): Tensor {
  const margined = ops.below(x, MARGIN);
  let sum: Tensor | undefined;
  for (const [index, tap] of taps.entries()) {
    sum = ops.dense(ops.gather(margined, neighbours[index]), tap, sum);
  }
  return ops.layerNorm(
    ops.add(output, activate(ops, sum!, config.conv_act)),
    LayerNorm,
    config.layer_norm_eps,
  );
}

/** For each tap of the convolution and each row: its neighbour's row below the margin, or 0 beyond its sequence. */
export function neighboursOf(config: DebertaConfig, { starts, ends }: EndToEnd): Uint32Array[] {
  const taps = config.conv_kernel_size;
  return Array.from({ length: taps }, (_, tap) =>
    starts.map((start, row) => {
      const neighbour = row + tap - (taps - 1) / 2;
      return neighbour >= start && neighbour < ends[row] ? MARGIN + neighbour : 0;
    }));
}

/** Which row of `places` each token takes. */
export function rowsOfPlaces(
  config: DebertaConfig,
  longest: number,
  { positions }: EndToEnd,
  typeIds: readonly number[],
): Uint32Array {
  const { places, types } = placesOf(config, longest);
  return positions.map((position, row) =>
    (places > 1 ? position : 0) * types + (types > 1 ? typeIds[row] : 0)
  );
}

/** Each term of the scores counts, also where `relative_attention` is off and there is the first alone. */
function attentionScale({ hidden_size, num_attention_heads, pos_att_type }: DebertaConfig): number {
  return 1 / Math.sqrt(hidden_size / num_attention_heads * (1 + pos_att_type.length));
}

function activate(ops: Ops, x: Tensor, activation: Activation): Tensor {
  return activation === "gelu" ? ops.exactGelu(x) : ops.gelu(x);
}
