/**
 * How the tiles of a matrix product are chosen: a model of what they cost.
 *
 * @module
 */

/** A product's sizes, and what it costs beside multiplications. */
export interface Product {
  /** Rows of the result. */
  M: number;
  /** Columns of the result. */
  N: number;
  /** Length of the sums. */
  K: number;
  /** Rows of which tiles' are a multiple. */
  multiple: number;
  /** Rows that the kernel computes at once. */
  height: number;
  /** Nanoseconds to pack a number of a, which every tile does for its rows. */
  pack: number;
  /** Nanoseconds to bring a number of b to where it is multiplied, which every block of rows does. */
  bring: number;
}

/** Nanoseconds of a tile whatever its size. */
const TILE = 500;
/** The share of a tile that threads wait for the last of them: cores have other things to do. */
const TAIL = 0.15;

const PANEL = 16;

/** How a product is cut. */
export interface Cut {
  /** Rows of a tile. */
  rows: number;
  /** Panels (of 16 columns) of a tile. */
  panels: number;
}

/** What was found lately, each in the one place that its sizes give it: a model has few of them. */
const found: (Product & Cut & { cost: number; threads: number })[] = new Array(256);

/**
 * The tiles of a product that are done soonest.
 *
 * @param product What is computed.
 * @param cost Nanoseconds of one multiplication and addition.
 * @param threads How many threads there are.
 * @returns A tile's size.
 */
export function cutMatmul(product: Product, cost: number, threads: number): Cut {
  const { M, N, K, multiple, height, pack, bring } = product;
  const place = (31 * M + 17 * N + 7 * K + multiple + (bring * 100 | 0) + threads) & 255;
  const last = found[place];
  if (
    last && last.M === M && last.N === N && last.K === K && last.multiple === multiple &&
    last.height === height && last.pack === pack && last.bring === bring && last.cost === cost &&
    last.threads === threads
  ) return last;
  const cut = { ...product, cost, threads, ...search(product, cost, threads) };
  return found[place] = cut;
}

function search({ M, N, K, multiple, height, pack, bring }: Product, cost: number, threads: number): Cut {
  const panels = Math.ceil(N / PANEL);
  let best = { rows: M, panels };
  let soonest = Infinity;
  for (
    let rowTiles = 1;
    rowTiles <= Math.min(Math.ceil(M / multiple), 4 * threads + M / height);
    rowTiles++
  ) {
    const rows = Math.ceil(M / rowTiles / multiple) * multiple;
    for (let panelTiles = 1; panelTiles <= Math.min(panels, 8 * threads); panelTiles++) {
      const wide = Math.ceil(panels / panelTiles);
      const tiles = Math.ceil(M / rows) * Math.ceil(panels / wide);
      const multiply = Math.min(M, rows) * wide * PANEL * cost;
      const tile = TILE + K * (multiply + rows * pack + Math.ceil(rows / height) * wide * PANEL * bring);
      const time = tile * (Math.ceil(tiles / threads) + TAIL);
      if (time < soonest) {
        soonest = time;
        best = { rows, panels: wide };
      }
    }
  }
  return best;
}
