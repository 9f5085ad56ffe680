/**
 * The kernels that models are made of, by shape and meaning: the one interface with two homes,
 * `src/backend/webgpu/` and `src/backend/wasm/` (and a float64 reference in `tests/support/`).
 *
 * Calls only enqueue: their results are in place for every later call, and reads alone wait.
 * Outputs are overwritten whatever they held (NaN too), unless `accumulate` says that they are
 * added to. An output never overlaps an input, unless a kernel's text allows it.
 *
 * Sequences of unequal lengths lie end to end, without padding: a batch is T rows, and for each row
 * `starts[t]` is the first row of its sequence and `ends[t]` the row after its last. Shapes are
 * written `(T, C)`: T rows (tokens), C channels (`n_embd`), H heads of D = C / H, V vocabulary
 * entries, R the adapter's rank.
 *
 * What it does not do: broadcasting, strides, more than two-dimensional matrices, integer arithmetic.
 *
 * @module
 */
import type { DType, GroupAxis, Matrix, PackedMatrix, StoredMatrix, Tensor, WeightFormat } from "./tensor.ts";

/** out (M, N) = activation(alpha · op(a) (M, K) · op(b) (K, N) + bias) + residual, or that added to `out`. */
export interface MatmulArgs {
  /** (M, K), or (K, M) with `transposeA`. */
  a: Tensor;
  /** (K, N), or (N, K) with `transposeB`. */
  b: Matrix;
  /** (M, N). */
  out: Tensor;
  /** Reads `a` transposed; only with a plain `b`. */
  transposeA?: boolean;
  /** Reads `b` transposed. */
  transposeB?: boolean;
  /** Factor on the product; 1 by default. */
  alpha?: number;
  /** Adds to what `out` holds; excludes `activation`. */
  accumulate?: boolean;
  /** (N), added to every row. */
  bias?: Tensor;
  /** GELU as GPT-2 computes it (the tanh form), after the bias. */
  activation?: "gelu";
  /** (M, N), added last; it may be `out` itself. */
  residual?: Tensor;
  /** Leaves rows of `a` that meet a q8 `b` more than eight bits, even where the fastest product takes no more. */
  precise?: boolean;
}

/** out[t] = wte[tokens[t]] + wpe[positions[t]]. */
export interface EmbeddingArgs {
  /** (V, C), plain or packed. */
  wte: Matrix;
  /** (n_positions, C). */
  wpe: Tensor;
  /** u32 (T), each below V. */
  tokens: Tensor;
  /** u32 (T), each below n_positions. */
  positions: Tensor;
  /** (T, C). */
  out: Tensor;
}

/** Adds dOut's rows to the gradients of the embeddings they came from; always accumulates. */
export interface EmbeddingBackwardArgs {
  /** u32 (T); rows may repeat, and are added in the order of t. */
  tokens: Tensor;
  /** u32 (T). */
  positions: Tensor;
  /** (T, C). */
  dOut: Tensor;
  /** (V, C), if wanted. */
  dWte?: Tensor;
  /** (n_positions, C), if wanted. */
  dWpe?: Tensor;
}

/** out = (x − mean) / sqrt(variance + epsilon) · weight + bias, row by row; biased variance. */
export interface LayerNormArgs {
  /** (T, C). */
  x: Tensor;
  /** (C). */
  weight: Tensor;
  /** (C). */
  bias: Tensor;
  /** (T, C). */
  out: Tensor;
  /** (T), each row's mean. */
  mean: Tensor;
  /** (T), each row's 1 / sqrt(variance + epsilon). */
  rstd: Tensor;
  /** GPT-2's is 1e-5. */
  epsilon: number;
}

