// A frozen matrix in f32: rows padded with zeros to a multiple of four columns.
//#import weight_block
@group(0) @binding(1) var<storage, read> weight: array<vec4f>;

// Columns column … column + 3 of a row, column a multiple of 4; zero outside the matrix.
fn weight4(row: u32, column: u32) -> vec4f {
  if (row >= p.weightRows || column >= p.weightColumns) {
    return vec4f();
  }
  return weight[(row * p.weightStride + column) / 4];
}
