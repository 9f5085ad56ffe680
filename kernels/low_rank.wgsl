// h[t] = x[t] · Aᵀ, out[t] += scaling · h[t] · Bᵀ, for few rows in one go: a workgroup takes THREADS columns of a row of out,
// and computes the row's h for itself, which costs less than a kernel of its own.

const THREADS = u32($THREADS);
//#import reduce

struct Params {
  K: u32,
  N: u32,
  R: u32,
  scaling: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (T, K)
@group(0) @binding(2) var<storage, read> A: array<f32>; // (R, K)
@group(0) @binding(3) var<storage, read> B: array<f32>; // (N, R)
@group(0) @binding(4) var<storage, read_write> h: array<f32>; // (T, R)
@group(0) @binding(5) var<storage, read_write> out: array<f32>; // (T, N)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let t = group.y;
  let n = group.x * THREADS + thread;
  var update = 0.0;
  for (var r = 0u; r < p.R; r++) {
    var sum = 0.0;
    for (var k = thread; k < p.K; k += THREADS) {
      sum += x[t * p.K + k] * A[r * p.K + k];
    }
    let inner = sumAcross(thread, sum);
    if (n < p.N) {
      update += inner * B[n * p.R + r];
    }
    if (n == 0) {
      h[t * p.R + r] = inner;
    }
  }
  if (n < p.N) {
    out[t * p.N + n] += p.scaling * update;
  }
}
