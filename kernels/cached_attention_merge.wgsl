// Adds up what `cached_attention` left of each stretch, and stores the new keys and values: a workgroup per token and head.
//#import cache_write

const QUADS = u32($QUADS);
const NOTHING = -1e30;

struct Params {
  H: u32,
  positionsPerSlot: u32,
  stretch: u32,
  parts: u32,
  // What `write` takes for a row.
  W: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> slots: array<u32>; // (T)
@group(0) @binding(3) var<storage, read> positions: array<u32>; // (T)
@group(0) @binding(4) var<storage, read_write> keys: array<$CACHED>; // (slots, n_positions, C)
@group(0) @binding(5) var<storage, read_write> values: array<$CACHED>; // (slots, n_positions, C)
@group(0) @binding(6) var<storage, read> sums: array<vec4f>; // (T, H, parts, QUADS + 1)
@group(0) @binding(7) var<storage, read_write> out: array<$ELEMENT>; // (T, C)

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let t = group.x;
  let head = group.y;
  let place = slots[t] * p.positionsPerSlot + positions[t];
  // Each head has an even share of the row, wherever it begins.
  for (var i = (head * p.W) / p.H + thread; i < ((head + 1) * p.W) / p.H; i += 64) {
    write(t, place, i);
  }
  if (thread >= QUADS) {
    return;
  }
  let parts = positions[t] / p.stretch + 1;
  let first = (t * p.H + head) * p.parts;
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
