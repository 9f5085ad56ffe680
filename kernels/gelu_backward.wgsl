// dX = dOut · gelu′(x), or that added to dX.
//#import elementwise
//#import gelu

struct Params {
  length: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dOut: array<f32>;
@group(0) @binding(3) var<storage, read_write> dX: array<f32>;

fn element(i: u32) {
  var gradient = dOut[i] * geluDerivative(vec4f(x[i])).x;
  if (p.accumulate != 0) {
    gradient += dX[i];
  }
  dX[i] = gradient;
}
