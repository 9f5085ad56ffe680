// What the attention kernels share: products of tiles of 32 rows by 32 rows, after FlashAttention-2
// (Dao 2023). 64 threads as 8 × 8; thread (tx, ty) has rows ty, ty + 8, ty + 16, ty + 24 of a product and
// four neighbouring columns from 4 · tx on, a column of a mat4x4f per row. D is the head's width, worked
// through in chunks of 32; what lies beyond T or D is zero. Rows of tiles are 9 vec4 apart, so that rows
// that are read together lie in different banks. Loops are written out only as far as vectors go: a
// software adapter took 40 s to compile the backward pass written out in full.
//#import tiles
//#import heads
//#if CACHED
//#import cache
//#end

const DEPTH = u32($DEPTH); // of a chunk: 32, or D rounded up to a multiple of 4
const ROW = 9u;

const GRADIENT = 3u; // of the output

//#if HELD
// Where the device has room, the tiles of all of D that a workgroup needs again and again stay: $HELD of them.
const HELD_ROW = ((D + 3) / 4) | 1;
var<workgroup> tilesX: array<vec4f, u32($HELD) * 32 * HELD_ROW>;
//#else
var<workgroup> tileX: array<vec4f, 288>; // (32, 32 / 4)
//#end
var<workgroup> tileY: array<vec4f, 288>; // (32, 32 / 4)
var<workgroup> tileW: array<vec4f, 288>; // (32, 32 / 4): weights, rows by columns

//#if BACKWARD
@group(0) @binding(2) var<storage, read> dOut: array<$ELEMENT>; // (T, C)
//#end
//#if CACHED

// The slot at hand, and how many keys it has.
var<private> slot: u32;
var<private> slotKeys: u32;
//#end

// Elements d … d + 3 of one head's query, key, value or output gradient.
fn fetch(what: u32, row: u32, head: u32, d: u32) -> vec4f {
//#if CACHED
  if (what != QUERY) {
    if (row >= slotKeys || d >= D) {
      return vec4f();
    }
    return cached4(what, placeOf(slot, row), head, d);
  }
//#end
  if (row >= p.T || d >= D) {
    return vec4f();
  }
//#if BACKWARD
  if (what == GRADIENT) {
    let i = (row * p.H + head) * D + d;
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
  return qkv4(row, what, head, d);
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
  return (numbers >= vec4u(first)) & (numbers <= vec4u(last));
}

// Keeps 32 rows from `row` on as the held tile of a number; `product` may have it at once.
fn hold(tile: u32, what: u32, row: u32, head: u32, thread: u32) {
//#if HELD
  for (var i = thread; i < 32 * HELD_ROW; i += 64) {
    tilesX[tile * 32 * HELD_ROW + i] = fetch(what, row + i / HELD_ROW, head, i % HELD_ROW * 4);
  }
//#end
}

// The thread's block of X Yᵀ, X and Y being 32 rows of D each; X is what was held as `tile`.
fn product(tile: u32, x: u32, rowX: u32, y: u32, rowY: u32, head: u32, thread: u32) -> mat4x4f {
  let tx = thread & 7;
  let ty = thread >> 3;
  var sum = mat4x4f();
  for (var d = 0u; d < D; d += 32) {
    for (var i = thread; i < 256; i += 64) {
      let row = i >> 3;
      let quad = i & 7;
//#if !HELD
      tileX[row * ROW + quad] = fetch(x, rowX + row, head, d + quad * 4);
//#end
      // Row 4 · tx + j lies at tx + 8 · j, for the sake of the banks.
      tileY[((row & 3) * 8 + (row >> 2)) * ROW + quad] = fetch(y, rowY + row, head, d + quad * 4);
    }
    workgroupBarrier();
    for (var quad = 0u; quad < min(DEPTH, D - d + 3) / 4; quad++) {
      let columns = transpose(mat4x4f(
        //#for j in 0..4
        tileY[(tx + 8 * $j) * ROW + quad],
        //#end
      ));
      //#for i in 0..4
//#if HELD
      let x$i = tilesX[(tile * 32 + ty + 8 * $i) * HELD_ROW + d / 4 + quad];
//#else
      let x$i = tileX[(ty + 8 * $i) * ROW + quad];
//#end
      sum[$i] = multiplyAdd(sum[$i], x$i, columns);
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
