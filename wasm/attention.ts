/**
 * Causal attention without a [T × T] block, after FlashAttention (Dao et al. 2022): keys pass by in
 * tiles of 48, and each query carries its running maximum, sum and output. Queries lie in the
 * vectors' lanes, eight to a panel, so that the softmax needs no sums across lanes.
 *
 * Tiles count from the sequence's first key, and a lone query (decoding) sums in the same order as a
 * block of them: a row's result does not depend on the rows computed beside it.
 */
import { fma, highHalves, interleaveHigh, interleaveLow, loadUpTo, lowHalves, storeUpTo, transpose4x4, zero } from "./simd";
import { exp, log } from "./math";
import { packTile, ROWS, tile } from "./tile";

/** Queries of a block: eight panels of eight lanes; 256 bytes, as tileByRows wants it. */
// @ts-ignore: decorator
@inline
export const QUERIES: usize = 64;
/** Keys of a tile: eight times six. */
// @ts-ignore: decorator
@inline
export const KEYS: usize = 48;

/** D rounded up to tiles of six. */
// @ts-ignore: decorator
@inline
export function sixes(D: usize): usize {
  return ((D + ROWS - 1) / ROWS) * ROWS;
}

/** Bytes of scratch for {@linkcode attention} and {@linkcode attentionOfOne}. */
export function attentionScratch(D: usize): usize {
  return (D * QUERIES + D * KEYS + KEYS * QUERIES + sixes(D) * QUERIES + 2 * QUERIES) * 4;
}

/**
 * Heads headBegin … headEnd − 1 of up to 64 neighbouring rows of one sequence. The pointers are to the
 * first of those rows' queries, and to the sequence's first key and value; steps are bytes from row to row.
 *
 * @param logSumExp (rows, H) from the first row on, or 0.
 * @param count The number of rows.
 * @param first The first row's place in its sequence: it sees first + 1 keys.
 */
export function attention(
  queries: usize,
  queryStep: usize,
  keys: usize,
  keyStep: usize,
  values: usize,
  valueStep: usize,
  out: usize,
  outStep: usize,
  logSumExp: usize,
  H: usize,
  D: usize,
  scale: f32,
  count: usize,
  first: usize,
  headBegin: usize,
  headEnd: usize,
  scratch: usize,
): void {
  for (let h = headBegin; h < headEnd; h++) {
    const at = h * D * 4;
    const sums = logSumExp ? logSumExp + h * 4 : 0;
    if (count == 1) {
      attentionOfOne(queries + at, keys + at, keyStep, values + at, valueStep, out + at, sums, D, scale, first + 1, scratch);
    } else {
      attentionOfBlock(
        queries + at, queryStep, keys + at, keyStep, values + at, valueStep, out + at, outStep, sums, H * 4,
        D, scale, count, first, scratch,
      );
    }
  }
}

function attentionOfBlock(
  queries: usize,
  queryStep: usize,
  keys: usize,
  keyStep: usize,
  values: usize,
  valueStep: usize,
  out: usize,
  outStep: usize,
  logSumExp: usize,
  sumStep: usize,
  D: usize,
  scale: f32,
  count: usize,
  first: usize,
  scratch: usize,
): void {
  const D6 = sixes(D);
  const packedQ = scratch; // (8 panels, D, 8 queries)
  const packedK = packedQ + D * QUERIES * 4; // (8 tiles, D, 6 keys)
  const scores = packedK + D * KEYS * 4; // (48 keys, 64 queries)
  const sums = scores + KEYS * QUERIES * 4; // (8 panels, D6, 8 queries)
  const maxima = sums + D6 * QUERIES * 4; // (64 queries)
  const denominators = maxima + QUERIES * 4; // (64 queries)

  for (let q: usize = 0; q < count; q += 8) {
    packLanes(queries + q * queryStep, queryStep, min<usize>(8, count - q), D, scale, packedQ + q * D * 4);
  }
  memory.fill(sums, 0, D6 * QUERIES * 4);
  for (let i: usize = 0; i < QUERIES * 4; i += 16) {
    v128.store(maxima + i, f32x4.splat(-Infinity));
    v128.store(denominators + i, zero());
  }

  const total = first + count;
  for (let key: usize = 0; key < total; key += KEYS) {
    const here = min(KEYS, total - key);
    for (let r: usize = 0; r < here; r += ROWS) {
      packTile(keys + (key + r) * keyStep, keyStep, min(ROWS, here - r), D, packedK + r * D * 4);
    }
    for (let q: usize = 0; q < count; q += 8) {
      const last = first + q + 7; // the last key that the panel's last query sees
      if (key > last) continue;
      const seen = min(here, last + 1 - key);
      const lanes = scores + q * 4;
      for (let r: usize = 0; r < seen; r += ROWS) {
        tile(packedK + r * D * 4, ROWS * 4, packedQ + q * D * 4, 32, D, lanes + r * 256, 256, true);
      }
      const place = <i32> (first + q) - <i32> key;
      const state = maxima + q * 4;
      const left = softmaxTile(lanes, seen, place, state);
      const right = softmaxTile(lanes + 16, seen, place + 4, state + 16);
      const panel = sums + q * D6 * 4;
      if (v128.any_true(v128.or(f32x4.ne(left, f32x4.splat(1)), f32x4.ne(right, f32x4.splat(1))))) {
        for (let p = panel; p < panel + D6 * 32; p += 32) {
          v128.store(p, f32x4.mul(v128.load(p), left));
          v128.store(p, f32x4.mul(v128.load(p, 16), right), 16);
        }
      }
      for (let d: usize = 0; d < D; d += ROWS) {
        tile(values + key * valueStep + d * 4, valueStep, lanes, 256, seen, panel + d * 32, 32, false);
      }
    }
  }

  for (let q: usize = 0; q < count; q += 8) {
    const panel = sums + q * D6 * 4;
    for (let lane: usize = 0; lane < 8; lane += 4) {
      if (q + lane >= count) break;
      const sum = v128.load(denominators + (q + lane) * 4);
      for (let d: usize = 0; d < D; d++) {
        const p = panel + d * 32 + lane * 4;
        v128.store(p, f32x4.div(v128.load(p), sum));
      }
    }
    unpackLanes(panel, min<usize>(8, count - q), D, out + q * outStep, outStep);
  }
  if (logSumExp) {
    for (let q: usize = 0; q < count; q++) {
      const sum = log(load<f32>(denominators + q * 4));
      store<f32>(logSumExp + q * sumStep, load<f32>(maxima + q * 4) + sum);
    }
  }
}

