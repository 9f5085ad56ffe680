// delta[t, h] = Σ over d of dOut · out, which equals Σ over keys of probability · its gradient.
//#import elementwise

struct Params {
  // T · H
  length: u32,
  // D, or a fourth of it.
  D: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> out: array<$ELEMENT>; // (T, C)
@group(0) @binding(2) var<storage, read> dOut: array<$ELEMENT>; // (T, C)
@group(0) @binding(3) var<storage, read_write> delta: array<f32>; // (T, H)

fn element(i: u32) {
  var sum = 0.0;
  for (var d = 0u; d < p.D; d++) {
//#if QUADS
    sum += dot(out[i * p.D + d], dOut[i * p.D + d]);
//#else
    sum += out[i * p.D + d] * dOut[i * p.D + d];
//#end
  }
  delta[i] = sum;
}
