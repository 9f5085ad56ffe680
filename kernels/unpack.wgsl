// out (rows, columns): a frozen matrix as plain f32 again, what the kernels compute with.
//#import index
//#import weight_$FORMAT

struct Params {
  row: u32,
  rows: u32,
  weightRows: u32,
  weightColumns: u32,
  weightStride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let quads = (p.weightColumns + 3) / 4;
  let i = linear(group, groups) * 256 + thread;
  let row = i / quads;
  let column = (i % quads) * 4;
  if (row >= p.rows) {
    return;
  }
  let value = weight4(p.row + row, column);
  for (var j = 0u; j < min(p.weightColumns - column, 4u); j++) {
    out[row * p.weightColumns + column + j] = value[j];
  }
}
