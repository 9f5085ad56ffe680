// out (M, N) = activation(alpha · op(a) (M, K) · op(b) (K, N) + bias) + residual, in tiles of 64 × 64
// outputs and 32 deep: 256 threads with 4 × 4 outputs each, both operands staged in workgroup memory as
// they are stored and transposed, if at all, in registers. b comes through `weight4`, which hides how it
// is stored. Of the inner loop, which naga guards (gfx-rs/wgpu#7698), four steps are written out.
//#import gelu
//#import tiles
//#import weight_$FORMAT

struct Params {
  M: u32,
  N: u32,
  K: u32,
  aStride: u32,
  // Where this part of the product begins in a row of `a` as it is stored, and in a row of `out`.
  aColumn: u32,
  outStride: u32,
  outColumn: u32,
  weightRows: u32,
  weightColumns: u32,
  weightStride: u32,
  alpha: f32,
  hasBias: u32,
  hasGelu: u32,
  hasResidual: u32,
  // How often what `out` holds is added; 0 never reads it.
  outFactor: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
//#if A_VECTORS
@group(0) @binding(3) var<storage, read> a: array<vec4f>;
//#else
@group(0) @binding(3) var<storage, read> a: array<f32>;
//#end
//#if OUT_VECTORS
@group(0) @binding(4) var<storage, read> bias: array<vec4f>;
@group(0) @binding(5) var<storage, read> residual: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4f>;
//#else
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> residual: array<f32>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;
//#end

// 16 KiB in all, as much as every device has. The vec4 of a row of 32 are permuted, so that those which are
// read together lie in different banks.
var<workgroup> tileA: array<vec4f, 512>; // (64 of M, 32 / 4 of K), or transposed (32 of K, 64 / 4 of M)
var<workgroup> tileB: array<vec4f, 512>; // (32 of K, 64 / 4 of N), or transposed (64 of N, 32 / 4 of K)

// Where vec4 k of row 4 · x + j of a 64 × 32 tile lies.
fn place(x: u32, j: u32, k: u32) -> u32 {
  return (x + 16 * j) * 8 + (k ^ (x & 7));
}

// Columns column … column + 3 of a stored row of `a`; zero outside rows × columns.
fn a4(row: u32, column: u32, rows: u32, columns: u32) -> vec4f {
  if (row >= rows || column >= columns) {
    return vec4f();
  }
  let i = row * p.aStride + p.aColumn + column;
//#if A_VECTORS
  return a[i / 4];
//#else
  let left = columns - column;
  return vec4f(
    a[i],
    select(0.0, a[min(i + 1, i + left - 1)], left > 1),
    select(0.0, a[min(i + 2, i + left - 1)], left > 2),
    select(0.0, a[min(i + 3, i + left - 1)], left > 3),
  );
//#end
}

fn store(row: u32, column: u32, product: vec4f) {
  if (row >= p.M || column >= p.N) {
    return;
  }
  let n = p.outColumn + column;
  let i = row * p.outStride + n;
  var value = p.alpha * product;
//#if OUT_VECTORS
  if (p.hasBias != 0) {
    value += bias[n / 4];
  }
  if (p.hasGelu != 0) {
    value = gelu(value);
  }
  if (p.hasResidual != 0) {
    value += residual[i / 4];
  }
  if (p.outFactor != 0) {
    value += p.outFactor * out[i / 4];
  }
  out[i / 4] = value;
//#else
  let width = min(p.N - column, 4u);
  for (var j = 0u; j < width; j++) {
    var x = value[j];
    if (p.hasBias != 0) {
      x += bias[n + j];
    }
    if (p.hasGelu != 0) {
      x = gelu(vec4f(x)).x;
    }
    if (p.hasResidual != 0) {
      x += residual[i + j];
    }
    if (p.outFactor != 0) {
      x += p.outFactor * out[i + j];
    }
    out[i + j] = x;
  }
//#end
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let m0 = group.y * 64;
  let n0 = group.x * 64;
  let tx = thread & 15;
  let ty = thread >> 4;
  //#for i in 0..4
  var sum$i = vec4f();
  //#end
  for (var k0 = 0u; k0 < p.K; k0 += 32) {
    for (var i = thread; i < 512; i += 256) {
//#if TRANSPOSE_A
      tileA[i] = a4(k0 + (i >> 4), m0 + (i & 15) * 4, p.K, p.M);
//#else
      tileA[place(i >> 5, (i >> 3) & 3, i & 7)] = a4(m0 + (i >> 3), k0 + (i & 7) * 4, p.M, p.K);
//#end
//#if TRANSPOSE_B
      tileB[place(i >> 5, (i >> 3) & 3, i & 7)] = weight4(n0 + (i >> 3), k0 + (i & 7) * 4);
//#else
      tileB[i] = weight4(k0 + (i >> 4), n0 + (i & 15) * 4);
//#end
    }
    workgroupBarrier();
    for (var k = 0u; k < 8; k++) {
//#if TRANSPOSE_A
      let a = transpose(mat4x4f(
        //#for j in 0..4
        tileA[(k * 4 + $j) * 16 + ty],
        //#end
      ));
//#else
      let a = mat4x4f(
        //#for i in 0..4
        tileA[place(ty, $i, k)],
        //#end
      );
//#end
//#if TRANSPOSE_B
      let b = transpose(mat4x4f(
        //#for j in 0..4
        tileB[place(tx, $j, k)],
        //#end
      ));
//#else
      let b = mat4x4f(
        //#for j in 0..4
        tileB[(k * 4 + $j) * 16 + tx],
        //#end
      );
//#end
      //#for i in 0..4
      sum$i = multiplyAdd(sum$i, a[$i], b);
      //#end
    }
    workgroupBarrier();
  }
  //#for i in 0..4
  store(m0 + ty * 4 + $i, n0 + tx * 4, sum$i);
  //#end
}
