// A matrix as a plain tensor holds it: row-major f32, any number of columns.
//#import weight_block
@group(0) @binding(1) var<storage, read> weight: array<f32>;

// Columns column … column + 3 of a row; zero outside the matrix.
fn weight4(row: u32, column: u32) -> vec4f {
  if (row >= p.weightRows || column >= p.weightColumns) {
    return vec4f();
  }
  let i = row * p.weightStride + column;
  let left = p.weightColumns - column;
  return vec4f(
    weight[i],
    select(0.0, weight[min(i + 1, i + left - 1)], left > 1),
    select(0.0, weight[min(i + 2, i + left - 1)], left > 2),
    select(0.0, weight[min(i + 3, i + left - 1)], left > 3),
  );
}
