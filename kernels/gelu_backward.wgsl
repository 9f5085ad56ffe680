// dX = dOut · gelu′(x), or that added to dX.
//#import elementwise
//#import gelu

struct Params {
  length: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<$ELEMENT>;
@group(0) @binding(2) var<storage, read> dOut: array<$ELEMENT>;
@group(0) @binding(3) var<storage, read_write> dX: array<$ELEMENT>;

fn element(i: u32) {
//#if VECTORS
  var gradient = dOut[i] * geluDerivative(x[i]);
//#else
  var gradient = dOut[i] * geluDerivative(vec4f(x[i])).x;
//#end
  if (p.accumulate != 0) {
    gradient += dX[i];
  }
  dX[i] = gradient;
}
