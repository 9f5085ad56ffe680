// out[i] = x[i] · scale where element i is kept, else 0, or that added to `out`. The random bits are those
// of src/tensor/random.ts; $X is `x`, or `out` where that is the same tensor.
//#import elementwise

struct Params {
  length: u32,
  // Index of the first element that is bound.
  first: u32,
  key0: u32,
  key1: u32,
  // Kept are elements whose upper 24 bits are at least this: probability · 2²⁴, rounded up.
  threshold: u32,
  scale: f32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

fn mix(bits: u32) -> u32 {
  var x = (bits ^ (bits >> 16)) * 0x85ebca6b;
  x = (x ^ (x >> 13)) * 0xc2b2ae35;
  return x ^ (x >> 16);
}

fn element(i: u32) {
  let bits = mix(mix(mix(p.first + i + 0x9e3779b9) ^ p.key0) ^ p.key1);
  var value = 0.0;
  if (bits >> 8 >= p.threshold) {
    value = $X[i] * p.scale;
  }
  if (p.accumulate != 0) {
    value += out[i];
  }
  out[i] = value;
}
