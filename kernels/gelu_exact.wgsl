// out = 0.5 · x · (1 + erf(x / √2)), GELU as it is defined (Hendrycks & Gimpel 2016). The error function after Abramowitz
// & Stegun, 7.1.26: within 1.5e-7.
//#import elementwise
//#import gelu

struct Params {
  length: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<$ELEMENT>;
@group(0) @binding(2) var<storage, read_write> out: array<$ELEMENT>;

fn element(i: u32) {
  let z = abs(x[i]) * 0.7071067811865476;
  let t = 1 / (1 + 0.3275911 * z);
  let series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  // erfc(z); what is beyond 9 is nothing in floats.
//#if VECTORS
  let rest = series * accurateExp(-min(z * z, vec4f(81)));
//#else
  let rest = series * accurateExp(vec4f(-min(z * z, 81))).x;
//#end
  out[i] = 0.5 * x[i] * select(2 - rest, rest, x[i] < $ELEMENT());
}
