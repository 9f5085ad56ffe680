// out[t] = wte[tokens[t]] + wpe[positions[t]], for the tokens whose row is in this part of wte.
//#import index
//#import weight_$FORMAT

struct Params {
  T: u32,
  // wte's rows firstRow … firstRow + weightRows − 1 are bound.
  firstRow: u32,
  weightRows: u32,
  weightColumns: u32,
  weightStride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(3) var<storage, read> wpe: array<f32>; // (n_positions, C)
@group(0) @binding(4) var<storage, read> tokens: array<u32>; // (T)
@group(0) @binding(5) var<storage, read> positions: array<u32>; // (T)
@group(0) @binding(6) var<storage, read_write> out: array<f32>; // (T, C)

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let C = p.weightColumns;
  let quads = (C + 3) / 4;
  let i = linear(group, groups) * 256 + thread;
  let t = i / quads;
  let column = (i % quads) * 4;
  if (t >= p.T) {
    return;
  }
  let token = tokens[t];
  if (token < p.firstRow || token - p.firstRow >= p.weightRows) {
    return;
  }
  let value = weight4(token - p.firstRow, column);
  let position = positions[t];
  for (var j = 0u; j < min(C - column, 4u); j++) {
    out[t * C + column + j] = value[j] + wpe[position * C + column + j];
  }
}
