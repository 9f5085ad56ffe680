/**
 * One row times a panel of sixteen columns of halves, at the speed of memory: matrix-vector work with frozen f16
 * weights, and decoding's attention over a cache of halves.
 *
 * A half's bits, moved to where f32 has them, are that number times 2⁻¹¹², subnormal ones too: sign and fifteen
 * bits by a shift and a mask. Factors that were multiplied by 2¹¹² beforehand give products that are, before any
 * rounding, those of the numbers themselves: so every sum has exactly the bits that come of unpacking first.
 * That fails where a factor times 2¹¹² is infinite (from 2¹⁶ on), which {@linkcode scaleForHalves} tells, and for
 * the halves that are infinite or NaN, which {@linkcode rowOfHalves} tells; both are computed the long way then.
 * So a Zen 4 core does 11 G weights/s (13 if it did not look for those), and 6 with every half multiplied by 2¹¹².
 */
import { areFinite, evenHalves, halvesMask, largestHalves, oddHalves } from "./half";
import { fma, interleaveHigh, interleaveLow, loadUpTo, storeUpTo, zero } from "./simd";

/** to (count) = x · 2¹¹²; false if that is too large for f32 somewhere. */
export function scaleForHalves(x: usize, count: usize, to: usize): bool {
  const factor = f32x4.splat(reinterpret<f32>(0x77800000));
  const limit = f32x4.splat(65536.0);
  let beyond = zero();
  for (let i: usize = 0; i < count; i += 4) {
    const v = loadUpTo(x + i * 4, count - i);
    beyond = v128.or(beyond, f32x4.ge(f32x4.abs(v), limit));
    storeUpTo(to + i * 4, f32x4.mul(v, factor), count - i);
  }
  return !v128.any_true(beyond);
}

/**
 * out (16) = Σ over k of a[k] · b[k][0 … 15], or that added to it.
 *
 * @param a Factors, already times 2¹¹².
 * @param b Rows of sixteen halves.
 * @param first Whether to start from zero and not from what `out` holds.
 * @returns Whether all halves are finite; if not, `out` is as it was.
 */
export function rowOfHalves(a: usize, b: usize, depth: usize, out: usize, first: bool): bool {
  let c0 = zero(), c1 = zero(), c2 = zero(), c3 = zero();
  if (!first) {
    const n0 = v128.load(out), n1 = v128.load(out, 16), n2 = v128.load(out, 32), n3 = v128.load(out, 48);
    c0 = v128.shuffle<i32>(n0, n1, 0, 2, 4, 6), c1 = v128.shuffle<i32>(n0, n1, 1, 3, 5, 7);
    c2 = v128.shuffle<i32>(n2, n3, 0, 2, 4, 6), c3 = v128.shuffle<i32>(n2, n3, 1, 3, 5, 7);
  }
  const mask = halvesMask();
  let largest = zero();
  const end = b + depth * 32;
  while (b != end) {
    const s = v128.load32_splat(a);
    const v = v128.load(b), w = v128.load(b + 16);
    largest = largestHalves(largestHalves(largest, v), w);
    c0 = fma(s, evenHalves(v, mask), c0);
    c1 = fma(s, oddHalves(v, mask), c1);
    c2 = fma(s, evenHalves(w, mask), c2);
    c3 = fma(s, oddHalves(w, mask), c3);
    a += 4, b += 32;
  }
  if (!areFinite(largest)) return false;
  v128.store(out, interleaveLow(c0, c1)), v128.store(out, interleaveHigh(c0, c1), 16);
  v128.store(out, interleaveLow(c2, c3), 32), v128.store(out, interleaveHigh(c2, c3), 48);
  return true;
}

/**
 * out (M, 16) = a (M, K) · b (K, 16).
 *
 * @param a Factors, already times 2¹¹².
 * @param b Halves.
 * @returns Whether all halves are finite; if not, `out` is to be computed otherwise.
 */
export function rowsOfHalves(a: usize, M: usize, K: usize, b: usize, out: usize): bool {
  for (let m: usize = 0; m < M; m++, a += K * 4, out += 64) {
    if (!rowOfHalves(a, b, K, out, true)) return false;
  }
  return true;
}
