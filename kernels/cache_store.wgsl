// Stores the new tokens' keys and values at their slots and positions.
//#import elementwise
//#import cache_write

struct Params {
  // T · W
  length: u32,
  H: u32,
  // What `write` takes for a row.
  W: u32,
  perSlot: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> slots: array<u32>; // (T)
@group(0) @binding(3) var<storage, read> positions: array<u32>; // (T)
@group(0) @binding(4) var<storage, read_write> keys: array<$CACHED>; // (slots, n_positions, C)
@group(0) @binding(5) var<storage, read_write> values: array<$CACHED>; // (slots, n_positions, C)

fn element(i: u32) {
  let t = i / p.W;
  write(t, placeOf(slots[t], positions[t]), i % p.W);
}
