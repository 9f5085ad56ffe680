// What kernels that quantise have in common: a thread takes four groups of 32 that lie side by side. Groups run
// down the rows, or with AXIS along the columns.
//#import pack

// How many groups lie in a row of `scales`.
fn groupsAcross() -> u32 {
//#if AXIS
  return (p.columns + 31) / 32;
//#else
  return p.stride;
//#end
}

// How many numbers a group has that begins there.
fn groupLength(row: u32, column: u32) -> u32 {
//#if AXIS
  return min(p.columns - column, 32);
//#else
  return min(p.rows - row, 32);
//#end
}

// Number i of each of the four groups that begin there; zero outside the matrix.
fn member(row: u32, column: u32, i: u32) -> vec4f {
//#if AXIS
  return vec4f(
    //#for j in 0..4
    number(row + $j, column + i),
    //#end
  );
//#else
  return source4(row + i, column);
//#end
}
