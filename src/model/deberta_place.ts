/**
 * A DeBERTa's weights on their way from a checkpoint into a backend's memory, in the shape that its forward pass wants:
 * query, key and value side by side, positions projected once and for all, large embeddings packed part by part.
 *
 * @module
 */
import type { Checkpoint } from "../format/checkpoint.ts";
import type { Backend } from "../tensor/backend.ts";
import type { Dense, Norm, RelativePositions } from "../tensor/ops.ts";
import { codeBytes, dequantize, isGrouped, scalesShape } from "../tensor/stored.ts";
import type { Matrix, PackedMatrix, StoredMatrix, Tensor, WeightFormat } from "../tensor/tensor.ts";
import type { UnigramTokenizer } from "../text/unigram.ts";
import {
  type DebertaConvolution,
  type DebertaEmbeddings,
  type DebertaLayer,
  type DebertaWeights,
  placesOf,
} from "./deberta.ts";
import { Calibration, type ExactDense } from "./deberta_calibrate.ts";
import type { DebertaConfig } from "./deberta_config.ts";
import { relativeRows } from "./deberta_positions.ts";
import { type Found, letGo, readParameters } from "./parameters.ts";

/** What is placed, and how. */
export interface Placing {
  /** Where. */
  backend: Backend;
  /** The model's shape. */
  config: DebertaConfig;
  /** How its matrices are stored; the pooler's is always f32. */
  weights: WeightFormat;
  /** Its tokenizer, for the texts that quantised weights are calibrated with. */
  tokenizer: UnigramTokenizer;
  /** The longest sequence. */
  longest: number;
  /** Gives the numbers. */
  checkpoint: Checkpoint;
  /** Where they are in it. */
  found: readonly Found[];
  /** Takes all that was allocated, also where something fails. */
  owned: Matrix[];
  /** Ends it when aborted. */
  signal?: AbortSignal;
}

/** A DeBERTa in memory. */
export interface PlacedDeberta {
  /** The network's weights. */
  weights: DebertaWeights;
  /** The last layer, (1, C) and (1): a few numbers per pair, which the host multiplies. */
  classifier: { weight: Float32Array; bias: Float32Array };
  /** All that is to be freed. */
  owned: readonly Matrix[];
}

const WORDS = "deberta.embeddings.word_embeddings.weight";
const RELATIVE = "deberta.encoder.rel_embeddings.weight";
/** Rows of an embedding are packed in parts of about so many numbers (32 MiB). */
const PART = 1 << 23;

/**
 * Places a DeBERTa's weights.
 *
 * The order of reading keeps the peak of memory low: relative embeddings first, for all layers' positions are projected
 * with them as the layers come; then the large token embedding, while nothing else is there; then what is left, and at last
 * the layers one by one, through which the texts go that quantised weights are calibrated with.
 */
export async function placeDeberta(placing: Placing): Promise<PlacedDeberta> {
  const { backend, config, checkpoint, found, weights, tokenizer, longest, signal } = placing;
  const relative = await relativeEmbeddings(placing);
  try {
    using calibration = isGrouped(weights) ? new Calibration(backend, config, tokenizer, longest) : undefined;
    const word_embeddings = await packEmbedding(placing, WORDS, calibration);
    const placement = new Placement(placing, relative, calibration);
    for (const names of placement.parts()) {
      const wanted = found.filter(({ name }) => names.has(name));
      const values = new Map<string, Float32Array>();
      for await (const parameter of readParameters(checkpoint, wanted, "f32", signal)) {
        values.set(parameter.name, "stored" in parameter ? dequantize(parameter.stored) : parameter.values);
      }
      placement.place(values, word_embeddings);
      for (const each of values.values()) letGo(each);
    }
    return placement.finish();
  } finally {
    if (relative) backend.free(relative.rows);
  }
}

/** The relative embeddings that sequences reach, normalised, and which position has which. */
interface Relative {
  /** (P, C). */
  rows: Tensor;
  /** u32 (2L − 1). */
  buckets: Tensor;
}