/** Gradients of {@linkcode LayerNormArgs}. */
export interface LayerNormBackwardArgs {
  /** (T, C). */
  x: Tensor;
  /** (C). */
  weight: Tensor;
  /** (T), from the forward pass. */
  mean: Tensor;
  /** (T), from the forward pass. */
  rstd: Tensor;
  /** (T, C). */
  dOut: Tensor;
  /** (T, C), if wanted. */
  dX?: Tensor;
  /** Whether dX is added to. */
  accumulate?: boolean;
  /** (C), if wanted; always added to. */
  dWeight?: Tensor;
  /** (C), if wanted; always added to. */
  dBias?: Tensor;
}

/** out = 0.5 · x · (1 + tanh(sqrt(2/π) · (x + 0.044715 · x³))), GPT-2's `gelu_new`. */
export interface GeluArgs {
  /** Any shape. */
  x: Tensor;
  /** x's shape. */
  out: Tensor;
  /** Instead 0.5 · x · (1 + erf(x / √2)), as Hendrycks & Gimpel (2016) define it and DeBERTa has it. */
  exact?: boolean;
}

/** dX = dOut · gelu′(x). */
export interface GeluBackwardArgs {
  /** Any shape; the forward pass's input. */
  x: Tensor;
  /** x's shape. */
  dOut: Tensor;
  /** x's shape. */
  dX: Tensor;
  /** Whether dX is added to. */
  accumulate?: boolean;
}

/** Causal self-attention within each sequence of a batch. */
export interface AttentionArgs {
  /** (T, 3C): query, key and value side by side; head h has columns h·D … h·D + D − 1 of each. */
  qkv: Tensor;
  /** u32 (T): row t sees rows starts[t] … t. */
  starts: Tensor;
  /** (T, C). */
  out: Tensor;
  /** (T, H): the natural log of each softmax's denominator (the maximum included). */
  logSumExp: Tensor;
  /** H. */
  heads: number;
  /** Factor on query · key, usually 1 / sqrt(D). */
  scale: number;
}

/** Gradient of {@linkcode AttentionArgs}; probabilities are recomputed from `logSumExp`. */
export interface AttentionBackwardArgs {
  /** (T, 3C). */
  qkv: Tensor;
  /** u32 (T). */
  starts: Tensor;
  /** u32 (T): row t is seen by rows t … ends[t] − 1. */
  ends: Tensor;
  /** (T, C), from the forward pass. */
  out: Tensor;
  /** (T, H), from the forward pass. */
  logSumExp: Tensor;
  /** (T, C). */
  dOut: Tensor;
  /** (T, 3C), overwritten. */
  dQkv: Tensor;
  /** H. */
  heads: number;
  /** As in the forward pass. */
  scale: number;
}

/** Positions of a block of a cache that is allotted in blocks. */
export const CACHE_BLOCK = 80;

/**
 * Causal self-attention of new tokens over a cache of the keys and values before them. First every
 * row's key and value are stored at its slot and position, then every row t attends over positions
 * 0 … positions[t] of its slot. Rows of one slot lie in ascending order of position.
 *
 * How a slot's keys and values lie in its part of the cache is the backend's own business: whoever reads or writes
 * them otherwise than by this kernel finds no sense there, but a whole slot may be copied or forgotten. In a cache of
 * halves they are rounded to the nearest half when they are stored, so that every row, the new ones too, sees them
 * rounded; what is larger than the largest half, 65504, becomes that, but an infinity and NaN stay what they are.
 */
export interface CachedAttentionArgs {
  /** (T, 3C), the new tokens'. */
  qkv: Tensor;
  /** f32 or f16 (slots, n_positions, C), or with `blocks` ({@linkcode CACHE_BLOCK} positions each) of any number. */
  keys: Tensor;
  /** As `keys`, of the same type. */
  values: Tensor;
  /**
   * u32 (slots, ⌈n_positions / CACHE_BLOCK⌉): in which block of keys (blocks, CACHE_BLOCK, C) positions CACHE_BLOCK · i on of
   * a slot lie; what is not in use yet may be any. Without it each slot has its own part. Results have the same bits.
   */
  blocks?: Tensor;
  /** u32 (T): the sequence that row t belongs to. */
  slots: Tensor;
  /** u32 (T): row t's position in its sequence. */
  positions: Tensor;
  /** (T, C). */
  out: Tensor;
  /** H. */
  heads: number;
  /** Factor on query · key. */
  scale: number;
}

