/**
 * Low-rank updates of which every row has its own: requests with different adapters in one batch (as in S-LoRA, Sheng et
 * al. 2023). A row's result has the same bits whoever is beside it, and those that the adapter gives by itself: its sums
 * are chains of multiply-adds in the order of k and of r, and what they come to is scaled and added, as in matmul.ts.
 */
import {
  fma,
  highHalves,
  interleaveHigh,
  interleaveLow,
  lane0,
  lane1,
  lane2,
  lane3,
  loadUpTo,
  lowHalves,
  storeUpTo,
  zero,
} from "./simd";

/** The number of no adapter. */
const NONE: u32 = 0xffffffff;

/** Bytes of scratch for {@linkcode lowRankRows}: a row's h, in fours. */
export function lowRankRowsScratch(R: usize): usize {
  return ((R + 3) & ~3) * 4;
}

/**
 * out[t] += scaling[a] · (x[t] A[a]ᵀ) B[a], a = adapters[t], for rows begin … end − 1.
 *
 * @param x (T, K)
 * @param A (adapters, R, K)
 * @param B (adapters, R, N)
 * @param out (T, N)
 */
export function lowRankRows(
  x: usize,
  A: usize,
  B: usize,
  scaling: usize,
  adapters: usize,
  out: usize,
  K: usize,
  N: usize,
  R: usize,
  begin: usize,
  end: usize,
  scratch: usize,
): void {
  for (let t = begin; t < end; t++) {
    const adapter = load<u32>(adapters + t * 4);
    if (adapter == NONE) continue;
    const factor = f32x4.splat(load<f32>(scaling + (<usize> adapter) * 4));
    const a = A + (<usize> adapter) * R * K * 4;
    for (let r: usize = 0; r < R; r += 4) {
      v128.store(scratch + r * 4, fourProducts(x + t * K * 4, a + r * K * 4, K, R - r));
    }
    const b = B + (<usize> adapter) * R * N * 4;
    for (let n: usize = 0; n < N; n += 16) {
      addSixteen(scratch, b + n * 4, N, R, factor, out + (t * N + n) * 4, N - n);
    }
  }
}

/** Σ over k of x[k] · a[r][k] of four rows of `a`; of those that are not there whatever the last one gives. */
function fourProducts(x: usize, a: usize, K: usize, rows: usize): v128 {
  let p0 = a;
  let p1 = rows > 1 ? p0 + K * 4 : p0;
  let p2 = rows > 2 ? p1 + K * 4 : p1;
  let p3 = rows > 3 ? p2 + K * 4 : p2;
  let sum = zero();
  let k: usize = 0;
  for (; k + 4 <= K; k += 4, x += 16, p0 += 16, p1 += 16, p2 += 16, p3 += 16) {
    const r0 = v128.load(p0), r1 = v128.load(p1), r2 = v128.load(p2), r3 = v128.load(p3);
    const l01 = interleaveLow(r0, r1), l23 = interleaveLow(r2, r3);
    const h01 = interleaveHigh(r0, r1), h23 = interleaveHigh(r2, r3);
    const four = v128.load(x);
    sum = fma(lane0(four), lowHalves(l01, l23), sum);
    sum = fma(lane1(four), highHalves(l01, l23), sum);
    sum = fma(lane2(four), lowHalves(h01, h23), sum);
    sum = fma(lane3(four), highHalves(h01, h23), sum);
  }
  for (; k < K; k++, x += 4, p0 += 4, p1 += 4, p2 += 4, p3 += 4) {
    let column = v128.load32_zero(p0);
    column = v128.load32_lane(p1, column, 1);
    column = v128.load32_lane(p2, column, 2);
    column = v128.load32_lane(p3, column, 3);
    sum = fma(v128.load32_splat(x), column, sum);
  }
  return sum;
}

/** out[n] += factor · Σ over r of h[r] · b[r][n], of up to sixteen columns. */
function addSixteen(h: usize, b: usize, N: usize, R: usize, factor: v128, out: usize, count: usize): void {
  if (count < 16) {
    for (let n: usize = 0; n < count; n += 4) {
      const left = count - n;
      let sum = zero();
      for (let r: usize = 0; r < R; r++) {
        sum = fma(v128.load32_splat(h + r * 4), loadUpTo(b + (r * N + n) * 4, left), sum);
      }
      const to = out + n * 4;
      storeUpTo(to, f32x4.add(f32x4.mul(sum, factor), loadUpTo(to, left)), left);
    }
    return;
  }
  let s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
  for (let r: usize = 0; r < R; r++, b += N * 4) {
    const s = v128.load32_splat(h + r * 4);
    s0 = fma(s, v128.load(b), s0);
    s1 = fma(s, v128.load(b + 16), s1);
    s2 = fma(s, v128.load(b + 32), s2);
    s3 = fma(s, v128.load(b + 48), s3);
  }
  v128.store(out, f32x4.add(f32x4.mul(s0, factor), v128.load(out)));
  v128.store(out, f32x4.add(f32x4.mul(s1, factor), v128.load(out, 16)), 16);
  v128.store(out, f32x4.add(f32x4.mul(s2, factor), v128.load(out, 32)), 32);
  v128.store(out, f32x4.add(f32x4.mul(s3, factor), v128.load(out, 48)), 48);
}
