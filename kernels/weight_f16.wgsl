// A frozen matrix in halves, four to a vec2u, rows padded with zeros to a multiple of four columns.
//#import weight_block
@group(0) @binding(1) var<storage, read> weight: array<vec2u>;

// Columns column … column + 3 of a row, column a multiple of 4; zero outside the matrix.
fn weight4(row: u32, column: u32) -> vec4f {
  if (row >= p.weightRows || column >= p.weightColumns) {
    return vec4f();
  }
  let halves = weight[(row * p.weightStride + column) / 4];
  return vec4f(unpack2x16float(halves.x), unpack2x16float(halves.y));
}