/**
 * Disentangled self-attention of DeBERTa (He et al. 2021), within sequences and both ways: row i sees every row j of its own with
 *
 *     score(i, j) = scale · (query i · key j + query i · positionKeys[δ] + key j · positionQueries[δ]),   δ = buckets[i − j + L − 1]
 */
export interface DisentangledAttentionArgs {
  /** (T, 3C): query, key, value side by side. */
  qkv: Tensor;
  /** (P, C): content-to-position; without it there is no such term. */
  positionKeys?: Tensor;
  /** (P, C): position-to-content; without it there is no such term. */
  positionQueries?: Tensor;
  /** u32 (2L − 1), each below P and none below the one before; L is at least the longest sequence's length. */
  buckets?: Tensor;
  /** u32 (T): the row where row t's sequence starts. */
  starts: Tensor;
  /** u32 (T): the row after the last of row t's sequence. */
  ends: Tensor;
  /** (T, C). */
  out: Tensor;
  /** H. */
  heads: number;
  /** Factor on all of a score. */
  scale: number;
  /** Only each sequence's first row of `out` is wanted; what becomes of the others is left open. */
  firstAlone?: boolean;
}

/** h = x · Aᵀ, out += scaling · h · Bᵀ: one low-rank update for all rows. */
export interface LowRankArgs {
  /** (T, in). */
  x: Tensor;
  /** (R, in). */
  A: Tensor;
  /** (out, R). */
  B: Tensor;
  /** What the update is multiplied by. */
  scaling: number;
  /** (T, R). */
  h: Tensor;
  /** (T, out). */
  out: Tensor;
}

/** The number of no adapter in {@linkcode LowRankRowsArgs}. */
export const NO_ADAPTER = 0xffffffff;

/** out[t] += scaling[a] · (x[t] · A[a]ᵀ) · B[a] with a = adapters[t]: every row has its own low-rank update. */
export interface LowRankRowsArgs {
  /** (T, in). */
  x: Tensor;
  /** (adapters, R, in). */
  A: Tensor;
  /** (adapters, R, out): transposed, as against a layer's `lora_B`. */
  B: Tensor;
  /** (adapters). */
  scaling: Tensor;
  /** u32 (T); {@linkcode NO_ADAPTER} leaves a row as it is. */
  adapters: Tensor;
  /** (T, out). */
  out: Tensor;
}

/** loss[i] = −log softmax(logits[i])[targets[i]]; with `gradientScale`, logits become their gradient. */
export interface CrossEntropyArgs {
  /** (N, V). With `gradientScale` overwritten by (softmax(logits) − onehot(targets)) · gradientScale. */
  logits: Tensor;
  /** u32 (N), each below V. */
  targets: Tensor;
  /** (N), in nats. */
  loss: Tensor;
  /** The loss's weight in what is differentiated; no gradient without it. */
  gradientScale?: number;
}

/** How one row's token is chosen, in this order (that of transformers): penalty, temperature, top-k, top-p. */
export interface SampleRow {
  /** Scores are divided by it; 0 takes the highest, whatever the cuts and the draw. */
  temperature: number;
  /** Only so many tokens, those of the highest scores; 0 for all. */
  topK: number;
  /** Only the fewest tokens, those of the highest scores, that have this share of all probability; 1 for all. */
  topP: number;
  /** Divides positive logits of tokens that were seen, multiplies others of them (Keskar et al. 2019); 1 for none. */
  repetitionPenalty: number;
  /**
   * At least 0 and below 1: where in the sum of the tokens' probabilities, in the order of their ids, the choice
   * falls.
   */
  draw: number;
  /** Its sequence's row of `seen`; no two rows have the same. */
  slot: number;
}

