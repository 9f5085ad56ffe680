// The frame of sums over rows, column by column: 32 columns to a workgroup, 8 threads to a column, their
// sums added in a fixed order. Kernels define `element(row, column)`, up to two numbers to be summed,
// `finish(column, sums)`, and `rows` and `columns` in Params.

var<workgroup> partial: array<vec2f, 256>; // (8, 32)

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let column = group.x * 32 + (thread & 31);
  var sum = vec2f();
  if (column < p.columns) {
    for (var row = thread >> 5; row < p.rows; row += 8) {
      sum += element(row, column);
    }
  }
  partial[thread] = sum;
  workgroupBarrier();
  if (thread < 32 && column < p.columns) {
    for (var i = 1u; i < 8; i++) {
      sum += partial[i * 32 + thread];
    }
    finish(column, sum);
  }
}
