/**
 * Attention of a block of queries, after FlashAttention (Dao et al. 2022): keys pass by in tiles of 80, and each
 * query carries its running maximum, sum and output. Queries lie in the vectors' lanes, sixteen to a panel, so
 * that the softmax needs no sums across lanes, and every product is one of {@linkcode tileNarrow}'s.
 *
 * Tiles count from a sequence's first key, and every sum is taken in the order of the keys: a row's result does
 * not depend on the rows beside it.
 */
import { exp, exps, log } from "./math";
import { transpose4x4, zero } from "./simd";
import { ROWS, tileNarrow } from "./tile_narrow";
import { tileWide } from "./tile_wide";

/** Queries of a panel. */
// @ts-ignore: decorator
@inline
export const LANES: usize = 16;
/** Queries of a block, at most. */
// @ts-ignore: decorator
@inline
export const QUERIES: usize = 128;
/** Keys of a tile: a multiple of five and of sixteen. */
// @ts-ignore: decorator
@inline
export const KEYS: usize = 80;
/** Bytes of a row of a panel. */
// @ts-ignore: decorator
@inline
export const ROW: usize = LANES * 4;

/** Rounded up to tiles of five. */
// @ts-ignore: decorator
@inline
export function fives(n: usize): usize {
  return ((n + ROWS - 1) / ROWS) * ROWS;
}

/**
 * `rows` rows (rounded up to fives) of a panel, each Σ over k < depth of a's numbers times b's.
 *
 * @param a Groups of five rows, `next` bytes apart: five neighbouring floats for each k.
 * @param b A panel: sixteen neighbouring floats for each k.
 * @param lanes How many of the sixteen count.
 * @param first Whether sums start from zero and not from what `out` holds.
 */
// @ts-ignore: decorator
@inline
export function multiply(
  a: usize,
  next: usize,
  rows: usize,
  b: usize,
  depth: usize,
  out: usize,
  lanes: usize,
  wide: bool,
  first: bool,
): void {
  for (let r: usize = 0; r < rows; r += ROWS, a += next, out += ROWS * ROW) {
    if (wide && lanes > 8) {
      tileWide(a, b, depth, out, first);
    } else {
      tileNarrow(a, b, depth, out, first);
      if (lanes > 8) tileNarrow(a, b + 32, depth, out + 32, first);
    }
  }
}

/*
 * A block in scratch memory: panels of queries, (panels, D, 16), scaled; their sums, (panels, D5, 16), D5 being D
 * rounded up to fives; the largest score of each query, then the denominator of each query's softmax; the scores
 * of a panel, (80, 16).
 */

/** Bytes of a block. */
export function blockBytes(D: usize): usize {
  return (D + fives(D) + 2) * QUERIES * 4 + KEYS * ROW;
}

// @ts-ignore: decorator
@inline
function sumsOf(block: usize, D: usize): usize {
  return block + D * QUERIES * 4;
}

// @ts-ignore: decorator
@inline
function maximaOf(block: usize, D: usize): usize {
  return block + (D + fives(D)) * QUERIES * 4;
}

/** Where a panel's scores are, (80, 16). */
// @ts-ignore: decorator
@inline
export function scoresOf(block: usize, D: usize): usize {
  return maximaOf(block, D) + 2 * QUERIES * 4;
}

/** Begins with `count` queries, `step` bytes apart, that saw no key yet. */
export function beginBlock(queries: usize, step: usize, D: usize, scale: f32, count: usize, block: usize): void {
  for (let q: usize = 0; q < count; q += LANES) {
    packLanes(queries + q * step, step, min(LANES, count - q), D, scale, block + q * D * 4);
  }
  const sums = sumsOf(block, D);
  const sumsEnd = sums + ((count + LANES - 1) / LANES) * fives(D) * ROW;
  for (let p = sums; p < sumsEnd; p += 16) v128.store(p, zero());
  const maxima = maximaOf(block, D);
  for (let q: usize = 0; q < QUERIES * 4; q += 16) {
    v128.store(maxima + q, f32x4.splat(-Infinity));
    v128.store(maxima + QUERIES * 4 + q, zero());
  }
}

/**
 * A tile of keys and values passes by.
 *
 * @param K (16, D, 5), the keys in fives.
 * @param V (D5 / 5, 80, 5), the values' columns in fives.
 * @param here How many keys.
 * @param place How many keys the block's first query is behind the tile's first.
 * @param count The block's queries.
 */
export function passBlock(
  K: usize,
  V: usize,
  here: usize,
  place: i32,
  D: usize,
  count: usize,
  block: usize,
  wide: bool,
): void {
  const scores = scoresOf(block, D);
  for (let q: usize = 0; q < count; q += LANES) {
    const first = place + <i32> q;
    if (first + <i32> LANES <= 0) continue;
    const seen = min(here, <usize> (first + <i32> LANES)); // by the panel's last query
    const lanes = min(LANES, count - q);
    multiply(K, ROWS * D * 4, seen, block + q * D * 4, D, scores, lanes, wide, true);
    takeIn(V, seen, first, D, q, lanes, block, wide);
  }
}

/**
 * A panel's queries, whose scores of a tile's first `seen` keys are there, take in the values.
 *
 * @param first How many keys the panel's first query is behind the tile's first: it sees none beyond itself.
 * @param q The panel's first query.
 * @param lanes Its queries.
 */
