/**
 * The differentiable ops that models are written in: each a forward pass with its backward pass
 * beside it. Shapes: T rows (tokens), C channels, H heads of D = C / H, V vocabulary entries, R the
 * adapter's rank; `in` and `out` a linear layer's widths.
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import type { Backend } from "./backend.ts";
import type { Tape } from "./tape.ts";
import { type Matrix, SLICE_ALIGNMENT, type Tensor } from "./tensor.ts";

/** A low-rank update of a linear layer (Hu et al. 2021): scaling · x Aᵀ Bᵀ is added to its output. */
export interface LowRank {
  /** (R, in). */
  A: Tensor;
  /** (out, R). */
  B: Tensor;
  /** alpha / R, or alpha / sqrt(R) with rank stabilisation. */
  scaling: number;
  /** Share of the adapter's inputs dropped in training. */
  dropout: number;
}

/** Low-rank updates of a layer of which every row has its own; see `LowRankRowsArgs`. For inference. */
export interface RowUpdate {
  /** (adapters, R, in). */
  A: Tensor;
  /** (adapters, R, out). */
  B: Tensor;
  /** (adapters). */
  scaling: Tensor;
  /** u32 (T). */
  adapters: Tensor;
}

/** y = x W + b, GPT-2's `Conv1D`, with or without an adapter. */
export interface Linear {
  /** (in, out). */
  weight: Matrix;
  /** (out). */
  bias?: Tensor;
  /** The adapter attached to this layer. */
  lora?: LowRank;
}

/** y = x Wᵀ + b, PyTorch's `Linear`; it only infers. */
export interface Dense {
  /** (out, in). */
  weight: Matrix;
  /** (out). */
  bias?: Tensor;
}

/** What disentangled attention knows of relative positions; see `DisentangledAttentionArgs`. */
export interface RelativePositions {
  /** (P, C), the content-to-position term's. */
  positionKeys?: Tensor;
  /** (P, C), the position-to-content term's. */
  positionQueries?: Tensor;
  /** u32 (2L − 1). */
  buckets?: Tensor;
}

/** Scale and shift of a layer normalisation. */
export interface Norm {
  /** (C). */
  weight: Tensor;
  /** (C). */
  bias: Tensor;
}

/** Sequences lying end to end; see `AttentionArgs`. */
export interface Sequences {
  /** u32 (T). */
  starts: Tensor;
  /** u32 (T). */
  ends: Tensor;
}

/** Keys and values of the tokens before, and where the new ones go; see `CachedAttentionArgs`. */
export interface CacheView {
  /** f32 or f16 (slots, n_positions, C). */
  keys: Tensor;
  /** f32 or f16 (slots, n_positions, C). */
  values: Tensor;
  /** u32 (T). */
  slots: Tensor;
  /** u32 (T). */
  positions: Tensor;
  /** u32 (slots, blocks of each), where the cache is allotted in blocks. */
  blocks?: Tensor;
}

/**
 * About how many logits are alive at once, 51 MB. With a quarter of them, which an L3 cache holds, the transposed weights are
 * laid out four times as often: a LoRA step of 1,024 tokens does 250 tokens/s and not 283 (q8), 173 and not 175 (f32).
 */
const LOGITS_AT_ONCE = 256 * 50257;

/** The ops over one backend, recording on a tape when there is one. */
export class Ops {
  readonly #arena: Arena;
  readonly #backend: Backend;

  /**
   * @param arena Where temporaries live.
   * @param tape What records; null for inference.
   * @param dropoutKey Gives each call of dropout its own mask; without it nothing is dropped.
   * @param updates What is added to layers' rows; only without a tape.
   */
  constructor(
    arena: Arena,
    readonly tape: Tape | null = null,
    readonly dropoutKey?: () => [number, number],
    readonly updates?: ReadonlyMap<Linear, readonly RowUpdate[]>,
  ) {
    this.#arena = arena;
    this.#backend = arena.backend;
  }

  /** Runs work and frees the temporaries made in it, but for its result; see {@linkcode Arena.scope}. */
  scope<Result>(work: () => Result): Result {
    return this.#arena.scope(work);
  }

  /** Lets go of a temporary before its scope ends. */
  discard(tensor: Tensor): void {
    this.#arena.discard(tensor);
  }

