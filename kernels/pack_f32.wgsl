// Rows padded with zeros.
//#import pack

const WIDTH = 4u;

@group(0) @binding(2) var<storage, read_write> weight: array<vec4f>;

fn pack(row: u32, count: u32, column: u32) {
  for (var r = row; r < row + count; r++) {
    weight[((p.row + r) * p.stride + column) / 4] = source4(r, column);
  }
}
