/**
 * The tile of matrix products for engines that compute with 256 bits: 5 rows by 16 columns.
 *
 * WebAssembly has no such vectors, but V8 pairs operations of 128 bits on neighbouring addresses when it is told
 * to (`--experimental-wasm-revectorize --no-wasm-bounds-checks`; see src/backend/wasm/turbo.ts). It begins at
 * neighbouring stores of one basic block and goes back from both to what they store, as long as it finds the same
 * operations in pairs: here columns 0 … 3 with 4 … 7 and 8 … 11 with 12 … 15, all the way to the loads. That asks
 * for offsets from one address, for nothing between the two of a pair that can trap (a check of bounds can), and
 * for splats and zeros that both share. What was paired is printed with `--trace-wasm-revectorize`.
 *
 * In pairs its twenty accumulators are ten registers: 110 GFLOP/s on a Zen 4 core, of 118. Without, they spill: 35
 * to 40, against 52 of the narrow tile. A sixth row does 116, but 54 instead of 91 where products are rounded before
 * they are added.
 *
 * Its sums are the narrow tile's, bit by bit: who computes them is chosen by the clock.
 */
import { fma, zero } from "./simd";
import { ROWS } from "./tile_narrow";

/**
 * out (5, 16) = Σ over k of a[k][0 … 4] ⊗ b[k][0 … 15], or that added to it.
 *
 * @param a Five floats for each k, one k after the other.
 * @param b Sixteen floats for each k, one k after the other.
 * @param out Rows of sixteen floats, one after the other.
 * @param first Whether to start from zero and not from what `out` holds.
 */
// @ts-ignore: decorator
@inline
export function tileWide(a: usize, b: usize, depth: usize, out: usize, first: bool): void {
  if (first) beginWide(a, b, depth, out);
  else goOnWide(a, b, depth, out);
}

/*
 * Sums that begin and sums that go on are functions of their own: where both flow into one loop, its pairs do 100
 * GFLOP/s and not 110. Without pairs it makes no difference.
 */

function beginWide(a: usize, b: usize, depth: usize, out: usize): void {
  multiplyWide(a, b, depth, out, true);
}

function goOnWide(a: usize, b: usize, depth: usize, out: usize): void {
  multiplyWide(a, b, depth, out, false);
}

// @ts-ignore: decorator
@inline
function multiplyWide(a: usize, b: usize, depth: usize, out: usize, first: bool): void {
  let c00 = zero(), c01 = zero(), c02 = zero(), c03 = zero();
  let c10 = zero(), c11 = zero(), c12 = zero(), c13 = zero();
  let c20 = zero(), c21 = zero(), c22 = zero(), c23 = zero();
  let c30 = zero(), c31 = zero(), c32 = zero(), c33 = zero();
  let c40 = zero(), c41 = zero(), c42 = zero(), c43 = zero();
  if (!first) {
    c00 = v128.load(out), c01 = v128.load(out, 16), c02 = v128.load(out, 32), c03 = v128.load(out, 48);
    c10 = v128.load(out, 64), c11 = v128.load(out, 80), c12 = v128.load(out, 96), c13 = v128.load(out, 112);
    c20 = v128.load(out, 128), c21 = v128.load(out, 144), c22 = v128.load(out, 160), c23 = v128.load(out, 176);
    c30 = v128.load(out, 192), c31 = v128.load(out, 208), c32 = v128.load(out, 224), c33 = v128.load(out, 240);
    c40 = v128.load(out, 256), c41 = v128.load(out, 272), c42 = v128.load(out, 288), c43 = v128.load(out, 304);
  }
  const end = b + depth * 64;
  while (b != end) {
    const b0 = v128.load(b), b1 = v128.load(b, 16), b2 = v128.load(b, 32), b3 = v128.load(b, 48);
    let s = v128.load32_splat(a);
    c00 = fma(s, b0, c00), c01 = fma(s, b1, c01), c02 = fma(s, b2, c02), c03 = fma(s, b3, c03);
    s = v128.load32_splat(a, 4);
    c10 = fma(s, b0, c10), c11 = fma(s, b1, c11), c12 = fma(s, b2, c12), c13 = fma(s, b3, c13);
    s = v128.load32_splat(a, 8);
    c20 = fma(s, b0, c20), c21 = fma(s, b1, c21), c22 = fma(s, b2, c22), c23 = fma(s, b3, c23);
    s = v128.load32_splat(a, 12);
    c30 = fma(s, b0, c30), c31 = fma(s, b1, c31), c32 = fma(s, b2, c32), c33 = fma(s, b3, c33);
    s = v128.load32_splat(a, 16);
    c40 = fma(s, b0, c40), c41 = fma(s, b1, c41), c42 = fma(s, b2, c42), c43 = fma(s, b3, c43);
    a += ROWS * 4, b += 64;
  }
  v128.store(out, c00), v128.store(out, c01, 16), v128.store(out, c02, 32), v128.store(out, c03, 48);
  v128.store(out, c10, 64), v128.store(out, c11, 80), v128.store(out, c12, 96), v128.store(out, c13, 112);
  v128.store(out, c20, 128), v128.store(out, c21, 144), v128.store(out, c22, 160), v128.store(out, c23, 176);
  v128.store(out, c30, 192), v128.store(out, c31, 208), v128.store(out, c32, 224), v128.store(out, c33, 240);
  v128.store(out, c40, 256), v128.store(out, c41, 272), v128.store(out, c42, 288), v128.store(out, c43, 304);
}