/**
 * tokens[i] = the token chosen by logits[i], logProbs[i] = log softmax(logits[i])[tokens[i]]. Among tokens of equal
 * scores (logits, after the penalty, in f32) the lower ids come first. A logit of −∞ is a token that is never
 * chosen; where a row has one that is NaN or ∞, or none above −∞, its logProb is NaN and its token 0.
 *
 * A row's choice does not depend on the others. Where the draw falls on the border of two tokens, within about 1e-6
 * of all probability, rounding decides, and so it is with the last token of `topP`.
 */
export interface SampleArgs {
  /** (N, V), not changed. */
  logits: Tensor;
  /** N. */
  rows: readonly SampleRow[];
  /**
   * u32 (slots, W), W at least V / 32: a sequence's tokens so far, token v as bit v % 32 of word v / 32. The chosen
   * ones are added. Needed for a penalty alone.
   */
  seen?: Tensor;
  /** u32 (N), each below V: what `embedding` takes next. */
  tokens: Tensor;
  /** (N): natural logs of the model's own probabilities, before penalty, temperature and cuts. */
  logProbs: Tensor;
}

/** out[i] = x[rows[i]]. */
export interface GatherArgs {
  /** (T, C). */
  x: Tensor;
  /** u32 (N), each below T. */
  rows: Tensor;
  /** (N, C). */
  out: Tensor;
}

/** dX[rows[i]] += dOut[i]; every row appears at most once. */
export interface ScatterAddArgs {
  /** (N, C). */
  dOut: Tensor;
  /** u32 (N), distinct. */
  rows: Tensor;
  /** (T, C), added to. */
  dX: Tensor;
}

/** out = a + b. */
export interface AddArgs {
  /** Any shape. */
  a: Tensor;
  /** a's shape. */
  b: Tensor;
  /** a's shape; may be `a` or `b` itself. */
  out: Tensor;
}

/**
 * out[i] = x[i] / (1 − probability) where element i is kept, else 0. Element i is kept when
 * `uniform(i, key) >= probability`, by the counter-based generator of `random.ts`: the same key
 * gives the same mask, so that the backward pass is the same call on the gradient.
 */
export interface DropoutArgs {
  /** Any shape. */
  x: Tensor;
  /** x's shape; may be `x` itself when nothing accumulates. */
  out: Tensor;
  /** Share of elements dropped, at least 0 and below 1. */
  probability: number;
  /** Two unsigned 32-bit numbers: which mask. */
  key: readonly [number, number];
  /** Whether out is added to. */
  accumulate?: boolean;
}

/** out[n] = Σ over rows m of x[m, n], a bias's gradient; always added to `out`. */
export interface SumRowsArgs {
  /** (M, N). */
  x: Tensor;
  /** (N), added to. */
  out: Tensor;
}

/** out[0] = Σ x², or that added to it. */
export interface SumOfSquaresArgs {
  /** Any shape. */
  x: Tensor;
  /** (1). */
  out: Tensor;
  /** Whether out is added to. */
  accumulate?: boolean;
}

/** out[0] = sqrt(sumOfSquares), the gradients' norm; out[1] = min(1, maxNorm / (norm + 1e-6)), 1 if maxNorm is 0. */
export interface ClipFactorArgs {
  /** (1). */
  sumOfSquares: Tensor;
  /** The largest norm let through; 0 for any. */
  maxNorm: number;
  /** (2). */
  out: Tensor;
}

/**
 * One step of AdamW (Loshchilov & Hutter 2019), in place, with g = gradient · clip[1]:
 * p −= lr · weightDecay · p; m = β₁m + (1 − β₁)g; v = β₂v + (1 − β₂)g²;
 * p −= lr · (m / (1 − β₁ˢ)) / (sqrt(v / (1 − β₂ˢ)) + ε), s the step.
 */
