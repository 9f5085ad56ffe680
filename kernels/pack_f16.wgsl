// Halves, rows padded with zeros.
//#import half
//#import pack

@group(0) @binding(2) var<storage, read_write> weight: array<vec2u>;

fn pack(row: u32, column: u32) {
  let w = nearestHalf(source4(row, column));
  weight[((p.row + row) * p.stride + column) / 4] = vec2u(pack2x16float(w.xy), pack2x16float(w.zw));
}
