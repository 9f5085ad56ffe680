// out = value, everywhere.
//#import elementwise

struct Params {
  length: u32,
  bits: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> out: array<$WORD>;

fn element(i: u32) {
  out[i] = $WORD(p.bits);
}
