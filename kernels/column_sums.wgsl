// The frame of sums over rows, column by column: 32 columns to a workgroup, $DEPTH threads to a column, their
// sums added in a fixed order. Kernels define `element(row, column)`, up to two numbers to be summed,
// `finish(column, sums)`, and `rows` and `columns` in Params.

const DEPTH = u32($DEPTH);

var<workgroup> partial: array<vec2f, 32 * DEPTH>; // (DEPTH, 32)

@compute @workgroup_size(32 * DEPTH)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let column = group.x * 32 + (thread & 31);
  var sum = vec2f();
  if (column < p.columns) {
    for (var row = thread >> 5; row < p.rows; row += DEPTH * 4) {
      //#for j in 0..4
      if (row + DEPTH * $j < p.rows) {
        sum += element(row + DEPTH * $j, column);
      }
      //#end
    }
  }
  partial[thread] = sum;
  workgroupBarrier();
  if (thread < 32 && column < p.columns) {
    for (var i = 1u; i < DEPTH; i++) {
      sum += partial[i * 32 + thread];
    }
    finish(column, sum);
  }
}