/**
 * Turns four queries' scores of `seen` keys into exponentials and carries their maxima and, 256 bytes
 * behind, their sums on. Query i sees the tile's keys 0 … place + i.
 *
 * @returns The factors by which what was summed before shrinks.
 */
function softmaxTile(scores: usize, seen: usize, place: i32, state: usize): v128 {
  const before = v128.load(state);
  let largest = before;
  const limits = i32x4.add(i32x4.splat(place), i32x4(0, 1, 2, 3));
  let p = scores;
  for (let key: i32 = 0; key < <i32> seen; key++, p += 256) {
    let s = v128.load(p);
    if (key > place) {
      s = v128.bitselect(s, f32x4.splat(-Infinity), i32x4.le_s(i32x4.splat(key), limits));
      v128.store(p, s);
    }
    largest = f32x4.pmax(largest, s);
  }
  const factor = exp(f32x4.sub(before, largest));
  let sum = f32x4.mul(v128.load(state, QUERIES * 4), factor);
  p = scores;
  for (let key: usize = 0; key < seen; key++, p += 256) {
    const e = exp(f32x4.sub(v128.load(p), largest));
    v128.store(p, e);
    sum = f32x4.add(sum, e);
  }
  v128.store(state, largest);
  v128.store(state, sum, QUERIES * 4);
  return factor;
}

/** (D, 8) out of up to 8 rows of D floats, times `factor`; missing rows are zero. */
export function packLanes(from: usize, step: usize, lanes: usize, D: usize, factor: f32, to: usize): void {
  const factors = f32x4.splat(factor);
  for (let lane: usize = 0; lane < 8; lane += 4, from += 4 * step, to += 16) {
    let d: usize = 0;
    if (lane + 4 <= lanes) {
      for (; d + 4 <= D; d += 4) {
        const p = to + d * 32;
        transpose4x4(from + d * 4, step, p, 32);
        v128.store(p, f32x4.mul(v128.load(p), factors));
        v128.store(p, f32x4.mul(v128.load(p, 32), factors), 32);
        v128.store(p, f32x4.mul(v128.load(p, 64), factors), 64);
        v128.store(p, f32x4.mul(v128.load(p, 96), factors), 96);
      }
    }
    for (; d < D; d++) {
      for (let i: usize = 0; i < 4; i++) {
        const x: f32 = lane + i < lanes ? load<f32>(from + i * step + d * 4) * factor : 0;
        store<f32>(to + d * 32 + i * 4, x);
      }
    }
  }
}

/** Up to 8 rows of D floats out of (D, 8). */
export function unpackLanes(from: usize, lanes: usize, D: usize, to: usize, step: usize): void {
  for (let lane: usize = 0; lane < lanes; lane += 4, from += 16, to += 4 * step) {
    let d: usize = 0;
    if (lane + 4 <= lanes) {
      for (; d + 4 <= D; d += 4) transpose4x4(from + d * 32, 32, to + d * 4, step);
    }
    for (; d < D; d++) {
      for (let i: usize = 0; i < min<usize>(4, lanes - lane); i++) {
        store<f32>(to + i * step + d * 4, load<f32>(from + d * 32 + i * 4));
      }
    }
  }
}

