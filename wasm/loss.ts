/** Softmax cross-entropy and its gradient. */
import { loadSome, maxLanes, storeSome, sumLanes, zero } from "./simd";
import { exp, exps, log } from "./math";

/**
 * Rows begin … end − 1 of loss = ln Σ exp(logits) − logits[target]; with `gradient`, the logits become
 * (softmax(logits) − onehot(target)) · scale.
 */
export function crossEntropy(
  logits: usize,
  targets: usize,
  loss: usize,
  V: usize,
  gradient: bool,
  scale: f32,
  begin: usize,
  end: usize,
): void {
  for (let i = begin; i < end; i++) {
    const x = logits + i * V * 4;
    const target = x + <usize> load<u32>(targets + i * 4) * 4;
    const chosen = load<f32>(target);
    const largest = maxRow(x, V);
    const sum = sumExp(x, V, largest, gradient);
    store<f32>(loss + i * 4, log(sum) + (largest - chosen));
    if (!gradient) continue;
    const factor = largest == largest ? scale / sum : largest;
    const factors = f32x4.splat(factor);
    let c: usize = 0;
    for (; c + 4 <= V; c += 4) v128.store(x + c * 4, f32x4.mul(v128.load(x + c * 4), factors));
    for (; c < V; c++) store<f32>(x + c * 4, load<f32>(x + c * 4) * factor);
    store<f32>(target, load<f32>(target) - scale);
  }
}

/** The largest of a row, NaN if one is: `exp` makes numbers of some NaN, those whose last bits are set. */
function maxRow(x: usize, V: usize): f32 {
  let m = v128.load32_splat(x);
  let n = m;
  let c: usize = 0;
  for (; c + 8 <= V; c += 8) {
    m = f32x4.max(m, v128.load(x + c * 4));
    n = f32x4.max(n, v128.load(x + c * 4, 16));
  }
  let largest = maxLanes(f32x4.max(m, n));
  for (; c < V; c++) largest = max<f32>(largest, load<f32>(x + c * 4));
  return largest;
}

/** Σ exp(x − largest), summed by 1024 elements first; with `keep` the exponentials stay in place of x. */
function sumExp(x: usize, V: usize, largest: f32, keep: bool): f32 {
  const shift = f32x4.splat(largest);
  let total = zero();
  for (let block: usize = 0; block < V; block += 1024) {
    const last = min(V, block + 1024);
    const whole = last & ~3;
    let sum = exps(x + block * 4, x + whole * 4, 16, shift, zero(), keep);
    if (whole < last) {
      const p = x + whole * 4;
      const n = last - whole;
      let e = exp(f32x4.sub(loadSome(p, n), shift));
      if (keep) storeSome(p, e, n);
      e = f32x4.replace_lane(e, 3, 0);
      if (n < 3) e = f32x4.replace_lane(e, 2, 0);
      if (n < 2) e = f32x4.replace_lane(e, 1, 0);
      sum = f32x4.add(sum, e);
    }
    total = f32x4.add(total, sum);
  }
  return sumLanes(total);
}
