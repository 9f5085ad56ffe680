// Adds up what `cached_attention` left of each stretch: a workgroup per token and head, a thread per four elements.

const D = u32($D);
const QUADS = u32($QUADS);
const NOTHING = -1e30;

struct Params {
  H: u32,
  stretch: u32,
  parts: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> positions: array<u32>; // (T)
@group(0) @binding(2) var<storage, read> sums: array<vec4f>; // (T, H, parts, QUADS + 1)
@group(0) @binding(3) var<storage, read_write> out: array<$ELEMENT>; // (T, C)

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  if (thread >= QUADS) {
    return;
  }
  let t = group.y / p.H;
  let head = group.y % p.H;
  let parts = positions[t] / p.stretch + 1;
  let first = group.y * p.parts;
  var largest = NOTHING;
  for (var part = 0u; part < parts; part++) {
    largest = max(largest, sums[(first + part) * (QUADS + 1) + QUADS].x);
  }
  var sum = vec4f();
  var total = 0.0;
  for (var part = 0u; part < parts; part++) {
    let at = (first + part) * (QUADS + 1);
    let rest = sums[at + QUADS];
    let rescale = exp(rest.x - largest);
    sum += rescale * sums[at + thread];
    total += rescale * rest.y;
  }
  sum /= total;
  let i = (t * p.H + head) * D + thread * 4;
//#if VECTORS
  out[i / 4] = sum;
//#else
  for (var j = 0u; j < min(D - thread * 4, 4u); j++) {
    out[i + j] = sum[j];
  }
//#end
}
