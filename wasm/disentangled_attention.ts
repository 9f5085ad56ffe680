/**
 * Disentangled attention (He et al. 2021) within sequences and both ways, a block of queries at a time, as attention.ts
 * does it: to a tile's scores two more products are added, of queries with the keys of relative positions and of
 * keys with the queries of relative positions.
 *
 * A relative position has many pairs of query and key, and one row of the tables; both products are computed once for
 * each row and each position (a panel's or a group's pairs reach few more positions than there are keys or
 * queries) and then laid along the diagonals. Positions in one bucket have the same row: rows are repeated, so that
 * neighbouring positions lie side by side whatever the buckets are. At T = 512 and DeBERTa's logarithmic buckets that is
 * a third more products than there are rows, and spares every gathering of single numbers. Rows are laid out for the
 * products once for all sequences (for each block and tile anew: a sixth of the time, eight sequences of 200).
 *
 * Positions are counted by their place i − j + L − 1 for query i and key j, L being the longest sequence's length.
 */
import { packColumns, packKeys } from "./attention";
import {
  beginBlock,
  blockBytes,
  finishBlock,
  fives,
  KEYS,
  LANES,
  multiply,
  packLanes,
  QUERIES,
  ROW,
  scoresOf,
  takeIn,
} from "./attention_block";
import { loadUpTo, storeUpTo, zero } from "./simd";
import { packTileRows, ROWS } from "./tile_narrow";

/** Rows of position keys that a panel of queries meets, with what lies before and behind in their fives. */
// @ts-ignore: decorator
@inline
const MET: usize = 100;
/** Floats before the first query in a key's row of position scores: tiles of the product begin there. */
// @ts-ignore: decorator
@inline
const LEFT: usize = 20;
/** Bytes of a key's row of position scores: they also end behind the last query. */
// @ts-ignore: decorator
@inline
const WIDTH: usize = (LEFT + QUERIES + LANES + 4) * 4;

/** Places of sequences of `longest` rows, with those that tiles reach beyond them: a multiple of fives and of panels. */
// @ts-ignore: decorator
@inline
function placesOf(longest: usize): usize {
  return ((longest * 2 + 15 + KEYS - 1) / KEYS) * KEYS;
}

/** Floats of a head's part of a packed table. */
// @ts-ignore: decorator
@inline
function headFloats(longest: usize, D: usize): usize {
  return placesOf(longest) * D;
}

/** Bytes that {@linkcode packPositions} writes of a table. */
export function positionsBytes(longest: usize, H: usize, D: usize): usize {
  return headFloats(longest, D) * H * 4;
}

/**
 * Rows of the tables as the products want them, heads headBegin … headEnd − 1: position keys in fives, (H, places/5, D, 5);
 * position queries in panels, (H, places/16, D, 16), times `scale`.
 *
 * @param positionKeys (P, C), or 0.
 * @param positionQueries (P, C), or 0.
 * @param buckets Where the row of relative position 0 is named; those of others lie before and behind.
 * @param packedKeys Where keys go.
 * @param packedQueries Where queries go.
 * @param scratch For 16 rows of a head.
 */
export function packPositions(
  positionKeys: usize,
  positionQueries: usize,
  buckets: usize,
  longest: usize,
  H: usize,
  D: usize,
  scale: f32,
  packedKeys: usize,
  packedQueries: usize,
  headBegin: usize,
  headEnd: usize,
  scratch: usize,
): void {
  const C = H * D;
  const first = buckets - (longest - 1) * 4;
  const count = longest * 2 - 1, room = placesOf(longest);
  for (let h = headBegin; h < headEnd; h++) {
    const at = h * headFloats(longest, D) * 4;
    if (positionKeys) {
      packPositionKeys(positionKeys + h * D * 4, C * 4, first, count, room, D, packedKeys + at, scratch);
    }
    if (positionQueries) {
      const table = positionQueries + h * D * 4;
      packPositionQueries(table, C * 4, first, count, room, D, scale, packedQueries + at, scratch);
    }
  }
}

/*
 * Scratch memory: the block; a tile's keys, (16, D, 5), and values, (D5 / 5, 80, 5); a panel's products with position
 * keys, (100, 16); keys' products with position queries, (80, 168); five rows of these as they are computed, (5, 16).
 * packPositions takes it for 16 rows of a table.
 */

