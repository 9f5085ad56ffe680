// out = (x − mean) · rstd · weight + bias, a row per workgroup; the variance is taken around the mean,
// which a sum of squares less the mean's square would not survive in f32.
//#import index
//#import reduce

const THREADS = 64u;

struct Params {
  T: u32,
  C: u32,
  epsilon: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (T, C)
@group(0) @binding(2) var<storage, read> weight: array<f32>; // (C)
@group(0) @binding(3) var<storage, read> bias: array<f32>; // (C)
@group(0) @binding(4) var<storage, read_write> out: array<f32>; // (T, C)
@group(0) @binding(5) var<storage, read_write> mean: array<f32>; // (T)
@group(0) @binding(6) var<storage, read_write> rstd: array<f32>; // (T)

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
  for (var c = thread; c < p.C; c += THREADS) {
    sum += x[t * p.C + c];
  }
  let average = sumAcross(thread, sum) / f32(p.C);
  var squares = 0.0;
  for (var c = thread; c < p.C; c += THREADS) {
    let deviation = x[t * p.C + c] - average;
    squares += deviation * deviation;
  }
  let scale = 1.0 / sqrt(sumAcross(thread, squares) / f32(p.C) + p.epsilon);
  for (var c = thread; c < p.C; c += THREADS) {
    let i = t * p.C + c;
    out[i] = (x[i] - average) * scale * weight[c] + bias[c];
  }
  if (thread == 0) {
    mean[t] = average;
    rstd[t] = scale;
  }
}
