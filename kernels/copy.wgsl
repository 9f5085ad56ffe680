// out = x, bit by bit.
//#import elementwise

struct Params {
  length: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<$WORD>;
@group(0) @binding(2) var<storage, read_write> out: array<$WORD>;

fn element(i: u32) {
  out[i] = x[i];
}