/** Bytes of scratch for {@linkcode disentangledAttention} and {@linkcode packPositions}. */
export function disentangledAttentionScratch(D: usize): usize {
  return blockBytes(D) + (D + fives(D)) * KEYS * 4 + MET * ROW + KEYS * WIDTH + ROWS * ROW + LANES * D * 4;
}

/**
 * Heads headBegin … headEnd − 1 of rows first … first + count − 1 (at most 128) of a sequence of `total`; `qkv` and
 * `out` point to its first row.
 *
 * @param qkv (total, 3C)
 * @param positionKeys As {@linkcode packPositions} leaves them, or 0.
 * @param positionQueries Likewise.
 * @param longest What they were packed for.
 * @param out (total, C)
 */
export function disentangledAttention(
  qkv: usize,
  positionKeys: usize,
  positionQueries: usize,
  longest: usize,
  out: usize,
  H: usize,
  D: usize,
  scale: f32,
  first: usize,
  count: usize,
  total: usize,
  wide: bool,
  headBegin: usize,
  headEnd: usize,
  scratch: usize,
): void {
  const C = H * D;
  const step = C * 12;
  const block = scratch;
  const K = block + blockBytes(D);
  const V = K + KEYS * D * 4;
  const products = V + KEYS * fives(D) * 4;
  const rows = products + MET * ROW;
  const tile = rows + KEYS * WIDTH;
  const scores = scoresOf(block, D);
  const whole = (count + 7) & ~7; // queries, with those that are computed beside the last
  for (let h = headBegin; h < headEnd; h++) {
    const queries = qkv + h * D * 4;
    const keys = queries + C * 4;
    const values = keys + C * 4;
    const PK = positionKeys + h * headFloats(longest, D) * 4, PQ = positionQueries + h * headFloats(longest, D) * 4;
    beginBlock(queries + first * step, step, D, scale, count, block);
    for (let key: usize = 0; key < total; key += KEYS) {
      const here = min(KEYS, total - key);
      const place = first + longest - key - here; // of the first query and the last key
      packKeys(keys + key * step, step, here, D, K);
      packColumns(values + key * step, step, here, D, KEYS, V);
      if (positionQueries) multiplyKeys(K, PQ, place, here, whole, D, wide, tile, rows);
      for (let q: usize = 0; q < count; q += LANES) {
        const lanes = min(LANES, count - q);
        const panel = block + q * D * 4;
        if (positionKeys) {
          const before = (place + q) % ROWS;
          const met = before + here - 1 + min(LANES, whole - q);
          multiply(PK + (place + q - before) * D * 4, ROWS * D * 4, met, panel, D, products, lanes, wide, true);
          layDiagonals(products + before * ROW, here, min(LANES, whole - q), scores);
        }
        if (positionQueries) {
          addRows(rows + (LEFT + q) * 4, here, min(LANES, whole - q), scores, positionKeys == 0);
        }
        multiply(K, ROWS * D * 4, here, panel, D, scores, lanes, wide, !positionKeys && !positionQueries);
        takeIn(V, here, <i32> here, D, q, lanes, block, wide); // every query is behind every key
      }
    }
    finishBlock(block, D, count, out + (first * C + h * D) * 4, C * 4, 0, 0);
  }
}

// What the tables' rows are for the products

/** Whether rows named one after the other also lie one after the other. */
function consecutive(buckets: usize, count: usize): bool {
  const bucket = load<u32>(buckets);
  for (let i: usize = 1; i < count; i++) {
    if (load<u32>(buckets + i * 4) != bucket + <u32> i) return false;
  }
  return true;
}

/** (count, D) out of a table's rows. */
function gatherRows(table: usize, step: usize, buckets: usize, count: usize, D: usize, to: usize): void {
  for (let i: usize = 0; i < count; i++, to += D * 4) {
    const from = table + <usize> load<u32>(buckets + i * 4) * step;
    for (let d: usize = 0; d < D; d += 4) storeUpTo(to + d * 4, loadUpTo(from + d * 4, D - d), D - d);
  }
}

