// One step of AdamW (Loshchilov & Hutter 2019). What depends on the step alone is computed in double
// precision on the host: 1 − β, 1 / (1 − β₁ˢ), 1 / (1 − β₂ˢ).
//#import elementwise

struct Params {
  length: u32,
  learningRate: f32,
  beta1: f32,
  oneMinusBeta1: f32,
  beta2: f32,
  oneMinusBeta2: f32,
  correction1: f32,
  correction2: f32,
  epsilon: f32,
  // Learning rate times weight decay.
  decay: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> gradients: array<$ELEMENT>;
@group(0) @binding(2) var<storage, read> clip: array<f32>; // (2): the norm, the factor
@group(0) @binding(3) var<storage, read_write> parameters: array<$ELEMENT>;
@group(0) @binding(4) var<storage, read_write> m: array<$ELEMENT>;
@group(0) @binding(5) var<storage, read_write> v: array<$ELEMENT>;

fn element(i: u32) {
  let g = gradients[i] * clip[1];
  let first = p.beta1 * m[i] + p.oneMinusBeta1 * g;
  let second = p.beta2 * v[i] + p.oneMinusBeta2 * g * g;
  let step = p.learningRate * (first * p.correction1) / (sqrt(second * p.correction2) + p.epsilon);
  m[i] = first;
  v[i] = second;
  parameters[i] -= p.decay * parameters[i] + step;
}
