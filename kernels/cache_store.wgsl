// Stores the new tokens' keys and values at their slots and positions.
//#import elementwise
//#if HALF
//#import half
//#end

struct Params {
  // T · W
  length: u32,
  C: u32,
  // Words of a row: C, or ⌈C / 2⌉ with two halves to a word.
  W: u32,
  positionsPerSlot: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<f32>; // (T, 3C)
@group(0) @binding(2) var<storage, read> slots: array<u32>; // (T)
@group(0) @binding(3) var<storage, read> positions: array<u32>; // (T)
@group(0) @binding(4) var<storage, read_write> keys: array<$WORD>; // (slots, n_positions, W)
@group(0) @binding(5) var<storage, read_write> values: array<$WORD>; // (slots, n_positions, W)

fn element(i: u32) {
  let t = i / p.W;
  let w = i % p.W;
  let place = (slots[t] * p.positionsPerSlot + positions[t]) * p.W + w;
  let row = t * 3 * p.C;
  keys[place] = word(row + p.C, w);
  values[place] = word(row + 2 * p.C, w);
}

//#if HALF
// Numbers 2w and 2w + 1 of a row.
fn word(row: u32, w: u32) -> u32 {
  let low = saturatedHalf(qkv[row + 2 * w]);
  if (2 * w + 1 == p.C) {
    return low;
  }
  return low | (saturatedHalf(qkv[row + 2 * w + 1]) << 16);
}
//#else
fn word(row: u32, w: u32) -> f32 {
  return qkv[row + w];
}
//#end
