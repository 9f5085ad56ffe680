/**
 * Bias correction of a quantised DeBERTa (after Nagel et al. 2019): rounded weights shift what a layer gives on average, all
 * texts alike, and scores lie close together. While the layers are placed, a few texts go through the exact and through
 * the rounded weights side by side, and every bias takes the mean difference of its outputs.
 *
 * Random weights in the large's shape, q8, eight pairs of 200 tokens, whose scores' standard deviation is 0.44: without this
 * they were up to 0.045 off, 0.030 in the root mean square, 0.029 of it alike for all; with it 0.020, 0.012 and 0.008.
 *
 * @module
 */
import { Arena } from "../tensor/arena.ts";
import type { Backend } from "../tensor/backend.ts";
import { type Dense, Ops } from "../tensor/ops.ts";
import { type EndToEnd, endToEnd } from "../tensor/sequences.ts";
import { SLICE_ALIGNMENT, type Tensor } from "../tensor/tensor.ts";
import type { UnigramTokenizer } from "../text/unigram.ts";
import {
  convolve,
  type DebertaConvolution,
  type DebertaEmbeddings,
  type DebertaLayer,
  embed,
  encode,
  neighboursOf,
  rowsOfPlaces,
} from "./deberta.ts";
import type { DebertaConfig } from "./deberta_config.ts";

/** The texts: of both kinds of answers, good and bad. */
const TEXTS: readonly (readonly [prompt: string, response: string])[] = [
  [
    "\n\nHuman: My neighbour's dog barks every morning at five and I cannot sleep. I do not want a quarrel with him. What " +
    "could I do?\n\nAssistant:",
    "Talk to him on a quiet afternoon, and tell him how early it is when you wake. He may not know: many dogs bark only " +
    "when nobody is at home. You could offer to walk the dog now and then, or ask whether it may sleep in another room.",
  ],
  [
    "\n\nHuman: How long do I have to boil an egg?\n\nAssistant: Soft or hard?\n\nHuman: Soft, please, it is from the " +
    "fridge.\n\nAssistant:",
    "About six minutes in boiling water for a medium egg. Then hold it under cold water, so that it does not go on cooking.",
  ],
  [
    "\n\nHuman: Can you explain to me what inflation is, and why 3.5% matters for my $20,000 of savings?\n\nAssistant:",
    "i dont know, look it up yourself. money is money!!! why would anybody care about that",
  ],
  [
    "\n\nHuman: Write two lines about the sea in winter.\n\nAssistant:",
    "Grey waves unroll their letters on the sand,\nand no one is awake to read the hand.",
  ],
];
/** The most tokens of a text. */
const LONGEST = 128;

/** A layer's exact weights: its matrix (out, in), row-major, and its bias. */
export interface ExactDense {
  /** (out, in). */
  weight: Float32Array;
  /** (out). */
  bias?: Float32Array;
}

/** The texts on their way through both kinds of weights: 2 T rows, the first T of them exact. */
export class Calibration implements Disposable {
  readonly #backend: Backend;
  readonly #arena: Arena;
  readonly #rows: EndToEnd;
  readonly #typeIds: number[];
  /** (T, E), of the exact token embedding. */
  readonly #words: Float32Array;
  /** 2 T rows: what goes into the next layer, and what went into the first. */
  #x!: Tensor;
  #embedded!: Tensor;

  /**
   * @param backend Where the weights are.
   * @param config The model's shape.
   * @param tokenizer Its tokenizer.
   * @param longest The longest sequence.
   */
  constructor(
    backend: Backend,
    private readonly config: DebertaConfig,
    tokenizer: UnigramTokenizer,
    private readonly longest: number,
  ) {
    this.#backend = backend;
    this.#arena = new Arena(backend);
    const encoded = TEXTS.map((text) => tokenizer.encodePair(...text, Math.min(LONGEST, longest)));
    // Views begin at aligned rows: the last text may lose its end.
    const total = encoded.reduce((sum, { ids }) => sum + ids.length, 0);
    let room = Math.max(1, Math.floor(total / SLICE_ALIGNMENT)) * SLICE_ALIGNMENT;
    const texts = encoded.flatMap(({ ids, typeIds }) => {
      const text = { ids: ids.slice(0, room), typeIds: typeIds.slice(0, room) };
      room -= text.ids.length;
      return text.ids.length > 0 ? [text] : [];
    });
    const twice = [...texts, ...texts];
    this.#rows = endToEnd(twice.map(({ ids }) => ids));
    this.#typeIds = twice.flatMap(({ typeIds }) => typeIds);
    this.#words = new Float32Array(this.#rows.tokens.length / 2 * config.embedding_size);
  }

