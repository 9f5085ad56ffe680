// The shares of inner sums that `matmul` with SPLIT left, added in their order; a thread takes four outputs.
//#import matmul_frame
//#import index

@group(0) @binding(3) var<storage, read> partials: array<vec4f>; // (splits, M, ⌈N / 4⌉)

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = linear(group, groups) * 256 + thread;
  let width = (p.N + 3) / 4;
  let size = p.M * width;
  if (i >= size) {
    return;
  }
  var sum = partials[i];
  for (var share = 1u; share < p.splits; share++) {
    sum += partials[share * size + i];
  }
  store(0, i / width, i % width * 4, sum);
}
