// out = gelu(x).
//#import elementwise
//#import gelu

struct Params {
  length: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<$ELEMENT>;
@group(0) @binding(2) var<storage, read_write> out: array<$ELEMENT>;

fn element(i: u32) {
//#if VECTORS
  out[i] = gelu(x[i]);
//#else
  out[i] = gelu(vec4f(x[i])).x;
//#end
}
