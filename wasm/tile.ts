/**
 * The inner loops of attention: tiles of 6 rows by 8 columns in twelve accumulators. WebAssembly's engines have
 * sixteen vector registers on x86: six rows, two vectors of columns and one splat are what fits, and unrolling
 * spills. Tiles of 5 rows (tile_narrow.ts) are faster where four rows' factors lie together.
 *
 * Addresses are sums (`a + 4`), not immediate offsets (`load(a, 4)`): see there.
 *
 * Every output is one chain of multiply-adds in the order of k, wherever the sum is cut and whichever
 * kernel computes it: a result depends neither on tiles, nor on threads, nor on the batch around it.
 */
import { fma, highHalves, interleaveHigh, interleaveLow, lowHalves, zero } from "./simd";

/** Rows of a tile. */
// @ts-ignore: decorator
@inline
export const ROWS: usize = 6;

/**
 * out (6, 8) = Σ over k of a[k][0 … 5] ⊗ b[k][0 … 7], or that added to it.
 *
 * @param a Six neighbouring floats for each k, `aStep` bytes apart.
 * @param b Eight neighbouring floats for each k, `bStep` bytes apart.
 * @param out Rows of eight floats, `outStep` bytes apart.
 * @param first Whether to start from zero and not from what `out` holds.
 */
export function tile(
  a: usize,
  aStep: usize,
  b: usize,
  bStep: usize,
  depth: usize,
  out: usize,
  outStep: usize,
  first: bool,
): void {
  let c00 = zero(), c01 = zero(), c10 = zero(), c11 = zero(), c20 = zero(), c21 = zero();
  let c30 = zero(), c31 = zero(), c40 = zero(), c41 = zero(), c50 = zero(), c51 = zero();
  if (!first) {
    let p = out;
    c00 = v128.load(p), c01 = v128.load(p, 16), p += outStep;
    c10 = v128.load(p), c11 = v128.load(p, 16), p += outStep;
    c20 = v128.load(p), c21 = v128.load(p, 16), p += outStep;
    c30 = v128.load(p), c31 = v128.load(p, 16), p += outStep;
    c40 = v128.load(p), c41 = v128.load(p, 16), p += outStep;
    c50 = v128.load(p), c51 = v128.load(p, 16);
  }
  const end = b + depth * bStep;
  while (b != end) {
    const b0 = v128.load(b), b1 = v128.load(b + 16);
    let s = v128.load32_splat(a);
    c00 = fma(s, b0, c00), c01 = fma(s, b1, c01);
    s = v128.load32_splat(a + 4);
    c10 = fma(s, b0, c10), c11 = fma(s, b1, c11);
    s = v128.load32_splat(a + 8);
    c20 = fma(s, b0, c20), c21 = fma(s, b1, c21);
    s = v128.load32_splat(a + 12);
    c30 = fma(s, b0, c30), c31 = fma(s, b1, c31);
    s = v128.load32_splat(a + 16);
    c40 = fma(s, b0, c40), c41 = fma(s, b1, c41);
    s = v128.load32_splat(a + 20);
    c50 = fma(s, b0, c50), c51 = fma(s, b1, c51);
    a += aStep, b += bStep;
  }
  v128.store(out, c00), v128.store(out, c01, 16), out += outStep;
  v128.store(out, c10), v128.store(out, c11, 16), out += outStep;
  v128.store(out, c20), v128.store(out, c21, 16), out += outStep;
  v128.store(out, c30), v128.store(out, c31, 16), out += outStep;
  v128.store(out, c40), v128.store(out, c41, 16), out += outStep;
  v128.store(out, c50), v128.store(out, c51, 16);
}

/** Bytes between the rows of {@linkcode tileByRows}'s left operand. */
// @ts-ignore: decorator
@inline
export const ROW_STEP: usize = 256;

/** {@linkcode tile} with the left operand in six rows, ROW_STEP bytes apart, of one float for each k. */
export function tileByRows(
  a: usize,
  b: usize,
  bStep: usize,
  depth: usize,
  out: usize,
  outStep: usize,
): void {
  let p = out;
  let c00 = v128.load(p), c01 = v128.load(p, 16);
  p += outStep;
  let c10 = v128.load(p), c11 = v128.load(p, 16);
  p += outStep;
  let c20 = v128.load(p), c21 = v128.load(p, 16);
  p += outStep;
  let c30 = v128.load(p), c31 = v128.load(p, 16);
  p += outStep;
  let c40 = v128.load(p), c41 = v128.load(p, 16);
  p += outStep;
  let c50 = v128.load(p), c51 = v128.load(p, 16);
  const end = b + depth * bStep;
  while (b != end) {
    const b0 = v128.load(b), b1 = v128.load(b + 16);
    let s = v128.load32_splat(a);
    c00 = fma(s, b0, c00), c01 = fma(s, b1, c01);
    s = v128.load32_splat(a + ROW_STEP);
    c10 = fma(s, b0, c10), c11 = fma(s, b1, c11);
    s = v128.load32_splat(a + 2 * ROW_STEP);
    c20 = fma(s, b0, c20), c21 = fma(s, b1, c21);
    s = v128.load32_splat(a + 3 * ROW_STEP);
    c30 = fma(s, b0, c30), c31 = fma(s, b1, c31);
    s = v128.load32_splat(a + 4 * ROW_STEP);
    c40 = fma(s, b0, c40), c41 = fma(s, b1, c41);
    s = v128.load32_splat(a + 5 * ROW_STEP);
    c50 = fma(s, b0, c50), c51 = fma(s, b1, c51);
    a += 4, b += bStep;
  }
  v128.store(out, c00), v128.store(out, c01, 16), out += outStep;
  v128.store(out, c10), v128.store(out, c11, 16), out += outStep;
  v128.store(out, c20), v128.store(out, c21, 16), out += outStep;
  v128.store(out, c30), v128.store(out, c31, 16), out += outStep;
  v128.store(out, c40), v128.store(out, c41, 16), out += outStep;
  v128.store(out, c50), v128.store(out, c51, 16);
}

/** `[count][6]` out of six rows, `step` bytes apart; rows from `height` on are zero. */
export function packTile(from: usize, step: usize, height: usize, count: usize, to: usize): void {
  let k: usize = 0;
  if (height == ROWS) {
    for (; k + 4 <= count; k += 4, from += 16, to += 96) {
      let p = from;
      const r0 = v128.load(p);
      p += step;
      const r1 = v128.load(p);
      p += step;
      const r2 = v128.load(p);
      p += step;
      const r3 = v128.load(p);
      p += step;
      const r4 = v128.load(p);
      p += step;
      const r5 = v128.load(p);
      const l01 = interleaveLow(r0, r1), l23 = interleaveLow(r2, r3), l45 = interleaveLow(r4, r5);
      const h01 = interleaveHigh(r0, r1), h23 = interleaveHigh(r2, r3), h45 = interleaveHigh(r4, r5);
      v128.store(to, lowHalves(l01, l23));
      v128.store(to, v128.shuffle<i64>(l45, l01, 0, 3), 16);
      v128.store(to, highHalves(l23, l45), 32);
      v128.store(to, lowHalves(h01, h23), 48);
      v128.store(to, v128.shuffle<i64>(h45, h01, 0, 3), 64);
      v128.store(to, highHalves(h23, h45), 80);
    }
  }
  for (; k < count; k++, from += 4, to += 24) {
    for (let r: usize = 0; r < ROWS; r++) {
      store<f32>(to + r * 4, r < height ? load<f32>(from + r * step) : 0);
    }
  }
}
