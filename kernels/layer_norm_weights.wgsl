// dWeight[c] += Σ over t of dOut[t, c] · normed[t, c], dBias[c] += Σ over t of dOut[t, c].
//#import column_sums

struct Params {
  rows: u32,
  columns: u32,
  wantsWeight: u32,
  wantsBias: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (T, C)
@group(0) @binding(2) var<storage, read> mean: array<f32>; // (T)
@group(0) @binding(3) var<storage, read> rstd: array<f32>; // (T)
@group(0) @binding(4) var<storage, read> dOut: array<f32>; // (T, C)
@group(0) @binding(5) var<storage, read_write> dWeight: array<f32>; // (C)
@group(0) @binding(6) var<storage, read_write> dBias: array<f32>; // (C)

fn element(row: u32, column: u32) -> vec2f {
  let i = row * p.columns + column;
  return dOut[i] * vec2f((x[i] - mean[row]) * rstd[row], 1);
}

fn finish(column: u32, sums: vec2f) {
  if (p.wantsWeight != 0) {
    dWeight[column] += sums.x;
  }
  if (p.wantsBias != 0) {
    dBias[column] += sums.y;
  }
}