/** One query over `total` keys, summing in the order that a block of queries does. */
function attentionOfOne(
  query: usize,
  keys: usize,
  keyStep: usize,
  values: usize,
  valueStep: usize,
  out: usize,
  logSumExp: usize,
  D: usize,
  scale: f32,
  total: usize,
  scratch: usize,
): void {
  const scaled = scratch; // (D)
  const scores = scaled + sixes(D) * 4 + 32; // (48)
  const sums = scores + KEYS * 4; // (D)
  for (let d: usize = 0; d < D; d += 4) {
    v128.store(scaled + d * 4, f32x4.mul(loadUpTo(query + d * 4, D - d), f32x4.splat(scale)));
    v128.store(sums + d * 4, zero());
  }
  let largest: f32 = -Infinity;
  let denominator: f32 = 0;
  for (let key: usize = 0; key < total; key += KEYS) {
    const here = min(KEYS, total - key);
    scoresOfOne(scaled, keys + key * keyStep, keyStep, here, D, scores);
    const before = largest;
    for (let j: usize = 0; j < here; j++) {
      const s = load<f32>(scores + j * 4);
      if (s > largest) largest = s;
    }
    const factor = f32x4.extract_lane(exp(f32x4.splat(before - largest)), 0);
    if (factor != 1) {
      for (let d: usize = 0; d < D; d += 4) {
        v128.store(sums + d * 4, f32x4.mul(v128.load(sums + d * 4), f32x4.splat(factor)));
      }
    }
    denominator *= factor;
    for (let j: usize = 0; j < here; j += 4) {
      const e = exp(f32x4.sub(v128.load(scores + j * 4), f32x4.splat(largest)));
      v128.store(scores + j * 4, e);
    }
    for (let j: usize = 0; j < here; j++) denominator += load<f32>(scores + j * 4);
    const v = values + key * valueStep;
    let d: usize = 0;
    for (; d + 16 <= D; d += 16) {
      const s = sums + d * 4;
      let c0 = v128.load(s), c1 = v128.load(s, 16), c2 = v128.load(s, 32), c3 = v128.load(s, 48);
      let p = v + d * 4;
      for (let j: usize = 0; j < here; j++, p += valueStep) {
        const e = v128.load32_splat(scores + j * 4);
        c0 = fma(v128.load(p), e, c0);
        c1 = fma(v128.load(p, 16), e, c1);
        c2 = fma(v128.load(p, 32), e, c2);
        c3 = fma(v128.load(p, 48), e, c3);
      }
      v128.store(s, c0), v128.store(s, c1, 16), v128.store(s, c2, 32), v128.store(s, c3, 48);
    }
    for (; d < D; d += 4) {
      let c = v128.load(sums + d * 4);
      let p = v + d * 4;
      for (let j: usize = 0; j < here; j++, p += valueStep) {
        c = fma(loadUpTo(p, D - d), v128.load32_splat(scores + j * 4), c);
      }
      v128.store(sums + d * 4, c);
    }
  }
  for (let d: usize = 0; d < D; d += 4) {
    storeUpTo(out + d * 4, f32x4.div(v128.load(sums + d * 4), f32x4.splat(denominator)), D - d);
  }
  if (logSumExp) store<f32>(logSumExp, largest + log(denominator));
}

/** scores[j] = Σ over d, in its order, of key j · query: four keys at a time, transposed in registers. */
function scoresOfOne(query: usize, keys: usize, step: usize, count: usize, D: usize, scores: usize): void {
  for (let j: usize = 0; j < count; j += 4, keys += 4 * step) {
    let s = zero();
    let d: usize = 0;
    if (j + 4 <= count) {
      for (; d + 4 <= D; d += 4) {
        const p = keys + d * 4;
        const r0 = v128.load(p), r1 = v128.load(p + step);
        const r2 = v128.load(p + 2 * step), r3 = v128.load(p + 3 * step);
        const l01 = interleaveLow(r0, r1), l23 = interleaveLow(r2, r3);
        const h01 = interleaveHigh(r0, r1), h23 = interleaveHigh(r2, r3);
        const q = query + d * 4;
        s = fma(lowHalves(l01, l23), v128.load32_splat(q), s);
        s = fma(highHalves(l01, l23), v128.load32_splat(q, 4), s);
        s = fma(lowHalves(h01, h23), v128.load32_splat(q, 8), s);
        s = fma(highHalves(h01, h23), v128.load32_splat(q, 12), s);
      }
    }
    for (; d < D; d++) {
      const p = keys + d * 4;
      let k = v128.load32_zero(p);
      if (j + 1 < count) k = v128.load32_lane(p + step, k, 1);
      if (j + 2 < count) k = v128.load32_lane(p + 2 * step, k, 2);
      if (j + 3 < count) k = v128.load32_lane(p + 3 * step, k, 3);
      s = fma(k, v128.load32_splat(query + d * 4), s);
    }
    v128.store(scores + j * 4, s);
  }
}

/** Rows begin … end − 1 of (T, 3C) keys and values into their slots and positions of the cache. */
export function storeKeysValues(
  qkv: usize,
  keys: usize,
  values: usize,
  slots: usize,
  positions: usize,
  capacity: usize,
  C: usize,
  begin: usize,
  end: usize,
): void {
  for (let t = begin; t < end; t++) {
    const place = <usize> load<u32>(slots + t * 4) * capacity + <usize> load<u32>(positions + t * 4);
    const from = qkv + (t * 3 + 1) * C * 4;
    memory.copy(keys + place * C * 4, from, C * 4);
    memory.copy(values + place * C * 4, from + C * 4, C * 4);
  }
}
