/**
 * exp, log and what GELU needs, four lanes at a time: the project's own, so that results depend on no
 * host's libm. Relative errors are about 2e-7; NaN stays NaN.
 */
import { fma } from "./simd";

/**
 * Constants that loops use, in memory: V8 builds a `v128.const` anew at every use, by five instructions,
 * and a broadcast from a constant address is one, without a check of its bounds (GELU took 2.4 ns an
 * element one way and 1.3 the other on a Zen 4 core).
 */
const CONSTANTS: usize = memory.data<f32>([
  1.0, // 0
  -87.33, // 1: below, exp is no normal number
  88.37, // 2: above, it is none either
  1.44269504088896341, // 3: 1 / ln 2
  12582912.0, // 4: 1.5 · 2²³
  -0.693359375, // 5: −ln 2, its leading bits
  2.12194440e-4, // 6: and the rest
  1.9875691500e-4, // 7
  1.3981999507e-3, // 8
  8.3334519073e-3, // 9
  4.1665795894e-2, // 10
  1.6666665459e-1, // 11
  5.0000001201e-1, // 12
  -1.5957691216057308, // 13: −2 sqrt(2 / π)
  -0.07135481627159601, // 14: that times 0.044715
  -0.21406444881478803, // 15: that times 3
  30.0, // 16
  -30.0, // 17
]);

// @ts-ignore: decorator
@inline
function constant(i: usize): v128 {
  return v128.load32_splat(CONSTANTS + i * 4);
}

/**
 * exp(x) = 2ⁿ · exp(r) with x = n · ln 2 + r; the polynomial and the split of ln 2 are those of
 * Cephes' `expf` (Stephen Moshier). 0 below −87.33, where f32's normal numbers end; exp(88.37) above.
 */
// @ts-ignore: decorator
@inline
export function exp(x: v128): v128 {
  const tiny = f32x4.lt(x, constant(1));
  x = f32x4.pmax(f32x4.pmin(x, constant(2)), constant(1));
  // Adding 1.5 · 2²³ rounds to the nearest whole number and leaves it in the low bits.
  const shifted = fma(x, constant(3), constant(4));
  const n = f32x4.sub(shifted, constant(4));
  let r = fma(n, constant(5), x);
  r = fma(n, constant(6), r);
  let p = fma(constant(7), r, constant(8));
  p = fma(p, r, constant(9));
  p = fma(p, r, constant(10));
  p = fma(p, r, constant(11));
  p = fma(p, r, constant(12));
  p = fma(p, f32x4.mul(r, r), f32x4.add(r, constant(0)));
  return v128.andnot(i32x4.add(p, i32x4.shl(shifted, 23)), tiny);
}

/**
 * ln(x) for normal positive x: x = 2ᵉ · m with m in [√½, √2), then the polynomial of Cephes' `logf`.
 */
export function log(x: f32): f32 {
  let bits = reinterpret<u32>(x);
  let e: i32 = <i32> (bits >> 23) - 126;
  let m = reinterpret<f32>((bits & 0x007fffff) | 0x3f000000);
  if (m < 0.70710678118654752) {
    e -= 1;
    m += m;
  }
  m -= 1.0;
  const z = m * m;
  let p: f32 = 7.0376836292e-2;
  p = p * m - 1.1514610310e-1;
  p = p * m + 1.1676998740e-1;
  p = p * m - 1.2420140846e-1;
  p = p * m + 1.4249322787e-1;
  p = p * m - 1.6668057665e-1;
  p = p * m + 2.0000714765e-1;
  p = p * m - 2.4999993993e-1;
  p = p * m + 3.3333331174e-1;
  let y = p * m * z;
  y += <f32> e * <f32> -2.12194440e-4;
  y -= 0.5 * z;
  const result = m + y + <f32> e * <f32> 0.693359375;
  return x == x ? result : x;
}

/** exp(−2u), u = sqrt(2 / π) · (x + 0.044715 x³) */
// @ts-ignore: decorator
@inline
function decline(x: v128, xx: v128): v128 {
  return exp(f32x4.mul(x, fma(xx, constant(14), constant(13))));
}

/** GPT-2's GELU: ½x(1 + tanh u) is x · σ(2u). */
// @ts-ignore: decorator
@inline
export function gelu(x: v128): v128 {
  return f32x4.div(x, f32x4.add(constant(0), decline(x, f32x4.mul(x, x))));
}

/** Its derivative: σ + x · σ(1 − σ) · (2u)′, with 1 − σ as exp(−2u) · σ, where nothing cancels. */
// @ts-ignore: decorator
@inline
export function geluSlope(x: v128): v128 {
  // Beyond ±30 the slope is 0 or 1 to the last bit, and x² would overflow in time.
  x = f32x4.pmax(f32x4.pmin(x, constant(16)), constant(17));
  const xx = f32x4.mul(x, x);
  const e = decline(x, xx);
  const s = f32x4.div(constant(0), f32x4.add(constant(0), e));
  const slope = fma(xx, constant(15), constant(13)); // −(2u)′
  const rise = f32x4.mul(f32x4.mul(x, slope), f32x4.mul(e, s));
  return f32x4.sub(s, f32x4.mul(s, rise));
}
