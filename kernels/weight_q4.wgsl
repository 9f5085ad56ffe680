// A frozen matrix in 4-bit codes, eight columns to a u32, rows padded to a multiple of eight columns; a weight is
// scale · code + minimum, both halves in one u32 per group of 32 down the rows, or with AXIS along the columns.
@group(0) @binding(1) var<storage, read> weight: array<u32>;
//#if AXIS
//#import weight_block
@group(0) @binding(2) var<storage, read> scales: array<u32>;
//#else
@group(0) @binding(2) var<storage, read> scales: array<vec4u>;
//#end

// The codes of columns column … column + 3 of a row of the matrix, column a multiple of 4.
fn codes4(row: u32, column: u32) -> vec4f {
  let i = row * p.weightStride + column;
  let nibbles = weight[i / 8] >> ((i & 4) * 4);
  return vec4f((vec4u(nibbles) >> vec4u(0, 4, 8, 12)) & vec4u(15));
}
//#if !AXIS

// Scales and minima of columns column … column + 3 of a row.
fn scales4(row: u32, column: u32) -> mat2x4f {
  let pairs = scales[((row / 32) * p.weightStride + column) / 4];
  return transpose(mat4x2f(
    unpack2x16float(pairs.x),
    unpack2x16float(pairs.y),
    unpack2x16float(pairs.z),
    unpack2x16float(pairs.w),
  ));
}
//#end

// Columns column … column + 3 of a row, column a multiple of 4; zero outside the matrix, but beside its last
// column whatever the codes there say.
fn weight4(row: u32, column: u32) -> vec4f {
  if (row >= p.weightRows || column >= p.weightColumns) {
    return vec4f();
  }
//#if AXIS
  let halves = unpack2x16float(scales[row * ((p.weightColumns + 31) / 32) + column / 32]);
//#else
  let halves = scales4(row, column);
//#end
  return codes4(row, column) * halves[0] + halves[1];
}
//#if !AXIS

// Columns column … column + 3 of rows row … row + 3, both multiples of 4, so that the rows share their scales; zero
// outside the matrix, as above.
fn weightBlock(row: u32, column: u32) -> mat4x4f {
  if (row >= p.weightRows || column >= p.weightColumns) {
    return mat4x4f();
  }
  let halves = scales4(row, column);
  let left = p.weightRows - row;
  return mat4x4f(
    //#for j in 0..4
    select(vec4f(), codes4(row + $j, column) * halves[0] + halves[1], left > $j),
    //#end
  );
}
//#end
