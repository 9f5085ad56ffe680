/** Long sums, in an order that depends on the sizes alone. */
import { fma, loadUpTo, storeUpTo, sumLanes, zero } from "./simd";

/** Columns begin … end − 1 (begin a multiple of 16) of out (N) += Σ over rows of x (M, N). */
export function sumRows(x: usize, out: usize, M: usize, N: usize, begin: usize, end: usize): void {
  const step = N * 4;
  let n = begin;
  for (; n + 16 <= end; n += 16) {
    let t0 = zero(), t1 = zero(), t2 = zero(), t3 = zero();
    let p = x + n * 4;
    for (let m: usize = 0; m < M; m += 128) {
      let s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
      for (let i = min<usize>(128, M - m); i != 0; i--, p += step) {
        s0 = f32x4.add(s0, v128.load(p));
        s1 = f32x4.add(s1, v128.load(p + 16));
        s2 = f32x4.add(s2, v128.load(p + 32));
        s3 = f32x4.add(s3, v128.load(p + 48));
      }
      t0 = f32x4.add(t0, s0), t1 = f32x4.add(t1, s1), t2 = f32x4.add(t2, s2), t3 = f32x4.add(t3, s3);
    }
    addTo(out + n * 4, t0, t1, t2, t3);
  }
  for (; n < end; n += 4) {
    const count = end - n;
    let total = zero();
    let p = x + n * 4;
    for (let m: usize = 0; m < M; m += 128) {
      let sum = zero();
      for (let i = min<usize>(128, M - m); i != 0; i--, p += step) sum = f32x4.add(sum, loadUpTo(p, count));
      total = f32x4.add(total, sum);
    }
    const to = out + n * 4;
    storeUpTo(to, f32x4.add(loadUpTo(to, count), total), count);
  }
}

/** Adds four vectors to sixteen floats. */
// @ts-ignore: decorator
@inline
export function addTo(p: usize, v0: v128, v1: v128, v2: v128, v3: v128): void {
  v128.store(p, f32x4.add(v128.load(p), v0));
  v128.store(p + 16, f32x4.add(v128.load(p + 16), v1));
  v128.store(p + 32, f32x4.add(v128.load(p + 32), v2));
  v128.store(p + 48, f32x4.add(v128.load(p + 48), v3));
}

/** Elements whose squares make one partial sum. */
// @ts-ignore: decorator
@inline
const PART: usize = 4096;

/** Parts begin … end − 1 of x (n): the sum of each 4096 elements' squares as f64, at partials[part]. */
export function squareParts(x: usize, n: usize, partials: usize, begin: usize, end: usize): void {
  for (let part = begin; part < end; part++) {
    const first = part * PART;
    const count = min(PART, n - first);
    let p = x + first * 4;
    let s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
    let i = count;
    for (; i >= 16; i -= 16, p += 64) {
      let v = v128.load(p);
      s0 = fma(v, v, s0);
      v = v128.load(p, 16);
      s1 = fma(v, v, s1);
      v = v128.load(p, 32);
      s2 = fma(v, v, s2);
      v = v128.load(p, 48);
      s3 = fma(v, v, s3);
    }
    let sum = sumLanes(f32x4.add(f32x4.add(s0, s1), f32x4.add(s2, s3)));
    for (; i != 0; i--, p += 4) sum += load<f32>(p) * load<f32>(p);
    store<f64>(partials + part * 8, <f64> sum);
  }
}

/** out[0] = Σ of the partial sums, or that added to it. */
export function sumParts(partials: usize, parts: usize, out: usize, accumulate: bool): void {
  let sum: f64 = accumulate ? <f64> load<f32>(out) : 0;
  for (let part: usize = 0; part < parts; part++) sum += load<f64>(partials + part * 8);
  store<f32>(out, <f32> sum);
}
