// dX = rstd · (g − mean(g) − normed · mean(g · normed)) with g = dOut · weight and
// normed = (x − mean) · rstd, or that added to dX; a row per workgroup.
//#import index
//#import reduce

const THREADS = 64u;

struct Params {
  T: u32,
  C: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (T, C)
@group(0) @binding(2) var<storage, read> weight: array<f32>; // (C)
@group(0) @binding(3) var<storage, read> mean: array<f32>; // (T)
@group(0) @binding(4) var<storage, read> rstd: array<f32>; // (T)
@group(0) @binding(5) var<storage, read> dOut: array<f32>; // (T, C)
@group(0) @binding(6) var<storage, read_write> dX: array<f32>; // (T, C)

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let t = linear(group, groups);
  if (t >= p.T) {
    return;
  }
  var sum = 0.0;
  var product = 0.0;
  for (var c = thread; c < p.C; c += THREADS) {
    let i = t * p.C + c;
    let g = dOut[i] * weight[c];
    sum += g;
    product += g * (x[i] - mean[t]) * rstd[t];
  }
  sum = sumAcross(thread, sum) / f32(p.C);
  product = sumAcross(thread, product) / f32(p.C);
  for (var c = thread; c < p.C; c += THREADS) {
    let i = t * p.C + c;
    let normed = (x[i] - mean[t]) * rstd[t];
    var gradient = rstd[t] * (dOut[i] * weight[c] - sum - normed * product);
    if (p.accumulate != 0) {
      gradient += dX[i];
    }
    dX[i] = gradient;
  }
}
