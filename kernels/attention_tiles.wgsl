// What the attention kernels share: products of tiles of 32 rows by 32 rows, after FlashAttention-2
// (Dao 2023). 64 threads as 8 × 8; thread (tx, ty) has rows ty, ty + 8, ty + 16, ty + 24 of a product and
// four neighbouring columns from 4 · tx on, a column of a mat4x4f per row. D is the head's width, worked
// through in chunks of 32; what lies beyond T or D is zero. Rows of tiles are 9 vec4 apart, so that rows
// that are read together lie in different banks. Loops are written out only as far as vectors go: a
// software adapter took 40 s to compile the backward pass written out in full.
//#import tiles

const D = u32($D);
const DEPTH = u32($DEPTH); // of a chunk: 32, or D rounded up to a multiple of 4
const ROW = 9u;

const QUERY = 0u;
const KEY = 1u;
const VALUE = 2u;
const GRADIENT = 3u; // of the output

var<workgroup> tileX: array<vec4f, 288>; // (32, 32 / 4)
var<workgroup> tileY: array<vec4f, 288>; // (32, 32 / 4)
var<workgroup> tileW: array<vec4f, 288>; // (32, 32 / 4): weights, rows by columns

@group(0) @binding(1) var<storage, read> qkv: array<$ELEMENT>; // (T, 3C)
//#if BACKWARD
@group(0) @binding(2) var<storage, read> dOut: array<$ELEMENT>; // (T, C)
//#end

// Elements d … d + 3 of one head's query, key, value or output gradient.
fn fetch(what: u32, row: u32, head: u32, d: u32) -> vec4f {
  if (row >= p.T || d >= D) {
    return vec4f();
  }
  let C = p.H * D;
//#if BACKWARD
  if (what == GRADIENT) {
    let i = row * C + head * D + d;
//#if VECTORS
    return dOut[i / 4];
//#else
    var elements = vec4f();
    for (var j = 0u; j < min(D - d, 4u); j++) {
      elements[j] = dOut[i + j];
    }
    return elements;
//#end
  }
//#end
  let i = (row * 3 + what) * C + head * D + d;
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

// Elements d … d + 3 of the row of a head that begins at `at`.
fn store(at: u32, d: u32, elements: vec4f) {
//#if VECTORS
  if (d < D) {
    $OUT[(at + d) / 4] = elements;
  }
//#else
  //#for j in 0..4
  if (d + $j < D) {
    $OUT[at + d + $j] = elements[$j];
  }
  //#end
//#end
}

// Which of four numbers are first … last.
fn within(numbers: vec4u, first: u32, last: u32) -> vec4<bool> {
  return numbers >= vec4u(first) & numbers <= vec4u(last);
}

// The thread's block of X Yᵀ, X and Y being 32 rows of D each.
fn product(x: u32, rowX: u32, y: u32, rowY: u32, head: u32, thread: u32) -> mat4x4f {
  let tx = thread & 7;
  let ty = thread >> 3;
  var sum = mat4x4f();
  for (var d = 0u; d < D; d += 32) {
    for (var i = thread; i < 256; i += 64) {
      let row = i >> 3;
      let quad = i & 7;
      tileX[row * ROW + quad] = fetch(x, rowX + row, head, d + quad * 4);
      // Row 4 · tx + j lies at tx + 8 · j, for the sake of the banks.
      tileY[((row & 3) * 8 + (row >> 2)) * ROW + quad] = fetch(y, rowY + row, head, d + quad * 4);
    }
    workgroupBarrier();
    for (var quad = 0u; quad < DEPTH / 4; quad++) {
      let columns = transpose(mat4x4f(
        //#for j in 0..4
        tileY[(tx + 8 * $j) * ROW + quad],
        //#end
      ));
      //#for i in 0..4
      sum[$i] = multiplyAdd(sum[$i], tileX[(ty + 8 * $i) * ROW + quad], columns);
      //#end
    }
    workgroupBarrier();
  }
  return sum;
}

// Puts the thread's block of weights where `weigh` finds it.
fn setWeights(weights: mat4x4f, thread: u32) {
  //#for i in 0..4
  tileW[((thread >> 3) + 8 * $i) * ROW + (thread & 7)] = weights[$i];
  //#end
}

// The thread's block of W Z: 32 rows of weights times Z's 32 rows, elements d … d + 31.
fn weigh(z: u32, rowZ: u32, head: u32, d: u32, thread: u32) -> mat4x4f {
  let tx = thread & 7;
  let ty = thread >> 3;
  for (var i = thread; i < 256; i += 64) {
    let row = i >> 3;
    let quad = i & 7;
    tileY[row * ROW + quad] = fetch(z, rowZ + row, head, d + quad * 4);
  }
  workgroupBarrier();
  var sum = mat4x4f();
  for (var quad = 0u; quad < 8; quad++) {
    let rows = mat4x4f(
      //#for j in 0..4
      tileY[(quad * 4 + $j) * ROW + tx],
      //#end
    );
    //#for i in 0..4
    sum[$i] = multiplyAdd(sum[$i], tileW[(ty + 8 * $i) * ROW + quad], rows);
    //#end
  }
  workgroupBarrier();
  return sum;
}
