// Disentangled self-attention (He et al. 2021) within sequences and both ways: as attention.wgsl, but that every logit
// has two more products, of the query with its relative position's key and of the key with that position's query.
//#import attention_tiles

struct Params {
  T: u32,
  H: u32,
  L: u32,
  scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(3) var<storage, read> starts: array<u32>; // (T)
@group(0) @binding(4) var<storage, read> ends: array<u32>; // (T)
//#if CONTENT_TO_POSITION
@group(0) @binding(5) var<storage, read> positionKeys: array<$ELEMENT>; // (P, C)
//#end
//#if POSITION_TO_CONTENT
@group(0) @binding(6) var<storage, read> positionQueries: array<$ELEMENT>; // (P, C)
//#end
//#if POSITIONS
@group(0) @binding(7) var<storage, read> buckets: array<u32>; // (2L − 1)
//#end
@group(0) @binding(8) var<storage, read_write> out: array<$ELEMENT>; // (T, C)

const NOTHING = -1e30;

var<workgroup> shared4: array<vec4f, 64>; // (8, 8)

//#if CONTENT_TO_POSITION
// Elements d … d + 3 of a head's key of a relative position.
fn positionKey(at: u32, d: u32) -> vec4f {
//#if VECTORS
  return positionKeys[(at + d) / 4];
//#else
  var elements = vec4f();
  for (var j = 0u; j < min(D - d, 4u); j++) {
    elements[j] = positionKeys[at + d + j];
  }
  return elements;
//#end
}
//#end

//#if POSITION_TO_CONTENT
// Elements d … d + 3 of a head's query of a relative position.
fn positionQuery(at: u32, d: u32) -> vec4f {
//#if VECTORS
  return positionQueries[(at + d) / 4];
//#else
  var elements = vec4f();
  for (var j = 0u; j < min(D - d, 4u); j++) {
    elements[j] = positionQueries[at + d + j];
  }
  return elements;
//#end
}
//#end

// The thread's block of logits, but for the scale: rows q0 + ty + 8i, keys k0 + 4 · tx + j.
fn scores(q0: u32, k0: u32, head: u32, thread: u32) -> mat4x4f {
  let tx = thread & 7;
  let ty = thread >> 3;
//#if POSITIONS
  // Where each pair's relative position begins; pairs of different sequences, whose logits go nowhere, may be beyond the table.
  let nearest = i32(q0 + ty + p.L) - i32(k0 + tx * 4) - 1;
  var at: array<vec4u, 4>;
  //#for i in 0..4
  for (var j = 0; j < 4; j++) {
    at[$i][j] = buckets[clamp(nearest + 8 * $i - j, 0, i32(p.L * 2) - 2)] * p.H * D + head * D;
  }
  //#end
//#end
  var sum = mat4x4f();
  for (var d = 0u; d < D; d += 32) {
    for (var i = thread; i < 256; i += 64) {
      let row = i >> 3;
      let quad = i & 7;
      tileX[row * ROW + quad] = fetch(QUERY, q0 + row, head, d + quad * 4);
      tileY[((row & 3) * 8 + (row >> 2)) * ROW + quad] = fetch(KEY, k0 + row, head, d + quad * 4);
    }
    workgroupBarrier();
    for (var quad = 0u; quad < min(DEPTH, D - d + 3) / 4; quad++) {
      //#for j in 0..4
      let key$j = tileY[(tx + 8 * $j) * ROW + quad];
      //#end
      //#for i in 0..4
      let query$i = tileX[(ty + 8 * $i) * ROW + quad];
      //#for j in 0..4
//#if CONTENT_TO_POSITION
      sum[$i][$j] += dot(query$i, key$j + positionKey(at[$i][$j], d + quad * 4));
//#else
      sum[$i][$j] += dot(query$i, key$j);
//#end
//#if POSITION_TO_CONTENT
      sum[$i][$j] += dot(key$j, positionQuery(at[$i][$j], d + quad * 4));
//#end
      //#end
      //#end
    }
    workgroupBarrier();
  }
  return sum;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let tx = thread & 7;
  let ty = thread >> 3;
  let head = group.y;
  let C = p.H * D;
  let q0 = group.x * 32;
  let row = q0 + ty; // and every eighth after it
  var first = vec4u(1);
  var last = vec4u(); // none
  //#for i in 0..4
  if (row + 8 * $i < p.T) {
    first[$i] = starts[row + 8 * $i];
    last[$i] = ends[row + 8 * $i] - 1;
  }
  //#end

  var sums: array<mat4x4f, $CHUNKS>; // Σ exp(logit − largest) · value, a row per column of the matrix
  var largest = vec4f(NOTHING); // of each row's logits so far
  var total = vec4f(); // Σ exp(logit − largest) of each row, over this thread's columns
  let end = ends[min(q0 + 31, p.T - 1)];
  for (var k0 = starts[q0]; k0 < end; k0 += 32) {
    var logits = p.scale * scores(q0, k0, head, thread);
    //#import attention_softmax
  }

  //#import attention_totals
  //#for i in 0..4
  if (row + 8 * $i < p.T) {
    //#for c in 0..CHUNKS
    store((row + 8 * $i) * C + head * D, $c * 32 + tx * 4, sums[$c][$i] / total[$i]);
    //#end
  }
  //#end
}