async function relativeEmbeddings(placing: Placing): Promise<Relative | null> {
  const { backend, config, longest, checkpoint, owned } = placing;
  const { hidden_size: C, norm_rel_ebd, layer_norm_eps: epsilon, pos_att_type } = config;
  if (!config.relative_attention || pos_att_type.length === 0) return null;
  const { first, count: P, buckets } = relativeRows(config, longest);
  const x = backend.upload(await checkpoint.readRowsF32(RELATIVE, first, P), [P, C]);
  const places = backend.upload(buckets);
  owned.push(places);
  if (norm_rel_ebd === "none") return { rows: x, buckets: places };

  const temporaries = [x];
  const temporary = (tensor: Tensor) => (temporaries.push(tensor), tensor);
  try {
    const read = async (part: string) =>
      temporary(backend.upload(await checkpoint.readF32(`deberta.encoder.LayerNorm.${part}`)));
    const [weight, bias] = [await read("weight"), await read("bias")];
    const [mean, rstd] = [temporary(backend.allocate([P])), temporary(backend.allocate([P]))];
    const out = backend.allocate([P, C]);
    backend.layerNorm({ x, weight, bias, out, mean, rstd, epsilon });
    return { rows: out, buckets: places };
  } finally {
    for (const tensor of temporaries) backend.free(tensor);
  }
}

/**
 * Packs a large embedding by parts, so that it is never in memory as f32: DeBERTa-v3's has 131 million numbers, 0.5 GB,
 * which in q8 are 148 MB.
 *
 * @param placing Where and how; its vocabulary and the embedding's width are the matrix's.
 * @param name The tensor.
 * @param calibration Takes those of its numbers that it needs.
 * @param part About how many numbers are f32 at once.
 * @returns The same numbers as packed at once, on backends whose own scales come back from {@linkcode Backend.unpackStored}.
 */
export async function packEmbedding(
  placing: Omit<Placing, "tokenizer" | "found" | "longest">,
  name: string,
  calibration?: Calibration,
  part = PART,
): Promise<PackedMatrix> {
  const { backend, config, weights: format, checkpoint, owned, signal } = placing;
  const { vocab_size: rows, embedding_size: columns } = config;
  const keep = (matrix: PackedMatrix) => (owned.push(matrix), matrix);
  const many = Math.max(2, 2 * Math.floor(part / columns / 2)); // an even number, that q4's parts end at bytes' ends
  if (format === "f32" || rows <= many) {
    const values = await checkpoint.readF32(name);
    calibration?.takeWords(values, 0, rows);
    const packed = keep(backend.pack(values, rows, columns, format, 1));
    letGo(values);
    return packed;
  }
  const [, groups] = scalesShape(rows, columns, 1);
  const stored: StoredMatrix = {
    ...{ rows, columns, format, axis: 1 },
    codes: new Uint8Array(codeBytes(format, rows, columns)),
    ...(format === "f16" ? {} : { scales: new Float32Array(rows * groups) }),
    ...(format === "q4" ? { minima: new Float32Array(rows * groups) } : {}),
  };
  for (let row = 0; row < rows; row += many) {
    signal?.throwIfAborted();
    const n = Math.min(many, rows - row);
    const values = await checkpoint.readRowsF32(name, row, n);
    calibration?.takeWords(values, row, n);
    const packed = backend.pack(values, n, columns, format, 1);
    letGo(values);
    try {
      const { codes, scales, minima } = await backend.unpackStored(packed);
      stored.codes.set(codes, codeBytes(format, row, columns));
      stored.scales?.set(scales!, row * groups);
      stored.minima?.set(minima!, row * groups);
    } finally {
      backend.free(packed);
    }
  }
  const matrix = keep(backend.packStored(stored));
  for (const numbers of [stored.codes, stored.scales, stored.minima]) if (numbers) letGo(numbers);
  return matrix;
}

