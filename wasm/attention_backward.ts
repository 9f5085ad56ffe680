/**
 * Attention's gradient, after FlashAttention: probabilities are recomputed tile by tile from the
 * queries, the keys and the log-sum-exp of the forward pass. One call does one head of one sequence,
 * in one fixed order: dK and dV gather over the queries of a tile of keys, dQ over the tiles.
 *
 * Queries lie in lanes as in the forward pass, so that dQ, a sum over keys, comes of (keys, 16) panels of dS as
 * they are; dK and dV, sums over queries, take these panels turned, five keys at a time.
 */
import { packColumns, packKeys } from "./attention";
import { fives, KEYS, LANES, multiply, packLanes, ROW, seenBy, sees, unpackLanes } from "./attention_block";
import { exps } from "./math";
import { fma, loadUpTo, storeUpTo, sumLanes, zero } from "./simd";
import { packTileRows, ROWS } from "./tile_narrow";

/** Queries whose turned panels wait for dK and dV. */
// @ts-ignore: decorator
@inline
const BATCH: usize = 64;

/** Rounded up to panels. */
// @ts-ignore: decorator
@inline
function sixteens(n: usize): usize {
  return (n + LANES - 1) & ~(LANES - 1);
}

/** Bytes of scratch for a sequence of so many rows. */
export function attentionBackwardScratch(rows: usize, D: usize): usize {
  const padded = sixteens(rows);
  const D16 = sixteens(D);
  return (padded * (2 * D + 2 * D16 + fives(D) + 2) + KEYS * (2 * D + fives(D) + 2 * LANES + 2 * BATCH + 2 * D16)) * 4;
}

/**
 * Heads headBegin … headEnd − 1 of one sequence; the pointers are to its first row.
 *
 * @param qkv (rows, 3C), and dQkv like it.
 * @param out (rows, C), and dOut like it.
 * @param logSumExp (rows, H)
 * @param wide Whether to compute products 16 columns at once.
 */
export function attentionBackward(
  qkv: usize,
  out: usize,
  logSumExp: usize,
  dOut: usize,
  dQkv: usize,
  rows: usize,
  H: usize,
  D: usize,
  scale: f32,
  wide: bool,
  headBegin: usize,
  headEnd: usize,
  scratch: usize,
): void {
  const C = H * D;
  const step = C * 12;
  const outStep = C * 4;
  const D5 = fives(D);
  const D16 = sixteens(D);
  const padded = sixteens(rows);
  const lanesQ = scratch; // (panels, D, 16 queries), scaled
  const lanesG = lanesQ + padded * D * 4; // (panels, D, 16 queries) of dOut
  const rowsQ = lanesG + padded * D * 4; // (D16 / 16, padded, 16)
  const rowsG = rowsQ + padded * D16 * 4; // (D16 / 16, padded, 16) of dOut
  const dQ = rowsG + padded * D16 * 4; // (panels, D5, 16 queries)
  const sums = dQ + padded * D5 * 4; // (padded) log-sum-exp
  const products = sums + padded * 4; // (padded) out · dOut
  const packedK = products + padded * 4; // (16, D, 5 keys)
  const packedV = packedK + KEYS * D * 4; // (16, D, 5 keys)
  const columnsK = packedV + KEYS * D * 4; // (D5 / 5, 80 keys, 5)
  const P = columnsK + KEYS * D5 * 4; // (80 keys, 16 queries)
  const dS = P + KEYS * ROW; // (80 keys, 16 queries)
  const turnedP = dS + KEYS * ROW; // (16, 64 queries, 5 keys)
  const turnedS = turnedP + KEYS * BATCH * 4; // (16, 64 queries, 5 keys)
  const dK = turnedS + KEYS * BATCH * 4; // (D16 / 16, 80 keys, 16)
  const dV = dK + KEYS * D16 * 4; // (D16 / 16, 80 keys, 16)

  for (let h = headBegin; h < headEnd; h++) {
    const queries = qkv + h * D * 4;
    const keys = queries + C * 4;
    const values = keys + C * 4;
    const gradients = dOut + h * D * 4;
    const results = out + h * D * 4;

    for (let q: usize = 0; q < rows; q += LANES) {
      const lanes = min(LANES, rows - q);
      packLanes(queries + q * step, step, lanes, D, scale, lanesQ + q * D * 4);
      packLanes(gradients + q * outStep, outStep, lanes, D, 1, lanesG + q * D * 4);
    }
    packPanels(queries, step, rows, D, padded, rowsQ);
    packPanels(gradients, outStep, rows, D, padded, rowsG);
    clear(dQ, padded * D5);
    for (let q: usize = 0; q < padded; q++) {
      const real = q < rows;
      store<f32>(sums + q * 4, real ? load<f32>(logSumExp + (q * H + h) * 4) : 0);
      store<f32>(products + q * 4, real ? dot(results + q * outStep, gradients + q * outStep, D) : 0);
    }

    for (let key: usize = 0; key < rows; key += KEYS) {
      const here = min(KEYS, rows - key);
      packKeys(keys + key * step, step, here, D, packedK);
      packKeys(values + key * step, step, here, D, packedV);
      packColumns(keys + key * step, step, here, D, KEYS, columnsK);
      clear(dK, 2 * KEYS * D16);
      // From the first panel of queries that sees the tile's first key on.
      for (let q0 = key & ~(LANES - 1); q0 < rows; q0 += BATCH) {
        const q1 = min(rows, q0 + BATCH);
        for (let q = q0; q < q1; q += LANES) {
          const lanes = min(LANES, rows - q);
          const place = <i32> q - <i32> key;
          const seen = seenBy(place + <i32> LANES - 1, here);
          multiply(packedK, ROWS * D * 4, seen, lanesQ + q * D * 4, D, P, lanes, wide, true);
          multiply(packedV, ROWS * D * 4, seen, lanesG + q * D * 4, D, dS, lanes, wide, true);
          for (let lane: usize = 0; lane < lanes; lane += 4) {
            const at = (q + lane) * 4;
            gradientTile(P + lane * 4, dS + lane * 4, seen, place + <i32> lane, sums + at, products + at);
          }
          multiply(columnsK, KEYS * ROWS * 4, D, dS, seen, dQ + q * D5 * 4, lanes, wide, false);
          const turned = (q - q0) * ROWS * 4;
          for (let r: usize = 0; r < seen; r += ROWS) {
            turn(P + r * ROW, turnedP + r * BATCH * 4 + turned);
            turn(dS + r * ROW, turnedS + r * BATCH * 4 + turned);
          }
        }
        for (let r: usize = 0; r < here; r += ROWS) {
          // Queries before a panel's first that sees key r have no part in it.
          const q = max(q0, (key + r) & ~(LANES - 1));
          if (q >= q1) break;
          const from = (r * BATCH + (q - q0) * ROWS) * 4;
          for (let d: usize = 0; d < D; d += LANES) {
            const b = (d * padded + q * LANES) * 4;
            const to = (d * KEYS + r * LANES) * 4;
            multiply(turnedS + from, 0, 1, rowsQ + b, q1 - q, dK + to, D - d, wide, false);
            multiply(turnedP + from, 0, 1, rowsG + b, q1 - q, dV + to, D - d, wide, false);
          }
        }
      }
      const to = dQkv + (keys - qkv) + key * step;
      unpackPanels(dK, scale, here, D, to, step);
      unpackPanels(dV, 1, here, D, to + C * 4, step);
    }

    for (let q: usize = 0; q < rows; q += LANES) {
      const panel = dQ + q * D5 * 4;
      for (let p = panel; p < panel + D * ROW; p += 16) v128.store(p, f32x4.mul(v128.load(p), f32x4.splat(scale)));
      unpackLanes(panel, min(LANES, rows - q), D, dQkv + h * D * 4 + q * step, step);
    }
  }
}

