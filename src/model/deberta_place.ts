/**
 * A DeBERTa's weights on their way from a checkpoint into a backend's memory, in the shape that its forward pass wants:
 * query, key and value side by side, positions projected once and for all, large embeddings packed part by part.
 *
 * @module
 */
import type { Checkpoint } from "../format/checkpoint.ts";
import type { Backend } from "../tensor/backend.ts";
import type { Dense, Norm, RelativePositions } from "../tensor/ops.ts";
import { codeBytes, scalesShape } from "../tensor/stored.ts";
import type { Matrix, PackedMatrix, StoredMatrix, Tensor, WeightFormat } from "../tensor/tensor.ts";
import { type DebertaLayer, type DebertaWeights, placesOf } from "./deberta.ts";
import type { DebertaConfig } from "./deberta_config.ts";
import { relativeRows } from "./deberta_positions.ts";
import { type Found, readParameters } from "./parameters.ts";

/** What is placed, and how. */
export interface Placing {
  /** Where. */
  backend: Backend;
  /** The model's shape. */
  config: DebertaConfig;
  /** How its matrices are stored; the pooler's is always f32. */
  weights: WeightFormat;
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

/** Rows of an embedding are packed in parts of about so many numbers (32 MiB). */
const PART = 1 << 23;

/** What a group of tensors becomes once all of them are there. */
interface Recipe {
  readonly needs: readonly string[];
  readonly make: (values: (name: string) => Float32Array) => void;
}

/**
 * Places a DeBERTa's weights.
 *
 * The order of reading keeps the peak of memory low: relative embeddings first, for all layers' positions are projected
 * with them as the layers come; then the large token embedding, while nothing else is there; then one layer after the other.
 */
export async function placeDeberta(placing: Placing): Promise<PlacedDeberta> {
  const { backend, checkpoint, found, signal } = placing;
  const relative = await relativeEmbeddings(placing);
  try {
    const word_embeddings = await packEmbedding(placing, "deberta.embeddings.word_embeddings.weight");
    const recipes = new Recipes(placing, relative, word_embeddings);
    const rest = found.filter(({ name }) => recipes.wanted.has(name));
    for await (const parameter of readParameters(checkpoint, rest, "f32", signal)) {
      // Plain: no file of a DeBERTa has a note of Whet's on stored matrices.
      if ("values" in parameter) recipes.take(parameter.name, parameter.values);
    }
    return recipes.finish();
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
  const name = "deberta.encoder.rel_embeddings.weight";
  const x = backend.upload(await checkpoint.readRowsF32(name, first, P), [P, C]);
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
 * @param part About how many numbers are f32 at once.
 * @returns The same numbers as packed at once, on backends whose own scales come back from {@linkcode Backend.unpackStored}.
 */
export async function packEmbedding(placing: Placing, name: string, part = PART): Promise<PackedMatrix> {
  const { backend, config, weights: format, checkpoint, owned, signal } = placing;
  const { vocab_size: rows, embedding_size: columns } = config;
  const keep = (matrix: PackedMatrix) => (owned.push(matrix), matrix);
  const many = Math.max(2, 2 * Math.floor(part / columns / 2)); // an even number, that q4's parts end at bytes' ends
  if (format === "f32" || rows <= many) {
    return keep(backend.pack(await checkpoint.readF32(name), rows, columns, format, 1));
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
  for (
    const { buffer } of [stored.codes, stored.scales, stored.minima].filter((part) => part !== undefined)
  ) {
    buffer.transfer(0);
  }
  return matrix;
}

/** Makes the network's weights of a checkpoint's tensors, as they come. */
class Recipes {
  /** The tensors that are wanted. */
  readonly wanted: ReadonlyMap<string, Recipe>;
  readonly #waiting = new Map<string, Float32Array>();
  readonly #tensors = new Map<string, Tensor>();
  readonly #packed = new Map<string, PackedMatrix>();
  readonly #positions: RelativePositions[] = [];
  #classifier = { weight: new Float32Array(), bias: new Float32Array() };

  constructor(
    private readonly placing: Placing,
    private readonly relative: Relative | null,
    private readonly wordEmbeddings: PackedMatrix,
  ) {
    const recipes = [...this.#recipes()];
    this.wanted = new Map(recipes.flatMap((recipe) => recipe.needs.map((name) => [name, recipe])));
  }

  /** Takes a tensor's numbers, which are no longer there afterwards. */
  take(name: string, values: Float32Array): void {
    const recipe = this.wanted.get(name)!;
    this.#waiting.set(name, values);
    if (!recipe.needs.every((need) => this.#waiting.has(need))) return;
    recipe.make((need) => this.#waiting.get(need)!);
    for (const need of recipe.needs) {
      letGo(this.#waiting.get(need)!);
      this.#waiting.delete(need);
    }
  }

  *#recipes(): Generator<Recipe> {
    const { found, config } = this.placing;
    const own = new Set([
      "deberta.embeddings.word_embeddings.weight",
      "deberta.encoder.rel_embeddings.weight",
    ]);
    const groups = new Map<string, string[]>();
    for (const { name } of found) {
      if (own.has(name) || name.startsWith("deberta.encoder.LayerNorm.")) continue;
      const group = /^(deberta\.encoder\.layer\.\d+\.attention\.self|classifier)\./.exec(name)?.[1] ??
        (/(position|token_type)_embeddings/.test(name) ? "places" : name);
      groups.set(group, [...groups.get(group) ?? [], name]);
    }
    for (const [group, needs] of groups) {
      const layer = /layer\.(\d+)\.attention\.self$/.exec(group)?.[1];
      yield {
        needs,
        make: (values) => {
          if (layer !== undefined) return this.#attention(Number(layer), group, values);
          if (group === "places") return this.#places(values);
          if (group === "classifier") return this.#classify(values);
          if (group === "deberta.encoder.conv.conv.weight") return this.#convolution(group, values(group));
          this.#place(group, values(group), needs.includes("pooler.dense.weight") ? "f32" : undefined);
        },
      };
    }
    if (!groups.has("places")) {
      this.#upload("places", new Float32Array(config.embedding_size), [1, config.embedding_size]);
    }
  }

  #upload(name: string, values: Float32Array, shape?: readonly number[]): Tensor {
    const tensor = this.placing.backend.upload(values, shape);
    this.placing.owned.push(tensor);
    this.#tensors.set(name, tensor);
    return tensor;
  }

  #pack(
    name: string,
    values: Float32Array,
    rows: number,
    columns: number,
    format: WeightFormat = this.placing.weights,
  ): void {
    const matrix = this.placing.backend.pack(values, rows, columns, format, 1);
    this.placing.owned.push(matrix);
    this.#packed.set(name, matrix);
  }

  #place(name: string, values: Float32Array, format?: WeightFormat): void {
    const [rows, columns] = this.placing.found.find((each) => each.name === name)!.shape;
    if (columns === undefined) this.#upload(name, values);
    else this.#pack(name, values, rows, columns, format);
  }

  /** What is added to a token's embedding: its position's and its type's, one row for each pair of them. */
  #places(values: (name: string) => Float32Array): void {
    const { config, longest } = this.placing;
    const { embedding_size: E } = config;
    const { places, types } = placesOf(config, longest);
    const position = config.position_biased_input
      ? values("deberta.embeddings.position_embeddings.weight")
      : null;
    const type = types > 1 ? values("deberta.embeddings.token_type_embeddings.weight") : null;
    const sums = new Float32Array(places * types * E);
    for (let row = 0; row < places * types; row++) {
      const [p, t] = [Math.floor(row / types), row % types];
      for (let c = 0; c < E; c++) {
        sums[row * E + c] = (position ? position[p * E + c] : 0) + (type ? type[t * E + c] : 0);
      }
    }
    this.#upload("places", sums, [places * types, E]);
  }

  /** Query, key and value as one matrix, and the projected positions. */
  #attention(layer: number, self: string, values: (name: string) => Float32Array): void {
    const { hidden_size: C, pos_att_type, share_att_key } = this.placing.config;
    const parts = ["query_proj", "key_proj", "value_proj"];
    this.#pack(`${self}.weight`, joined(parts.map((part) => values(`${self}.${part}.weight`))), 3 * C, C);
    this.#upload(`${self}.bias`, joined(parts.map((part) => values(`${self}.${part}.bias`))));
    if (!this.relative) return void (this.#positions[layer] = {});
    const project = (part: string) =>
      this.#projectPositions(values(`${self}.${part}.weight`), values(`${self}.${part}.bias`));
    this.#positions[layer] = {
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

  /** (C, C, taps) as a matrix for each tap. */
  #convolution(name: string, values: Float32Array): void {
    const { hidden_size: C, conv_kernel_size: taps } = this.placing.config;
    for (let tap = 0; tap < taps; tap++) {
      this.#pack(
        `${name}.${tap}`,
        Float32Array.from({ length: C * C }, (_, i) => values[i * taps + tap]),
        C,
        C,
      );
    }
  }

  #classify(values: (name: string) => Float32Array): void {
    this.#classifier = {
      weight: values("classifier.weight").slice(),
      bias: values("classifier.bias").slice(),
    };
  }

  /** The network's weights, once all tensors were taken. */
  finish(): PlacedDeberta {
    const { config, owned } = this.placing;
    const dense = (name: string): Dense => ({
      weight: this.#packed.get(`${name}.weight`)!,
      bias: this.#tensors.get(`${name}.bias`),
    });
    const norm = (name: string): Norm => ({
      weight: this.#tensors.get(`${name}.weight`)!,
      bias: this.#tensors.get(`${name}.bias`)!,
    });
    const layerOf = (index: number): DebertaLayer => {
      const name = `deberta.encoder.layer.${index}`;
      return {
        attention: {
          qkv: dense(`${name}.attention.self`),
          positions: this.#positions[index],
          output: dense(`${name}.attention.output.dense`),
          LayerNorm: norm(`${name}.attention.output.LayerNorm`),
        },
        intermediate: dense(`${name}.intermediate.dense`),
        output: dense(`${name}.output.dense`),
        LayerNorm: norm(`${name}.output.LayerNorm`),
      };
    };
    const embed_proj = this.#packed.get("deberta.embeddings.embed_proj.weight");
    const conv = "deberta.encoder.conv";
    const weights: DebertaWeights = {
      embeddings: {
        word_embeddings: this.wordEmbeddings,
        places: this.#tensors.get("places")!,
        ...(embed_proj ? { embed_proj: { weight: embed_proj } } : {}),
        LayerNorm: norm("deberta.embeddings.LayerNorm"),
      },
      layer: Array.from({ length: config.num_hidden_layers }, (_, index) => layerOf(index)),
      ...(config.conv_kernel_size > 0
        ? {
          conv: {
            taps: Array.from({ length: config.conv_kernel_size }, (_, tap) => ({
              weight: this.#packed.get(`${conv}.conv.weight.${tap}`)!,
              bias: tap === 0 ? this.#tensors.get(`${conv}.conv.bias`) : undefined,
            })),
            LayerNorm: norm(`${conv}.LayerNorm`),
          },
        }
        : {}),
      pooler: dense("pooler.dense"),
    };
    return { weights, classifier: this.#classifier, owned };
  }
}

/** Frees numbers that were copied, at once: the collector would let hundreds of MB of them gather. */
function letGo({ buffer }: Float32Array | Uint8Array): void {
  if (buffer instanceof ArrayBuffer && !buffer.detached) buffer.transfer(0);
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
