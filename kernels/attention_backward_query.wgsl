// The queries' part of dQkv: a workgroup takes 32 queries of one head through the keys before them and
// recomputes their probabilities from logSumExp; dQuery = Σ over keys of dLogit · scale · key.
//#import attention_tiles

struct Params {
  T: u32,
  H: u32,
  scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(3) var<storage, read> starts: array<u32>; // (T)
@group(0) @binding(4) var<storage, read> logSumExp: array<f32>; // (T, H)
@group(0) @binding(5) var<storage, read> delta: array<f32>; // (T, H)
@group(0) @binding(6) var<storage, read_write> dQkv: array<$ELEMENT>; // (T, 3C)

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let tx = thread & 7;
  let ty = thread >> 3;
  let head = group.y;
  let C = p.H * D;
  let q0 = group.x * 32;
  let row = q0 + ty; // and every eighth after it
  var first = vec4u();
  var lse = vec4f();
  var mean = vec4f();
  //#for i in 0..4
  if (row + 8 * $i < p.T) {
    first[$i] = starts[row + 8 * $i];
    lse[$i] = logSumExp[(row + 8 * $i) * p.H + head];
    mean[$i] = delta[(row + 8 * $i) * p.H + head];
  }
  //#end

  hold(0, QUERY, q0, head, thread);
  hold(1, GRADIENT, q0, head, thread);
  var sums: array<mat4x4f, $CHUNKS>;
  for (var k0 = starts[q0]; k0 < min(q0 + 32, p.T); k0 += 32) {
    let logits = p.scale * product(0, QUERY, q0, KEY, k0, head, thread);
    var gradients = product(1, GRADIENT, q0, VALUE, k0, head, thread);
    let key = vec4u(k0 + tx * 4) + vec4u(0, 1, 2, 3);
    //#for i in 0..4
    gradients[$i] = select(
      vec4f(),
      exp(logits[$i] - lse[$i]) * (gradients[$i] - mean[$i]) * p.scale,
      within(key, first[$i], row + 8 * $i),
    );
    //#end
    setWeights(gradients, thread);
    //#for c in 0..CHUNKS
    sums[$c] += weigh(KEY, k0, head, $c * 32, thread);
    //#end
  }

  //#for i in 0..4
  if (row + 8 * $i < p.T) {
    //#for c in 0..CHUNKS
    store((row + 8 * $i) * 3 * C + head * D, $c * 32 + tx * 4, sums[$c][$i]);
    //#end
  }
  //#end
}
