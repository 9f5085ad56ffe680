// The frame of kernels that lay out a frozen matrix: a thread takes a group of 32 rows by WIDTH columns.
// They define WIDTH, `weight`, and `pack(row, count, column)` for rows of the source.
//#import index

struct Params {
  // Where the source's first row lies in `weight`; a multiple of 32.
  row: u32,
  rows: u32,
  columns: u32,
  stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> source: array<f32>; // (rows, columns)

// Columns column … column + 3 of a row; zero beyond the last.
fn source4(row: u32, column: u32) -> vec4f {
  var numbers = vec4f();
  //#for j in 0..4
  if (column + $j < p.columns) {
    numbers[$j] = source[row * p.columns + column + $j];
  }
  //#end
  return numbers;
}

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = linear(group, groups) * 64 + thread;
  let blocks = p.stride / WIDTH;
  let row = i / blocks * 32;
  if (row < p.rows) {
    pack(row, min(p.rows - row, 32), i % blocks * WIDTH);
  }
}
