// GELU, the tanh form of GPT-2 (Hendrycks & Gimpel 2016): 0.5 · x · (1 + tanh(u)) = x · σ(2u) with
// u = sqrt(2/π) · (x + 0.044715 · x³). The exponent is clamped, for WGSL leaves overflow undefined.

fn geluExponent(x: vec4f) -> vec4f {
  return clamp(-1.5957691216057308 * (x + 0.044715 * x * x * x), vec4f(-87.0), vec4f(87.0));
}

fn gelu(x: vec4f) -> vec4f {
  return x / (1.0 + exp(geluExponent(x)));
}

// d/dx x · σ(2u) = σ + x · σ · (1 − σ) · 2u′.
fn geluDerivative(x: vec4f) -> vec4f {
  let sigma = 1.0 / (1.0 + exp(geluExponent(x)));
  return sigma + x * sigma * (1.0 - sigma) * 1.5957691216057308 * (1.0 + 0.134145 * x * x);
}
