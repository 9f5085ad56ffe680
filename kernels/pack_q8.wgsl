// Bytes −127 … 127, the scale being a column's largest magnitude in the group / 127.
//#import pack

const WIDTH = 4u;

@group(0) @binding(2) var<storage, read_write> weight: array<u32>;
@group(0) @binding(3) var<storage, read_write> scales: array<vec4f>;

fn pack(row: u32, count: u32, column: u32) {
  var largest = vec4f();
  for (var r = row; r < row + count; r++) {
    largest = max(largest, abs(source4(r, column)));
  }
  let scale = largest / 127;
  for (var r = row; r < row + count; r++) {
    let steps = select(vec4f(), round(source4(r, column) / scale), scale > vec4f());
    let codes = vec4i(clamp(steps, vec4f(-127), vec4f(127)));
    weight[((p.row + r) * p.stride + column) / 4] = pack4xI8(codes);
  }
  scales[((p.row + row) / 32 * p.stride + column) / 4] = scale;
}
