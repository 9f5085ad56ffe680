/**
 * The inner loops of matrix products: a tile of 5 rows by 8 columns in ten accumulators, one row by 16 columns
 * for matrix-vector work, and the packing of what they read.
 *
 * What counts is micro-operations: V8 checks the bounds of every load, which takes it a comparison and a branch (as long as
 * Deno runs without its trap handler: https://github.com/denoland/deno/issues/35658).
 * So four rows' factors come in one load and are spread by shuffles, and the fifth in a load of its own. Of
 * WebAssembly's sixteen vector registers V8 keeps one for itself: a sixth row would fit only with six loads.
 * On a Zen 4 core, GFLOP/s at a depth of 256, fused and not: 6 × 8 with six loads 48 and 29, 5 × 8 with five
 * loads 45 and 36, with one and four shuffles 52 and 40; 59 is the machine's peak at 128 bits.
 *
 * A turn of the loop takes two steps, with an exit between them: V8 itself unrolls small loops only, and asks at every turn
 * whether it is to be interrupted (whole products 49 → 52 GFLOP/s, with the transpose 46 → 49). Without the exit the compiler nests
 * the second step's expressions in the first one's, and registers spill (33). Addresses go on before they are used: of a
 * sum V8 knows that its upper half is zero, and of what a turn begins with it does not (52 → 53, 49 → 50).
 *
 * Every output is one chain of multiply-adds in the order of k, wherever the sum is cut and whichever
 * kernel computes it: a result depends neither on tiles, nor on threads, nor on the batch around it.
 */
import { fma, highHalves, interleaveHigh, interleaveLow, lane0, lane1, lane2, lane3, lowHalves, zero } from "./simd";

/** Rows of a tile. */
// @ts-ignore: decorator
@inline
export const ROWS: usize = 5;

/**
 * out (5, 8) = Σ over k of a[k][0 … 4] ⊗ b[k][0 … 7], or that added to it.
 *
 * @param a Five floats for each k, one k after the other.
 * @param b Eight neighbouring floats for each k, 64 bytes apart.
 * @param out Rows of eight floats, 64 bytes apart.
 * @param first Whether to start from zero and not from what `out` holds.
 */
// @ts-ignore: decorator
@inline
export function tileNarrow(a: usize, b: usize, depth: usize, out: usize, first: bool): void {
  if (first) beginNarrow(a, b, depth, out);
  else goOnNarrow(a, b, depth, out);
}

/* Two functions: see tile_wide.ts. */

function beginNarrow(a: usize, b: usize, depth: usize, out: usize): void {
  multiplyNarrow(a, b, depth, out, true);
}

function goOnNarrow(a: usize, b: usize, depth: usize, out: usize): void {
  multiplyNarrow(a, b, depth, out, false);
}

// @ts-ignore: decorator
@inline
function multiplyNarrow(a: usize, b: usize, depth: usize, out: usize, first: bool): void {
  let c00 = zero(), c01 = zero(), c10 = zero(), c11 = zero(), c20 = zero(), c21 = zero();
  let c30 = zero(), c31 = zero(), c40 = zero(), c41 = zero();
  if (!first) {
    c00 = v128.load(out), c01 = v128.load(out, 16);
    c10 = v128.load(out, 64), c11 = v128.load(out, 80);
    c20 = v128.load(out, 128), c21 = v128.load(out, 144);
    c30 = v128.load(out, 192), c31 = v128.load(out, 208);
    c40 = v128.load(out, 256), c41 = v128.load(out, 272);
  }
  a -= ROWS * 4, b -= 64;
  const last = b + depth * 64;
  while (b != last) {
    a += ROWS * 4, b += 64;
    let b0 = v128.load(b), b1 = v128.load(b, 16), four = v128.load(a), s = lane0(four);
    c00 = fma(s, b0, c00), c01 = fma(s, b1, c01);
    s = lane1(four);
    c10 = fma(s, b0, c10), c11 = fma(s, b1, c11);
    s = lane2(four);
    c20 = fma(s, b0, c20), c21 = fma(s, b1, c21);
    s = lane3(four);
    c30 = fma(s, b0, c30), c31 = fma(s, b1, c31);
    s = v128.load32_splat(a, 16);
    c40 = fma(s, b0, c40), c41 = fma(s, b1, c41);
    if (b == last) break;
    a += ROWS * 4, b += 64;
    b0 = v128.load(b), b1 = v128.load(b, 16), four = v128.load(a), s = lane0(four);
    c00 = fma(s, b0, c00), c01 = fma(s, b1, c01);
    s = lane1(four);
    c10 = fma(s, b0, c10), c11 = fma(s, b1, c11);
    s = lane2(four);
    c20 = fma(s, b0, c20), c21 = fma(s, b1, c21);
    s = lane3(four);
    c30 = fma(s, b0, c30), c31 = fma(s, b1, c31);
    s = v128.load32_splat(a, 16);
    c40 = fma(s, b0, c40), c41 = fma(s, b1, c41);
  }
  v128.store(out, c00), v128.store(out, c01, 16);
  v128.store(out, c10, 64), v128.store(out, c11, 80);
  v128.store(out, c20, 128), v128.store(out, c21, 144);
  v128.store(out, c30, 192), v128.store(out, c31, 208);
  v128.store(out, c40, 256), v128.store(out, c41, 272);
}