/** (…, D, 5) of `room` offsets' rows of a table, `step` bytes apart; zeros from offset `count` on. */
function packPositionKeys(
  table: usize,
  step: usize,
  buckets: usize,
  count: usize,
  room: usize,
  D: usize,
  to: usize,
  gathered: usize,
): void {
  for (let o: usize = 0; o < room; o += ROWS, buckets += ROWS * 4, to += ROWS * D * 4) {
    const height = o < count ? min(ROWS, count - o) : 0;
    if (height && consecutive(buckets, height)) {
      packTileRows(table + <usize> load<u32>(buckets) * step, step, height, D, to);
    } else {
      gatherRows(table, step, buckets, height, D, gathered);
      packTileRows(gathered, D * 4, height, D, to);
    }
  }
}

/** (…, D, 16) of them, times `factor`. */
function packPositionQueries(
  table: usize,
  step: usize,
  buckets: usize,
  count: usize,
  room: usize,
  D: usize,
  factor: f32,
  to: usize,
  gathered: usize,
): void {
  for (let o: usize = 0; o < room; o += LANES, buckets += LANES * 4, to += D * ROW) {
    const lanes = o < count ? min(LANES, count - o) : 0;
    if (lanes && consecutive(buckets, lanes)) {
      packLanes(table + <usize> load<u32>(buckets) * step, step, lanes, D, factor, to);
    } else {
      gatherRows(table, step, buckets, lanes, D, gathered);
      packLanes(gathered, D * 4, lanes, D, factor, to);
    }
  }
}

// From products by offset to scores by query

/**
 * Keys' products with the position queries of a block: row j has query i's at LEFT + i.
 *
 * @param K (16, D, 5)
 * @param PQ (places/16, D, 16)
 * @param place Of the first query and the last key.
 * @param tile For five rows of products.
 */
function multiplyKeys(
  K: usize,
  PQ: usize,
  place: usize,
  here: usize,
  queries: usize,
  D: usize,
  wide: bool,
  tile: usize,
  rows: usize,
): void {
  const width: usize = wide ? LANES : LANES / 2;
  for (let j: usize = 0; j < here; j += ROWS) {
    const height = min(ROWS, here - j);
    const end = place + here - 1 - j + queries;
    for (let o = (place + here - j - height) & ~(width - 1); o < end; o += width) {
      const part = (o % LANES) * 4;
      multiply(K + j * D * 4, 0, ROWS, PQ + o / LANES * D * ROW + part, D, tile + part, width, wide, true);
      let from = tile + part;
      let to = rows + j * WIDTH + (LEFT + o + j - (place + here - 1)) * 4;
      for (let r: usize = 0; r < height; r++, from += ROW, to += WIDTH + 4) {
        v128.store(to, v128.load(from)), v128.store(to, v128.load(from, 16), 16);
        if (wide) v128.store(to, v128.load(from, 32), 32), v128.store(to, v128.load(from, 48), 48);
      }
    }
  }
}

/** scores[j][i] = products[i − j + here − 1][i] */
function layDiagonals(products: usize, here: usize, lanes: usize, scores: usize): void {
  for (let lane: usize = 0; lane < lanes; lane += 4) {
    let p = products + (here - 1 + lane) * ROW + lane * 4;
    // A row's four numbers belong to four keys: the last three, two and one of those to come wait in vectors.
    let one = v128.load(p, ROW);
    const second = v128.load(p, 2 * ROW);
    let two = v128.shuffle<i32>(one, second, 0, 1, 2, 7);
    let three = v128.shuffle<i32>(one, v128.shuffle<i32>(second, v128.load(p, 3 * ROW), 0, 1, 2, 7), 0, 1, 6, 7);
    let to = scores + lane * 4;
    for (const end = to + here * ROW; to < end; to += ROW, p -= ROW) {
      const four = v128.load(p);
      v128.store(to, v128.shuffle<i32>(four, three, 0, 5, 6, 7));
      three = v128.shuffle<i32>(four, two, 0, 1, 6, 7);
      two = v128.shuffle<i32>(four, one, 0, 1, 2, 7);
      one = four;
    }
  }
}

/** scores[j][i] = rows[j][i], or that added to it. */
function addRows(rows: usize, here: usize, lanes: usize, scores: usize, first: bool): void {
  for (const end = scores + here * ROW; scores < end; scores += ROW, rows += WIDTH) {
    for (let lane: usize = 0; lane < lanes; lane += 4) {
      const before = first ? zero() : v128.load(scores + lane * 4);
      v128.store(scores + lane * 4, f32x4.add(before, v128.load(rows + lane * 4)));
    }
  }
}
