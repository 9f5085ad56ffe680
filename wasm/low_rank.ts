/**
 * Low-rank updates of which every row has its own: requests with different adapters in one batch (as in S-LoRA, Sheng et
 * al. 2023). A row's result has the same bits whoever is beside it.
 */
import { fma, loadUpTo, storeUpTo, sumLanes, zero } from "./simd";

/** The number of no adapter. */
const NONE: u32 = 0xffffffff;

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
): void {
  for (let t = begin; t < end; t++) {
    const adapter = load<u32>(adapters + t * 4);
    if (adapter == NONE) continue;
    const factor = load<f32>(scaling + (<usize> adapter) * 4);
    const row = x + t * K * 4;
    let a = A + (<usize> adapter) * R * K * 4;
    let b = B + (<usize> adapter) * R * N * 4;
    for (let r: usize = 0; r < R; r++, a += K * 4, b += N * 4) {
      addScaled(product(row, a, K) * factor, b, out + t * N * 4, N);
    }
  }
}

/** Σ over k of x[k] · a[k], in four vectors of sums. */
function product(x: usize, a: usize, K: usize): f32 {
  let s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
  let k: usize = 0;
  for (; k + 16 <= K; k += 16, x += 64, a += 64) {
    s0 = fma(v128.load(x), v128.load(a), s0);
    s1 = fma(v128.load(x + 16), v128.load(a + 16), s1);
    s2 = fma(v128.load(x + 32), v128.load(a + 32), s2);
    s3 = fma(v128.load(x + 48), v128.load(a + 48), s3);
  }
  for (; k < K; k += 4, x += 16, a += 16) s0 = fma(loadUpTo(x, K - k), loadUpTo(a, K - k), s0);
  return sumLanes(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
}

/** out += h · b. */
function addScaled(h: f32, b: usize, out: usize, N: usize): void {
  const factor = f32x4.splat(h);
  let n: usize = 0;
  for (; n + 4 <= N; n += 4) v128.store(out + n * 4, fma(factor, v128.load(b + n * 4), v128.load(out + n * 4)));
  if (n < N) storeUpTo(out + n * 4, fma(factor, loadUpTo(b + n * 4, N - n), loadUpTo(out + n * 4, N - n)), N - n);
}
