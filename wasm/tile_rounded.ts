/**
 * The tiles of products in whole numbers: 4 rows by 8 columns, or by 16 for engines that compute with 256 bits.
 *
 * Four rows' activations come in one load and are spread by shuffles: loads cost most here, for V8 checks every
 * one's bounds. What is at `out` is loaded in one go, and its pairs are stored side by side, so that V8 can pair
 * what comes between (tile_wide.ts). On a Zen 4 core, with 8-bit weights, Gop/s of whole products: 73, in pairs 105; the
 * wide tile 52, in pairs 130. The whole numbers are exact: both tiles give the same bits.
 */
import { fma, lane0, lane1, lane2, lane3, zero } from "./simd";

/** c + two products a lane. */
// @ts-ignore: decorator
@inline
export function dot(w: v128, x: v128, c: v128): v128 {
  return i32x4.add(c, i32x4.dot_i16x8_s(w, x));
}

// @ts-ignore: decorator
@inline
function addScaled(sum: v128, scale: v128, to: v128): v128 {
  return fma(f32x4.convert_i32x4_s(sum), scale, to);
}

/**
 * out (4, 8) = Σ over pairs of k of a[pair][0 … 3] ⊗ b[pair][0 … 7], times each row's scale, or that added to it.
 *
 * @param scales One for each row, `scaleStep` bytes apart.
 * @param out Rows of eight floats, 64 bytes apart.
 */
export function tileRounded(
  a: usize,
  b: usize,
  pairs: usize,
  scales: usize,
  scaleStep: usize,
  out: usize,
  first: bool,
): void {
  let c00 = zero(), c01 = zero(), c10 = zero(), c11 = zero();
  let c20 = zero(), c21 = zero(), c30 = zero(), c31 = zero();
  for (const end = a + pairs * 16; a < end; a += 16, b += 32) {
    const w0 = v128.load(b), w1 = v128.load(b + 16), x = v128.load(a);
    let s = lane0(x);
    c00 = dot(w0, s, c00), c01 = dot(w1, s, c01);
    s = lane1(x);
    c10 = dot(w0, s, c10), c11 = dot(w1, s, c11);
    s = lane2(x);
    c20 = dot(w0, s, c20), c21 = dot(w1, s, c21);
    s = lane3(x);
    c30 = dot(w0, s, c30), c31 = dot(w1, s, c31);
  }
  let d00 = zero(), d01 = zero(), d10 = zero(), d11 = zero();
  let d20 = zero(), d21 = zero(), d30 = zero(), d31 = zero();
  if (!first) {
    d00 = v128.load(out), d01 = v128.load(out, 16);
    d10 = v128.load(out, 64), d11 = v128.load(out, 80);
    d20 = v128.load(out, 128), d21 = v128.load(out, 144);
    d30 = v128.load(out, 192), d31 = v128.load(out, 208);
  }
  let s = v128.load32_splat(scales);
  d00 = addScaled(c00, s, d00), d01 = addScaled(c01, s, d01);
  s = v128.load32_splat(scales + scaleStep);
  d10 = addScaled(c10, s, d10), d11 = addScaled(c11, s, d11);
  s = v128.load32_splat(scales + 2 * scaleStep);
  d20 = addScaled(c20, s, d20), d21 = addScaled(c21, s, d21);
  s = v128.load32_splat(scales + 3 * scaleStep);
  d30 = addScaled(c30, s, d30), d31 = addScaled(c31, s, d31);
  v128.store(out, d00), v128.store(out, d01, 16);
  v128.store(out, d10, 64), v128.store(out, d11, 80);
  v128.store(out, d20, 128), v128.store(out, d21, 144);
  v128.store(out, d30, 192), v128.store(out, d31, 208);
}

/**
 * {@linkcode tileRounded} of 16 columns.
 *
 * @param b The first eight columns.
 * @param c The other eight.
 * @param out Rows of sixteen floats, one after the other.
 */
