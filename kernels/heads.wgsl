// Heads of width D, H of them side by side in a row of C numbers, and the rows of queries, keys and values.

const D = u32($D);

const QUERY = 0u;
const KEY = 1u;
const VALUE = 2u;

@group(0) @binding(1) var<storage, read> qkv: array<$ELEMENT>; // (T, 3C)

// Elements d … d + 3 of a head's query, key or value, zero beyond D.
fn qkv4(row: u32, what: u32, head: u32, d: u32) -> vec4f {
  let i = ((row * 3 + what) * p.H + head) * D + d;
//#if VECTORS
  return qkv[i / 4];
//#else
  // Not written out: no published model has such heads, and a software adapter takes 18 s to compile it.
  var elements = vec4f();
  for (var j = 0u; j < min(D - d, 4u); j++) {
    elements[j] = qkv[i + j];
  }
  return elements;
//#end
}