/** Five rows of sixteen become sixteen rows of five. */
// @ts-ignore: decorator
@inline
function turn(from: usize, to: usize): void {
  packTileRows(from, ROW, ROWS, LANES, to);
}

function clear(p: usize, count: usize): void {
  for (const end = p + count * 4; p < end; p += 16) v128.store(p, zero());
}

/** (D16 / 16, padded, 16) out of rows of D floats; what is beyond D is left as it is. */
function packPanels(from: usize, step: usize, rows: usize, D: usize, padded: usize, to: usize): void {
  for (let r: usize = 0; r < rows; r++, from += step, to += ROW) {
    for (let d: usize = 0; d < D; d += 4) {
      const p = to + (d & ~(LANES - 1)) * padded * 4 + (d & (LANES - 1)) * 4;
      v128.store(p, loadUpTo(from + d * 4, D - d));
    }
  }
}

/** Rows of D floats out of (D16 / 16, 80, 16), times `factor`. */
function unpackPanels(from: usize, factor: f32, rows: usize, D: usize, to: usize, step: usize): void {
  const factors = f32x4.splat(factor);
  for (let r: usize = 0; r < rows; r++, from += ROW, to += step) {
    for (let d: usize = 0; d < D; d += 4) {
      const p = from + (d & ~(LANES - 1)) * KEYS * 4 + (d & (LANES - 1)) * 4;
      storeUpTo(to + d * 4, f32x4.mul(v128.load(p), factors), D - d);
    }
  }
}

function dot(a: usize, b: usize, D: usize): f32 {
  let sum = zero();
  let d: usize = 0;
  for (; d + 4 <= D; d += 4) sum = fma(v128.load(a + d * 4), v128.load(b + d * 4), sum);
  let total = sumLanes(sum);
  for (; d < D; d++) total += load<f32>(a + d * 4) * load<f32>(b + d * 4);
  return total;
}

/**
 * For four queries and `seen` keys of a tile (and up to four more, to a multiple of five): scores become
 * probabilities P, and their gradients dP become those of the scores, P · (dP − out · dOut). What a query does
 * not see is zero in both. Query i sees the tile's keys 0 … place + i.
 */
function gradientTile(P: usize, dS: usize, seen: usize, place: i32, sums: usize, products: usize): void {
  const sum = v128.load(sums);
  const product = v128.load(products);
  const first = P;
  const all = P + seenBy(place, seen) * ROW; // up to here by all four
  const some = P + seenBy(place + 3, seen) * ROW;
  const end = P + fives(seen) * ROW;
  exps(P, some, ROW, sum, zero(), true);
  for (; P < all; P += ROW, dS += ROW) {
    v128.store(dS, f32x4.mul(v128.load(P), f32x4.sub(v128.load(dS), product)));
  }
  for (; P < some; P += ROW, dS += ROW) {
    const seeing = sees(place, <i32> ((P - first) / ROW));
    const p = v128.and(v128.load(P), seeing);
    v128.store(P, p);
    v128.store(dS, v128.and(f32x4.mul(p, f32x4.sub(v128.load(dS), product)), seeing));
  }
  for (; P < end; P += ROW, dS += ROW) {
    v128.store(P, zero());
    v128.store(dS, zero());
  }
}
