// partials[first + group] = Σ x² over every groups-th block of 1024; `sum_partials` adds them up.
//#import reduce

const THREADS = 256u;

struct Params {
  length: u32,
  first: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<$ELEMENT>;
@group(0) @binding(2) var<storage, read_write> partials: array<f32>;

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  var sum = 0.0;
  for (var i = group.x * THREADS * 4 + thread; i < p.length; i += groups.x * THREADS * 4) {
    //#for j in 0..4
    if (i + $j * THREADS < p.length) {
      let x$j = x[i + $j * THREADS];
//#if VECTORS
      sum += dot(x$j, x$j);
//#else
      sum += x$j * x$j;
//#end
    }
    //#end
  }
  sum = sumAcross(thread, sum);
  if (thread == 0) {
    partials[p.first + group.x] = sum;
  }
}
