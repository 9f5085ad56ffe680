// dX = rstd · (g − mean(g) − normed · mean(g · normed)) with g = dOut · weight and
// normed = (x − mean) · rstd, or that added to dX; a row per workgroup.
//#import row

struct Params {
  T: u32,
  C: u32,
  W: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<$ELEMENT>; // (T, C)
@group(0) @binding(2) var<storage, read> weight: array<$ELEMENT>; // (C)
@group(0) @binding(3) var<storage, read> mean: array<f32>; // (T)
@group(0) @binding(4) var<storage, read> rstd: array<f32>; // (T)
@group(0) @binding(5) var<storage, read> dOut: array<$ELEMENT>; // (T, C)
@group(0) @binding(6) var<storage, read_write> dX: array<$ELEMENT>; // (T, C)

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
  let average = mean[t];
  let scale = rstd[t];
  var sums = vec2f(); // of g, of g · normed
  //#for k in 0..PER
  let i$k = thread + $k * THREADS;
  var g$k = $ELEMENT();
  var normed$k = $ELEMENT();
  if (i$k < p.W) {
    g$k = dOut[row + i$k] * weight[i$k];
    normed$k = (x[row + i$k] - average) * scale;
    sums += vec2f(total(g$k), total(g$k * normed$k));
  }
  //#end
  sums = sumPairsAcross(thread, sums) / f32(p.C);
  //#for k in 0..PER
  if (i$k < p.W) {
    var gradient = scale * (g$k - sums.x - normed$k * sums.y);
    if (p.accumulate != 0) {
      gradient += dX[row + i$k];
    }
    dX[row + i$k] = gradient;
  }
  //#end
}
