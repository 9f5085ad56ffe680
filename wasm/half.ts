/**
 * Half-precision floats: exact to f32, correctly rounded (nearest, ties to even) from it; subnormal
 * numbers, infinities and NaN included. Four at a time, as the low 16 bits of each lane, or eight in a row.
 */
import { interleaveHigh, interleaveLow, zero } from "./simd";

/** As in `math.ts`, constants of loops come from memory. */
const CONSTANTS: usize = memory.data<u32>([
  0x7fff,
  0x77800000, // 1: 2¹¹²
  0x0f7fffff,
  0x7f800000, // 3: infinity
  0x8000,
  0x8fffe000, // 5: sign and magnitude of a half that was shifted by three
  0x7fff7fff, // 6: the magnitudes of two
  0x80000000, // 7: the sign
  0x3f000000, // 8: ½
  0xc8000fff, // 9
  0x38800000, // 10: 2⁻¹⁴
  0x47800000, // 11: 2¹⁶
  0x7c00, // 12
  0x7e00, // 13
  1, // 14
  0x477fe000, // 15: 65504
]);

// @ts-ignore: decorator
@inline
function constant(i: usize): v128 {
  return v128.load32_splat(CONSTANTS + i * 4);
}

/** The halves in the lanes' low 16 bits (the high ones are zero) as f32. */
// @ts-ignore: decorator
@inline
export function fromHalf(h: v128): v128 {
  const magnitude = i32x4.shl(v128.and(h, constant(0)), 13);
  // The exponent's bias moves from 15 to 127 by an exact product with 2¹¹², which also normalises subnormals.
  const value = f32x4.mul(magnitude, constant(1));
  const special = v128.and(i32x4.gt_s(magnitude, constant(2)), constant(3));
  const sign = i32x4.shl(v128.and(h, constant(4)), 16);
  return v128.or(v128.or(value, special), sign);
}

/** The even ones of eight halves, times 2⁻¹¹²: the bits of a half, moved to where f32 has them. */
// @ts-ignore: decorator
@inline
export function evenHalves(halves: v128, mask: v128): v128 {
  return v128.and(i32x4.shr_s(i32x4.shl(halves, 16), 3), mask);
}

/** The odd ones. */
// @ts-ignore: decorator
@inline
export function oddHalves(halves: v128, mask: v128): v128 {
  return v128.and(i32x4.shr_s(halves, 3), mask);
}

/** What {@linkcode evenHalves} and {@linkcode oddHalves} take as their mask. */
// @ts-ignore: decorator
@inline
export function halvesMask(): v128 {
  return constant(5);
}

/** Carries the largest magnitudes of eight halves on. */
// @ts-ignore: decorator
@inline
export function largestHalves(largest: v128, halves: v128): v128 {
  return i16x8.max_u(largest, v128.and(halves, constant(6)));
}

/** Whether all halves of such magnitudes are finite. */
// @ts-ignore: decorator
@inline
export function areFinite(largest: v128): bool {
  return !v128.any_true(i16x8.ge_u(largest, i16x8.splat(0x7c00)));
}

/** Unpacks rows of sixteen halves, one behind the other, into rows of floats `step` bytes apart. */
export function unpackHalves(from: usize, rows: usize, to: usize, step: usize): void {
  const mask = halvesMask();
  const factor = constant(1);
  let largest = zero();
  const end = from + rows * 32;
  for (let p = from, q = to; p < end; p += 32, q += step) {
    const v = v128.load(p), w = v128.load(p + 16);
    largest = largestHalves(largestHalves(largest, v), w);
    let even = f32x4.mul(evenHalves(v, mask), factor);
    let odd = f32x4.mul(oddHalves(v, mask), factor);
    v128.store(q, interleaveLow(even, odd));
    v128.store(q + 16, interleaveHigh(even, odd));
    even = f32x4.mul(evenHalves(w, mask), factor);
    odd = f32x4.mul(oddHalves(w, mask), factor);
    v128.store(q + 32, interleaveLow(even, odd));
    v128.store(q + 48, interleaveHigh(even, odd));
  }
  if (areFinite(largest)) return;
  for (let p = from, q = to; p < end; p += 32, q += step) {
    for (let i: usize = 0; i < 2; i++) {
      const halves = v128.load(p + i * 16);
      v128.store(q + i * 32, fromHalf(i32x4.extend_low_i16x8_u(halves)));
      v128.store(q + i * 32 + 16, fromHalf(i32x4.extend_high_i16x8_u(halves)));
    }
  }
}

/** f32 as halves in the lanes' low 16 bits. */
// @ts-ignore: decorator
@inline
export function toHalf(x: v128): v128 {
  const sign = v128.and(x, constant(7));
  const a = v128.xor(x, sign);
  // Below 2⁻¹⁴ the result is subnormal: adding ½ lets the adder round at the right bit.
  const small = i32x4.sub(f32x4.add(a, constant(8)), constant(8));
  const odd = v128.and(i32x4.shr_u(a, 13), constant(14));
  // Rebias by −112 and add just under half a unit, one more when the kept part is odd.
  const normal = i32x4.shr_u(i32x4.add(i32x4.add(a, constant(9)), odd), 13);
  let result = v128.bitselect(small, normal, i32x4.lt_s(a, constant(10)));
  result = v128.bitselect(constant(12), result, i32x4.ge_s(a, constant(11)));
  result = v128.bitselect(constant(13), result, i32x4.gt_s(a, constant(3)));
  return v128.or(result, i32x4.shr_u(sign, 16));
}

/** {@linkcode toHalf}, but for what is finite and too large: that becomes the largest half, ±65504. */
// @ts-ignore: decorator
@inline
export function toHalfSaturated(x: v128): v128 {
  const sign = v128.and(x, constant(7));
  const a = v128.xor(x, sign);
  const within = f32x4.pmin(constant(15), a); // 65504 for NaN too
  const finite = i32x4.lt_s(a, constant(3));
  return toHalf(v128.or(v128.bitselect(within, a, finite), sign));
}
