/**
 * Which kernel makes which product: tiles of several shapes, inner sums shared out where there are few tiles, and a
 * kernel of its own for few rows. What is best differs from card to card; `matmul_trial.ts` measures it.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import { isSoftware } from "./adapter.ts";
import type { Constants } from "./template.ts";

/** A variant of `kernels/matmul.wgsl`, as its constants name it. */
interface Tile {
  /** Rows of threads. */
  readonly down: number;
  /** Threads in a row. */
  readonly across: number;
  /** Blocks of four rows of outputs that a thread makes. */
  readonly blocks: number;
  /** How many times four columns a thread makes. */
  readonly vectors: number;
  /** Quarters of the slice of K that is staged at once. */
  readonly quads: number;
  /** 1 where threads that read together would else read one bank. */
  readonly padding: number;
}

const tile = (
  down: number,
  across: number,
  blocks: number,
  vectors: number,
  quads = 4,
  padding = 0,
): Tile => ({ down, across, blocks, vectors, quads, padding });

/** Tiles by name: outputs down × across, and where that leaves it open the rows that a thread makes. */
export const TILES = {
  // 16 KiB of workgroup memory, which every device has, but no more.
  "128x128": tile(16, 16, 2, 2),
  "128x64": tile(16, 16, 2, 1),
  "64x64": tile(16, 16, 1, 1),
  "64x64x8": tile(8, 16, 2, 1),
  "32x64": tile(8, 16, 1, 1),
  // Few rows, or few columns: an adapter's products.
  "16x64": tile(4, 16, 1, 1),
  "8x128": tile(2, 32, 1, 1),
  "128x8": tile(32, 2, 1, 1, 4, 1),
} as const satisfies Record<string, Tile>;

/** A tile's name. */
export type TileName = keyof typeof TILES;

/** What is chosen for a device. */
export interface MatmulShapes {
  /** The tile where there are enough of them to keep the device busy. */
  readonly large: TileName;
  /** The tile where there are enough of these. */
  readonly medium: TileName;
  /** The tile of smaller products. */
  readonly small: TileName;
  /** How many workgroups keep the device busy: where there are fewer tiles, inner sums are shared out. */
  readonly workgroups: number;
  /** Bytes of a row that a workgroup reads side by side for few rows of outputs; a power of 2. */
  readonly vectorBytes: number;
  /**
   * Whether variants are to be few and short. They are compiled to machine code by software adapters, on their first
   * dispatch: in lavapipe 0.2 to 0.6 s each, 2.3 s for 128 × 128.
   */
  readonly plain?: boolean;
  /** Tile for all products, few rows too; for tests and measurements. */
  readonly tile?: TileName;
  /** Shares of inner sums, where they are long enough; for tests and measurements. */
  readonly splits?: number;
}

/** A card that nobody measured. */
export const UNMEASURED: MatmulShapes = {
  large: "128x128",
  medium: "64x64",
  small: "32x64",
  workgroups: 256,
  vectorBytes: 64,
};

/** A software adapter: a few CPU cores, which a few workgroups keep busy. */
export const SOFTWARE: MatmulShapes = {
  large: "64x64",
  medium: "64x64",
  small: "64x64",
  workgroups: 1,
  vectorBytes: 64,
  plain: true,
};

/** Shapes for a device that was not tried. */
export function untriedShapes(device: GPUDevice): MatmulShapes {
  const { adapterInfo: info } = device;
  return info && isSoftware({ info }) ? SOFTWARE : UNMEASURED;
}

/** How products are made on one device. */
export interface Products {
  /** By which kernels. */
  readonly shapes: MatmulShapes;
  /** In what numbers tiles multiply. */
  readonly arithmetic: "f32" | "f16" | "i8";
}

/** What may be asked for. */
export interface ProductOptions {
  /** Shapes to take instead of those that a trial finds. */
  shapes?: Partial<MatmulShapes>;
  /** The tile for all products: `shapes.tile`. */
  tile?: TileName;
  /**
   * In what numbers products of more than eight rows are computed, `"f32"` by default. `"f16"` rounds factors to halves,
   * which have 11 bits and hold ±65504, adds a few of their products as halves and the rest in f32; it needs a device
   * with `shader-f16`. `"i8"` rounds activations that meet q8 or q4 weights to 8 bits in groups of 32, off by at most
   * 1/254 of the group's largest, where the weight's groups run along the sums.
   */
  arithmetic?: "f32" | "f16" | "i8";
}

/**
 * What is asked for, and the rest from what suits the device.
 *
 * @param hasHalves Whether the device has WGSL's `f16`.
 * @param found What suits it.
 * @throws {WhetError} `backend` if halves are asked for and the device has none.
 */
export function chooseProducts(
  { shapes, tile, arithmetic = "f32" }: ProductOptions,
  hasHalves: boolean,
  found: MatmulShapes,
): Products {
  if (arithmetic === "f16" && !hasHalves) {
    throw new WhetError("backend", 'arithmetic "f16": this GPU has no shader-f16; take "f32"');
  }
  return { shapes: { ...found, ...shapes, ...(tile ? { tile } : {}) }, arithmetic };
}

