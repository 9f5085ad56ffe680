// Columns column … column + 3 of rows row … row + 3, both multiples of 4; zero outside the matrix.
fn weightBlock(row: u32, column: u32) -> mat4x4f {
  return mat4x4f(
    //#for j in 0..4
    weight4(row + $j, column),
    //#end
  );
}
