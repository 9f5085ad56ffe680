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
