// What the attention kernels share: products of tiles of 32 rows by 32 rows, after FlashAttention-2
// (Dao 2023). 64 threads as 8 × 8, thread (tx, ty) with a block of 4 × 4, so that each step along the
// inner axis takes one vec4 of either side. Tiles hold the inner axis outermost. D is the head's width,
// worked through in chunks of 32; what lies beyond T or D is zero.

const D = u32($D);

const QUERY = 0u;
const KEY = 1u;
const VALUE = 2u;
const GRADIENT = 3u; // of the output

var<workgroup> tileX: array<vec4f, 256>; // (32, 32 / 4)
var<workgroup> tileY: array<vec4f, 256>; // (32, 32 / 4)
var<workgroup> tileW: array<vec4f, 256>; // (32 columns, 32 / 4 rows): weights of rows by columns

//#if VECTORS
@group(0) @binding(1) var<storage, read> qkv: array<vec4f>; // (T, 3C)
//#else
@group(0) @binding(1) var<storage, read> qkv: array<f32>; // (T, 3C)
//#end
//#if BACKWARD
//#if VECTORS
@group(0) @binding(2) var<storage, read> dOut: array<vec4f>; // (T, C)
//#else
@group(0) @binding(2) var<storage, read> dOut: array<f32>; // (T, C)
//#end
//#end

// Elements d … d + 3 of one head's query, key, value or output gradient.
fn fetch(what: u32, row: u32, head: u32, d: u32) -> vec4f {
  if (row >= p.T || d >= D) {
    return vec4f();
  }
  let C = p.H * D;
//#if !VECTORS
  let left = vec3u(min(1u, D - d - 1), min(2u, D - d - 1), min(3u, D - d - 1));
  let inside = vec4f(1, vec3f(vec3u(D - d) > vec3u(1, 2, 3)));
//#end
//#if BACKWARD
  if (what == GRADIENT) {
    let i = row * C + head * D + d;
//#if VECTORS
    return dOut[i / 4];
//#else
    return vec4f(dOut[i], dOut[i + left.x], dOut[i + left.y], dOut[i + left.z]) * inside;
//#end
  }
//#end
  let i = (row * 3 + what) * C + head * D + d;
//#if VECTORS
  return qkv[i / 4];
//#else
  return vec4f(qkv[i], qkv[i + left.x], qkv[i + left.y], qkv[i + left.z]) * inside;
//#end
}

// Four rows of fetch's, from `row` on.
fn fetchBlock(what: u32, row: u32, head: u32, d: u32) -> mat4x4f {
  return mat4x4f(
    //#for i in 0..4
    fetch(what, row + $i, head, d),
    //#end
  );
}

// x yᵀ, a row of it per component of x.
fn outer(x: vec4f, y: vec4f) -> mat4x4f {
  return mat4x4f(x.x * y, x.y * y, x.z * y, x.w * y);
}

// The thread's block of X Yᵀ, X and Y being 32 rows of D each.
fn product(x: u32, rowX: u32, y: u32, rowY: u32, head: u32, thread: u32) -> mat4x4f {
  let tx = thread & 7;
  let ty = thread >> 3;
  var sum = mat4x4f();
  for (var d = 0u; d < D; d += 32) {
    let blockX = transpose(fetchBlock(x, rowX + ty * 4, head, d + tx * 4));
    let blockY = transpose(fetchBlock(y, rowY + ty * 4, head, d + tx * 4));
    //#for i in 0..4
    tileX[(tx * 4 + $i) * 8 + ty] = blockX[$i];
    tileY[(tx * 4 + $i) * 8 + ty] = blockY[$i];
    //#end
    workgroupBarrier();
    //#for i in 0..DEPTH
    sum += outer(tileX[$i * 8 + ty], tileY[$i * 8 + tx]);
    //#end
    workgroupBarrier();
  }
  return sum;
}

// Puts the thread's block of weights, a row of it per column of the matrix, where `weigh` finds it.
fn setWeights(weights: mat4x4f, thread: u32) {
  let columns = transpose(weights);
  //#for i in 0..4
  tileW[((thread & 7) * 4 + $i) * 8 + (thread >> 3)] = columns[$i];
  //#end
}

// The thread's block of W Z: 32 rows of weights times Z's 32 rows, elements d … d + 31.
fn weigh(z: u32, row: u32, head: u32, d: u32, thread: u32) -> mat4x4f {
  let tx = thread & 7;
  let ty = thread >> 3;
  let block = fetchBlock(z, row + ty * 4, head, d + tx * 4);
  //#for i in 0..4
  tileY[(ty * 4 + $i) * 8 + tx] = block[$i];
  //#end
  workgroupBarrier();
  var sum = mat4x4f();
  //#for i in 0..32
  sum += outer(tileW[$i * 8 + ty], tileY[$i * 8 + tx]);
  //#end
  workgroupBarrier();
  return sum;
}
