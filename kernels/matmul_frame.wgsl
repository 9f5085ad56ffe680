// What the kernels of matrix products have in common: their parameters, and where an output goes,
// out (M, N) = activation(alpha · product + bias) + residual, or that added to what `out` holds. With SPLIT it goes
// to `partials` as it is, a share of an inner sum.
//#if GELU
//#import gelu
//#end

struct Params {
  M: u32,
  N: u32,
  K: u32,
  aStride: u32,
  // Where this part of the product begins in a row of `a` as it is stored, and in a row of `out`.
  aColumn: u32,
  outStride: u32,
  outColumn: u32,
  weightRows: u32,
  weightColumns: u32,
  weightStride: u32,
  alpha: f32,
  hasBias: u32,
  hasResidual: u32,
  // How often what `out` holds is added; 0 never reads it.
  outFactor: f32,
  // Inner sums are cut into so many shares, each of `depth` but for the last.
  splits: u32,
  depth: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
//#if SPLIT
@group(0) @binding(6) var<storage, read_write> partials: array<vec4f>; // (splits, M, ⌈N / 4⌉)

fn store(share: u32, row: u32, column: u32, product: vec4f) {
  if (row < p.M && column < p.N) {
    partials[(share * p.M + row) * ((p.N + 3) / 4) + column / 4] = product;
  }
}
//#else
//#if OUT_VECTORS
@group(0) @binding(4) var<storage, read> bias: array<vec4f>;
@group(0) @binding(5) var<storage, read> residual: array<vec4f>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4f>;
//#else
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> residual: array<f32>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;
//#end

fn store(share: u32, row: u32, column: u32, product: vec4f) {
  if (row >= p.M || column >= p.N) {
    return;
  }
  let n = p.outColumn + column;
  let i = row * p.outStride + n;
  var value = p.alpha * product;
//#if OUT_VECTORS
  if (p.hasBias != 0) {
    value += bias[n / 4];
  }
//#if GELU
  value = gelu(value);
//#end
  if (p.hasResidual != 0) {
    value += residual[i / 4];
  }
  if (p.outFactor != 0) {
    value += p.outFactor * out[i / 4];
  }
  out[i / 4] = value;
//#else
  let width = min(p.N - column, 4u);
  for (var j = 0u; j < width; j++) {
    var x = value[j];
    if (p.hasBias != 0) {
      x += bias[n + j];
    }
//#if GELU
    x = gelu(vec4f(x)).x;
//#end
    if (p.hasResidual != 0) {
      x += residual[i + j];
    }
    if (p.outFactor != 0) {
      x += p.outFactor * out[i + j];
    }
    out[i + j] = x;
  }
//#end
}
//#end
