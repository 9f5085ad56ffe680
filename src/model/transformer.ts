/**
 * GPT-2's forward pass (Radford et al. 2019), written once, over differentiable ops.
 *
 * Names are those of the published checkpoints. Shapes: T rows (tokens of all sequences, end to
 * end), C channels (`n_embd`), H heads, V vocabulary entries.
 *
 * @module
 */
import type { CacheView, Linear, Norm, Ops, Sequences } from "../tensor/ops.ts";
import type { GroupAxis, Matrix, Tensor } from "../tensor/tensor.ts";
import type { GPT2Config } from "./config.ts";

/** One block: attention and MLP, each behind a layer normalisation and beside a residual. */
export interface Block {
  /** Before attention. */
  ln_1: Norm;
  /** c_attn: (C, 3C), query, key and value at once; c_proj: (C, C). */
  attn: { c_attn: Linear; c_proj: Linear };
  /** Before the MLP. */
  ln_2: Norm;
  /** c_fc: (C, n_inner); c_proj: (n_inner, C). */
  mlp: { c_fc: Linear; c_proj: Linear };
}

/** What goes in: T tokens, and what each may attend to. */
export interface Input {
  /** u32 (T). */
  tokens: Tensor;
  /** u32 (T), each row's place in its sequence. */
  positions: Tensor;
  /** Whole sequences, or per layer a cache of the tokens before. */
  context: Sequences | { cache: (layer: number) => CacheView };
  /** u32 (N): the rows whose hidden states are wanted, in this order [all]. */
  counted?: Tensor;
}

/** The parameters' names and shapes, in the order of the published checkpoints. */
export function parameterShapes(config: GPT2Config): Map<string, readonly number[]> {
  const { vocab_size: V, n_positions, n_embd: C, n_inner, n_layer } = config;
  const shapes = new Map<string, readonly number[]>([["wte.weight", [V, C]], ["wpe.weight", [
    n_positions,
    C,
  ]]]);
  const norm = (name: string) => shapes.set(`${name}.weight`, [C]).set(`${name}.bias`, [C]);
  const linear = (name: string, width: number, out: number) =>
    shapes.set(`${name}.weight`, [width, out]).set(`${name}.bias`, [out]);
  for (let layer = 0; layer < n_layer; layer++) {
    norm(`h.${layer}.ln_1`);
    linear(`h.${layer}.attn.c_attn`, C, 3 * C);
    linear(`h.${layer}.attn.c_proj`, C, C);
    norm(`h.${layer}.ln_2`);
    linear(`h.${layer}.mlp.c_fc`, C, n_inner);
    linear(`h.${layer}.mlp.c_proj`, n_inner, C);
  }
  norm("ln_f");
  return shapes;
}

/** Whether a parameter is a matrix that multiplies: these are packed when frozen, and decay in training. */
export function isMatrix(name: string): boolean {
  return name === "wte.weight" || /\.c_(attn|proj|fc)\.weight$/.test(name);
}

/**
 * Which way the model sums over such a matrix most, so that groups of quantised weights run along it: down the rows
 * of the linear layers, x W; along the columns of wte, which the output layer takes transposed, x wteᵀ.
 */
export function summedAxis(name: string): GroupAxis {
  return name === "wte.weight" ? 1 : 0;
}

/** The network: embeddings, blocks, the last layer normalisation. */
export class Transformer {
  /** Token embedding, (V, C), and output layer. */
  readonly wte: Matrix;
  /** Position embedding, (n_positions, C). */
  readonly wpe: Tensor;
  /** The blocks. */
  readonly h: readonly Block[];
  /** Last layer normalisation. */
  readonly ln_f: Norm;

  /**
   * @param config Its shape.
   * @param parameters One for each name of {@linkcode parameterShapes}.
   */
  constructor(readonly config: GPT2Config, readonly parameters: ReadonlyMap<string, Matrix>) {
    const vector = (name: string) => parameters.get(name) as Tensor;
    const norm = (name: string): Norm => ({ weight: vector(`${name}.weight`), bias: vector(`${name}.bias`) });
    const linear = (name: string): Linear => ({
      weight: parameters.get(`${name}.weight`)!,
      bias: vector(`${name}.bias`),
    });
    this.wte = parameters.get("wte.weight")!;
    this.wpe = vector("wpe.weight");
    this.h = Array.from({ length: config.n_layer }, (_, layer) => ({
      ln_1: norm(`h.${layer}.ln_1`),
      attn: { c_attn: linear(`h.${layer}.attn.c_attn`), c_proj: linear(`h.${layer}.attn.c_proj`) },
      ln_2: norm(`h.${layer}.ln_2`),
      mlp: { c_fc: linear(`h.${layer}.mlp.c_fc`), c_proj: linear(`h.${layer}.mlp.c_proj`) },
    }));
    this.ln_f = norm("ln_f");
  }

  /** The linear layers by the names that adapters know them by: `transformer.h.0.attn.c_attn`, … */
  linears(): Map<string, Linear> {
    return new Map(this.h.flatMap(({ attn, mlp }, layer) => [
      [`transformer.h.${layer}.attn.c_attn`, attn.c_attn],
      [`transformer.h.${layer}.attn.c_proj`, attn.c_proj],
      [`transformer.h.${layer}.mlp.c_fc`, mlp.c_fc],
      [`transformer.h.${layer}.mlp.c_proj`, mlp.c_proj],
    ]));
  }

  /** The linear layers that see the counted rows alone: what follows the last attention. */
  countedLinears(): Linear[] {
    const { attn, mlp } = this.h.at(-1)!;
    return [attn.c_proj, mlp.c_fc, mlp.c_proj];
  }

  /** Hidden states after the last layer normalisation, (T, C), or of the counted rows, (N, C). */
  forward(ops: Ops, { tokens, positions, context, counted }: Input): Tensor {
    const { layer_norm_epsilon: epsilon } = this.config;
    let x = ops.embedding(this.wte, this.wpe, tokens, positions);
    for (const layer of this.h.keys()) {
      const before = x;
      const last = layer === this.h.length - 1;
      x = ops.scope(() => this.#block(ops, before, layer, context, last ? counted : undefined));
      ops.discard(before);
    }
    return ops.layerNorm(x, this.ln_f, epsilon);
  }

  /** @param counted The rows that go on after the attention [all]. */
  #block(ops: Ops, x: Tensor, layer: number, context: Input["context"], counted?: Tensor): Tensor {
    const { ln_1, attn, ln_2, mlp } = this.h[layer];
    const { layer_norm_epsilon: epsilon, n_head: H } = this.config;

    const qkv = ops.linear(ops.layerNorm(x, ln_1, epsilon), attn.c_attn); // (T, 3C)
    const scale = this.#attentionScale(layer);
    let attended = "cache" in context
      ? ops.cachedAttention(qkv, context.cache(layer), H, scale)
      : ops.attention(qkv, context, H, scale);
    if (counted) [attended, x] = [ops.gather(attended, counted), ops.gather(x, counted)];
    x = ops.linear(attended, attn.c_proj, x);

    const inner = ops.linearGelu(ops.layerNorm(x, ln_2, epsilon), mlp.c_fc); // (T, n_inner)
    return ops.linear(inner, mlp.c_proj, x);
  }

  #attentionScale(layer: number): number {
    const { n_embd, n_head, scale_attn_weights, scale_attn_by_inverse_layer_idx } = this.config;
    return (scale_attn_weights ? 1 / Math.sqrt(n_embd / n_head) : 1) /
      (scale_attn_by_inverse_layer_idx ? layer + 1 : 1);
  }
}
