/** AdamW (Loshchilov & Hutter 2019) and the factor that clips its gradients. */
import { loadUpTo, storeUpTo } from "./simd";

/** out = [sqrt(sumOfSquares), min(1, maxNorm / (norm + 1e-6))]; the factor is 1 if maxNorm is 0. */
export function clipFactor(sumOfSquares: usize, maxNorm: f32, out: usize): void {
  const norm = sqrt<f32>(load<f32>(sumOfSquares));
  store<f32>(out, norm);
  store<f32>(out, maxNorm == 0 ? 1 : min<f32>(1, maxNorm / (norm + 1e-6)), 4);
}

/**
 * One step on elements begin … end − 1.
 *
 * @param decay 1 − lr · weightDecay.
 * @param rate lr / (1 − β₁ˢ).
 * @param debias2 1 / (1 − β₂ˢ).
 */
export function adamw(
  parameters: usize,
  gradients: usize,
  m: usize,
  v: usize,
  clip: usize,
  beta1: f32,
  oneMinusBeta1: f32,
  beta2: f32,
  oneMinusBeta2: f32,
  epsilon: f32,
  decay: f32,
  rate: f32,
  debias2: f32,
  begin: usize,
  end: usize,
): void {
  const factor = v128.load32_splat(clip, 4);
  for (let i = begin; i < end; i += 4) {
    const at = i * 4;
    const n = end - i;
    const g = f32x4.mul(loadUpTo(gradients + at, n), factor);
    const first = f32x4.add(
      f32x4.mul(f32x4.splat(beta1), loadUpTo(m + at, n)),
      f32x4.mul(f32x4.splat(oneMinusBeta1), g),
    );
    const second = f32x4.add(
      f32x4.mul(f32x4.splat(beta2), loadUpTo(v + at, n)),
      f32x4.mul(f32x4.splat(oneMinusBeta2), f32x4.mul(g, g)),
    );
    const root = f32x4.add(f32x4.sqrt(f32x4.mul(second, f32x4.splat(debias2))), f32x4.splat(epsilon));
    const step = f32x4.div(f32x4.mul(first, f32x4.splat(rate)), root);
    const kept = f32x4.mul(loadUpTo(parameters + at, n), f32x4.splat(decay));
    storeUpTo(m + at, first, n);
    storeUpTo(v + at, second, n);
    storeUpTo(parameters + at, f32x4.sub(kept, step), n);
  }
}