  /** Token embedding plus position embedding, (T, C). */
  embedding(wte: Matrix, wpe: Tensor, tokens: Tensor, positions: Tensor): Tensor {
    const out = this.#arena.temporary([tokens.length, wpe.shape[1]]);
    this.#backend.embedding({ wte, wpe, tokens, positions, out });
    this.#record(out, [wte, wpe], [tokens, positions], (dOut, tape) => {
      this.#accumulated(
        tape,
        wte,
        (dWte) => this.#backend.embeddingBackward({ tokens, positions, dOut, dWte }),
      );
      this.#accumulated(
        tape,
        wpe,
        (dWpe) => this.#backend.embeddingBackward({ tokens, positions, dOut, dWpe }),
      );
    });
    return out;
  }

  /** Layer normalisation of every row, (T, C). */
  layerNorm(x: Tensor, { weight, bias }: Norm, epsilon: number): Tensor {
    const out = this.#arena.temporary(x.shape);
    const mean = this.#arena.temporary([x.shape[0]]);
    const rstd = this.#arena.temporary([x.shape[0]]);
    this.#backend.layerNorm({ x, weight, bias, out, mean, rstd, epsilon });
    this.#record(out, [x, weight, bias], [x, mean, rstd], (dOut, tape) => {
      const saved = { x, weight, mean, rstd, dOut };
      this.#accumulated(tape, weight, (dWeight) => this.#backend.layerNormBackward({ ...saved, dWeight }));
      this.#accumulated(tape, bias, (dBias) => this.#backend.layerNormBackward({ ...saved, dBias }));
      tape.contribute(x, (dX, accumulate) => this.#backend.layerNormBackward({ ...saved, dX, accumulate }));
    });
    return out;
  }

  /**
   * y = x W + b, plus the adapter's scaling · dropout(x) Aᵀ Bᵀ, or the rows' own updates, plus a residual; (T, out).
   *
   * @param x (T, in).
   * @param layer The layer.
   * @param residual (T, out), added to the result.
   */
  linear(x: Tensor, layer: Linear, residual?: Tensor): Tensor {
    const { weight, bias, lora } = layer;
    const T = x.shape[0];
    const out = this.#arena.temporary([T, weight.shape[1]]);
    this.#backend.matmul({ a: x, b: weight, bias, residual, out });
    for (const update of this.updates?.get(layer) ?? []) this.#backend.lowRankRows({ x, ...update, out });
    if (!lora) {
      this.#record(out, [x, weight, bias, residual], weight.requiresGradient ? [x] : [], (dOut, tape) => {
        if (residual) tape.share(residual, dOut);
        this.#linearBackward(tape, x, layer, dOut);
      });
      return out;
    }

    const { A, B, scaling: alpha, dropout: probability } = lora;
    const R = A.shape[0];
    const key = probability > 0 ? this.dropoutKey?.() : undefined;
    const dropped = (): Tensor => {
      if (!key) return x;
      const kept = this.#arena.temporary(x.shape);
      this.#backend.dropout({ x, out: kept, probability, key });
      return kept;
    };
    const h = this.#arena.temporary([T, R]);
    this.#arena.scope(() => this.#backend.lowRank({ x: dropped(), A, B, scaling: alpha, h, out }));
    this.#record(out, [x, weight, bias, residual, A, B], [x, h], (dOut, tape) => {
      if (residual) tape.share(residual, dOut);
      this.#linearBackward(tape, x, layer, dOut);
      tape.contribute(
        B,
        (dB, accumulate) =>
          this.#backend.matmul({ a: dOut, transposeA: true, b: h, alpha, out: dB, accumulate }),
      );
      const dH = this.#arena.temporary([T, R]);
      this.#backend.matmul({ a: dOut, b: B, alpha, out: dH });
      tape.contribute(
        A,
        (dA, accumulate) =>
          this.#backend.matmul({ a: dH, transposeA: true, b: dropped(), out: dA, accumulate }),
      );
      tape.contribute(x, (dX, accumulate) => {
        if (!key) return this.#backend.matmul({ a: dH, b: A, out: dX, accumulate });
        const dDropped = this.#arena.temporary(x.shape);
        this.#backend.matmul({ a: dH, b: A, out: dDropped });
        this.#backend.dropout({ x: dDropped, out: dX, probability, key, accumulate });
      });
    });
    return out;
  }

  /** gelu(x W + b); in one kernel where neither a tape nor an adapter needs what lies between, (T, out). */
  linearGelu(x: Tensor, layer: Linear): Tensor {
    const { weight, bias, lora } = layer;
    if (lora || this.updates?.has(layer) || this.#records([x, weight, bias])) {
      return this.gelu(this.linear(x, layer));
    }
    const out = this.#arena.temporary([x.shape[0], weight.shape[1]]);
    this.#backend.matmul({ a: x, b: weight, bias, activation: "gelu", out });
    return out;
  }

  #linearBackward(tape: Tape, x: Tensor, { weight, bias }: Linear, dOut: Tensor): void {
    tape.contribute(
      x,
      (dX, accumulate) => this.#backend.matmul({ a: dOut, b: weight, transposeB: true, out: dX, accumulate }),
    );
    tape.contribute(
      weight,
      (dWeight, accumulate) =>
        this.#backend.matmul({ a: x, transposeA: true, b: dOut, out: dWeight, accumulate }),
    );
    if (bias) this.#accumulated(tape, bias, (dBias) => this.#backend.sumRows({ x: dOut, out: dBias }));
  }

  /** GELU in the tanh form (Hendrycks & Gimpel 2016), as GPT-2 has it. */
  gelu(x: Tensor): Tensor {
    const out = this.#arena.temporary(x.shape);
    this.#backend.gelu({ x, out });
    this.#record(out, [x], [x], (dOut, tape) => {
      tape.contribute(x, (dX, accumulate) => this.#backend.geluBackward({ x, dOut, dX, accumulate }));
    });
    return out;
  }

  /** y = x Wᵀ + b, plus a residual; (T, out). No gradient. */
  dense(x: Tensor, { weight, bias }: Dense, residual?: Tensor): Tensor {
    const out = this.#arena.temporary([x.shape[0], weight.shape[0]]);
    // Scores lie close together. What rounded weights shift is alike for all texts, and corrected at load; what rounded rows
    // shift is not: with eight bits of them six layers of DeBERTa-v3 large's shape were 0.038 of the scores' range off.
    this.#backend.matmul({ a: x, b: weight, transposeB: true, bias, residual, out, precise: true });
    return out;
  }

  /** GELU by the error function, as it was first defined (Hendrycks & Gimpel 2016). No gradient. */
  exactGelu(x: Tensor): Tensor {
    const out = this.#arena.temporary(x.shape);
    this.#backend.gelu({ x, out, exact: true });
    return out;
  }

  /** x below so many rows of zeros, (rows + T, C). No gradient. */
  below(x: Tensor, rows: number): Tensor {
    const [T, C] = x.shape;
    const out = this.#arena.temporary([rows + T, C]);
    this.#backend.fill({ out: out.slice(0, [rows, C]), value: 0 });
    this.#backend.copy({ x, out: out.slice(rows * C, [T, C]) });
    return out;
  }

  /** a + b. No gradient. */
  add(a: Tensor, b: Tensor): Tensor {
    const out = this.#arena.temporary(a.shape);
    this.#backend.add({ a, b, out });
    return out;
  }

  /**
   * Disentangled multi-head self-attention within each sequence, both ways; (T, C). No gradient.
   *
   * @param firstAlone Whether each sequence's first row alone is wanted.
   */
  disentangledAttention(
    qkv: Tensor,
    { starts, ends }: Sequences,
    positions: RelativePositions,
    heads: number,
    scale: number,
    firstAlone = false,
  ): Tensor {
    const [T, C3] = qkv.shape;
    const out = this.#arena.temporary([T, C3 / 3]);
    this.#backend.disentangledAttention({ qkv, ...positions, starts, ends, out, heads, scale, firstAlone });
    return out;
  }

  /** Causal multi-head self-attention within each sequence, (T, C). */
  attention(qkv: Tensor, { starts, ends }: Sequences, heads: number, scale: number): Tensor {
    const [T, C3] = qkv.shape;
    const out = this.#arena.temporary([T, C3 / 3]);
    const logSumExp = this.#arena.temporary([T, heads]);
    this.#backend.attention({ qkv, starts, out, logSumExp, heads, scale });
    this.#record(out, [qkv], [qkv, starts, ends, out, logSumExp], (dOut, tape) => {
      const dQkv = this.#arena.temporary(qkv.shape);
      const saved = { qkv, starts, ends, out, logSumExp };
      this.#backend.attentionBackward({ ...saved, dOut, dQkv, heads, scale });
      tape.share(qkv, dQkv);
    });
    return out;
  }

  /** Causal multi-head self-attention of new tokens over a cache, which takes them in; (T, C). No gradient. */
  cachedAttention(qkv: Tensor, cache: CacheView, heads: number, scale: number): Tensor {
    const [T, C3] = qkv.shape;
    const out = this.#arena.temporary([T, C3 / 3]);
    this.#backend.cachedAttention({ qkv, ...cache, out, heads, scale });
    return out;
  }

  /** The rows of x that are named, (N, C); each at most once where a gradient is wanted. */
  gather(x: Tensor, rows: Tensor): Tensor {
    const out = this.#arena.temporary([rows.length, x.shape[1]]);
    this.#backend.gather({ x, rows, out });
    this.#record(out, [x], [rows], (dOut, tape) => {
      this.#accumulated(tape, x, (dX) => this.#backend.scatterAdd({ dOut, rows, dX }));
    });
    return out;
  }

  /** hidden wteᵀ, the logits, (N, V). No gradient: training never holds them whole. */
  unembed(hidden: Tensor, wte: Matrix): Tensor {
    const out = this.#arena.temporary([hidden.shape[0], wte.shape[0]]);
    this.#backend.matmul({ a: hidden, b: wte, transposeB: true, out });
    return out;
  }

  /**
   * Cross-entropy of hidden wteᵀ against targets, row by row, in nats: (N). Vocabulary projection,
   * loss and gradient go together through chunks of rows, so that N × V logits never exist at once.
   *
   * @param hidden (N, C).
   * @param wte (V, C).
   * @param targets u32 (N).
   * @param gradientScale The weight of each row's loss in what is differentiated, such as 1 / targets.
   */
  crossEntropy(hidden: Tensor, wte: Matrix, targets: Tensor, gradientScale: number): Tensor {
    const [N, C] = hidden.shape;
    const V = wte.shape[0];
    const loss = this.#arena.temporary([N]);
    const tape = this.tape;
    const differentiate = tape !== null && (hidden.requiresGradient || wte.requiresGradient);
    const dHidden = differentiate ? this.#arena.temporary([N, C]) : null;
    const rowsAtOnce = Math.max(1, Math.floor(LOGITS_AT_ONCE / V / SLICE_ALIGNMENT)) * SLICE_ALIGNMENT;
    for (let row = 0; row < N; row += rowsAtOnce) {
      this.#arena.scope(() => {
        const n = Math.min(rowsAtOnce, N - row);
        const x = hidden.slice(row * C, [n, C]);
        const logits = this.unembed(x, wte);
        this.#backend.crossEntropy({
          logits,
          targets: targets.slice(row, [n]),
          loss: loss.slice(row, [n]),
          ...(differentiate ? { gradientScale } : {}),
        });
        if (!dHidden) return;
        this.#backend.matmul({ a: logits, b: wte, out: dHidden.slice(row * C, [n, C]) });
        tape!.contribute(
          wte,
          (dWte, accumulate) =>
            this.#backend.matmul({ a: logits, transposeA: true, b: x, out: dWte, accumulate }),
        );
      });
    }
    if (dHidden) this.#record(loss, [hidden, wte], [dHidden], (_, tape) => tape.share(hidden, dHidden));
    return loss;
  }

  /** Whether there is a tape, and one of an op's inputs wants a gradient. */
  #records(inputs: readonly (Matrix | undefined)[]): boolean {
    return this.tape !== null && inputs.some((input) => input?.requiresGradient);
  }

  /** Records an op if it is to be. */
  #record(
    output: Tensor,
    inputs: readonly (Matrix | undefined)[],
    saved: readonly Tensor[],
    backward: (gradient: Tensor, tape: Tape) => void,
  ): void {
    if (!this.#records(inputs)) return;
    const tape = this.tape!;
    tape.record(output, saved, (gradient) => backward(gradient, tape));
  }

  /** Contributes by a kernel that always adds to its output. */
  #accumulated(tape: Tape, input: Matrix, add: (out: Tensor) => void): void {
    tape.contribute(input, (out, accumulate) => {
      if (!accumulate) this.#backend.fill({ out, value: 0 });
      add(out);
    });
  }
}