export interface AdamWArgs {
  /** Any shape, updated. */
  parameters: Tensor;
  /** Its shape. */
  gradients: Tensor;
  /** Its shape, updated: first moment. */
  m: Tensor;
  /** Its shape, updated: second moment. */
  v: Tensor;
  /** (2), from {@linkcode ClipFactorArgs}. */
  clip: Tensor;
  /** lr. */
  learningRate: number;
  /** β₁. */
  beta1: number;
  /** β₂. */
  beta2: number;
  /** ε. */
  epsilon: number;
  /** Decoupled decay, per unit of learning rate. */
  weightDecay: number;
  /** s, from 1. */
  step: number;
}

/** What a backend has done and holds, for tests and for `whet devices`. */
export interface BackendStats {
  /** Bytes now allocated for tensors and packed weights. */
  allocatedBytes: number;
  /** Tensors and packed weights now allocated. */
  allocations: number;
  /** Kernel launches so far. */
  dispatches: number;
  /** Command submissions so far (WebGPU). */
  submissions: number;
  /** Bind groups, buffers and pipelines created so far (WebGPU). */
  creations: number;
  /** Bind groups among them. */
  bindGroups?: number;
  /** Buffers among them. */
  buffers?: number;
  /** Pipelines among them. */
  pipelines?: number;
  /** Bytes now held of the device's memory, those kept for reuse too (WebGPU). */
  heldBytes?: number;
  /** Reads of results so far. */
  readbacks: number;
}

/** What a model takes of a backend's memory, as far as is known before it is loaded. */
export interface MemoryNeed {
  /** What errors call the model. */
  name: string;
  /** How its weights are stored. */
  format: WeightFormat;
  /** Bytes of its weights. */
  weights: number;
  /** Bytes of the least that it works with: a sequence's cache and activations. */
  working: number;
  /** The largest tensor that a kernel sees whole. */
  largest: { name: string; bytes: number };
}

/** The kernels, and the memory they work in. */
export interface Backend extends Disposable {
  /** Which home this is. */
  readonly name: "webgpu" | "wasm" | "reference";
  /** The adapter or instruction set in words, as `whet devices` prints it. */
  readonly description: string;
  /**
   * Steps of decoding that may be under way at once, at most: they begin on the device before the results of those
   * before are here. Absent where calls return when their work is done, and reads cost nothing: one.
   *
   * @internal
   */
  readonly readAhead?: number;

  // Memory
  /**
   * Refuses what cannot fit, before any of it is loaded; absent where nothing is known of limits.
   *
   * @throws {WhetError} `resource` naming the model, what it needs, the limit and what to do.
   *
   * @internal
   */
  admit?(need: MemoryNeed): Promise<void>;
  /**
   * Allocates a tensor whose content is undefined.
   *
   * @internal
   */
  allocate(shape: readonly number[], dtype?: DType): Tensor;
  /**
   * Allocates a tensor and fills it; a Float32Array makes f32, a Uint32Array u32.
   *
   * @internal
   */
  upload(data: Float32Array | Uint32Array, shape?: readonly number[]): Tensor;
  /**
   * Overwrites a tensor's content; a view to write may begin anywhere.
   *
   * @internal
   */
  write(tensor: Tensor, data: Float32Array | Uint32Array): void;
  /**
   * The content of an f32 tensor, once all that was enqueued before is done.
   *
   * @internal
   */
  read(tensor: Tensor): Promise<Float32Array>;
  /**
   * The content of a u32 tensor. Reads that are asked for together wait together.
   *
   * @internal
   */
  readU32(tensor: Tensor): Promise<Uint32Array>;
  /**
   * Lays out a row-major (rows, columns) matrix as a frozen weight, whose groups run along `axis` [0].
   *
   * @internal
   */
  pack(
    data: Float32Array,
    rows: number,
    columns: number,
    format: WeightFormat,
    axis?: GroupAxis,
  ): PackedMatrix;
  /**
   * Lays out what {@linkcode unpackStored} gave, on whatever backend: the numbers are the same again where both
   * have the same scales (all but WASM, which rounds those that it did not choose itself). Nothing of `stored` is
   * kept.
   *
   * @internal
   */
  packStored(stored: StoredMatrix): PackedMatrix;
  /**
   * A frozen weight that is not f32 as files hold it.
   *
   * @internal
   */
  unpackStored(matrix: PackedMatrix): Promise<StoredMatrix>;
  /**
   * A frozen weight as a row-major f32 matrix again; exact for f32, else what the kernels compute with.
   *
   * @internal
   */
  unpack(matrix: PackedMatrix): Promise<Float32Array>;
  /**
   * Frees a tensor's or packed weight's memory; views are never freed. No effect once the backend is disposed.
   *
   * @internal
   */
  free(memory: Matrix): void;
  /**
   * Starts what is enqueued, without waiting for it.
   *
   * @internal
   */
  flush(): void;
  /** Counters. */
  stats(): BackendStats;

