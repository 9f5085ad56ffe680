// out = (x − mean) · rstd · weight + bias, a row per workgroup; the variance is taken around the mean,
// which a sum of squares less the mean's square would not survive in f32.
//#import row

struct Params {
  T: u32,
  C: u32,
  W: u32,
  epsilon: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<$ELEMENT>; // (T, C)
@group(0) @binding(2) var<storage, read> weight: array<$ELEMENT>; // (C)
@group(0) @binding(3) var<storage, read> bias: array<$ELEMENT>; // (C)
@group(0) @binding(4) var<storage, read_write> out: array<$ELEMENT>; // (T, C)
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
  let row = t * p.W;
  var sum = 0.0;
  //#for k in 0..PER
  let i$k = thread + $k * THREADS;
  var x$k = $ELEMENT();
  if (i$k < p.W) {
    x$k = x[row + i$k];
    sum += total(x$k);
  }
  //#end
  let average = sumAcross(thread, sum) / f32(p.C);
  var squares = 0.0;
  //#for k in 0..PER
  x$k -= average;
  if (i$k < p.W) {
    squares += total(x$k * x$k);
  }
  //#end
  let scale = 1.0 / sqrt(sumAcross(thread, squares) / f32(p.C) + p.epsilon);
  //#for k in 0..PER
  if (i$k < p.W) {
    out[row + i$k] = x$k * scale * weight[i$k] + bias[i$k];
  }
  //#end
  if (thread == 0) {
    mean[t] = average;
    rstd[t] = scale;
  }
}
