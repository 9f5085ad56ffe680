// The left operand of a matrix product, a plain tensor.
//#if A_VECTORS
@group(0) @binding(3) var<storage, read> a: array<vec4f>;
//#else
@group(0) @binding(3) var<storage, read> a: array<f32>;
//#end

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
