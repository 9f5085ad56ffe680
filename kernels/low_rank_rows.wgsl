// out[t] += scaling[a] · (x[t] · A[a]ᵀ) · B[a], a = adapters[t]: a workgroup adds a row's own low-rank update.
//#import index

const THREADS = 64u;
//#import reduce

struct Params {
  T: u32,
  K: u32,
  N: u32,
  R: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (T, K)
@group(0) @binding(2) var<storage, read> A: array<f32>; // (adapters, R, K)
@group(0) @binding(3) var<storage, read> B: array<f32>; // (adapters, R, N)
@group(0) @binding(4) var<storage, read> scaling: array<f32>; // (adapters)
@group(0) @binding(5) var<storage, read> adapters: array<u32>; // (T)
@group(0) @binding(6) var<storage, read_write> out: array<f32>; // (T, N)

const NONE = 0xffffffffu;

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
  let adapter = adapters[t];
  if (adapter == NONE) {
    return;
  }
  for (var r = 0u; r < p.R; r++) {
    let row = adapter * p.R + r;
    var sum = 0.0;
    for (var k = thread; k < p.K; k += THREADS) {
      sum += x[t * p.K + k] * A[row * p.K + k];
    }
    let h = sumAcross(thread, sum) * scaling[adapter];
    for (var n = thread; n < p.N; n += THREADS) {
      out[t * p.N + n] += h * B[row * p.N + n];
    }
  }
}
