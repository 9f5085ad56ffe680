// Rows padded with zeros.
//#import pack

@group(0) @binding(2) var<storage, read_write> weight: array<vec4f>;

fn pack(row: u32, column: u32) {
  weight[((p.row + row) * p.stride + column) / 4] = source4(row, column);
}
