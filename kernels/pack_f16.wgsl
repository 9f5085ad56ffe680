// Halves, rows padded with zeros.
//#import half
//#import pack

const WIDTH = 4u;

@group(0) @binding(2) var<storage, read_write> weight: array<vec2u>;

fn pack(row: u32, count: u32, column: u32) {
  for (var r = row; r < row + count; r++) {
    let w = nearestHalf(source4(r, column));
    weight[((p.row + r) * p.stride + column) / 4] = vec2u(pack2x16float(w.xy), pack2x16float(w.zw));
  }
}