export function takeIn(
  V: usize,
  seen: usize,
  first: i32,
  D: usize,
  q: usize,
  lanes: usize,
  block: usize,
  wide: bool,
): void {
  const scores = scoresOf(block, D);
  const panel = sumsOf(block, D) + q * fives(D) * 4;
  for (let lane: usize = 0; lane < lanes; lane += 4) {
    const state = maximaOf(block, D) + (q + lane) * 4;
    const factor = softmaxTile(scores + lane * 4, seen, first + <i32> lane, state);
    if (!v128.any_true(f32x4.ne(factor, f32x4.splat(1)))) continue;
    for (let p = panel + lane * 4, end = p + D * ROW; p < end; p += ROW) {
      v128.store(p, f32x4.mul(v128.load(p), factor));
    }
  }
  multiply(V, KEYS * ROWS * 4, D, scores, seen, panel, lanes, wide, false);
}

/**
 * The results of a block's queries.
 *
 * @param logSumExp Where the logs of their denominators go, `sumStep` bytes apart; 0 for nowhere.
 */
export function finishBlock(
  block: usize,
  D: usize,
  count: usize,
  out: usize,
  outStep: usize,
  logSumExp: usize,
  sumStep: usize,
): void {
  const D5 = fives(D);
  const sums = sumsOf(block, D);
  const maxima = maximaOf(block, D);
  const denominators = maxima + QUERIES * 4;
  for (let q: usize = 0; q < count; q += LANES) {
    const panel = sums + q * D5 * 4;
    const lanes = min(LANES, count - q);
    for (let lane: usize = 0; lane < lanes; lane += 4) {
      const denominator = v128.load(denominators + (q + lane) * 4);
      for (let p = panel + lane * 4, end = p + D * ROW; p < end; p += ROW) {
        v128.store(p, f32x4.div(v128.load(p), denominator));
      }
    }
    unpackLanes(panel, lanes, D, out + q * outStep, outStep);
  }
  if (!logSumExp) return;
  for (let q: usize = 0; q < count; q++) {
    const sum = log(load<f32>(denominators + q * 4));
    store<f32>(logSumExp + q * sumStep, load<f32>(maxima + q * 4) + sum);
  }
}

/**
 * Turns four queries' scores of `seen` keys into exponentials and carries their maxima and their
 * denominators on. Query i sees the tile's keys 0 … place + i; the exponential of any other is 0.
 *
 * @returns The factors by which what was summed before shrinks.
 */
function softmaxTile(scores: usize, seen: usize, place: i32, state: usize): v128 {
  const before = v128.load(state);
  let largest = before;
  const all = scores + seenBy(place, seen) * ROW; // up to here by all four
  const some = scores + seenBy(place + 3, seen) * ROW;
  const end = scores + seen * ROW;
  let p = scores;
  for (; p < all; p += ROW) largest = f32x4.pmax(largest, v128.load(p));
  for (; p < some; p += ROW) {
    const s = v128.bitselect(v128.load(p), f32x4.splat(-Infinity), sees(place, <i32> ((p - scores) / ROW)));
    v128.store(p, s);
    largest = f32x4.pmax(largest, s);
  }
  const factor = exp(f32x4.sub(before, largest));
  const sum = exps(scores, some, ROW, largest, f32x4.mul(v128.load(state, QUERIES * 4), factor), true);
  for (p = some; p < end; p += ROW) v128.store(p, zero());
  v128.store(state, largest);
  v128.store(state, sum, QUERIES * 4);
  return factor;
}

/** How many of a tile's `here` keys a query sees that is `place` keys behind its first. */
// @ts-ignore: decorator
@inline
export function seenBy(place: i32, here: usize): usize {
  return place < 0 ? 0 : min(here, <usize> (place + 1));
}

/** Which of four queries, the first of them `place` keys behind a tile's first, see a key of it. */
// @ts-ignore: decorator
@inline
export function sees(place: i32, key: i32): v128 {
  return i32x4.le_s(i32x4.splat(key - place), i32x4(0, 1, 2, 3));
}

/** (D, 16) out of up to 16 rows of D floats, times `factor`; missing rows are zero. */
export function packLanes(from: usize, step: usize, lanes: usize, D: usize, factor: f32, to: usize): void {
  const factors = f32x4.splat(factor);
  for (let lane: usize = 0; lane < LANES; lane += 4, from += 4 * step, to += 16) {
    let d: usize = 0;
    if (lane + 4 <= lanes) {
      for (; d + 4 <= D; d += 4) {
        const p = to + d * ROW;
        transpose4x4(from + d * 4, step, p, ROW);
        v128.store(p, f32x4.mul(v128.load(p), factors));
        v128.store(p + ROW, f32x4.mul(v128.load(p + ROW), factors));
        v128.store(p + 2 * ROW, f32x4.mul(v128.load(p + 2 * ROW), factors));
        v128.store(p + 3 * ROW, f32x4.mul(v128.load(p + 3 * ROW), factors));
      }
    }
    for (; d < D; d++) {
      for (let i: usize = 0; i < 4; i++) {
        const x: f32 = lane + i < lanes ? load<f32>(from + i * step + d * 4) * factor : 0;
        store<f32>(to + d * ROW + i * 4, x);
      }
    }
  }
}

/** Up to 16 rows of D floats out of (D, 16). */
export function unpackLanes(from: usize, lanes: usize, D: usize, to: usize, step: usize): void {
  for (let lane: usize = 0; lane < lanes; lane += 4, from += 16, to += 4 * step) {
    let d: usize = 0;
    if (lane + 4 <= lanes) {
      for (; d + 4 <= D; d += 4) transpose4x4(from + d * ROW, ROW, to + d * 4, step);
    }
    for (; d < D; d++) {
      for (let i: usize = 0; i < min<usize>(4, lanes - lane); i++) {
        store<f32>(to + i * step + d * 4, load<f32>(from + d * ROW + i * 4));
      }
    }
  }
}
