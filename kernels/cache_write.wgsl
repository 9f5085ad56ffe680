// Puts new keys and values into the cache.
//#import cache

// Puts the i-th vector of four (or word, where D is no multiple of four) of row t's key and value at a place.
fn write(t: u32, place: u32, i: u32) {
//#if VECTORS
  let at = place * (p.H * D / 4) + i;
  let head = i / (D / 4);
  let d = i % (D / 4) * 4;
  keys[at] = packed(qkv4(t, KEY, head, d));
  values[at] = packed(qkv4(t, VALUE, head, d));
//#else
  let C = p.H * D;
  let row = t * 3 * C;
//#if HALF
  let at = place * ((C + 1) / 2) + i;
  keys[at] = word(row + C, i);
  values[at] = word(row + 2 * C, i);
//#else
  keys[place * C + i] = qkv[row + C + i];
  values[place * C + i] = qkv[row + 2 * C + i];
//#end
//#end
}
//#if !VECTORS
//#if HALF

// Numbers 2w and 2w + 1 of a row.
fn word(row: u32, w: u32) -> u32 {
  let low = saturatedHalf(qkv[row + 2 * w]);
  if (2 * w + 1 == p.H * D) {
    return low;
  }
  return low | (saturatedHalf(qkv[row + 2 * w + 1]) << 16);
}
//#end
//#end