export function tileRoundedWide(
  a: usize,
  b: usize,
  c: usize,
  pairs: usize,
  scales: usize,
  scaleStep: usize,
  out: usize,
  first: bool,
): void {
  let c00 = zero(), c01 = zero(), c02 = zero(), c03 = zero();
  let c10 = zero(), c11 = zero(), c12 = zero(), c13 = zero();
  let c20 = zero(), c21 = zero(), c22 = zero(), c23 = zero();
  let c30 = zero(), c31 = zero(), c32 = zero(), c33 = zero();
  for (const end = a + pairs * 16; a < end; a += 16, b += 32, c += 32) {
    const w0 = v128.load(b), w1 = v128.load(b, 16), w2 = v128.load(c), w3 = v128.load(c, 16);
    let s = v128.load32_splat(a);
    c00 = dot(w0, s, c00), c01 = dot(w1, s, c01), c02 = dot(w2, s, c02), c03 = dot(w3, s, c03);
    s = v128.load32_splat(a, 4);
    c10 = dot(w0, s, c10), c11 = dot(w1, s, c11), c12 = dot(w2, s, c12), c13 = dot(w3, s, c13);
    s = v128.load32_splat(a, 8);
    c20 = dot(w0, s, c20), c21 = dot(w1, s, c21), c22 = dot(w2, s, c22), c23 = dot(w3, s, c23);
    s = v128.load32_splat(a, 12);
    c30 = dot(w0, s, c30), c31 = dot(w1, s, c31), c32 = dot(w2, s, c32), c33 = dot(w3, s, c33);
  }
  let d00 = zero(), d01 = zero(), d02 = zero(), d03 = zero();
  let d10 = zero(), d11 = zero(), d12 = zero(), d13 = zero();
  let d20 = zero(), d21 = zero(), d22 = zero(), d23 = zero();
  let d30 = zero(), d31 = zero(), d32 = zero(), d33 = zero();
  if (!first) {
    d00 = v128.load(out), d01 = v128.load(out, 16), d02 = v128.load(out, 32), d03 = v128.load(out, 48);
    d10 = v128.load(out, 64), d11 = v128.load(out, 80), d12 = v128.load(out, 96), d13 = v128.load(out, 112);
    d20 = v128.load(out, 128), d21 = v128.load(out, 144), d22 = v128.load(out, 160), d23 = v128.load(out, 176);
    d30 = v128.load(out, 192), d31 = v128.load(out, 208), d32 = v128.load(out, 224), d33 = v128.load(out, 240);
  }
  let s = v128.load32_splat(scales);
  d00 = addScaled(c00, s, d00), d01 = addScaled(c01, s, d01), d02 = addScaled(c02, s, d02), d03 = addScaled(c03, s, d03);
  s = v128.load32_splat(scales + scaleStep);
  d10 = addScaled(c10, s, d10), d11 = addScaled(c11, s, d11), d12 = addScaled(c12, s, d12), d13 = addScaled(c13, s, d13);
  s = v128.load32_splat(scales + 2 * scaleStep);
  d20 = addScaled(c20, s, d20), d21 = addScaled(c21, s, d21), d22 = addScaled(c22, s, d22), d23 = addScaled(c23, s, d23);
  s = v128.load32_splat(scales + 3 * scaleStep);
  d30 = addScaled(c30, s, d30), d31 = addScaled(c31, s, d31), d32 = addScaled(c32, s, d32), d33 = addScaled(c33, s, d33);
  v128.store(out, d00), v128.store(out, d01, 16), v128.store(out, d02, 32), v128.store(out, d03, 48);
  v128.store(out, d10, 64), v128.store(out, d11, 80), v128.store(out, d12, 96), v128.store(out, d13, 112);
  v128.store(out, d20, 128), v128.store(out, d21, 144), v128.store(out, d22, 160), v128.store(out, d23, 176);
  v128.store(out, d30, 192), v128.store(out, d31, 208), v128.store(out, d32, 224), v128.store(out, d33, 240);
}
