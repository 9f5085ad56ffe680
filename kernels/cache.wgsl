// The key-value cache as kernels see it that bind `keys` and `values`, (slots, n_positions, C): every place has C floats or,
// two to a word, ⌈C / 2⌉ words of halves. $CACHED is four of them, or a word. A slot has `perSlot` places of its own, or
// with BLOCKS so many blocks somewhere.
//#import heads
//#if HALF
//#import half
//#end

//#if BLOCKS
@group(0) @binding(8) var<storage, read> blocks: array<u32>; // (slots, perSlot)

fn placeOf(slot: u32, position: u32) -> u32 {
  return blocks[slot * p.perSlot + position / u32($BLOCK)] * u32($BLOCK) + position % u32($BLOCK);
}
//#else
fn placeOf(slot: u32, position: u32) -> u32 {
  return slot * p.perSlot + position;
}
//#end

//#if VECTORS
//#if HALF
fn widened(x: vec2u) -> vec4f {
  return vec4f(unpack2x16float(x.x), unpack2x16float(x.y));
}
//#else
fn widened(x: vec4f) -> vec4f {
  return x;
}
//#end

// Elements d … d + 3 of a head's key or value at a place.
fn cached4(what: u32, place: u32, head: u32, d: u32) -> vec4f {
  let i = ((place * p.H + head) * D + d) / 4;
  if (what == KEY) {
    return widened(keys[i]);
  }
  return widened(values[i]);
}
//#else
fn cached(what: u32, place: u32, c: u32) -> f32 {
//#if HALF
  let i = place * ((p.H * D + 1) / 2) + c / 2;
  let pair = unpack2x16float(select(values[i], keys[i], what == KEY));
  return select(pair.x, pair.y, c % 2 == 1);
//#else
  let i = place * p.H * D + c;
  return select(values[i], keys[i], what == KEY);
//#end
}

// Elements d … d + 3 of a head's key or value at a place, zero beyond D.
fn cached4(what: u32, place: u32, head: u32, d: u32) -> vec4f {
  var elements = vec4f();
  for (var j = 0u; j < min(D - d, 4u); j++) {
    elements[j] = cached(what, place, head * D + d + j);
  }
  return elements;
}
//#end

//#if HALF
fn packed(x: vec4f) -> vec2u {
  return vec2u(
    saturatedHalf(x.x) | (saturatedHalf(x.y) << 16),
    saturatedHalf(x.z) | (saturatedHalf(x.w) << 16),
  );
}

// Numbers as they are once they are stored.
fn stored(x: vec4f) -> vec4f {
  let words = packed(x);
  return vec4f(unpack2x16float(words.x), unpack2x16float(words.y));
}
//#else
fn packed(x: vec4f) -> vec4f {
  return x;
}

fn stored(x: vec4f) -> vec4f {
  return x;
}
//#end
