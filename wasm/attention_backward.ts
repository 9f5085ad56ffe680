/**
 * Attention's gradient, after FlashAttention: probabilities are recomputed tile by tile from the
 * queries, the keys and the log-sum-exp of the forward pass. One call does one head of one sequence,
 * in one fixed order: dK and dV gather over the queries of a tile of keys, dQ over the tiles.
 */
import { fma, storeUpTo, sumLanes, zero } from "./simd";
import { exp } from "./math";
import { packTile, ROWS, tile, tileByRows } from "./tile";
import { KEYS, packLanes, QUERIES, sixes, unpackLanes } from "./attention";

/** D rounded up to two vectors. */
// @ts-ignore: decorator
@inline
function eights(D: usize): usize {
  return (D + 7) & ~7;
}

/** Bytes of scratch for a sequence of so many rows. */
export function attentionBackwardScratch(rows: usize, D: usize): usize {
  const padded = ((rows + QUERIES - 1) / QUERIES) * QUERIES;
  return (padded * (2 * D + sixes(D) + 2) + 2 * KEYS * (D + QUERIES + eights(D))) * 4;
}

/**
 * Heads headBegin … headEnd − 1 of one sequence; the pointers are to its first row.
 *
 * @param qkv (rows, 3C), and dQkv like it.
 * @param out (rows, C), and dOut like it.
 * @param logSumExp (rows, H)
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
  headBegin: usize,
  headEnd: usize,
  scratch: usize,
): void {
  const C = H * D;
  const step = C * 12;
  const outStep = C * 4;
  const D6 = sixes(D);
  const D8 = eights(D);
  const padded = ((rows + QUERIES - 1) / QUERIES) * QUERIES;
  const packedQ = scratch; // (panels, D, 8 queries), scaled
  const packedG = packedQ + padded * D * 4; // (panels, D, 8 queries) of dOut
  const dQ = packedG + padded * D * 4; // (panels, D6, 8 queries)
  const sums = dQ + padded * D6 * 4; // (padded) log-sum-exp
  const products = sums + padded * 4; // (padded) out · dOut
  const packedK = products + padded * 4; // (8 tiles, D, 6 keys)
  const packedV = packedK + KEYS * D * 4; // (8 tiles, D, 6 keys)
  const P = packedV + KEYS * D * 4; // (48 keys, 64 queries)
  const dS = P + KEYS * QUERIES * 4; // (48 keys, 64 queries)
  const dK = dS + KEYS * QUERIES * 4; // (48 keys, D8)
  const dV = dK + KEYS * D8 * 4; // (48 keys, D8)

  for (let h = headBegin; h < headEnd; h++) {
    const queries = qkv + h * D * 4;
    const keys = queries + C * 4;
    const values = keys + C * 4;
    const gradients = dOut + h * D * 4;
    const results = out + h * D * 4;

    memory.fill(dQ, 0, padded * D6 * 4);
    for (let q: usize = 0; q < rows; q += 8) {
      const lanes = min<usize>(8, rows - q);
      packLanes(queries + q * step, step, lanes, D, scale, packedQ + q * D * 4);
      packLanes(gradients + q * outStep, outStep, lanes, D, 1, packedG + q * D * 4);
    }
    for (let q: usize = 0; q < padded; q++) {
      const real = q < rows;
      store<f32>(sums + q * 4, real ? load<f32>(logSumExp + (q * H + h) * 4) : 0);
      store<f32>(products + q * 4, real ? dot(results + q * outStep, gradients + q * outStep, D) : 0);
    }

    for (let key: usize = 0; key < rows; key += KEYS) {
      const here = min(KEYS, rows - key);
      for (let r: usize = 0; r < here; r += ROWS) {
        const height = min(ROWS, here - r);
        packTile(keys + (key + r) * step, step, height, D, packedK + r * D * 4);
        packTile(values + (key + r) * step, step, height, D, packedV + r * D * 4);
      }
      memory.fill(dK, 0, 2 * KEYS * D8 * 4);
      // The first panel of queries that sees the tile's first key, then block by block.
      for (let q0 = key & ~7; q0 < rows;) {
        const q1 = min(rows, (q0 & ~(QUERIES - 1)) + QUERIES);
        for (let q = q0; q < q1; q += 8) {
          const lanes = (q & (QUERIES - 1)) * 4;
          for (let r: usize = 0; r < here; r += ROWS) {
            const at = r * 256 + lanes;
            tile(packedK + r * D * 4, ROWS * 4, packedQ + q * D * 4, 32, D, P + at, 256, true);
            tile(packedV + r * D * 4, ROWS * 4, packedG + q * D * 4, 32, D, dS + at, 256, true);
          }
          const place = <i32> q - <i32> key;
          gradientTile(P + lanes, dS + lanes, here, place, sums + q * 4, products + q * 4);
          gradientTile(P + lanes + 16, dS + lanes + 16, here, place + 4, sums + q * 4 + 16, products + q * 4 + 16);
          for (let d: usize = 0; d < D; d += ROWS) {
            tile(keys + key * step + d * 4, step, dS + lanes, 256, here, dQ + (q * D6 + d * 8) * 4, 32, false);
          }
        }
        const from = (q0 & (QUERIES - 1)) * 4;
        for (let r: usize = 0; r < here; r += ROWS) {
          for (let d: usize = 0; d < D; d += 8) {
            const at = (r * D8 + d) * 4;
            const left = r * 256 + from;
            tileByRows(dS + left, queries + q0 * step + d * 4, step, q1 - q0, dK + at, D8 * 4);
            tileByRows(P + left, gradients + q0 * outStep + d * 4, outStep, q1 - q0, dV + at, D8 * 4);
          }
        }
        q0 = q1;
      }
      for (let r: usize = 0; r < here; r++) {
        const to = dQkv + (keys - qkv) + (key + r) * step;
        scaleRow(dK + r * D8 * 4, scale, to, D);
        scaleRow(dV + r * D8 * 4, 1, to + C * 4, D);
      }
    }

    for (let q: usize = 0; q < rows; q += 8) {
      const panel = dQ + q * D6 * 4;
      for (let p = panel; p < panel + D * 32; p += 16) v128.store(p, f32x4.mul(v128.load(p), f32x4.splat(scale)));
      unpackLanes(panel, min<usize>(8, rows - q), D, dQkv + h * D * 4 + q * step, step);
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

function scaleRow(from: usize, factor: f32, to: usize, D: usize): void {
  for (let d: usize = 0; d < D; d += 4) {
    storeUpTo(to + d * 4, f32x4.mul(v128.load(from + d * 4), f32x4.splat(factor)), D - d);
  }
}

/**
 * For four queries and the keys of a tile: scores become probabilities P, and their gradients dP
 * become those of the scores, P · (dP − out · dOut). What a query does not see is zero in both.
 */
function gradientTile(P: usize, dS: usize, keys: usize, place: i32, sums: usize, products: usize): void {
  const sum = v128.load(sums);
  const product = v128.load(products);
  const limits = i32x4.add(i32x4.splat(place), i32x4(0, 1, 2, 3));
  for (let key: i32 = 0; key < <i32> keys; key++, P += 256, dS += 256) {
    const seen = i32x4.le_s(i32x4.splat(key), limits);
    const p = v128.and(exp(f32x4.sub(v128.load(P), sum)), seen);
    const g = v128.and(f32x4.mul(p, f32x4.sub(v128.load(dS), product)), seen);
    v128.store(P, p);
    v128.store(dS, g);
  }
}