/** out (16) = Σ over k of a[k] · b[k][0 … 15] with both contiguous, or that added to it. */
export function row(a: usize, b: usize, depth: usize, out: usize, first: bool): void {
  let c0 = zero(), c1 = zero(), c2 = zero(), c3 = zero();
  if (!first) {
    c0 = v128.load(out), c1 = v128.load(out, 16), c2 = v128.load(out, 32), c3 = v128.load(out, 48);
  }
  const end = b + depth * 64;
  while (b != end) {
    const s = v128.load32_splat(a);
    c0 = fma(s, v128.load(b), c0);
    c1 = fma(s, v128.load(b + 16), c1);
    c2 = fma(s, v128.load(b + 32), c2);
    c3 = fma(s, v128.load(b + 48), c3);
    a += 4, b += 64;
  }
  v128.store(out, c0), v128.store(out, c1, 16), v128.store(out, c2, 32), v128.store(out, c3, 48);
}

/** `[count][5]` out of five rows, `step` bytes apart; rows from `height` on are zero. */
export function packTileRows(from: usize, step: usize, height: usize, count: usize, to: usize): void {
  let k: usize = 0;
  if (height == ROWS) {
    for (; k + 4 <= count; k += 4, from += 16, to += 80) {
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
      const l01 = interleaveLow(r0, r1), l23 = interleaveLow(r2, r3);
      const h01 = interleaveHigh(r0, r1), h23 = interleaveHigh(r2, r3);
      v128.store(to, lowHalves(l01, l23)), v128.store32_lane(to, r4, 0, 16);
      v128.store(to, highHalves(l01, l23), 20), v128.store32_lane(to, r4, 1, 36);
      v128.store(to, lowHalves(h01, h23), 40), v128.store32_lane(to, r4, 2, 56);
      v128.store(to, highHalves(h01, h23), 60), v128.store32_lane(to, r4, 3, 76);
    }
  }
  for (; k < count; k++, from += 4, to += ROWS * 4) {
    for (let r: usize = 0; r < ROWS; r++) {
      store<f32>(to + r * 4, r < height ? load<f32>(from + r * step) : 0);
    }
  }
}

/** `[count][5]` out of `count` rows of five neighbouring floats, `step` bytes apart; floats from `height` on are zero. */
export function packTileColumns(from: usize, step: usize, height: usize, count: usize, to: usize): void {
  if (height == ROWS) {
    for (let k: usize = 0; k < count; k++, from += step, to += ROWS * 4) {
      v128.store(to, v128.load(from));
      store<f32>(to, load<f32>(from, 16), 16);
    }
    return;
  }
  for (let k: usize = 0; k < count; k++, from += step, to += ROWS * 4) {
    for (let r: usize = 0; r < ROWS; r++) {
      store<f32>(to + r * 4, r < height ? load<f32>(from + r * 4) : 0);
    }
  }
}
