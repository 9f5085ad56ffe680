// out[0] = the gradients' norm, out[1] = what brings it under maxNorm.

struct Params {
  maxNorm: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> sumOfSquares: array<f32>; // (1)
@group(0) @binding(2) var<storage, read_write> out: array<f32>; // (2)

@compute @workgroup_size(1)
fn main() {
  let norm = sqrt(sumOfSquares[0]);
  out[0] = norm;
  out[1] = 1.0;
  if (p.maxNorm != 0) {
    out[1] = min(1.0, p.maxNorm / (norm + 1e-6));
  }
}
