/**
 * How the tiles of a matrix product are chosen: a model of what they cost.
 *
 * @module
 */

/** A product's sizes and forms. */
export interface Product {
  /** Rows of the result. */
  M: number;
  /** Columns of the result. */
  N: number;
  /** Length of the sums. */
  K: number;
  /** b's storage format, or 4 for a plain tensor. */
  kind: number;
  /** Whether b is read transposed. */
  transposeB: boolean;
  /** Rows that the kernel computes at once. */
  height: number;
  /** Nanoseconds of one multiplication and addition. */
  cost: number;
  /** How many threads there are. */
  threads: number;
}

/** Nanoseconds to pack a number of a, which every tile does for its rows. */
const PACK = 0.4;
/** Nanoseconds to bring a number of b to where it is multiplied, by storage format; every block of rows does. */
const BRING = [0.05, 0.15, 0.15, 0.3, 0.25];
/** The same of a bᵀ that is frozen. */
const GATHER = [0.2, 0.35, 0.35, 0.5, 0.4];
/** Nanoseconds of a tile whatever its size. */
const TILE = 500;
/** The share of a tile that threads wait for the last of them: cores have other things to do. */
const TAIL = 0.15;

const PANEL = 16;
const ROWS = 6;

/** How a product is cut. */
export interface Cut {
  /** Rows of a tile, a multiple of 6. */
  rows: number;
  /** Panels (of 16 columns) of a tile. */
  panels: number;
}

/** What was found lately, each in the one place that its sizes give it: a model has few of them. */
const found: (Product & Cut)[] = new Array(256);

/**
 * The tiles of a product that are done soonest.
 *
 * @param product What is computed, and by how many.
 * @returns A tile's size.
 */
export function cutMatmul(product: Product): Cut {
  const { M, N, K, kind, transposeB, height, cost, threads } = product;
  const place = (31 * M + 17 * N + 7 * K + 5 * kind + (transposeB ? 3 : 0) + threads) & 255;
  const last = found[place];
  if (
    last && last.M === M && last.N === N && last.K === K && last.kind === kind && last.threads === threads &&
    last.transposeB === transposeB && last.height === height && last.cost === cost
  ) return last;
  return found[place] = { ...product, ...search(product) };
}

function search({ M, N, K, kind, transposeB, height, cost, threads }: Product): Cut {
  const panels = Math.ceil(N / PANEL);
  const bring = M === 1 ? 0 : (transposeB ? GATHER : BRING)[kind];
  let best = { rows: M, panels };
  let soonest = Infinity;
  for (let rowTiles = 1; rowTiles <= Math.min(Math.ceil(M / ROWS), 4 * threads + M / height); rowTiles++) {
    const rows = Math.ceil(M / rowTiles / ROWS) * ROWS;
    for (let panelTiles = 1; panelTiles <= Math.min(panels, 8 * threads); panelTiles++) {
      const wide = Math.ceil(panels / panelTiles);
      const tiles = Math.ceil(M / rows) * Math.ceil(panels / wide);
      const multiply = Math.min(M, rows) * wide * PANEL * cost;
      const pack = M === 1 ? 0 : rows * PACK;
      const tile = TILE + K * (multiply + pack + Math.ceil(rows / height) * wide * PANEL * bring);
      const time = tile * (Math.ceil(tiles / threads) + TAIL);
      if (time < soonest) {
        soonest = time;
        best = { rows, panels: wide };
      }
    }
  }
  return best;
}
