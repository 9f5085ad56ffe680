// out[i] = x[rows[i]].
//#import elementwise

struct Params {
  length: u32,
  C: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>; // (T, C)
@group(0) @binding(2) var<storage, read> rows: array<u32>; // (N)
@group(0) @binding(3) var<storage, read_write> out: array<f32>; // (N, C)

fn element(i: u32) {
  out[i] = x[rows[i / p.C] * p.C + i % p.C];
}
