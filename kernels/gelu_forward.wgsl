// out = gelu(x).
//#import elementwise
//#import gelu

struct Params {
  length: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

fn element(i: u32) {
  out[i] = gelu(vec4f(x[i])).x;
}
