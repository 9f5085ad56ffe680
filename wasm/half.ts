/**
 * Half-precision floats: exact to f32, correctly rounded (nearest, ties to even) from it; subnormal
 * numbers, infinities and NaN included. Four at a time, as the low 16 bits of each lane.
 */

/** As in `math.ts`, constants of loops come from memory. */
const CONSTANTS: usize = memory.data<u32>([0x7fff, 0x77800000, 0x0f7fffff, 0x7f800000, 0x8000]);

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

/** f32 as halves in the lanes' low 16 bits. */
export function toHalf(x: v128): v128 {
  const sign = v128.and(x, i32x4.splat(0x80000000));
  const a = v128.xor(x, sign);
  // Below 2⁻¹⁴ the result is subnormal: adding ½ lets the adder round at the right bit.
  const half = i32x4.splat(0x3f000000);
  const small = i32x4.sub(f32x4.add(a, half), half);
  const odd = v128.and(i32x4.shr_u(a, 13), i32x4.splat(1));
  // Rebias by −112 and add just under half a unit, one more when the kept part is odd.
  const normal = i32x4.shr_u(i32x4.add(i32x4.add(a, i32x4.splat(0xc8000fff)), odd), 13);
  let result = v128.bitselect(small, normal, i32x4.lt_s(a, i32x4.splat(0x38800000)));
  result = v128.bitselect(i32x4.splat(0x7c00), result, i32x4.ge_s(a, i32x4.splat(0x47800000)));
  result = v128.bitselect(i32x4.splat(0x7e00), result, i32x4.gt_s(a, i32x4.splat(0x7f800000)));
  return v128.or(result, i32x4.shr_u(sign, 16));
}
