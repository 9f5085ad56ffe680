// out[n] += Σ over m of x[m, n].
//#import column_sums

struct Params {
  rows: u32,
  columns: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (M, N)
@group(0) @binding(2) var<storage, read_write> out: array<f32>; // (N)

fn element(row: u32, column: u32) -> vec2f {
  return vec2f(x[row * p.columns + column], 0);
}

fn finish(column: u32, sums: vec2f) {
  out[column] += sums.x;
}
