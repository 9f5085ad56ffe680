// dX[rows[i]] += dOut[i]; every row appears at most once.
//#import elementwise

struct Params {
  length: u32,
  C: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dOut: array<f32>; // (N, C)
@group(0) @binding(2) var<storage, read> rows: array<u32>; // (N)
@group(0) @binding(3) var<storage, read_write> dX: array<f32>; // (T, C)

fn element(i: u32) {
  dX[rows[i / p.C] * p.C + i % p.C] += dOut[i];
}
