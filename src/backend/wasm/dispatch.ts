/**
 * How calls of kernels are shared out among threads: what pays is cut into tiles of whole rows, panels or
 * heads, the rest runs on the calling thread as it is. Either way every element is computed by the same
 * operations in the same order.
 *
 * @module
 */
import { type Kernels, PARAMETERS } from "./kernels.gen.ts";
import type { Pool, TiledCall } from "./pool.ts";
import { cutMatmul, type Product } from "./split.ts";

/** Where a kernel's arguments name the range that is cut, and what its bounds are multiples of. */
const CUTS = {
  adamw: ["begin", 16],
  add: ["begin", 16],
  addToRows: ["begin", 16],
  attention: ["headBegin", 1],
  attentionBackward: ["headBegin", 1],
  cachedAttention: ["headBegin", 1],
  cachedRows: ["begin", 1],
  crossEntropy: ["begin", 1],
  disentangledAttention: ["headBegin", 1],
  dotsRows: ["begin", 4],
  dropout: ["begin", 16],
  embedding: ["begin", 1],
  gather: ["begin", 1],
  gelu: ["begin", 16],
  geluBackward: ["begin", 16],
  layerNorm: ["begin", 1],
  layerNormBackward: ["begin", 1],
  layerNormWeightGradient: ["begin", 16],
  lowRankRows: ["begin", 1],
  matmul: ["rowBegin", 5],
  matmulDots: ["rowBegin", 4],
  matmulNibbles: ["rowBegin", 4],
  matmulRounded: ["rowBegin", 4],
  measureRows: ["begin", 1],
  nibbleRows: ["begin", 4],
  packPositions: ["headBegin", 1],
  packPanels: ["begin", 1],
  packStored: ["begin", 1],
  roundRows: ["begin", 4],
  rowDots: ["panelBegin", 1],
  rowNibbles: ["panelBegin", 1],
  rowRounded: ["panelBegin", 1],
  sample: ["begin", 1],
  squareParts: ["begin", 1],
  storeKeysValues: ["begin", 1],
  sumRows: ["begin", 16],
  unpackPanels: ["begin", 1],
} as const satisfies { [K in keyof Kernels]?: [first: string, multiple: number] };

/** The kernels whose calls can be shared out. */
export type Shared = keyof typeof CUTS;

/** A kernel's call, over the whole of its range. */
export interface Call<K extends Shared = Shared> {
  /** Which kernel. */
  kernel: K;
  /** Its arguments. */
  args: Parameters<Kernels[K]>;
  /** About how many nanoseconds one of its range (of a matrix product: one product of two numbers) takes on one thread. */
  cost: number;
  /** A matrix product's sizes: it is cut by rows and by panels. */
  product?: Product;
  /** How far apart the threads' scratch memories lie, if it takes any. */
  stride?: number;
}

/** A kernel's call with its arguments in a row. */
export function call<K extends Shared>(call: Omit<Call<K>, "args">, ...args: Parameters<Kernels[K]>): Call {
  return { ...call, args } as unknown as Call;
}

/** A tile takes no fewer nanoseconds. */
const LEAST_TILE = 4e3;
/** Tiles of a batch for each thread: more even out what else the cores have to do, fewer cost less. */
const TILES = 4;

/** Where things are among a kernel's parameters. */
function places(kernel: Shared): { at: number; multiple: number; scratch: number; panels: number } {
  const [first, multiple] = CUTS[kernel];
  const names = PARAMETERS[kernel].split(" ");
  return {
    ...{ at: names.indexOf(first), multiple },
    ...{ scratch: names.indexOf("scratch"), panels: names.indexOf("panelBegin") },
  };
}

/** Runs kernels' calls on as many threads as pay. */
export class Dispatcher {
  readonly #kernels: Kernels;
  readonly #pool?: Pool;
  readonly #least: number;
  readonly #places = new Map<Shared, ReturnType<typeof places> & { kernel: number }>();

  /**
   * @param kernels The calling thread's instance.
   * @param least Nanoseconds of work that are not worth sharing out.
   * @param pool The other threads, if there are any.
   */
  constructor(kernels: Kernels, least: number, pool?: Pool) {
    this.#kernels = kernels;
    this.#pool = pool;
    this.#least = least;
    const order = Object.keys(kernels);
    for (const kernel of Object.keys(CUTS) as Shared[]) {
      this.#places.set(kernel, { kernel: order.indexOf(kernel), ...places(kernel) });
    }
  }

  /** Runs calls that do not depend on one another. */
  run(calls: Call[]): void {
    const pool = this.#pool;
    let work = 0;
    if (pool) { for (const call of calls) work += this.#units(call) * call.cost; }
    const whole = calls.length === 1 && this.#units(calls[0]) === 1; // A single row or head is no two threads'.
    if (!pool || whole || work <= this.#least || !pool.joins(work)) {
      for (const { kernel, args } of calls) {
        (this.#kernels[kernel] as (...args: Call["args"]) => void)(...args);
      }
      return;
    }
    const least = Math.min(LEAST_TILE, this.#least);
    const pieces = pool.threads * Math.max(1, Math.min(TILES, Math.floor(work / least / pool.threads)));
    const tiled = calls.map((call) => this.#cut(call, work / pieces, pool.threads));
    if (tiled.length > 1) tiled.sort((a, b) => b.work - a.work);
    pool.run(tiled);
  }

  /** How many of what a call's cost is of it computes. */
  #units({ kernel, args, product }: Call): number {
    if (product) return product.M * product.N * product.K;
    const { at } = this.#places.get(kernel)!;
    return (args[at + 1] as number) - (args[at] as number);
  }

  /** Cuts a call into tiles of about so many nanoseconds. */
  #cut(
    { kernel, args, cost, stride, product }: Call,
    work: number,
    threads: number,
  ): TiledCall & { work: number } {
    const { at, multiple, scratch, panels, kernel: index } = this.#places.get(kernel)!;
    const numbers = args as number[]; // booleans turn to numbers where they are written
    const call = {
      kernel: index,
      args: numbers,
      scratch: scratch >= 0 && stride ? { at: scratch, stride } : undefined,
    };
    const [begin, end] = [numbers[at], numbers[at + 1]];
    if (product) {
      const cut = cutMatmul(product, cost, threads);
      return {
        ...call,
        ranges: [{ at, begin, end, step: cut.rows }, {
          ...{ at: panels, begin: numbers[panels], end: numbers[panels + 1], step: cut.panels },
        }],
        work,
      };
    }
    const step = Math.max(1, Math.ceil(Math.min(end - begin, work / cost) / multiple)) * multiple;
    return { ...call, ranges: [{ at, begin, end, step }], work: step * cost };
  }
}
