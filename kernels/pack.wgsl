// The frame of kernels that lay out a frozen matrix: a thread takes ROWS × COLUMNS numbers. They define `weight`,
// and `pack(row, column)` for where those begin in the source.
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

// One number; zero outside the matrix.
fn number(row: u32, column: u32) -> f32 {
  if (row >= p.rows || column >= p.columns) {
    return 0;
  }
  return source[row * p.columns + column];
}

// Columns column … column + 3 of a row; zero outside the matrix.
fn source4(row: u32, column: u32) -> vec4f {
  return vec4f(
    //#for j in 0..4
    number(row, column + $j),
    //#end
  );
}

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = linear(group, groups) * 64 + thread;
  let across = (p.stride + $COLUMNS - 1) / $COLUMNS;
  let row = i / across * $ROWS;
  if (row < p.rows) {
    pack(row, i % across * $COLUMNS);
  }
}