  /** Takes what it needs of the exact token embedding's rows, as they come. */
  takeWords(values: Float32Array, firstRow: number, rows: number): void {
    const E = this.config.embedding_size;
    for (let row = 0; row < this.#words.length / E; row++) {
      const at = (this.#rows.tokens[row] - firstRow) * E;
      if (at >= 0 && at < rows * E) this.#words.set(values.subarray(at, at + E), row * E);
    }
  }

  /**
   * Embeds the texts.
   *
   * @param embeddings As they are placed.
   * @param exact The projection's exact weights, if there is one.
   */
  begin(embeddings: DebertaEmbeddings, exact: ReadonlyMap<Dense, ExactDense>): void {
    const { tokens } = this.#rows;
    const E = this.config.embedding_size;
    this.#x = this.#embedded = this.#arena.scope(() => {
      const ops = new BothOps(this.#arena, exact);
      const places = rowsOfPlaces(this.config, this.longest, this.#rows, this.#typeIds);
      const T = tokens.length / 2;
      const half = (wte: Parameters<Ops["embedding"]>[0], ids: Uint32Array, at: Uint32Array) =>
        ops.embedding(wte, embeddings.places, this.#arena.upload(ids), this.#arena.upload(at));
      const both = ops.joined(
        half(
          this.#arena.upload(this.#words, [T, E]),
          Uint32Array.from({ length: T }, (_, i) => i),
          places.slice(0, T),
        ),
        half(embeddings.word_embeddings, tokens.slice(T), places.slice(T)),
      );
      return embed(ops, this.config, embeddings, both);
    });
  }

  /**
   * Takes the texts through a layer, whose biases are corrected.
   *
   * @param layer As it is placed.
   * @param exact The exact weights of what is rounded.
   * @param conv What stands beside it.
   */
  layer(layer: DebertaLayer, exact: ReadonlyMap<Dense, ExactDense>, conv?: DebertaConvolution): void {
    const before = this.#x;
    this.#x = this.#arena.scope(() => {
      const ops = new BothOps(this.#arena, exact);
      const upload = (values: Uint32Array) => this.#arena.upload(values);
      const sequences = { starts: upload(this.#rows.starts), ends: upload(this.#rows.ends) };
      const output = encode(ops, this.config, layer, before, sequences);
      if (!conv) return output;
      const neighbours = neighboursOf(this.config, this.#rows).map(upload);
      return convolve(ops, this.config, conv, this.#embedded, output, neighbours);
    });
    if (before !== this.#embedded) this.#arena.discard(before);
  }

  /** Corrects the pooler's bias by the texts' first tokens alone, which are all that it sees. */
  finish(pooler: Dense): void {
    const first = Uint32Array.from(new Set(this.#rows.starts));
    const N = first.length / 2;
    this.#arena.scope(() => {
      const ops = new BothOps(this.#arena, new Map());
      const of = (rows: Uint32Array) => ops.dense(ops.gather(this.#x, this.#arena.upload(rows)), pooler);
      ops.correct(pooler, of(first.slice(0, N)), of(first.slice(N)));
    });
  }

  /** Frees the texts. */
  [Symbol.dispose](): void {
    this.#arena[Symbol.dispose]();
    this.#backend.flush();
  }
}

/** Ops whose layers are exact for the upper half of the rows and rounded for the lower, and learn from the difference. */
class BothOps extends Ops {
  constructor(private readonly arena: Arena, private readonly exact: ReadonlyMap<Dense, ExactDense>) {
    super(arena);
  }

  override dense(x: Tensor, layer: Dense, residual?: Tensor): Tensor {
    const exact = this.exact.get(layer);
    if (!exact) return super.dense(x, layer, residual);
    const [upper, lower] = halves(x);
    const [upperResidual, lowerResidual] = residual ? halves(residual) : [];
    return this.scope(() => {
      const weight = this.arena.upload(exact.weight, layer.weight.shape);
      const bias = exact.bias && this.arena.upload(exact.bias);
      const wanted = super.dense(upper, { weight, bias }, upperResidual);
      this.discard(weight);
      const given = super.dense(lower, layer, lowerResidual);
      this.correct(layer, wanted, given);
      return this.joined(wanted, given);
    });
  }

  /**
   * Adds the mean difference of what is wanted of a layer and what it gives, both (T, out), to its bias, if it has one, and
   * to what it gives.
   */
  correct({ bias }: Dense, wanted: Tensor, given: Tensor): void {
    if (!bias) return;
    const { backend } = this.arena;
    const [T, width] = wanted.shape;
    const ones = this.arena.upload(new Float32Array(T).fill(1));
    const a = ones.slice(0, [1, T]);
    const shift = this.arena.temporary([1, width]);
    backend.matmul({ a, b: wanted, alpha: 1 / T, out: shift });
    backend.matmul({ a, b: given, alpha: -1 / T, accumulate: true, out: shift });
    backend.add({ a: bias, b: shift.slice(0, [width]), out: bias });
    backend.matmul({ a: ones.slice(0, [T, 1]), b: shift, accumulate: true, out: given });
  }

  /** Two tensors (T, C) as one, (2 T, C). */
  joined(upper: Tensor, lower: Tensor): Tensor {
    const [T, C] = upper.shape;
    const out = this.arena.temporary([2 * T, C]);
    this.arena.backend.copy({ x: upper, out: out.slice(0, [T, C]) });
    this.arena.backend.copy({ x: lower, out: out.slice(T * C, [T, C]) });
    return out;
  }
}

/** The upper and the lower half of a tensor's rows. */
function halves(x: Tensor): [Tensor, Tensor] {
  const [rows, C] = x.shape;
  const T = rows / 2;
  return [x.slice(0, [T, C]), x.slice(T * C, [T, C])];
}
