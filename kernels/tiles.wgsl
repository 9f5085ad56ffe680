// sum + a · b: a row vector times the four rows of b, as four multiply-adds that drivers fuse.
fn multiplyAdd(sum: vec4f, a: vec4f, b: mat4x4f) -> vec4f {
  return sum + a.x * b[0] + a.y * b[1] + a.z * b[2] + a.w * b[3];
}
