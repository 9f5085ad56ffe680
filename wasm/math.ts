/**
 * exp, log and what GELU needs, four lanes at a time: the project's own, so that results depend on no
 * host's libm. Relative errors are about 2e-7; NaN stays NaN.
 */
import { fma, loadUpTo, storeUpTo, zero } from "./simd";

/**
 * Constants that loops use, in memory: V8 builds a `v128.const` anew at every use, by five instructions,
 * and a broadcast from a constant address is one, without a check of its bounds (GELU took 2.4 ns an element one
 * way and 1.3 the other on a Zen 4 core; 1.07 where a loop of its own has them in registers, or beside its stack).
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
  -0.5, // 18
  14.0, // 19: exp(−x² / 2) is no normal number any more
  0.29, // 20
  0.041162313, // 21
  -0.2019898912, // 22
  0.3256949515, // 23
  -0.1745698991, // 24
  0.2027256035, // 25
  0.0690717091, // 26
  0.1229923508, // 27
  0.1148728726, // 28
  3.999737152e-5, // 29
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
  return expWith(
    x, constant(0), constant(1), constant(2), constant(3), constant(4), constant(5), constant(6),
    constant(7), constant(8), constant(9), constant(10), constant(11), constant(12),
  );
}

/** {@linkcode exp} with the constants, in their order, from whoever keeps them. */
// @ts-ignore: decorator
@inline
function expWith(
  x: v128,
  one: v128,
  least: v128,
  most: v128,
  perLn2: v128,
  magic: v128,
  ln2: v128,
  ln2Rest: v128,
  c6: v128,
  c5: v128,
  c4: v128,
  c3: v128,
  c2: v128,
  c1: v128,
): v128 {
  const tiny = f32x4.lt(x, least);
  x = f32x4.pmax(f32x4.pmin(x, most), least);
  // Adding 1.5 · 2²³ rounds to the nearest whole number and leaves it in the low bits.
  const shifted = fma(x, perLn2, magic);
  const n = f32x4.sub(shifted, magic);
  let r = fma(n, ln2, x);
  r = fma(n, ln2Rest, r);
  let p = fma(c6, r, c5);
  p = fma(p, r, c4);
  p = fma(p, r, c3);
  p = fma(p, r, c2);
  p = fma(p, r, c1);
  p = fma(p, f32x4.mul(r, r), f32x4.add(r, one));
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

/**
 * Exponentials of x − shift for vectors `step` bytes apart.
 *
 * @param keep Whether they take the place of x.
 * @returns `sum` and one after the other, added up.
 */
export function exps(x: usize, end: usize, step: usize, shift: v128, sum: v128, keep: bool): v128 {
  const k0 = constant(0), k1 = constant(1), k2 = constant(2), k3 = constant(3),
    k4 = constant(4), k5 = constant(5), k6 = constant(6), k7 = constant(7),
    k8 = constant(8), k9 = constant(9), k10 = constant(10), k11 = constant(11),
    k12 = constant(12);
  for (; x < end; x += step) {
    const e = expWith(f32x4.sub(v128.load(x), shift), k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11, k12);
    if (keep) v128.store(x, e);
    sum = f32x4.add(sum, e);
  }
  return sum;
}

/** GPT-2's GELU: ½x(1 + tanh u), u = sqrt(2 / π) · (x + 0.044715 x³), is x · σ(2u). */
// @ts-ignore: decorator
@inline
export function gelu(x: v128): v128 {
  const declining = exp(f32x4.mul(x, fma(f32x4.mul(x, x), constant(14), constant(13)))); // exp(−2u)
  return f32x4.div(x, f32x4.add(constant(0), declining));
}

/** out = GELU(x) for floats one after the other. */
export function gelus(x: usize, end: usize, out: usize): void {
  const k0 = constant(0), k1 = constant(1), k2 = constant(2), k3 = constant(3),
    k4 = constant(4), k5 = constant(5), k6 = constant(6), k7 = constant(7),
    k8 = constant(8), k9 = constant(9), k10 = constant(10), k11 = constant(11),
    k12 = constant(12), k13 = constant(13), k14 = constant(14);
  for (; x < end; x += 16, out += 16) {
    const count = (end - x) / 4;
    const v = loadUpTo(x, count);
    const declining = expWith(
      f32x4.mul(v, fma(f32x4.mul(v, v), k14, k13)),
      k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11, k12,
    );
    storeUpTo(out, f32x4.div(v, f32x4.add(k0, declining)), count);
  }
}

/**
 * out = x · Φ(x), Φ(x) = ½(1 + erf(x / √2)) being the normal distribution's, for floats one after the other. With
 * t = |x| it is max(x, 0) − t · Φ(−t), where nothing cancels, and Φ(−t) = exp(−t² / 2) · F(u), u = 1 / (1 + 0.29 t): the
 * form of Hastings (1955; Abramowitz & Stegun 1964, 7.1.26), with a polynomial of degree 8, the best for F's relative
 * error over t < 10 (Remez' exchange): 1.6e-8. Rounding makes that 4e-7 from −1 on, and 2e-7 of Φ itself. An infinite
 * x has its limit, ∞ or 0.
 */
export function exactGelus(x: usize, end: usize, out: usize): void {
  const k0 = constant(0), k1 = constant(1), k2 = constant(2), k3 = constant(3),
    k4 = constant(4), k5 = constant(5), k6 = constant(6), k7 = constant(7),
    k8 = constant(8), k9 = constant(9), k10 = constant(10), k11 = constant(11),
    k12 = constant(12), k18 = constant(18), k19 = constant(19), k20 = constant(20),
    k21 = constant(21), k22 = constant(22), k23 = constant(23), k24 = constant(24),
    k25 = constant(25), k26 = constant(26), k27 = constant(27), k28 = constant(28),
    k29 = constant(29);
  for (; x < end; x += 16, out += 16) {
    const count = (end - x) / 4;
    const v = loadUpTo(x, count);
    const t = f32x4.pmin(f32x4.abs(v), k19);
    const u = f32x4.div(k0, fma(t, k20, k0));
    let f = fma(k21, u, k22);
    f = fma(f, u, k23);
    f = fma(f, u, k24);
    f = fma(f, u, k25);
    f = fma(f, u, k26);
    f = fma(f, u, k27);
    f = fma(f, u, k28);
    f = fma(f, u, k29);
    const bell = expWith(
      f32x4.mul(f32x4.mul(t, t), k18),
      k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11, k12,
    );
    const tail = f32x4.mul(t, f32x4.mul(bell, f));
    storeUpTo(out, f32x4.sub(f32x4.pmax(v, zero()), tail), count);
  }
}

/**
 * out = dOut · GELU′(x), or that added to it, for floats one after the other. The derivative is
 * σ + x · σ(1 − σ) · (2u)′, with 1 − σ as exp(−2u) · σ, where nothing cancels.
 */
export function geluSlopes(x: usize, end: usize, dOut: usize, out: usize, accumulate: bool): void {
  const k0 = constant(0), k1 = constant(1), k2 = constant(2), k3 = constant(3),
    k4 = constant(4), k5 = constant(5), k6 = constant(6), k7 = constant(7),
    k8 = constant(8), k9 = constant(9), k10 = constant(10), k11 = constant(11),
    k12 = constant(12), k13 = constant(13), k14 = constant(14), k15 = constant(15),
    k16 = constant(16), k17 = constant(17);
  for (; x < end; x += 16, dOut += 16, out += 16) {
    const count = (end - x) / 4;
    // Beyond ±30 the slope is 0 or 1 to the last bit, and x² would overflow in time.
    const v = f32x4.pmax(f32x4.pmin(loadUpTo(x, count), k16), k17);
    const square = f32x4.mul(v, v);
    const declining = expWith(
      f32x4.mul(v, fma(square, k14, k13)),
      k0, k1, k2, k3, k4, k5, k6, k7, k8, k9, k10, k11, k12,
    );
    const s = f32x4.div(k0, f32x4.add(k0, declining));
    const slope = fma(square, k15, k13); // −(2u)′
    const rise = f32x4.mul(f32x4.mul(v, slope), f32x4.mul(declining, s));
    let d = f32x4.mul(loadUpTo(dOut, count), f32x4.sub(s, f32x4.mul(s, rise)));
    if (accumulate) d = f32x4.add(d, loadUpTo(out, count));
    storeUpTo(out, d, count);
  }
}
