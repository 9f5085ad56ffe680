// out (M, N) = activation(alpha · op(a) (M, K) · op(b) (K, N) + bias) + residual, in tiles of 64 × 64
// outputs and 32 deep: 256 threads with 4 × 4 outputs each, both operands staged in workgroup memory,
// the deep axis outermost there so that a step takes one vec4 of each. b comes through `weight4`, which
// hides how it is stored. The inner steps are written out: naga guards every loop (gfx-rs/wgpu#7698).
//#import gelu
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

var<workgroup> tileA: array<vec4f, 512>; // (32, 64 / 4)
var<workgroup> tileB: array<vec4f, 512>; // (32, 64 / 4)

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
  // Half of the threads fetch a, the others b, each a block of 4 × 4 with neighbours along the rows as
  // they are stored; a block whose stored rows are not the deep axis is transposed on its way.
  let block = thread & 127;
  let deepAcross = (block & 7) * 4;
  let wideAcross = (block >> 3) * 4;
  let deepDown = (block >> 4) * 4;
  let wideDown = (block & 15) * 4;

  var sum0 = vec4f();
  var sum1 = vec4f();
  var sum2 = vec4f();
  var sum3 = vec4f();
  for (var k0 = 0u; k0 < p.K; k0 += 32) {
    if (thread < 128) {
//#if TRANSPOSE_A
      //#for i in 0..4
      tileA[(deepDown + $i) * 16 + wideDown / 4] = a4(k0 + deepDown + $i, m0 + wideDown, p.K, p.M);
      //#end
//#else
      let rows = transpose(mat4x4f(
        //#for i in 0..4
        a4(m0 + wideAcross + $i, k0 + deepAcross, p.M, p.K),
        //#end
      ));
      //#for i in 0..4
      tileA[(deepAcross + $i) * 16 + wideAcross / 4] = rows[$i];
      //#end
//#end
    } else {
//#if TRANSPOSE_B
      let rows = transpose(mat4x4f(
        //#for i in 0..4
        weight4(n0 + wideAcross + $i, k0 + deepAcross),
        //#end
      ));
      //#for i in 0..4
      tileB[(deepAcross + $i) * 16 + wideAcross / 4] = rows[$i];
      //#end
//#else
      //#for i in 0..4
      tileB[(deepDown + $i) * 16 + wideDown / 4] = weight4(k0 + deepDown + $i, n0 + wideDown);
      //#end
//#end
    }
    workgroupBarrier();
    for (var k = 0u; k < 32; k += 4) {
      //#for i in 0..4
      {
        let x = tileA[(k + $i) * 16 + ty];
        let y = tileB[(k + $i) * 16 + tx];
        sum0 += x.x * y;
        sum1 += x.y * y;
        sum2 += x.z * y;
        sum3 += x.w * y;
      }
      //#end
    }
    workgroupBarrier();
  }
  //#for i in 0..4
  store(m0 + ty * 4 + $i, n0 + tx * 4, sum$i);
  //#end
}
