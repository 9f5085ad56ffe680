// A frozen matrix in signed bytes, four columns to a u32, rows padded to a multiple of four columns; an f32 scale
// per group of 32 down the rows, or with AXIS along the columns.
@group(0) @binding(1) var<storage, read> weight: array<u32>;
//#if AXIS
@group(0) @binding(2) var<storage, read> scales: array<f32>;
//#else
@group(0) @binding(2) var<storage, read> scales: array<vec4f>;
//#end

// Columns column … column + 3 of a row, column a multiple of 4; zero outside the matrix.
fn weight4(row: u32, column: u32) -> vec4f {
  if (row >= p.weightRows || column >= p.weightColumns) {
    return vec4f();
  }
  let codes = vec4f(unpack4xI8(weight[(row * p.weightStride + column) / 4]));
//#if AXIS
  return codes * scales[row * ((p.weightColumns + 31) / 32) + column / 32];
//#else
  return codes * scales[((row / 32) * p.weightStride + column) / 4];
//#end
}
