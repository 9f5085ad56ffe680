/**
 * Many adapters in a backend's memory at once, so that rows of one batch can each have their own (as in S-LoRA, Sheng et
 * al. 2023). The model's weights and the adapter attached to it are left alone.
 *
 * Adapters of the same layers and rank lie in chunks of {@linkcode CHUNK}, which come and go as they are needed.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { type Backend, NO_ADAPTER } from "../tensor/backend.ts";
import type { Arena } from "../tensor/arena.ts";
import type { Linear, RowUpdate } from "../tensor/ops.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Lora } from "./lora.ts";
import type { Transformer } from "./transformer.ts";

/** Adapters of a chunk. */
export const CHUNK = 8;

/** One layer's part of a chunk. */
interface Pair {
  /** (CHUNK, R, in). */
  A: Tensor;
  /** (CHUNK, R, out). */
  B: Tensor;
  /** (CHUNK). */
  scaling: Tensor;
}

/** Memory for adapters of the same layers and rank. */
interface Chunk {
  /** What they have in common. */
  shape: string;
  /** By layer name. */
  pairs: Map<string, Pair>;
  /** Which places are taken. */
  taken: boolean[];
}

/** An adapter in the bank. */
export interface BankedAdapter {
  /** Where it lies. */
  readonly chunk: object;
  /** At which place there. */
  readonly slot: number;
  /** Bytes that it takes. */
  readonly bytes: number;
}

/** Adapters side by side in a backend's memory. */
export class AdapterBank implements Disposable {
  readonly #backend: Backend;
  readonly #live = new Set<BankedAdapter>();
  #chunks: Chunk[] = [];
  #disposed = false;

  /** @param backend The model's. */
  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /**
   * Whether an adapter is here.
   *
   * @param adapter What {@linkcode AdapterBank.add} gave.
   */
  has(adapter: BankedAdapter): boolean {
    return this.#live.has(adapter);
  }

  /** Bytes that are allocated. */
  get bytes(): number {
    const each = (pairs: Map<string, Pair>) =>
      [...pairs.values()].reduce(
        (sum, { A, B, scaling }) => sum + 4 * (A.length + B.length + scaling.length),
        0,
      );
    return this.#chunks.reduce((sum, { pairs }) => sum + each(pairs), 0);
  }

  /**
   * Bytes of the chunk that an adapter lies in.
   *
   * @param lora It.
   */
  chunkBytes(lora: Lora): number {
    return CHUNK * bytesOf(lora);
  }

  /**
   * Bytes that are allocated when another adapter of this shape comes: none, or a whole chunk's.
   *
   * @param lora It.
   */
  grows(lora: Lora): number {
    const shape = shapeOf(lora);
    const hasRoom = this.#chunks.some((chunk) => chunk.shape === shape && chunk.taken.includes(false));
    return hasRoom ? 0 : this.chunkBytes(lora);
  }

  /**
   * Whether an adapter's place is right for another one.
   *
   * @param adapter Whose place.
   * @param lora The other one.
   */
  isLike(adapter: BankedAdapter, lora: Lora): boolean {
    return (adapter.chunk as Chunk).shape === shapeOf(lora);
  }

  /**
   * Takes an adapter in, with the values that its object has; it is not bound to any backend by that.
   *
   * @param lora It, checked to fit the model.
   * @returns What it is known by here.
   * @throws {WhetError} "resource" where memory is out, "disposed".
   */
  add(lora: Lora): BankedAdapter {
    if (this.#disposed) throw new WhetError("disposed", "the bank of adapters was disposed");
    const shape = shapeOf(lora);
    let chunk = this.#chunks.find((chunk) => chunk.shape === shape && chunk.taken.includes(false));
    if (!chunk) this.#chunks.push(chunk = this.#allocate(lora, shape));
    const slot = chunk.taken.indexOf(false);
    try {
      this.#fill(chunk, slot, lora);
    } catch (error) {
      this.#tidy(chunk);
      throw error;
    }
    chunk.taken[slot] = true;
    const adapter = { chunk, slot, bytes: bytesOf(lora) };
    this.#live.add(adapter);
    return adapter;
  }

  /** Writes an adapter's values into its place. */
  #fill(chunk: Chunk, slot: number, { modules }: Lora): void {
    for (const [name, { A, B, rank: R, outFeatures: N, scaling }] of modules) {
      const pair = chunk.pairs.get(name)!;
      this.#backend.write(part(pair.A, slot), A);
      const turned = new Float32Array(B.length); // (R, out) of (out, R)
      for (let n = 0; n < N; n++) for (let r = 0; r < R; r++) turned[r * N + n] = B[n * R + r];
      this.#backend.write(part(pair.B, slot), turned);
      const scalings = this.#scalings.get(pair)!;
      scalings[slot] = scaling;
      this.#backend.write(pair.scaling, scalings);
    }
  }