/** The network's weights, part by part: all but the layers, then each layer. */
class Placement {
  readonly #layers: DebertaLayer[] = [];
  #embeddings!: DebertaEmbeddings;
  #conv?: DebertaConvolution;
  #pooler!: Dense;
  #classifier!: PlacedDeberta["classifier"];
  /** Exact weights of what is rounded in the part that is being placed, and of the convolution. */
  readonly #exact = new Map<Dense, ExactDense>();

  constructor(
    private readonly placing: Placing,
    private readonly relative: Relative | null,
    private readonly calibration?: Calibration,
  ) {}

  /** The names of the tensors of each part, in order. */
  parts(): Set<string>[] {
    const { found, config } = this.placing;
    const parts = Array.from({ length: 1 + config.num_hidden_layers }, () => new Set<string>());
    for (const { name } of found) {
      if (name === WORDS || name === RELATIVE || name.startsWith("deberta.encoder.LayerNorm.")) continue;
      const layer = /^deberta\.encoder\.layer\.(\d+)\./.exec(name)?.[1];
      parts[layer === undefined ? 0 : 1 + Number(layer)].add(name);
    }
    return parts;
  }

  /** Places a part, of which all tensors are there. */
  place(values: ReadonlyMap<string, Float32Array>, words: PackedMatrix): void {
    const get = (name: string) => values.get(name)!;
    if (!this.#embeddings) return this.#placeRest(get, words);
    const index = this.#layers.length;
    const layer = this.#layer(`deberta.encoder.layer.${index}`, get);
    this.#layers.push(layer);
    this.calibration?.layer(layer, this.#exact, index === 0 ? this.#conv : undefined);
    this.#placed();
  }

  /** The exact weights of what is placed are done with. */
  #placed(): void {
    for (const { weight } of this.#exact.values()) letGo(weight);
    this.#exact.clear();
  }

  #upload(values: Float32Array, shape?: readonly number[]): Tensor {
    const tensor = this.placing.backend.upload(values, shape);
    this.placing.owned.push(tensor);
    return tensor;
  }

  /** A matrix (out, in) as it is to be stored, and its exact numbers for as long as its part is placed. */
  #dense(
    weight: Float32Array,
    shape: readonly [number, number],
    bias?: Float32Array,
    format: WeightFormat = this.placing.weights,
  ): Dense {
    const { backend, owned } = this.placing;
    const matrix = backend.pack(weight, ...shape, format, 1);
    owned.push(matrix);
    const dense = { weight: matrix, bias: bias && this.#upload(bias) };
    if (this.calibration && isGrouped(format)) this.#exact.set(dense, { weight, bias });
    else letGo(weight);
    return dense;
  }

  #norm(name: string, get: Get): Norm {
    return { weight: this.#upload(get(`${name}.weight`)), bias: this.#upload(get(`${name}.bias`)) };
  }

  #layer(name: string, get: Get): DebertaLayer {
    const { hidden_size: C, intermediate_size } = this.placing.config;
    const dense = (part: string, out: number, width: number) =>
      this.#dense(get(`${name}.${part}.weight`), [out, width], get(`${name}.${part}.bias`));
    const self = `${name}.attention.self`;
    const positions = this.#positions(self, get);
    const together = (what: string) =>
      joined(["query_proj", "key_proj", "value_proj"].map((part) => get(`${self}.${part}.${what}`)));
    return {
      attention: {
        qkv: this.#dense(together("weight"), [3 * C, C], together("bias")),
        positions,
        output: dense("attention.output.dense", C, C),
        LayerNorm: this.#norm(`${name}.attention.output.LayerNorm`, get),
      },
      intermediate: dense("intermediate.dense", intermediate_size, C),
      output: dense("output.dense", C, intermediate_size),
      LayerNorm: this.#norm(`${name}.output.LayerNorm`, get),
    };
  }

