/** Layer normalisation, forward and backward (Ba, Kiros, Hinton 2016). */
import { fma, loadSome, loadUpTo, storeUpTo, sumLanes, zero } from "./simd";
import { addTo } from "./reduce";

/** Rows begin … end − 1 of out = (x − mean) · rstd · weight + bias. */
export function layerNorm(
  x: usize,
  weight: usize,
  bias: usize,
  out: usize,
  mean: usize,
  rstd: usize,
  C: usize,
  epsilon: f32,
  begin: usize,
  end: usize,
): void {
  const whole = C & ~3;
  for (let t = begin; t < end; t++) {
    const from = x + t * C * 4;
    const to = out + t * C * 4;
    const m = sumRow(from, C) / <f32> C;
    const center = f32x4.splat(m);
    let squares = zero();
    let c: usize = 0;
    for (; c < whole; c += 4) {
      const d = f32x4.sub(v128.load(from + c * 4), center);
      squares = fma(d, d, squares);
    }
    let variance = sumLanes(squares);
    for (; c < C; c++) {
      const d = load<f32>(from + c * 4) - m;
      variance += d * d;
    }
    const r = <f32> 1.0 / sqrt<f32>(variance / <f32> C + epsilon);
    store<f32>(mean + t * 4, m);
    store<f32>(rstd + t * 4, r);
    const factor = f32x4.splat(r);
    for (c = 0; c < whole; c += 4) {
      const normal = f32x4.mul(f32x4.sub(v128.load(from + c * 4), center), factor);
      v128.store(to + c * 4, fma(normal, v128.load(weight + c * 4), v128.load(bias + c * 4)));
    }
    if (c < C) {
      const n = C - c;
      const normal = f32x4.mul(f32x4.sub(loadSome(from + c * 4, n), center), factor);
      storeUpTo(to + c * 4, fma(normal, loadSome(weight + c * 4, n), loadSome(bias + c * 4, n)), n);
    }
  }
}

function sumRow(p: usize, C: usize): f32 {
  let s0 = zero();
  let s1 = zero();
  let c: usize = 0;
  for (; c + 8 <= C; c += 8, p += 32) {
    s0 = f32x4.add(s0, v128.load(p));
    s1 = f32x4.add(s1, v128.load(p, 16));
  }
  let sum = sumLanes(f32x4.add(s0, s1));
  for (; c < C; c++, p += 4) sum += load<f32>(p);
  return sum;
}

/** Rows begin … end − 1 of dX = rstd · (g − mean(g) − n · mean(g · n)), g = dOut · weight, n the normalised x. */
export function layerNormBackward(
  x: usize,
  weight: usize,
  mean: usize,
  rstd: usize,
  dOut: usize,
  dX: usize,
  accumulate: bool,
  C: usize,
  begin: usize,
  end: usize,
): void {
  for (let t = begin; t < end; t++) {
    const from = x + t * C * 4;
    const gradient = dOut + t * C * 4;
    const to = dX + t * C * 4;
    const center = f32x4.splat(load<f32>(mean + t * 4));
    const factor = f32x4.splat(load<f32>(rstd + t * 4));
    let sum = zero();
    let product = zero();
    for (let c: usize = 0; c < C; c += 4) {
      const n = C - c;
      const g = f32x4.mul(loadUpTo(gradient + c * 4, n), loadUpTo(weight + c * 4, n));
      const normal = f32x4.mul(f32x4.sub(loadUpTo(from + c * 4, n), center), factor);
      sum = f32x4.add(sum, g);
      // Lanes beyond the row hold g = 0, so that they add nothing.
      product = fma(g, normal, product);
    }
    const meanG = f32x4.splat(sumLanes(sum) / <f32> C);
    const meanGN = f32x4.splat(sumLanes(product) / <f32> C);
    for (let c: usize = 0; c < C; c += 4) {
      const n = C - c;
      const g = f32x4.mul(loadUpTo(gradient + c * 4, n), loadUpTo(weight + c * 4, n));
      const normal = f32x4.mul(f32x4.sub(loadUpTo(from + c * 4, n), center), factor);
      const rest = f32x4.sub(f32x4.sub(g, meanG), f32x4.mul(normal, meanGN));
      let result = f32x4.mul(rest, factor);
      if (accumulate) result = f32x4.add(result, loadUpTo(to + c * 4, n));
      storeUpTo(to + c * 4, result, n);
    }
  }
}

/** Columns begin … end − 1 (begin a multiple of 16) of dWeight += Σ over rows of dOut · n. */
export function layerNormWeightGradient(
  x: usize,
  mean: usize,
  rstd: usize,
  dOut: usize,
  dWeight: usize,
  T: usize,
  C: usize,
  begin: usize,
  end: usize,
): void {
  let c = begin;
  for (; c + 16 <= end; c += 16) {
    let t0 = zero(), t1 = zero(), t2 = zero(), t3 = zero();
    for (let first: usize = 0; first < T; first += 128) {
      let s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
      for (let t = first; t < min(T, first + 128); t++) {
        const at = (t * C + c) * 4;
        const p = x + at;
        const g = dOut + at;
        const m = v128.load32_splat(mean + t * 4);
        const r = v128.load32_splat(rstd + t * 4);
        s0 = fma(f32x4.mul(f32x4.sub(v128.load(p), m), r), v128.load(g), s0);
        s1 = fma(f32x4.mul(f32x4.sub(v128.load(p + 16), m), r), v128.load(g + 16), s1);
        s2 = fma(f32x4.mul(f32x4.sub(v128.load(p + 32), m), r), v128.load(g + 32), s2);
        s3 = fma(f32x4.mul(f32x4.sub(v128.load(p + 48), m), r), v128.load(g + 48), s3);
      }
      t0 = f32x4.add(t0, s0), t1 = f32x4.add(t1, s1), t2 = f32x4.add(t2, s2), t3 = f32x4.add(t3, s3);
    }
    addTo(dWeight + c * 4, t0, t1, t2, t3);
  }
  for (; c < end; c += 4) {
    const n = end - c;
    let total = zero();
    for (let first: usize = 0; first < T; first += 128) {
      let sum = zero();
      for (let t = first; t < min(T, first + 128); t++) {
        const at = (t * C + c) * 4;
        const d = f32x4.sub(loadUpTo(x + at, n), v128.load32_splat(mean + t * 4));
        sum = fma(f32x4.mul(d, v128.load32_splat(rstd + t * 4)), loadUpTo(dOut + at, n), sum);
      }
      total = f32x4.add(total, sum);
    }
    const p = dWeight + c * 4;
    storeUpTo(p, f32x4.add(loadUpTo(p, n), total), n);
  }
}
