// Causal self-attention within sequences, softmax online, no [T, T] anywhere (FlashAttention-2, Dao
// 2023): a workgroup takes 32 queries of one head through the keys before them, 32 at a time.
//#import attention_tiles

struct Params {
  T: u32,
  H: u32,
  scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(3) var<storage, read> starts: array<u32>; // (T)
@group(0) @binding(4) var<storage, read_write> out: array<$ELEMENT>; // (T, C)
@group(0) @binding(5) var<storage, read_write> logSumExp: array<f32>; // (T, H)

const NOTHING = -1e30;

var<workgroup> shared4: array<vec4f, 64>; // (8, 8)

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let tx = thread & 7;
  let ty = thread >> 3;
  let head = group.y;
  let C = p.H * D;
  let q0 = group.x * 32;
  let row = q0 + ty; // and every eighth after it
  var first = vec4u();
  //#for i in 0..4
  if (row + 8 * $i < p.T) {
    first[$i] = starts[row + 8 * $i];
  }
  //#end

  var sums: array<mat4x4f, $CHUNKS>; // Σ exp(logit − largest) · value, a row per column of the matrix
  var largest = vec4f(NOTHING); // of each row's logits so far
  var total = vec4f(); // Σ exp(logit − largest) of each row, over this thread's columns
  for (var k0 = starts[q0]; k0 < min(q0 + 32, p.T); k0 += 32) {
    var logits = p.scale * product(QUERY, q0, KEY, k0, head, thread);
    let key = vec4u(k0 + tx * 4) + vec4u(0, 1, 2, 3);
    var peak = largest;
    //#for i in 0..4
    logits[$i] = select(vec4f(NOTHING), logits[$i], within(key, first[$i], row + 8 * $i));
    peak[$i] = max(max(max(logits[$i].x, logits[$i].y), max(logits[$i].z, logits[$i].w)), peak[$i]);
    //#end
    shared4[tx * 8 + ty] = peak;
    workgroupBarrier();
    //#for i in 0..8
    peak = max(peak, shared4[$i * 8 + ty]);
    //#end
    let rescale = exp(largest - peak);
    largest = peak;
    var weights: mat4x4f;
    //#for i in 0..4
    weights[$i] = select(vec4f(), exp(logits[$i] - peak[$i]), within(key, first[$i], row + 8 * $i));
    total[$i] = total[$i] * rescale[$i] + dot(weights[$i], vec4f(1));
    //#end
    setWeights(weights, thread);
    //#for c in 0..CHUNKS
    //#for i in 0..4
    sums[$c][$i] *= rescale[$i];
    //#end
    sums[$c] += weigh(VALUE, k0, head, $c * 32, thread);
    //#end
  }

  shared4[tx * 8 + ty] = total;
  workgroupBarrier();
  total = vec4f();
  //#for i in 0..8
  total += shared4[$i * 8 + ty];
  //#end
  //#for i in 0..4
  if (row + 8 * $i < p.T) {
    if (tx == 0) {
      logSumExp[(row + 8 * $i) * p.H + head] = largest[$i] + log(total[$i]);
    }
    //#for c in 0..CHUNKS
    store((row + 8 * $i) * C + head * D, $c * 32 + tx * 4, sums[$c][$i] / total[$i]);
    //#end
  }
  //#end
}