  // Kernels
  /**
   * Matrix product with epilogue.
   *
   * @internal
   */
  matmul(args: MatmulArgs): void;
  /**
   * Token and position embedding.
   *
   * @internal
   */
  embedding(args: EmbeddingArgs): void;
  /**
   * Gradients of the embeddings.
   *
   * @internal
   */
  embeddingBackward(args: EmbeddingBackwardArgs): void;
  /**
   * Layer normalisation.
   *
   * @internal
   */
  layerNorm(args: LayerNormArgs): void;
  /**
   * Its gradients.
   *
   * @internal
   */
  layerNormBackward(args: LayerNormBackwardArgs): void;
  /**
   * GELU, tanh form.
   *
   * @internal
   */
  gelu(args: GeluArgs): void;
  /**
   * Its gradient.
   *
   * @internal
   */
  geluBackward(args: GeluBackwardArgs): void;
  /**
   * Causal self-attention within sequences.
   *
   * @internal
   */
  attention(args: AttentionArgs): void;
  /**
   * Its gradient.
   *
   * @internal
   */
  attentionBackward(args: AttentionBackwardArgs): void;
  /**
   * Causal self-attention over a key-value cache.
   *
   * @internal
   */
  cachedAttention(args: CachedAttentionArgs): void;
  /**
   * Disentangled self-attention within sequences.
   *
   * @internal
   */
  disentangledAttention(args: DisentangledAttentionArgs): void;
  /**
   * Adds one low-rank update to all rows.
   *
   * @internal
   */
  lowRank(args: LowRankArgs): void;
  /**
   * Adds a low-rank update of its own to every row.
   *
   * @internal
   */
  lowRankRows(args: LowRankRowsArgs): void;
  /**
   * Softmax cross-entropy and its gradient.
   *
   * @internal
   */
  crossEntropy(args: CrossEntropyArgs): void;
  /**
   * The next tokens, chosen by their logits.
   *
   * @internal
   */
  sample(args: SampleArgs): void;
  /**
   * Selected rows.
   *
   * @internal
   */
  gather(args: GatherArgs): void;
  /**
   * Their gradient.
   *
   * @internal
   */
  scatterAdd(args: ScatterAddArgs): void;
  /**
   * Sum of two.
   *
   * @internal
   */
  add(args: AddArgs): void;
  /**
   * Copies x to out, which has its length.
   *
   * @internal
   */
  copy(args: { x: Tensor; out: Tensor }): void;
  /**
   * Sets every element.
   *
   * @internal
   */
  fill(args: { out: Tensor; value: number }): void;
  /**
   * Inverted dropout.
   *
   * @internal
   */
  dropout(args: DropoutArgs): void;
  /**
   * Sum over rows.
   *
   * @internal
   */
  sumRows(args: SumRowsArgs): void;
  /**
   * Sum of squares.
   *
   * @internal
   */
  sumOfSquares(args: SumOfSquaresArgs): void;
  /**
   * Gradient norm and clipping factor.
   *
   * @internal
   */
  clipFactor(args: ClipFactorArgs): void;
  /**
   * Optimizer step.
   *
   * @internal
   */
  adamw(args: AdamWArgs): void;
}
