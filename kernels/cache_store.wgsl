// Stores the new tokens' keys and values at their slots and positions.
//#import elementwise

struct Params {
  // T · C
  length: u32,
  C: u32,
  positionsPerSlot: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<f32>; // (T, 3C)
@group(0) @binding(2) var<storage, read> slots: array<u32>; // (T)
@group(0) @binding(3) var<storage, read> positions: array<u32>; // (T)
@group(0) @binding(4) var<storage, read_write> keys: array<f32>; // (slots, n_positions, C)
@group(0) @binding(5) var<storage, read_write> values: array<f32>; // (slots, n_positions, C)

fn element(i: u32) {
  let t = i / p.C;
  let c = i % p.C;
  let place = (slots[t] * p.positionsPerSlot + positions[t]) * p.C + c;
  keys[place] = qkv[(t * 3 + 1) * p.C + c];
  values[place] = qkv[(t * 3 + 2) * p.C + c];
}
