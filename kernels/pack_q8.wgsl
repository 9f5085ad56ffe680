// Bytes −127 … 127, the scale being a group's largest magnitude / 127.
//#import pack_groups

@group(0) @binding(2) var<storage, read_write> weight: array<u32>;
@group(0) @binding(3) var<storage, read_write> scales: array<f32>;

fn codes(w: vec4f, scale: vec4f) -> vec4i {
  let steps = select(vec4f(), round(w / scale), scale > vec4f());
  return vec4i(clamp(steps, vec4f(-127), vec4f(127)));
}

fn pack(row: u32, column: u32) {
  let length = groupLength(row, column);
  var largest = vec4f();
  for (var i = 0u; i < length; i++) {
    largest = max(largest, abs(member(row, column, i)));
  }
  let scale = largest / 127;
//#if AXIS
  let rows = min(p.rows - row, 4);
  for (var i = 0u; i < min(p.stride - column, 32); i += 4) {
    //#for k in 0..4
    let codes$k = codes(member(row, column, i + $k), scale);
    //#end
    for (var j = 0u; j < rows; j++) {
      let word = pack4xI8(vec4i(codes0[j], codes1[j], codes2[j], codes3[j]));
      weight[((p.row + row + j) * p.stride + column + i) / 4] = word;
    }
  }
  for (var j = 0u; j < rows; j++) {
    scales[(p.row + row + j) * groupsAcross() + column / 32] = scale[j];
  }
//#else
  for (var i = 0u; i < length; i++) {
    let word = pack4xI8(codes(member(row, column, i), scale));
    weight[((p.row + row + i) * p.stride + column) / 4] = word;
  }
  for (var j = 0u; j < 4; j++) {
    scales[(p.row + row) / 32 * groupsAcross() + column + j] = scale[j];
  }
//#end
}
