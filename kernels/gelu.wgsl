// GELU, the tanh form of GPT-2 (Hendrycks & Gimpel 2016): 0.5 · x · (1 + tanh(u)) = x · σ(2u) with
// u = sqrt(2/π) · (x + 0.044715 · x³).

// exp of −87 … 87, to 1e-7 everywhere: WGSL's may be off by more the larger its argument, and its tanh
// loses everything near 0. Cody & Waite's reduction by multiples of ln 2, then Taylor's series.
fn accurateExp(x: vec4f) -> vec4f {
  let n = round(x * 1.4426950408889634);
  let r = (x - n * 0.693145751953125) - n * 1.42860677e-6;
  let q = 1 + r / 7;
  let series = r * (1 + r / 2 * (1 + r / 3 * (1 + r / 4 * (1 + r / 5 * (1 + r / 6 * q)))));
  let power = bitcast<vec4f>((vec4i(n) + 127) << vec4u(23));
  return power + power * series;
}

// exp(−2u), the argument clamped, for WGSL leaves overflow undefined.
fn geluExp(x: vec4f) -> vec4f {
  return accurateExp(clamp(-1.5957691216057308 * (x + 0.044715 * x * x * x), vec4f(-87), vec4f(87)));
}

fn gelu(x: vec4f) -> vec4f {
  return x / (1 + geluExp(x));
}

// d/dx x · σ(2u) = σ + x · σ · (1 − σ) · 2u′; with e = exp(−2u), σ = 1 / (1 + e) and 1 − σ = e · σ, which
// does not cancel.
fn geluDerivative(x: vec4f) -> vec4f {
  let e = geluExp(x);
  let sigma = 1 / (1 + e);
  return sigma + x * sigma * (e * sigma) * 1.5957691216057308 * (1 + 0.134145 * x * x);
}
