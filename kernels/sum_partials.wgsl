// out[0] = Σ partials, or that added to it, in one workgroup.
//#import reduce

const THREADS = 256u;

struct Params {
  length: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> partials: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) thread: u32) {
  var sum = 0.0;
  for (var i = thread; i < p.length; i += THREADS) {
    sum += partials[i];
  }
  sum = sumAcross(thread, sum);
  if (thread == 0) {
    if (p.accumulate != 0) {
      sum += out[0];
    }
    out[0] = sum;
  }
}
