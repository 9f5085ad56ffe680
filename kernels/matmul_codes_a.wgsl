// The left operand of a product in bytes: codes −127 … 127 in groups of 32 along K, a group's scale being its largest
// magnitude / 127; rows padded with zeros to whole groups. A thread takes four numbers.
//#import matmul_a
//#import index

struct Params {
  M: u32,
  K: u32,
  aStride: u32,
  aColumn: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> codes: array<u32>; // (M, ⌈K / 32⌉ · 8), four to a word
@group(0) @binding(2) var<storage, read_write> groups: array<vec2f>; // (M, ⌈K / 32⌉): scale, scale · sum of codes

var<workgroup> largest: array<f32, 256>;
var<workgroup> sums: array<u32, 256>;

// Whether one is infinite or no number: in whole numbers, for devices may take such floats for anything.
fn isBroken(x: vec4f) -> bool {
  return any((bitcast<vec4u>(x) & vec4u(0x7f800000)) == vec4u(0x7f800000));
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) across: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = linear(group, across) * 256 + thread;
  let width = (p.K + 31) / 32 * 8;
  let row = i / width;
  let x = a4(row, i % width * 4, p.M, p.K);
  let magnitude = abs(x);
  largest[thread] = max(max(magnitude.x, magnitude.y), max(magnitude.z, magnitude.w));
  sums[thread] = u32(isBroken(x));
  workgroupBarrier();
  let first = thread & 0xf8; // of the eight threads of a group
  var most = 0f;
  var broken = 0u;
  //#for j in 0..8
  most = max(most, largest[first + $j]);
  broken |= sums[first + $j];
  //#end
  let scale = most / 127;
  let steps = select(vec4f(), round(x / scale), scale > 0);
  let word = pack4xI8(vec4i(clamp(steps, vec4f(-127), vec4f(127))));
  workgroupBarrier();
  sums[thread] = bitcast<u32>(dot4I8Packed(word, 0x01010101));
  workgroupBarrier();
  if (row >= p.M) {
    return;
  }
  codes[i] = select(word, 0x01010101, broken != 0);
  if (thread == first) {
    var sum = 0i;
    //#for j in 0..8
    sum += bitcast<i32>(sums[first + $j]);
    //#end
    // What is not a number is passed on: it makes all sums that it has a part in what it is.
    let poison = bitcast<f32>(0x7fc00000 | (i & 1));
    groups[i / 8] = select(vec2f(scale, scale * f32(sum)), vec2f(poison), broken != 0);
  }
}
