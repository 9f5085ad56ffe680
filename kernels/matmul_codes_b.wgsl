// A frozen matrix of 8- or 4-bit codes as `matmul_codes` wants it: words of four codes along K. Groups run down the
// rows where it is (K, N), or with TRANSPOSE_B along the columns where it is (N, K). How it is stored: `weight_q8`,
// `weight_q4`. What lies beyond K is multiplied by zero, what lies beyond N is not stored; neither needs to be zero.
@group(0) @binding(1) var<storage, read> weight: array<u32>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;

// Four codes of one row of the matrix, a byte each.
fn codes4(row: u32, column: u32) -> u32 {
  let i = row * p.weightStride + column;
//#if FOUR_BITS
  let nibbles = (weight[i / 8] >> ((i & 4) * 4)) & 0xffff;
  let pairs = (nibbles | (nibbles << 8)) & 0x00ff00ff;
  return (pairs | (pairs << 4)) & 0x0f0f0f0f;
//#else
  return weight[i / 4];
//#end
}

// Codes k … k + 3 of columns n … n + 3 of op(b), both multiples of 4, a word for each column.
fn codeBlock(k: u32, n: u32) -> vec4u {
//#if TRANSPOSE_B
  if (n >= p.N || k >= p.K) {
    return vec4u();
  }
  return vec4u(
    //#for j in 0..4
    codes4(min(n + $j, p.N - 1), k),
    //#end
  );
//#else
  if (n >= p.N || k >= p.K) {
    return vec4u();
  }
  let rows = vec4u(
    //#for j in 0..4
    codes4(min(k + $j, p.K - 1), n),
    //#end
  );
  //#for j in 0..4
  let bytes$j = ((rows >> vec4u(8 * $j)) & vec4u(255)) << vec4u(0, 8, 16, 24);
  //#end
  return vec4u(
    //#for j in 0..4
    bytes$j.x | bytes$j.y | bytes$j.z | bytes$j.w,
    //#end
  );
//#end
}

// A group's scale and minimum.
fn scale2(i: u32) -> vec2f {
//#if FOUR_BITS
  return unpack2x16float(scales[i]);
//#else
  return vec2f(bitcast<f32>(scales[i]), 0);
//#end
}

// Scales and minima of the groups that begin at k, of columns n … n + 3 of op(b).
fn scaleBlock(k: u32, n: u32) -> mat2x4f {
  if (n >= p.N) {
    return mat2x4f();
  }
//#if TRANSPOSE_B
  return transpose(mat4x2f(
    //#for j in 0..4
    scale2(min(n + $j, p.N - 1) * ((p.weightColumns + 31) / 32) + k / 32),
    //#end
  ));
//#else
  return transpose(mat4x2f(
    //#for j in 0..4
    scale2(k / 32 * p.weightStride + n + $j),
    //#end
  ));
//#end
}
