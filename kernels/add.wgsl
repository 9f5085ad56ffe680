// out = a + b; $A and $B are `a` and `b`, or `out` where that is the same tensor.
//#import elementwise

struct Params {
  length: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<$ELEMENT>;
@group(0) @binding(2) var<storage, read> b: array<$ELEMENT>;
@group(0) @binding(3) var<storage, read_write> out: array<$ELEMENT>;

fn element(i: u32) {
  out[i] = $A[i] + $B[i];
}