/** A product as far as its shape matters. */
export interface Product {
  /** Rows of outputs. */
  readonly M: number;
  /** Columns of outputs. */
  readonly N: number;
  /** Length of inner sums. */
  readonly K: number;
  /** Whether a is read transposed. */
  readonly transposeA: boolean;
  /** Whether b is. */
  readonly transposeB: boolean;
  /** How b is stored: the constant FORMAT. */
  readonly format: string;
  /** Whether both operands are in codes. */
  readonly codes?: boolean;
  /** For how many shares of inner sums there is memory. */
  readonly mostSplits: number;
}

/** How a product is made. */
export interface Plan {
  /** Kernel. */
  readonly kernel: "matmul" | "matmul_vector" | "matmul_codes";
  /** Its variant as far as the plan decides it. */
  readonly constants: Constants;
  /** Outputs of a workgroup, down and across. */
  readonly height: number;
  /** See `height`. */
  readonly width: number;
  /** Shares of inner sums, each of a workgroup of its own; 1 for whole ones. */
  readonly splits: number;
  /** Length of a share. */
  readonly depth: number;
}

/** The most rows that `matmul_vector` makes. */
export const VECTOR_ROWS = 8;
/** The shortest share of an inner sum, so that adding them up is little beside. */
const SHORTEST_SHARE = 128;
/** The most shares. */
const MOST_SHARES = 64;

/** Decides how a product is made; always the same for the same product and shapes. */
export function plan(shapes: MatmulShapes, product: Product): Plan {
  const { M, transposeA } = product;
  if (M <= VECTOR_ROWS && !transposeA && !shapes.tile) return vectorPlan(shapes, product);
  return tilePlan(shapes, product);
}

function tilePlan(shapes: MatmulShapes, product: Product): Plan {
  const { M, N, K, codes } = product;
  const name = shapes.tile ?? chooseTile(shapes, product);
  const tile = TILES[name];
  const { down, across, blocks, vectors, padding } = tile;
  const quads = codes ? 8 : tile.quads; // codes are staged by groups of 32
  const [height, width] = sizeOf(name);
  const tiles = Math.ceil(M / height) * Math.ceil(N / width);
  const wanted = shapes.splits ?? Math.min(Math.floor(shapes.workgroups / tiles), MOST_SHARES);
  const long = Math.floor(K / (shapes.splits ? 1 : SHORTEST_SHARE));
  const share = Math.ceil(K / Math.max(1, Math.min(wanted, long, product.mostSplits)));
  const depth = Math.max(1, Math.ceil(share / (4 * quads))) * 4 * quads;
  const threads = down * across;
  const form = { DOWN: down, ACROSS: across, BLOCKS: blocks, VECTORS: vectors };
  // A thread stages four numbers at a time, or four words of four codes.
  const fours = codes ? 4 : 1;
  const constants = {
    ...form,
    ...(codes ? { GROUPLOADS: Math.ceil(height / threads) } : { QUADS: quads, PADDING: padding }),
    LOADS_A: Math.ceil(height * quads / fours / threads),
    LOADS_B: Math.ceil(width * quads / fours / threads),
  };
  const splits = Math.max(1, Math.ceil(K / depth));
  return { kernel: codes ? "matmul_codes" : "matmul", constants, height, width, splits, depth };
}

function chooseTile(shapes: MatmulShapes, { M, N }: Product): TileName {
  const { large, medium, small, workgroups, plain } = shapes;
  if (plain) return medium;
  if (N <= 8) return "128x8";
  if (M <= 8) return "8x128";
  if (M <= 16) return "16x64";
  for (const name of [large, medium]) {
    const [height, width] = sizeOf(name);
    if (Math.ceil(M / height) * Math.ceil(N / width) >= workgroups && fills(height, M)) return name;
  }
  return fills(sizeOf(small)[0], M) ? small : "32x64";
}

/** Outputs of a tile, down and across. */
function sizeOf(name: TileName): readonly [height: number, width: number] {
  const { down, across, blocks, vectors } = TILES[name];
  return [down * blocks * 4, across * vectors * 4];
}

/** Whether tiles of that height have little beyond the last row, where they work for nothing. */
function fills(height: number, M: number): boolean {
  return Math.ceil(M / height) * height <= M * 1.25;
}

/** Bytes of four numbers in a row. */
const QUAD_BYTES: Readonly<Record<string, number>> = { f16: 8, q8: 4, q4: 2 };

function vectorPlan(shapes: MatmulShapes, { M, K, transposeB, format }: Product): Plan {
  const { vectorBytes, plain } = shapes;
  // Transposed, threads lie along K: as many as it has work for.
  const along = K > 64 || plain ? 32 : 4;
  const quads = transposeB ? 256 / along : Math.min(32, vectorBytes / (QUAD_BYTES[format] ?? 16));
  const rows = plain && M > 1 ? VECTOR_ROWS : 2 ** Math.ceil(Math.log2(Math.max(1, M)));
  const constants = {
    QUADS: quads,
    SLICES: 256 / quads,
    BLOCKS: Math.ceil(rows / 4),
    ATONCE: Math.min(rows, 4),
    // Reads under way at once; more rows leave fewer registers.
    UNROLL: plain || rows > 4 ? 1 : rows > 2 ? 2 : 4,
  };
  return { kernel: "matmul_vector", constants, height: rows, width: 4 * quads, splits: 1, depth: K };
}
