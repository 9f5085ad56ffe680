// The nearest halves, as f32: WGSL leaves it to the device which way `pack2x16float` rounds, except for
// numbers that need no rounding.
fn nearestHalf(x: vec4f) -> vec4f {
  let bits = bitcast<vec4u>(x);
  // Just under half a unit of the last place of 11 bits, one more when the kept part is odd.
  let normal = bitcast<vec4f>((bits + 0xfff + ((bits >> vec4u(13)) & vec4u(1))) & vec4u(0xffffe000));
  // Below 2⁻¹⁴ halves are multiples of 2⁻²⁴, which is the last place of f32 numbers from ½ to 1.
  let small = sign(x) * ((abs(x) + 0.5) - 0.5);
  return select(small, normal, abs(x) >= vec4f(0.00006103515625));
}

// The bits of the nearest half; of the largest, 65504, for what is finite and larger. In whole numbers, for devices
// may take infinities and NaN for anything.
fn saturatedHalf(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let sign = (bits >> 16) & 0x8000;
  let a = bits & 0x7fffffff;
  if (a >= 0x7f800000) {
    return sign | select(0x7c00u, 0x7e00u, a > 0x7f800000);
  }
  let within = min(a, 0x477fe000u); // 65504
  let normal = (within + 0xc8000fff + ((within >> 13) & 1)) >> 13;
  let small = u32(round(bitcast<f32>(within) * 16777216.0)); // multiples of 2⁻²⁴, ties to even
  return sign | select(normal, small, within < 0x38800000);
}
