// A frozen matrix in signed bytes, four columns to a u32, rows padded to a multiple of four columns; an f32 scale
// per group of 32 down the rows, or with AXIS along the columns.
@group(0) @binding(1) var<storage, read> weight: array<u32>;
//#if AXIS
//#import weight_block
@group(0) @binding(2) var<storage, read> scales: array<f32>;
//#else
@group(0) @binding(2) var<storage, read> scales: array<vec4f>;
//#end

// The bytes of columns column … column + 3 of a row, column a multiple of 4; zero outside the matrix.
fn codes4(row: u32, column: u32) -> vec4f {
  if (row >= p.weightRows || column >= p.weightColumns) {
    return vec4f();
  }
  return vec4f(unpack4xI8(weight[(row * p.weightStride + column) / 4]));
}

// Columns column … column + 3 of a row, column a multiple of 4; zero outside the matrix.
fn weight4(row: u32, column: u32) -> vec4f {
  if (row >= p.weightRows || column >= p.weightColumns) {
    return vec4f();
  }
//#if AXIS
  return codes4(row, column) * scales[row * ((p.weightColumns + 31) / 32) + column / 32];
//#else
  return codes4(row, column) * scales[((row / 32) * p.weightStride + column) / 4];
//#end
}
//#if !AXIS

// Columns column … column + 3 of rows row … row + 3, both multiples of 4, so that the rows share their scales; zero
// outside the matrix.
fn weightBlock(row: u32, column: u32) -> mat4x4f {
  if (row >= p.weightRows || column >= p.weightColumns) {
    return mat4x4f();
  }
  let scale = scales[((row / 32) * p.weightStride + column) / 4];
  return mat4x4f(
    //#for j in 0..4
    codes4(row + $j, column) * scale,
    //#end
  );
}
//#end