  /** Scalings of each pair as they are on the device, which are written all together. */
  readonly #scalings = new WeakMap<Pair, Float32Array>();

  /**
   * Lets an adapter go; no row may have it any more. One that is gone already is left alone.
   *
   * @param adapter What {@linkcode AdapterBank.add} gave.
   */
  remove(adapter: BankedAdapter): void {
    if (!this.#live.delete(adapter)) return;
    const chunk = adapter.chunk as Chunk;
    chunk.taken[adapter.slot] = false;
    this.#tidy(chunk);
  }

  /** Frees a chunk that holds nothing. */
  #tidy(chunk: Chunk): void {
    if (chunk.taken.includes(true)) return;
    this.#free(chunk);
    this.#chunks = this.#chunks.filter((other) => other !== chunk);
  }

  /**
   * What is added to the layers' rows; temporaries of the arena's innermost scope.
   *
   * @param arena Of the same backend.
   * @param network The model without an adapter, as it is now.
   * @param rows Each row's adapter, or null.
   * @param counted The rows that go on after the last attention [all].
   * @returns By layer; undefined where no row has an adapter.
   * @throws {WhetError} "disposed" where a row has one that was removed.
   */
  updates(
    arena: Arena,
    network: Transformer,
    rows: readonly (BankedAdapter | null)[],
    counted?: readonly number[],
  ): Map<Linear, RowUpdate[]> | undefined {
    if (rows.every((row) => row === null)) return undefined;
    if (!rows.every((row) => row === null || this.#live.has(row))) {
      throw new WhetError("disposed", "the request's adapter was removed from the bank while it was in use");
    }
    const linears = network.linears();
    const late = new Set(counted && network.countedLinears());
    const updates = new Map<Linear, RowUpdate[]>();
    for (const chunk of this.#chunks) {
      if (!rows.some((row) => row?.chunk === chunk)) continue;
      const numbersOf = (rows: readonly (BankedAdapter | null)[]) =>
        arena.upload(Uint32Array.from(rows, (row) => row?.chunk === chunk ? row.slot : NO_ADAPTER));
      const early = numbersOf(rows);
      const lateNumbers = counted ? numbersOf(counted.map((row) => rows[row])) : early;
      for (const [name, pair] of chunk.pairs) {
        const linear = linears.get(name)!;
        const update = { ...pair, adapters: late.has(linear) ? lateNumbers : early };
        const others = updates.get(linear);
        if (others) others.push(update);
        else updates.set(linear, [update]);
      }
    }
    return updates;
  }

  #allocate(lora: Lora, shape: string): Chunk {
    const chunk: Chunk = { shape, pairs: new Map(), taken: new Array(CHUNK).fill(false) };
    try {
      for (const [name, { rank: R, inFeatures, outFeatures }] of lora.modules) {
        const made: Tensor[] = [];
        const allocate = (shape: number[]) => {
          const tensor = this.#backend.allocate(shape);
          made.push(tensor);
          return tensor;
        };
        try {
          const pair = {
            A: allocate([CHUNK, R, inFeatures]),
            B: allocate([CHUNK, R, outFeatures]),
            scaling: allocate([CHUNK]),
          };
          chunk.pairs.set(name, pair);
          this.#scalings.set(pair, new Float32Array(CHUNK));
        } catch (error) {
          for (const tensor of made) this.#backend.free(tensor);
          throw error;
        }
      }
    } catch (error) {
      this.#free(chunk);
      throw error;
    }
    return chunk;
  }

  #free({ pairs }: Chunk): void {
    for (const { A, B, scaling } of pairs.values()) {
      for (const tensor of [A, B, scaling]) this.#backend.free(tensor);
    }
  }

  /** Frees all. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    this.#live.clear();
    for (const chunk of this.#chunks.splice(0)) this.#free(chunk);
  }
}

/** One adapter's part of a tensor. */
function part(all: Tensor, slot: number): Tensor {
  const [, ...shape] = all.shape;
  return all.slice(slot * shape[0] * shape[1], shape);
}

function shapeOf({ modules }: Lora): string {
  if (modules.size === 0) throw new WhetError("format", "the adapter adapts no layer");
  return [...modules].map(([name, { rank }]) => `${name}:${rank}`).join();
}

function bytesOf({ modules }: Lora): number {
  return [...modules.values()].reduce((sum, { A, B }) => sum + 4 * (A.length + B.length + 1), 0);
}
