/**
 * The few vector operations that every kernel is made of.
 *
 * The sources of `wasm/` are AssemblyScript: TypeScript's syntax over WebAssembly's types, with
 * `@inline` in front of functions. They are compiled twice by `deno task build`: strict (fixed-width
 * SIMD, every product rounded before it is added: the same bits on every machine) and relaxed (the
 * machine's fused multiply-add).
 */

/** a · b + c; fused in the relaxed build. */
// @ts-ignore: decorator
@inline
export function fma(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, c);
  return f32x4.add(f32x4.mul(a, b), c);
}

/** Two products a lane of 16 bits, of bytes with a sign and bytes of 7 bits without one; sums are to hold in 16 bits. */
// @ts-ignore: decorator
@inline
export function pairs(signed: v128, unsigned: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i16x8.relaxed_dot_i8x16_i7x16_s(signed, unsigned);
  const low = i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_s(signed), i16x8.extend_low_i8x16_u(unsigned));
  const high = i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_s(signed), i16x8.extend_high_i8x16_u(unsigned));
  return i16x8.narrow_i32x4_s(low, high);
}

/** Four zeros. */
// @ts-ignore: decorator
@inline
export function zero(): v128 {
  return v128.splat<i32>(0);
}

/** The sum of four lanes, always in the same order. */
// @ts-ignore: decorator
@inline
export function sumLanes(v: v128): f32 {
  return (
    (f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1)) +
    (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3))
  );
}

/** The largest of four lanes; NaN if one is. */
// @ts-ignore: decorator
@inline
export function maxLanes(v: v128): f32 {
  return max<f32>(
    max<f32>(f32x4.extract_lane(v, 0), f32x4.extract_lane(v, 1)),
    max<f32>(f32x4.extract_lane(v, 2), f32x4.extract_lane(v, 3)),
  );
}

/** The first `count` (1 to 4) floats at `p` and zeros, reading nothing beyond them. */
export function loadSome(p: usize, count: usize): v128 {
  if (count >= 4) return v128.load(p);
  let v = v128.load32_zero(p);
  if (count > 1) v = v128.load32_lane(p, v, 1, 4);
  if (count > 2) v = v128.load32_lane(p, v, 2, 8);
  return v;
}

/** {@linkcode loadSome} with the whole vector's case in line. */
// @ts-ignore: decorator
@inline
export function loadUpTo(p: usize, count: usize): v128 {
  return count >= 4 ? v128.load(p) : loadSome(p, count);
}

/** Stores the first `count` (1 to 4) lanes at `p`, writing nothing beyond them. */
export function storeSome(p: usize, v: v128, count: usize): void {
  if (count >= 4) {
    v128.store(p, v);
    return;
  }
  v128.store32_lane(p, v, 0);
  if (count > 1) v128.store32_lane(p, v, 1, 4);
  if (count > 2) v128.store32_lane(p, v, 2, 8);
}

/** {@linkcode storeSome} with the whole vector's case in line. */
// @ts-ignore: decorator
@inline
export function storeUpTo(p: usize, v: v128, count: usize): void {
  if (count >= 4) v128.store(p, v);
  else storeSome(p, v, count);
}

/** a0 b0 a1 b1 */
// @ts-ignore: decorator
@inline
export function interleaveLow(a: v128, b: v128): v128 {
  return v128.shuffle<i32>(a, b, 0, 4, 1, 5);
}

/** a2 b2 a3 b3 */
// @ts-ignore: decorator
@inline
export function interleaveHigh(a: v128, b: v128): v128 {
  return v128.shuffle<i32>(a, b, 2, 6, 3, 7);
}

/** a0 a1 b0 b1 */
// @ts-ignore: decorator
@inline
export function lowHalves(a: v128, b: v128): v128 {
  return v128.shuffle<i64>(a, b, 0, 2);
}

/** a2 a3 b2 b3 */
// @ts-ignore: decorator
@inline
export function highHalves(a: v128, b: v128): v128 {
  return v128.shuffle<i64>(a, b, 1, 3);
}

/** One lane four times. */
// @ts-ignore: decorator
@inline
export function lane0(v: v128): v128 {
  return v128.shuffle<i32>(v, v, 0, 0, 0, 0);
}
// @ts-ignore: decorator
@inline
export function lane1(v: v128): v128 {
  return v128.shuffle<i32>(v, v, 1, 1, 1, 1);
}
// @ts-ignore: decorator
@inline
export function lane2(v: v128): v128 {
  return v128.shuffle<i32>(v, v, 2, 2, 2, 2);
}
// @ts-ignore: decorator
@inline
export function lane3(v: v128): v128 {
  return v128.shuffle<i32>(v, v, 3, 3, 3, 3);
}

/** Writes the transpose of the 4 × 4 block at `from` (rows `fromStep` bytes apart) to `to`. */
// @ts-ignore: decorator
@inline
export function transpose4x4(from: usize, fromStep: usize, to: usize, toStep: usize): void {
  const r0 = v128.load(from);
  const r1 = v128.load(from + fromStep);
  const r2 = v128.load(from + 2 * fromStep);
  const r3 = v128.load(from + 3 * fromStep);
  const a = interleaveLow(r0, r1);
  const b = interleaveLow(r2, r3);
  const c = interleaveHigh(r0, r1);
  const d = interleaveHigh(r2, r3);
  v128.store(to, lowHalves(a, b));
  v128.store(to + toStep, highHalves(a, b));
  v128.store(to + 2 * toStep, lowHalves(c, d));
  v128.store(to + 3 * toStep, highHalves(c, d));
}