  #positions(self: string, get: Get): RelativePositions {
    if (!this.relative) return {};
    const { pos_att_type, share_att_key } = this.placing.config;
    const project = (part: string) =>
      this.#projectPositions(get(`${self}.${part}.weight`), get(`${self}.${part}.bias`));
    return {
      buckets: this.relative.buckets,
      ...(pos_att_type.includes("c2p")
        ? { positionKeys: project(share_att_key ? "key_proj" : "pos_key_proj") }
        : {}),
      ...(pos_att_type.includes("p2c")
        ? { positionQueries: project(share_att_key ? "query_proj" : "pos_query_proj") }
        : {}),
    };
  }

  /** The relative embeddings by a projection of theirs, from its f32 numbers however the matrices are stored; (P, C). */
  #projectPositions(weight: Float32Array, bias: Float32Array): Tensor {
    const { backend, config, owned } = this.placing;
    const { rows } = this.relative!;
    const out = backend.allocate(rows.shape);
    owned.push(out);
    const W = backend.upload(weight, [config.hidden_size, config.hidden_size]);
    const b = backend.upload(bias);
    backend.matmul({ a: rows, b: W, transposeB: true, bias: b, out });
    backend.free(W);
    backend.free(b);
    return out;
  }

  /** All but the layers. */
  #placeRest(get: Get, word_embeddings: PackedMatrix): void {
    const { hidden_size: C, embedding_size: E, conv_kernel_size } = this.placing.config;
    const embeddings = "deberta.embeddings";
    this.#embeddings = {
      word_embeddings,
      places: this.#places(get),
      ...(E === C ? {} : { embed_proj: this.#dense(get(`${embeddings}.embed_proj.weight`), [C, E]) }),
      LayerNorm: this.#norm(`${embeddings}.LayerNorm`, get),
    };
    this.calibration?.begin(this.#embeddings, this.#exact);
    this.#placed();
    this.#pooler = this.#dense(get("pooler.dense.weight"), [C, C], get("pooler.dense.bias"), "f32");
    this.#classifier = { weight: get("classifier.weight").slice(), bias: get("classifier.bias").slice() };
    if (conv_kernel_size > 0) this.#conv = this.#convolution("deberta.encoder.conv", get);
  }

  /** What is added to a token's embedding: its position's and its type's, one row for each pair of them. */
  #places(get: Get): Tensor {
    const { config, longest } = this.placing;
    const { embedding_size: E } = config;
    const { places, types } = placesOf(config, longest);
    const position = config.position_biased_input
      ? get("deberta.embeddings.position_embeddings.weight")
      : null;
    const type = types > 1 ? get("deberta.embeddings.token_type_embeddings.weight") : null;
    const sums = new Float32Array(places * types * E);
    for (let row = 0; row < places * types; row++) {
      const [p, t] = [Math.floor(row / types), row % types];
      for (let c = 0; c < E; c++) {
        sums[row * E + c] = (position ? position[p * E + c] : 0) + (type ? type[t * E + c] : 0);
      }
    }
    return this.#upload(sums, [places * types, E]);
  }

  /** (C, C, taps) as a matrix for each tap. */
  #convolution(name: string, get: Get): DebertaConvolution {
    const { hidden_size: C, conv_kernel_size: taps } = this.placing.config;
    const weight = get(`${name}.conv.weight`);
    return {
      taps: Array.from({ length: taps }, (_, tap) =>
        this.#dense(
          Float32Array.from({ length: C * C }, (_, i) => weight[i * taps + tap]),
          [C, C],
          tap === 0 ? get(`${name}.conv.bias`).slice() : undefined, // It outlives its part, until the first layer.
        )),
      LayerNorm: this.#norm(`${name}.LayerNorm`, get),
    };
  }

  /** All of it, once every part was placed. */
  finish(): PlacedDeberta {
    this.calibration?.finish(this.#pooler);
    return {
      weights: {
        embeddings: this.#embeddings,
        layer: this.#layers,
        ...(this.#conv ? { conv: this.#conv } : {}),
        pooler: this.#pooler,
      },
      classifier: this.#classifier,
      owned: this.placing.owned,
    };
  }
}

/** A tensor's numbers by its name. */
type Get = (name: string) => Float32Array;

/** Numbers end to end; the parts are let go. */
function joined(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
    letGo(part);
  }
  return all;
}
